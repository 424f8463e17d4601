package recovery

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

// counting counts the bytes read from the files of a repository.
type counting struct {
	vfs.FS
	read *atomic.Int64
}

func (c counting) Open(name string) (vfs.File, error) {
	f, err := c.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return countingFile{f, c.read}, nil
}

type countingFile struct {
	vfs.File
	read *atomic.Int64
}

func (f countingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.read.Add(int64(n))
	return n, err
}

// vast is a disk of many terabytes with some bytes here and there.
type vast int64

const vastStep = 64 << 30

func (v vast) Size() int64 { return int64(v) }

func (v vast) NextData(off int64) (start, end int64, err error) {
	at := (off + vastStep - 1) / vastStep * vastStep
	if rest := off % vastStep; rest < 1<<20 && rest > 0 {
		at = off
	}
	if at >= int64(v) {
		return 0, 0, io.EOF
	}
	return at, min(at/vastStep*vastStep+1<<20, int64(v)), nil
}

func (v vast) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = 0
		if at := off + int64(i); at%vastStep < 1<<20 {
			p[i] = byte(at>>9) ^ byte(at/vastStep)
		}
	}
	return len(p), nil
}

// TestPublishVast: publishing a machine of 10 TiB reads its manifest and no disk.
func TestPublishVast(t *testing.T) {
	w := newWorld(t, inMemory)
	var read atomic.Int64
	w.repo = counting{w.repo, &read}
	opt := repo.BackupOptions{Machine: "vast", Files: worldFiles}
	const disks = 3
	for i := range disks {
		opt.Disks = append(opt.Disks, repo.SourceDisk{Name: fmt.Sprint("disk", i), Source: vast(10 << 40 / disks / 512 * 512)})
	}
	run, err := repo.PerformBackup(t.Context(), w.repo, repo.Options{State: w.keys}, 0, opt)
	if err != nil {
		t.Fatal(err)
	}
	m := w.opened(t)
	if _, _, err := m.repositoryOf(t.Context(), &record{Repository: "opens it"}); !errors.Is(err, repo.ErrNotFound) {
		t.Fatal(err)
	}
	read.Store(0)
	began := time.Now()
	s, err := m.Publish(t.Context(), string(run.Point.ID), PublishOptions{NoSwapRoom: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("published 10 TiB in %s, %d bytes of the repository read", time.Since(began).Round(time.Millisecond), read.Load())
	if n := read.Load(); n > disks*64<<10 {
		t.Errorf("%d bytes of the repository were read", n)
	}
	p := make([]byte, 5000)
	a := file(t, m, s.Name, "disk2-flat.vmdk")
	off := int64(40*vastStep + 77)
	if _, err := m.store.ReadAt(t.Context(), a.ID, p, off); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, len(p))
	_, _ = vast(0).ReadAt(want, off)
	sameBytes(t, "a piece of it", p, want)
}

// TestWithoutConfiguration publishes what has no vmx, or none that can be used.
func TestWithoutConfiguration(t *testing.T) {
	w := newWorld(t, inMemory)
	m := w.opened(t)
	for name, files := range map[string][]repo.MachineFile{
		"none":      nil,
		"broken":    {{Name: "a.vmx", Data: []byte("what is this")}},
		"encrypted": {{Name: "a.vmx", Data: []byte("encryption.data = \"x\"\n")}},
		"efi":       {{Name: "a.nvram", Data: make([]byte, 270<<10)}},
	} {
		id := w.backup(t, name, w.disks[:1], files)
		s, err := m.Publish(t.Context(), string(id), PublishOptions{NoSwapRoom: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c, err := parseVMX(bytesOf(t, m, name, name+".vmx"))
		if err != nil || c.get("sata0:0.fileName") != "root.vmdk" || (c.get("firmware") == "efi") != (name == "efi") || len(s.Warnings) == 0 {
			t.Errorf("%s: %v, %q, %q", name, err, bytesOf(t, m, name, name+".vmx"), s.Warnings)
		}
	}
}

func TestDiskFiles(t *testing.T) {
	cases := []struct {
		names, want []string
	}{
		{[]string{"root.vmdk", "data.raw", "swap"}, []string{"root", "data", "swap"}},
		{[]string{"a", "a.vmdk", "A.img"}, []string{"a", "a~2", "A~3"}},
		{[]string{"a", "a-flat"}, []string{"a", "a-flat~2"}},
		{[]string{"Hard disk 1", `c:\x"y`, "...", "."}, []string{"Hard disk 1", "c__x_y", "disk", "disk~2"}},
		{[]string{strings.Repeat("ü", 150)}, []string{strings.Repeat("ü", 100)}},
	}
	for _, c := range cases {
		var disks []repo.DiskInfo
		for _, n := range c.names {
			disks = append(disks, repo.DiskInfo{Name: n})
		}
		if got := diskFiles(disks); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: %q, want %q", c.names, got, c.want)
		}
	}
}

// TestFaults has operations fail, one at a time, and looks for what is found by
// whoever opens afterwards.
func TestFaults(t *testing.T) {
	verbs := map[string]func(*Manager) error{
		"publish": func(m *Manager) error {
			_, err := m.Publish(t.Context(), "web1@latest", PublishOptions{Name: "second", NoSwapRoom: true})
			return err
		},
		"stop": func(m *Manager) error { return m.Stop(t.Context(), "web1") },
		"keep": func(m *Manager) error { _, err := m.Keep(t.Context(), "web1", KeepOptions{}); return err },
	}
	p, want := published(t)
	for name, verb := range verbs {
		failed, rng := 0, rand.New(rand.NewPCG(3, uint64(len(name))))
		for at := 0; at < 400; at += 1 + rng.IntN(step()) {
			mem := p.mem.CrashClone(vfs.CrashOptions{})
			faulty := vfs.NewFaulty(mem)
			w := p.on(mem, faulty).world
			m := w.open(t)
			first := faulty.Count()
			faulty.FailAt(first+at, nil)
			err := verb(m)
			done := faulty.Count()-first <= at
			faulty.Heal()
			_ = m.Close() // it may miss what failed
			if err != nil {
				failed++
			}
			t.Run(fmt.Sprintf("%s %d", name, at), func(t *testing.T) {
				m := w.opened(t)
				consistent(t, m, w)
				for _, s := range m.List() {
					if s.Name == "web1" {
						sameBytes(t, "root", bytesOf(t, m, "web1", "root-flat.vmdk"), want[0])
					}
				}
				if n := len(m.List()); name == "publish" && err == nil && n != 2 || name == "stop" && err == nil && n != 0 || name == "keep" && n != 1 {
					t.Errorf("%d sessions, %v", n, err)
				}
				for _, s := range m.List() {
					if err := m.Stop(t.Context(), s.ID); err != nil {
						t.Error(err)
					}
				}
				left(t, w)
			})
			if done {
				break
			}
		}
		if failed < 5 {
			t.Errorf("%s failed %d times", name, failed)
		}
	}
}

// step is how far apart operations that fail are at most.
func step() int {
	if long {
		return 1
	}
	return 8
}
