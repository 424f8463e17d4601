package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/fs/treetest"
)

func sleep(context.Context) { time.Sleep(5 * time.Millisecond) }

// listing is what getdents says: names, and the places behind them.
type listing struct {
	names  []string
	places []int64
}

func list(t *testing.T, f *os.File) (l listing) {
	t.Helper()
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(int(f.Fd()), buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return l
		}
		for p := buf[:n]; len(p) > 0; {
			// struct linux_dirent64: 8 bytes inode, 8 place, 2 length, 1 type, name
			length := int(p[16]) | int(p[17])<<8
			place := int64(0)
			for i := range 8 {
				place |= int64(p[8+i]) << (8 * i)
			}
			name, _, _ := bytes.Cut(p[19:length], []byte{0})
			l.names = append(l.names, string(name))
			l.places = append(l.places, place)
			p = p[length:]
		}
	}
}

func TestLargeDirectory(t *testing.T) {
	const n = 100_000
	for _, tt := range []struct {
		name         string
		fixed, attrs bool
	}{{"fixed, attributes at hand", true, true}, {"fixed", true, false}, {"changing", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			tree := &wide{n: n, fixed: tt.fixed, attrs: tt.attrs}
			s := mounted(t, tree, Options{})
			f, err := os.Open(s.Dir())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			asked := tree.asked.Load()
			l := list(t, f)
			if len(l.names) != n+2 || l.names[0] != "." || l.names[1] != ".." || l.names[2] != wideName(0) || l.names[n+1] != wideName(n-1) {
				t.Fatalf("%d names", len(l.names))
			}
			if got := tree.lookups.Load(); got != 0 {
				t.Errorf("%d lookups to list names", got)
			}
			if got := tree.asked.Load() - asked; tt.attrs && got > 10 {
				t.Errorf("asked for attributes %d times that came with the names", got)
			}
			// From anywhere, on the same open directory and on another one.
			g, err := os.Open(s.Dir())
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			r := rand.New(rand.NewPCG(1, 1))
			for i, d := range map[int]*os.File{0: f, 1: g, n / 2: g, n - r.IntN(n/100): f, n - r.IntN(n/100) - 1: g, n: f} {
				if _, err := d.Seek(l.places[i], io.SeekStart); err != nil {
					t.Fatal(err)
				}
				if rest := list(t, d); !slices.Equal(rest.names, l.names[i+1:]) {
					t.Fatalf("behind %q: %d names, want %d", l.names[i], len(rest.names), n+1-i)
				}
			}
			// The kernel may have to drop what it keeps, but not each time.
			kept := until(10*time.Second, func() bool {
				lists := tree.lists.Load()
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				if again := list(t, f); !slices.Equal(again.names, l.names) {
					t.Fatal("another listing differs")
				}
				return (tree.lists.Load() == lists) == tt.fixed
			})
			if !kept {
				t.Errorf("the kernel kept the listing: %v", !tt.fixed)
			}
		})
	}
}

// TestListingWithAttributes asks nothing about entries that came with their
// attributes.
func TestListingWithAttributes(t *testing.T) {
	const n = 5000
	tree := &wide{n: n, fixed: true, attrs: true}
	s := mounted(t, tree, Options{})
	asked := tree.asked.Load()
	out, err := exec.Command("ls", "-l", s.Dir()).Output()
	if err != nil || bytes.Count(out, []byte("\n")) != n+1 {
		t.Fatalf("%d lines, %v", bytes.Count(out, []byte("\n")), err)
	}
	if got := tree.asked.Load() - asked + tree.lookups.Load(); got > 10 {
		t.Errorf("asked %d times about %d entries", got, n)
	}
}

