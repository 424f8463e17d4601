package vhdx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

// store writes a view to a sparse file.
func store(t *testing.T, v *View, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(v.Size())
	buf := make([]byte, 1<<20)
	for off := int64(0); err == nil; {
		start, end, e := v.NextData(off)
		if e == io.EOF {
			break
		}
		err = e
		for ; err == nil && start < end; start += int64(len(buf)) {
			b := buf[:min(int64(len(buf)), end-start)]
			if _, err = v.ReadAt(b, start); err == nil || err == io.EOF {
				_, err = f.WriteAt(b, start)
			}
		}
		off = end
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func newView(t testing.TB, src Source, identity string) *View {
	t.Helper()
	v, err := NewView(src, ViewOptions{Identity: identity})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestView(t *testing.T) {
	for _, size := range []int{512, 4096, 1 << 20, 3<<20 + 512, 37<<20 + 77} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			want := disktest.Pattern(size, uint64(size))
			clear(want[size/3 : size/2])
			want[0], want[size-1] = 1, 1
			v := newView(t, disktest.Memory(want), "x")
			whole := make([]byte, v.Size())
			if _, err := v.ReadAt(whole, 0); err != nil {
				t.Fatal(err)
			}
			disktest.Same(t, v, whole) // its holes too
			if off := v.DataOffset(); !bytes.Equal(whole[off:][:size], want) {
				t.Fatalf("byte n of the disk is not at %d + n", off)
			}
			padded := append(want, make([]byte, -size&511)...)
			holes := disktest.Same(t, openBytes(t, whole, nil), padded)
			if least := disktest.Holes(padded, mib); holes < least || size > 30*mib && least == 0 {
				t.Fatalf("%d bytes of holes, want at least %d", holes, least)
			}

			if !testing.Short() {
				qemuAgrees(t, v, padded)
			}
		})
	}
}

// qemuAgrees has qemu-img check the view and compare it with the disk, and
// qemu-io write to it.
func qemuAgrees(t *testing.T, v *View, want []byte) {
	t.Helper()
	testreq.Need(t, "qemu-img", "qemu-io")
	dir := t.TempDir()
	raw, path := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vhdx")
	disktest.WriteSparse(t, raw, want)
	store(t, v, path)
	disktest.Run(t, "qemu-img", "check", "-f", "vhdx", path)
	disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, path)
	last := len(want)/512*512 - 512
	disktest.Run(t, "qemu-io", "-f", "vhdx", "-c", fmt.Sprintf("write -P 7 %d 512", last), path)
	copy(want[last:], bytes.Repeat([]byte{7}, 512))
	disktest.Same(t, openBytes(t, readFile(t, path), nil), want)
}

// TestViewIdentity: the file depends on the identity and on nothing that
// changes from one time to the next.
func TestViewIdentity(t *testing.T) {
	src := disktest.Memory(disktest.Pattern(1<<20, 1))
	read := func(identity string) []byte {
		v := newView(t, src, identity)
		b := make([]byte, v.Size())
		if _, err := v.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := read("one")
	if !bytes.Equal(one, read("one")) {
		t.Error("the same identity gives another file")
	}
	two := read("two")
	if openBytes(t, one, nil).DataID() == openBytes(t, two, nil).DataID() {
		t.Error("another identity gives the same GUID")
	}
	if at := int64(viewBAT); !bytes.Equal(one[at:], two[at:]) {
		t.Error("the identity changes more than the metadata")
	}
}

// spot is a disk of which a few bytes in one place are data.
type spot struct{ size, at, n int64 }

func (s spot) Size() int64 { return s.size }

func (s spot) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = 0
		if at := off + int64(i); at >= s.at && at < s.at+s.n {
			p[i] = byte(at%250) + 1
		}
	}
	return len(p), nil
}

func (s spot) NextData(off int64) (start, end int64, err error) {
	if off >= s.at+s.n {
		return 0, 0, io.EOF
	}
	return max(off, s.at), s.at + s.n, nil
}

// TestViewOfHugeDisks: the largest disk there is costs no memory.
func TestViewOfHugeDisks(t *testing.T) {
	for _, size := range []int64{maxDisk, 1<<40 + 512} {
		src := spot{size, size - 5<<20 - 100, 3 << 20}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		v := newView(t, src, "huge")
		d, err := Open(v, v.Size(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if d.Size() != size {
			t.Fatalf("the disk has %d bytes, want %d", d.Size(), size)
		}
		start, end, err := d.NextData(0)
		if start != src.at || end != src.at+src.n || err != nil {
			t.Fatalf("data is at [%d, %d), %v; want [%d, %d)", start, end, err, src.at, src.at+src.n)
		}
		got, want := make([]byte, 4<<20), make([]byte, 4<<20)
		if _, err := src.ReadAt(want, src.at-1000); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ReadAt(got, src.at-1000); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("other bytes than those of the source, or %v", err)
		}
		ratio := v.ratio()
		entries := make([]byte, 3*batEntryBytes) // the last block of a chunk, its bitmap, the first of the next
		if _, err := v.ReadAt(entries, viewBAT+(ratio-1)*batEntryBytes); err != nil {
			t.Fatal(err)
		}
		if want := []byte{2, 23: 0, 16: 2}; !bytes.Equal(entries, want) {
			t.Fatalf("BAT entries at the end of a chunk are % x, want % x", entries, want)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
			t.Fatalf("it took %d bytes of memory", n)
		}
	}
	for _, size := range []int64{maxDisk + 1, -1} {
		if _, err := NewView(spot{size: size}, ViewOptions{}); err == nil {
			t.Errorf("a disk of %d bytes was accepted", size)
		}
	}
}

// TestViewOfALargeFile shows qemu-io a disk whose BAT has entries of sector
// bitmaps and blocks of more than 1 MiB.
func TestViewOfALargeFile(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.vhdx")
	const size, at, n = 600 << 30, 555<<30 + 12345<<9, 5 << 20
	v := newView(t, spot{size, at, n}, "large")
	if v.block <= mib {
		t.Fatalf("blocks have %d bytes, want more", v.block)
	}
	store(t, v, path)
	disktest.Run(t, "qemu-img", "check", "-f", "vhdx", path)
	if info := disktest.Run(t, "qemu-img", "info", path); !strings.Contains(info, fmt.Sprintf("(%d bytes)", int64(size))) {
		t.Fatalf("the disk should have %d bytes: %s", int64(size), info)
	}
	// A spot of one byte tells its place by its value.
	var args []string
	for _, off := range []int64{at, at + 512, at + 3<<20, at + n - 512} {
		args = append(args, "-c", fmt.Sprintf("read -P %d -l 1 -s 0 %d 1", byte(off%250)+1, off))
	}
	for _, off := range []int64{0, at - 4<<20, at + n, size - 4<<20} {
		args = append(args, "-c", fmt.Sprintf("read -P 0 %d 4M", off))
	}
	out := disktest.Run(t, "qemu-io", append(append([]string{"-r", "-f", "vhdx"}, args...), path)...)
	if strings.Contains(out, "failed") || strings.Count(out, "read ") != len(args)/2 {
		t.Fatal(out)
	}
}

func openBytes(t testing.TB, b []byte, open func(string) (Parent, error)) *Disk {
	t.Helper()
	d, err := Open(bytes.NewReader(b), int64(len(b)), open)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
