//go:build linux

package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// A machine is some disks that change.
type machine struct {
	name  string
	disks []*disk
	lists bool          // its backups get a list of what changed
	base  string        // the machine's last point
	took  time.Duration // by a backup that ended well
}

// A disk is a raw file, and the same bytes in memory.
type disk struct {
	name, path string
	now        *repotest.Disk
	baseSize   int64        // at the machine's last point
	changed    []repo.Range // since then
}

// addMachine makes a machine.
func (s *site) addMachine(name string, lists bool, disks ...*disk) *machine {
	s.t.Helper()
	m := &machine{name: name, lists: lists, disks: disks, took: time.Second}
	s.machines = append(s.machines, m)
	return m
}

// newDisk makes a disk of some kind with its file.
func (s *site) newDisk(machine, name string, kind repotest.Kind, size int64) *disk {
	s.t.Helper()
	d := &disk{name: name, path: filepath.Join(s.scratch, machine+"-"+name), now: repotest.New(s.rng, kind, size)}
	if err := os.WriteFile(d.path, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := d.write([]repo.Range{{Off: 0, Len: size}}); err != nil {
		s.t.Fatal(err)
	}
	return d
}

// addMachines makes three machines of different kinds.
func (s *site) addMachines() {
	s.t.Helper()
	s.addMachine("web", false, s.newDisk("web", "root", repotest.Text, 48<<20))
	s.addMachine("db", false, s.newDisk("db", "system", repotest.Dense, 40<<20), s.newDisk("db", "data", repotest.Sparse, 64<<20))
	s.addMachine("files", true, s.newDisk("files", "share", repotest.Zeros, 100<<20))
}

// change changes a machine's disks: a little in many ways, and a stretch of
// some megabytes, so that there is something to store.
func (m *machine) change(t *testing.T, rng *rand.Rand) {
	t.Helper()
	for _, d := range m.disks {
		before := d.now.Size()
		now, changed := repotest.Change(rng, d.now)
		if n := rng.Int64N(4 << 20); n < now.Size() {
			r := repo.Range{Off: rng.Int64N(now.Size() - n), Len: n}
			noise := make([]byte, n)
			fill(rng, noise)
			now.Write(noise, r.Off)
			changed = append(changed, r)
		}
		if now.Size() > before {
			changed = append(changed, repo.Range{Off: before, Len: now.Size() - before})
		}
		d.now = now
		d.changed = append(d.changed, changed...)
		if err := d.write(changed); err != nil {
			t.Fatal(err)
		}
	}
}

// write brings ranges of the file to what the disk is now. Holes become holes.
func (d *disk) write(changed []repo.Range) error {
	f, err := os.OpenFile(d.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(d.now.Size())
	for _, r := range changed {
		err = errors.Join(err, d.writeRange(f, r.Off, min(r.Off+r.Len, d.now.Size())))
	}
	return errors.Join(err, f.Close())
}

func (d *disk) writeRange(f *os.File, off, end int64) error {
	if off >= end {
		return nil
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, end-off); err != nil {
		return err
	}
	for off < end {
		from, to, err := d.now.NextData(off)
		if errors.Is(err, io.EOF) || err == nil && from >= end {
			return nil
		}
		if err != nil {
			return err
		}
		to = min(to, end, from+1<<20)
		p := make([]byte, to-from)
		if _, err := d.now.ReadAt(p, from); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := f.WriteAt(p, from); err != nil {
			return err
		}
		off = to
	}
	return nil
}

// writeList writes the list of what has changed since the machine's last point.
func (m *machine) writeList(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	for _, d := range m.disks {
		fmt.Fprintf(&b, "base %s size %d disk %s\n", m.base, d.now.Size(), d.name)
		for _, r := range d.changed {
			if end := min(r.Off+r.Len, d.now.Size()); r.Off < end {
				fmt.Fprintf(&b, "%d %d\n", r.Off, end-r.Off)
			}
		}
	}
	name := filepath.Join(dir, m.name+".changed")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// fill makes p random bytes.
func fill(rng *rand.Rand, p []byte) {
	var key [32]byte
	for i := range key {
		key[i] = byte(rng.Uint32())
	}
	_, _ = rand.NewChaCha8(key).Read(p) // never fails
}

func sumFile(t *testing.T, name string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return sum(t, f)
}

func sumDisk(t *testing.T, d *repotest.Disk) [sha256.Size]byte {
	t.Helper()
	return sum(t, io.NewSectionReader(d, 0, d.Size()))
}

func sum(t *testing.T, r io.Reader) (s [sha256.Size]byte) {
	t.Helper()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
