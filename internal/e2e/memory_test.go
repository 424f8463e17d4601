//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	hugeBytes  = 4 << 40
	hugeData   = 2 << 30
	hugePiece  = 256 << 10
	mostMemory = 256 << 20
)

// TestMemory backs up and restores a sparse disk of 4 TiB with 2 GiB of data
// scattered over it, and keeps the repository in order.
func TestMemory(t *testing.T) {
	begin(t)
	rng := random(t)
	dir := t.TempDir()
	disk := filepath.Join(dir, "huge")
	makeHuge(t, rng, disk)
	pass := filepath.Join(dir, "passphrase")
	if err := os.WriteFile(pass, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, sealed := range map[string]bool{"plain": false, "passphrase": true} {
		t.Run(name, func(t *testing.T) {
			p, init := program{state: t.TempDir()}, []string{"repo", "init"}
			if sealed {
				p.flags = []string{"--passphrase-file", pass}
				init = append(init, "--encrypt")
			}
			// Below the disk's directory, so that all are on one file system.
			top, err := os.MkdirTemp(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(top)
			repository, restored := filepath.Join(top, "repository"), filepath.Join(top, "restored")
			p.must(t, append(init, repository)...)
			p.watched(t, "first backup", "repo", "backup", repository, "--machine", "m", disk)
			scatter(t, rng, disk)
			p.watched(t, "second backup", "repo", "backup", repository, "--machine", "m", disk)
			first := decode[listing](t, p.must(t, "repo", "points", repository, "--json")).Points[0].ID
			p.watched(t, "expire", "repo", "expire", repository, first)
			p.watched(t, "sweep", "repo", "sweep", repository)
			p.watched(t, "compact", "repo", "compact", repository, "--dead", "0")
			p.watched(t, "scrub", "repo", "scrub", repository)
			p.watched(t, "deep scrub", "repo", "scrub", repository, "--deep")
			p.watched(t, "reindex", "repo", "reindex", repository)
			p.watched(t, "restore", "repo", "restore", repository, "m@latest", "--to", restored)
			sameSparse(t, restored, disk)
		})
	}
}

// makeHuge makes the disk: pieces that compress to about the half, each of them
// another, at the begin and the end and anywhere between.
func makeHuge(t *testing.T, rng *rand.Rand, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(hugeBytes); err != nil {
		t.Skipf("no file of 4 TiB can be here: %v", err)
	}
	p := make([]byte, hugePiece)
	for i := range hugeData / hugePiece {
		fill(rng, p[:len(p)/2])
		for at := len(p) / 2; at < len(p); at += 64 {
			copy(p[at:at+64], p[at-len(p)/2:])
		}
		// Every other 64 bytes are text.
		for at := 0; at < len(p); at += 128 {
			copy(p[at:at+64], "restore point restore point restore point restore point restore ")
		}
		off := rng.Int64N(hugeBytes/4096-hugePiece/4096) * 4096
		switch i {
		case 0:
			off = 0
		case 1:
			off = hugeBytes - hugePiece
		}
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// scatter changes the disk here and there, so that much of its map changes.
func scatter(t *testing.T, rng *rand.Rand, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4096)
	for range 2000 {
		fill(rng, p)
		if _, err := f.WriteAt(p, rng.Int64N(hugeBytes/4096)*4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// watched makes a call that must succeed within the memory.
func (p program) watched(t *testing.T, what string, args ...string) {
	t.Helper()
	front, peak := memoryGroup(t)
	pr := p.startAs(t, front, args...)
	var most memory
	for !pr.over() {
		most.sample(pr.pid())
		pr.sleep(10 * time.Millisecond)
	}
	if o := pr.wait(); o.code != 0 {
		t.Fatalf("%s: %s", what, o)
	} else {
		t.Logf("%s: peak RSS %d MiB, RssAnon %d MiB, cgroup peak with page cache %s; %v", what, most.rss>>20, most.anon>>20, peak(), o.took.Round(10*time.Millisecond))
	}
	if most.rss == 0 || most.anon == 0 {
		t.Errorf("%s: nothing was measured", what)
	}
	if most.rss > mostMemory {
		t.Errorf("%s took %d MiB, want at most %d", what, most.rss>>20, mostMemory>>20)
	}
}

// memory is the most a process had, in bytes.
type memory struct{ rss, anon int64 }

// sample looks at a process. The kernel keeps the peak of RSS, but not of
// RssAnon.
func (m *memory) sample(pid int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !bytes.HasPrefix(text, []byte("Name:\tholdfast\n")) {
		return // it has ended, or not begun
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) != 3 || words[2] != "kB" {
			continue
		}
		kib, _ := strconv.ParseInt(words[1], 10, 64) // a number by proc(5)
		switch words[0] {
		case "VmHWM:":
			m.rss = max(m.rss, kib<<10)
		case "RssAnon:":
			m.anon = max(m.anon, kib<<10)
		}
	}
}

// memoryGroup makes a cgroup of no more memory than that, page cache included,
// if we may. A program started by way of front is in it; peak says afterwards
// what it took at most.
func memoryGroup(t *testing.T) (front []string, peak func() string) {
	t.Helper()
	for _, g := range []struct{ root, most, peak string }{
		{"/sys/fs/cgroup", "memory.max", "memory.peak"},                                 // version 2
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"}, // version 1
	} {
		dir, err := os.MkdirTemp(g.root, "holdfast-e2e-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		if _, err := os.Stat(filepath.Join(dir, g.peak)); err != nil {
			continue
		}
		if os.WriteFile(filepath.Join(dir, g.most), []byte(strconv.Itoa(mostMemory)), 0) != nil {
			continue
		}
		front = []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs")}
		return front, func() string {
			text, err := os.ReadFile(filepath.Join(dir, g.peak))
			n, err2 := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err := errors.Join(err, err2); err != nil {
				return fmt.Sprintf("not available (%v)", err)
			}
			return fmt.Sprintf("%d MiB", n>>20)
		}
	}
	return nil, func() string { return "not available (no cgroup that we may write)" }
}

// sameSparse compares two sparse files of the same size without reading what
// both have as holes.
func sameSparse(t *testing.T, got, want string) {
	t.Helper()
	g, err := os.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	w, err := os.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	gi, err := g.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if gi.Size() != hugeBytes {
		t.Fatalf("restored %d bytes, want %d", gi.Size(), int64(hugeBytes))
	}
	const piece = 256 << 10
	var read int64
	one, two := make([]byte, piece), make([]byte, piece)
	for off := int64(0); ; {
		// The next piece in which either has data.
		if off = min(nextData(t, g, off), nextData(t, w, off)); off >= hugeBytes {
			break
		}
		for f, p := range map[*os.File][]byte{g: one, w: two} {
			if _, err := f.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		n := min(piece, hugeBytes-off)
		if !bytes.Equal(one[:n], two[:n]) {
			t.Fatalf("the restored disk differs within the %d bytes at %d", piece, off)
		}
		off += piece
		read += piece
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(g.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Logf("restored file compared: %d MiB read of each, the rest are holes in both; it takes %d MiB", read>>20, st.Blocks*512>>20)
}

// nextData returns where data begins at or after off, hugeBytes for nowhere.
func nextData(t *testing.T, f *os.File, off int64) int64 {
	t.Helper()
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return hugeBytes
	}
	if err != nil {
		t.Fatal(err)
	}
	return at
}
