package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"holdfast/fs"
	"holdfast/fs/datastore"
	"holdfast/image/redirect"
	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// redirected puts an empty layer over the disk of a point.
func redirected(t *testing.T, below *base) datastore.Disk {
	t.Helper()
	s, err := redirect.Create(vfs.NewMem(), []redirect.DiskSpec{{
		Name: "system", Base: below, Identity: redirect.Identity{Repository: "r", Point: "p", Root: "root", Size: below.Size()},
	}}, redirect.Options{WALBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return lending(s, s.Disks()[0])
}

// borrowed joins what a disk lends.
func borrowed(t *testing.T, d datastore.Disk, off int64, n int) ([]byte, error) {
	t.Helper()
	b, err := d.(datastore.Lender).Borrow(t.Context(), off, n)
	if err != nil && err != io.EOF {
		return nil, err
	}
	defer b.Release()
	return bytes.Join(b.Segments, nil), err
}

// TestBaseEnd: a disk of part of a sector is one of whole sectors.
func TestBaseEnd(t *testing.T) {
	const size = 200<<10 + 77
	disk := repotest.New(rand.New(rand.NewPCG(1, 1)), repotest.Dense, size)
	mem, ids := backedUp(t, disk)
	want := make([]byte, 200<<10+512)
	if _, err := disk.ReadAt(want[:size], 0); err != nil {
		t.Fatal(err)
	}
	d := redirected(t, newBase(opened(t, mem, ids[0], nil), nil))
	if d.Size() != int64(len(want)) {
		t.Fatalf("%d bytes, want %d", d.Size(), len(want))
	}
	for _, c := range []struct{ off, n int }{{0, len(want)}, {size - 5, 5}, {size - 5, 10}, {size, 3}, {size + 10, 1000}, {100, len(want)}, {70 << 10, 1}} {
		exact := want[c.off:min(c.off+c.n, len(want))]
		p := make([]byte, c.n)
		n, err := d.ReadAt(t.Context(), p, int64(c.off))
		if !bytes.Equal(p[:n], exact) || (err == io.EOF) != (c.off+c.n > len(want)) || err != nil && err != io.EOF {
			t.Errorf("read %d at %d: %d bytes, %v", c.n, c.off, n, err)
		}
		got, err := borrowed(t, d, int64(c.off), c.n)
		if !bytes.Equal(got, exact) || (err == io.EOF) != (c.off+c.n > len(want)) || err != nil && err != io.EOF {
			t.Errorf("borrow %d at %d: %d bytes, %v", c.n, c.off, len(got), err)
		}
	}
}

// TestLendingStops: what was written is not lent from below.
func TestLendingStops(t *testing.T) {
	disk := repotest.New(rand.New(rand.NewPCG(2, 1)), repotest.Dense, 1<<20)
	mem, ids := backedUp(t, disk)
	d := redirected(t, newBase(opened(t, mem, ids[0], nil), nil))
	teller := d.(datastore.Teller)
	if teller.Cached(0, 64<<10) {
		t.Error("cached before it was read")
	}
	if _, err := borrowed(t, d, 0, 64<<10); err != nil {
		t.Fatal(err)
	}
	if !teller.Cached(0, 64<<10) {
		t.Error("not cached after it was")
	}
	if err := d.WriteAt(t.Context(), []byte("new"), 5, true); err != nil {
		t.Fatal(err)
	}
	if _, err := borrowed(t, d, 0, 64<<10); !errors.Is(err, fs.ErrUnsupported) {
		t.Errorf("lent what was written: %v", err)
	}
	got := make([]byte, 8)
	if _, err := d.ReadAt(t.Context(), got, 0); err != nil || string(got[5:]) != "new" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestBadBase reads and writes everywhere over a base with one bad frame, in
// each way it can be bad, and when it has come back.
func TestBadBase(t *testing.T) {
	const size, frame = 1 << 20, traceBlockBytes
	disk := repotest.New(rand.New(rand.NewPCG(3, 1)), repotest.Dense, size)
	mem, ids := backedUp(t, disk)
	want := make([]byte, size)
	if _, err := disk.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	name, off := frameOnDisk(t, mem, want[5*frame:6*frame])
	for _, c := range []struct {
		name string
		harm func(*vfs.Faulty)
		want error
		all  bool // frames of the pack, not this one alone
	}{
		{"a flipped bit", func(f *vfs.Faulty) { f.FlipReads(name, off+100, 4) }, fs.ErrDamaged, false},
		{"a medium that can't be read", func(f *vfs.Faulty) { f.FailReads(name, syscall.EIO) }, fs.ErrDamaged, true},
		{"a pack that is gone", func(f *vfs.Faulty) { f.FailReads(name, syscall.ENOENT) }, fs.ErrRetry, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty := vfs.NewFaulty(mem)
			d := redirected(t, newBase(opened(t, faulty, ids[0], repo.NewFrameCache(256<<10, 1)), nil))
			c.harm(faulty)
			failed := 0
			for at := int64(0); at < size; at += 32 << 10 {
				for _, n := range []int{4096, 40 << 10} {
					touches := at < 6*frame && min(at+int64(n), size) > 5*frame
					p := make([]byte, n)
					got, err := d.ReadAt(t.Context(), p, at)
					if _, berr := borrowed(t, d, at, n); errors.Is(berr, c.want) != errors.Is(err, c.want) {
						t.Errorf("%d bytes at %d: read %v, borrowed %v", n, at, err, berr)
					}
					switch {
					case touches && !errors.Is(err, c.want), !touches && !c.all && err != nil && err != io.EOF:
						t.Errorf("%d bytes at %d: %v", n, at, err)
					case err != nil && err != io.EOF:
						if failed++; got != 0 {
							t.Errorf("%d bytes at %d: an error and %d bytes", n, at, got)
						}
					case !bytes.Equal(p[:got], want[at:at+int64(got)]) || at+int64(got) != min(at+int64(n), size):
						t.Errorf("%d bytes at %d: %d others came", n, at, got)
					}
				}
			}
			if failed == 0 {
				t.Fatal("nothing failed")
			}
			p := bytes.Repeat([]byte{7}, 4096)
			if err := d.WriteAt(t.Context(), p[:100], 5*frame+9, true); !errors.Is(err, c.want) {
				t.Errorf("a write of part of a grain: %v", err)
			}
			if err := d.WriteAt(t.Context(), p, 5*frame, true); err != nil {
				t.Errorf("a write of a whole grain: %v", err)
			}
			got := make([]byte, len(p))
			if _, err := d.ReadAt(t.Context(), got, 5*frame); err != nil || !bytes.Equal(got, p) {
				t.Errorf("what was written over it: %v", err)
			}
			faulty.Heal()
			if _, err := d.ReadAt(t.Context(), got, 5*frame+8192); err != nil || !bytes.Equal(got, want[5*frame+8192:][:len(got)]) {
				t.Errorf("when it is back: %v", err)
			}
		})
	}
}

// frameOnDisk finds the data pack and the place in it where a frame that does
// not compress lies.
func frameOnDisk(t *testing.T, mem *vfs.Mem, frame []byte) (name string, off int64) {
	t.Helper()
	var walk func(dir string)
	walk = func(dir string) {
		list, err := mem.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			path := dir + "/" + e.Name
			if e.Dir {
				walk(path)
				continue
			}
			p, err := readSmall(mem, path, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			if i := bytes.Index(p, frame); i >= 0 {
				name, off = path, int64(i)
			}
		}
	}
	walk("packs/data")
	if name == "" {
		t.Fatal("the frame is nowhere")
	}
	return name, off
}

func TestBaseErrors(t *testing.T) {
	corrupt := &repo.CorruptError{Disk: "system"}
	for _, c := range []struct {
		err  error
		want error
	}{
		{nil, nil},
		{io.EOF, io.EOF},
		{fmt.Errorf("read: %w", corrupt), fs.ErrDamaged},
		{fmt.Errorf("read: %w", &repo.CorruptError{Missing: true}), fs.ErrRetry},
		{fmt.Errorf("read: %w", repo.ErrClosed), fs.ErrRetry},
		{context.Canceled, context.Canceled},
		{context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		got := baseError(c.err)
		if !errors.Is(got, c.want) || c.want != nil && !strings.Contains(got.Error(), c.err.Error()) {
			t.Errorf("%v became %v, want %v", c.err, got, c.want)
		}
	}
}