func TestConcurrentReaders(t *testing.T) {
	files := smallFiles()
	s := mounted(t, treetest.NewTree(files), Options{})
	want := files["large"].Data
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			f, err := os.Open(s.Dir() + "/large")
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			r := rand.New(rand.NewPCG(7, uint64(w)))
			for range 200 {
				off := r.IntN(len(want))
				p := make([]byte, 1+r.IntN(200_000))
				n, err := f.ReadAt(p, int64(off))
				if err != nil && err != io.EOF {
					t.Error(err)
					return
				}
				if m := min(len(p), len(want)-off); n != m || !bytes.Equal(p[:n], want[off:off+m]) {
					t.Errorf("%d bytes at %d: got %d, or others", m, off, n)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestMmap reads through page faults. The server is another process: a fault
// stops a thread of Go without Go's knowledge.
func TestMmap(t *testing.T) {
	needMount(t)
	dir := mountPoint(t)
	startServing(t, "small", dir, 0)
	f, err := os.Open(dir + "/large")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := smallFiles()["large"].Data
	p, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(p)
	if !bytes.Equal(p, want) {
		t.Error("the mapped bytes differ")
	}
}

func TestSeekHole(t *testing.T) {
	s := mounted(t, newOdd(), Options{})
	f, err := os.Open(s.Dir() + "/huge")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 5 << 30
	for _, tt := range []struct {
		off    int64
		whence int
		want   int64
		err    error
	}{
		{0, unix.SEEK_DATA, 196608, nil},
		{0, unix.SEEK_HOLE, 0, nil},
		{200_100, unix.SEEK_DATA, 200_100, nil},
		{4096, unix.SEEK_DATA, 196608, nil},
		{4097, unix.SEEK_HOLE, 4097, nil},
		{200_000, unix.SEEK_HOLE, 253952, nil},
		{253952, unix.SEEK_DATA, 0, syscall.ENXIO},
		{size - 1, unix.SEEK_HOLE, size - 1, nil},
		{size, unix.SEEK_HOLE, 0, syscall.ENXIO},
		{size, unix.SEEK_DATA, 0, syscall.ENXIO},
	} {
		got, err := unix.Seek(int(f.Fd()), tt.off, tt.whence)
		if !errors.Is(err, tt.err) || (err == nil && got != tt.want) {
			t.Errorf("seek %d from %d: %d, %v; want %d, %v", tt.whence, tt.off, got, err, tt.want, tt.err)
		}
	}
	// A file without holes has one at its end.
	g, err := os.Open(s.Dir() + "/half")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if got, err := unix.Seek(int(g.Fd()), 5, unix.SEEK_HOLE); err != nil || got != 8192 {
		t.Errorf("the hole at the end: %d, %v", got, err)
	}
}

func TestErrors(t *testing.T) {
	var l logged
	s := mounted(t, newOdd(), Options{Log: l.logger()})
	for _, tt := range []struct {
		name string
		want syscall.Errno
		log  string
	}{
		{"panics", syscall.EIO, "this program is wrong"},
		{"damaged", syscall.EIO, "inode 5, block 7: bad checksum"},
		{"unsupported", syscall.EOPNOTSUPP, "encrypted"},
		{"half", syscall.EIO, errHalf.Error()},
		{"nothing", syscall.ENOENT, ""},
		{"plain", 0, ""},
	} {
		p, err := os.ReadFile(s.Dir() + "/" + tt.name)
		if tt.want == 0 && err == nil {
			continue
		}
		if !errors.Is(err, tt.want) || len(p) > 0 {
			t.Errorf("%s: %d bytes, %v; want %v", tt.name, len(p), err, tt.want)
		}
		if !strings.Contains(l.String(), tt.log) {
			t.Errorf("%s: the log says nothing of %q: %s", tt.name, tt.log, &l)
		}
	}
	if !strings.Contains(l.String(), "ReadAt") {
		t.Error("the log has no stack of the panic")
	}
}

func TestStreamsAsXattrs(t *testing.T) {
	s := mounted(t, newOdd(), Options{})
	file := s.Dir() + "/shadow"
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(file, buf)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	if want := []string{"user.stream.a", "user.stream.b", "user.stream.full"}; !slices.Equal(names, want) {
		t.Errorf("listed %q, want %q", names, want)
	}
	for _, tt := range []struct {
		name string
		want string
		err  error
	}{
		{"user.stream.a", "attribute", nil},
		{"user.stream.b", "bytes", nil},
		{"user.stream.full", string(make([]byte, 64<<10)), nil},
		{"user.stream.huge", "", syscall.E2BIG},
		{"user.stream.none", "", syscall.ENODATA},
		{"user.b", "", syscall.ENODATA},
	} {
		n, err := unix.Getxattr(file, tt.name, buf)
		if !errors.Is(err, tt.err) || (err == nil && string(buf[:n]) != tt.want) {
			t.Errorf("%s: %d bytes, %v; want %d, %v", tt.name, n, err, len(tt.want), tt.err)
		}
	}
	if _, err := unix.Getxattr(file, "user.stream.b", buf[:3]); !errors.Is(err, syscall.ERANGE) {
		t.Errorf("a buffer too small: %v", err)
	}
	if n, err := unix.Getxattr(file, "user.stream.b", nil); err != nil || n != 5 {
		t.Errorf("the size alone: %d, %v", n, err)
	}
}

// TestMovingLink sees a link's new target although the kernel keeps targets.
func TestMovingLink(t *testing.T) {
	tree := newOdd()
	s := mounted(t, tree, Options{})
	for move := range 3 {
		tree.moves.Store(int64(move))
		want := fmt.Sprintf("point-%d", move)
		var got string
		if !until(3*time.Second, func() bool {
			var err error
			got, err = os.Readlink(s.Dir() + "/latest")
			return err == nil && got == want
		}) {
			t.Fatalf("leads to %q, want %q", got, want)
		}
	}
}

// TestKilledReader ends a process that waits for a read that never ends.
func TestKilledReader(t *testing.T) {
	s := mounted(t, newOdd(), Options{})
	cmd := exec.Command("cat", s.Dir()+"/hangs")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	began := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if took := time.Since(began); took > grace+3*time.Second {
		t.Errorf("took %s to die", took)
	}
}

// TestSignalledReader does not see EINTR for a signal that ends nothing.
func TestSignalledReader(t *testing.T) {
	s := mounted(t, newOdd(), Options{})
	// dd prints statistics at SIGUSR1 and has asked for reads to go on; direct
	// reads are those that signals interrupt.
	var errOut bytes.Buffer
	cmd := exec.Command("dd", "if="+s.Dir()+"/slow", "of=/dev/null", "bs=4096", "iflag=direct")
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		time.Sleep(40 * time.Millisecond)
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(errOut.String(), "4096 bytes") || strings.Contains(errOut.String(), "nterrupted") {
		t.Errorf("%v: %s", err, &errOut)
	}
}

func TestRequestContext(t *testing.T) {
	base, stop := context.WithCancel(t.Context())
	s := &served{base: base}
	cancel := make(chan struct{})
	r := s.begin(cancel)
	if r.Err() != nil {
		t.Error("ended at the beginning")
	}
	close(cancel)
	if r.Err() != nil {
		t.Error("ended at once when interrupted")
	}
	began := time.Now()
	<-r.Done()
	if took := time.Since(began); took < grace/2 || !errors.Is(r.Err(), context.Canceled) {
		t.Errorf("ended after %s with %v", took, r.Err())
	}
	r.end()

	r = s.begin(make(chan struct{}))
	done := r.Done()
	stop()
	<-done
	if !errors.Is(r.Err(), context.Canceled) {
		t.Error(r.Err())
	}
	r.end()
}
