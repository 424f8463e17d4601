// Package disktest makes disks for tests and compares a reader with the bytes
// it should give.
package disktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"holdfast/internal/testreq"
)

// Disk is what is compared; image.Disk has the meaning of its methods.
type Disk interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// Pattern returns size bytes of which about two thirds are zeros in runs, the
// rest half text and half noise. The same seed gives the same bytes.
func Pattern(size int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for off := 0; off < size; {
		n := min(size-off, 1+r.IntN(300<<10))
		switch r.IntN(6) {
		case 0:
			noise(b[off:off+n], r)
		case 1:
			copy(b[off:off+n], strings.Repeat(fmt.Sprintf("block %d of a disk; ", off), n/8+1))
		}
		off += n
	}
	return b
}

func noise(b []byte, r *rand.Rand) {
	var word [8]byte
	for len(b) > 0 {
		binary.LittleEndian.PutUint64(word[:], r.Uint64())
		b = b[copy(b, word[:]):]
	}
}

// WriteSparse writes b to a new file at path, and nothing where a block of 4 KiB
// is all zeros.
func WriteSparse(tb testing.TB, path string, b []byte) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	for m, off := Memory(b), int64(0); ; {
		start, end, err := m.NextData(off)
		if err != nil {
			break
		}
		if _, err := f.WriteAt(b[start:end], start); err != nil {
			tb.Fatal(err)
		}
		off = end
	}
	if err := errors.Join(f.Truncate(int64(len(b))), f.Close()); err != nil {
		tb.Fatal(err)
	}
}

// Ext4 writes a sparse raw disk of 44 MiB to path, an ext4 file system with the
// sources of the Go compiler and, behind it, noise and holes, and returns its
// bytes. About 40 % are holes.
func Ext4(tb testing.TB, path string) []byte {
	tb.Helper()
	testreq.Need(tb, "mkfs.ext4")
	const size, fsSize = 44 << 20, 36 << 20
	src := filepath.Join(strings.TrimSpace(Run(tb, "go", "env", "GOROOT")), "src", "cmd", "compile")
	Run(tb, "mkfs.ext4", "-q", "-F", "-E", "hash_seed=00000000-0000-0000-0000-000000000001", "-d", src,
		path, fmt.Sprintf("%dk", fsSize>>10))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 3<<20+5<<10)
	noise(b, rand.New(rand.NewPCG(4, 4)))
	if _, err := f.WriteAt(b, fsSize+1<<20+512); err != nil {
		tb.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		tb.Fatal(err)
	}
	all, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// Run runs a program, also from the sbin directories, and fails the test with
// its output when it fails.
func Run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	if _, err := exec.LookPath(name); err != nil {
		name = "/usr/sbin/" + name
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Same fails the test unless d reads as want: from front to back in large
// pieces by several readers at once, at odd places, over the end, and by a walk
// over its data. It returns how many bytes of holes the walk found.
func Same(tb testing.TB, d Disk, want []byte) (holes int64) {
	tb.Helper()
	if d.Size() != int64(len(want)) {
		tb.Fatalf("size is %d, want %d", d.Size(), len(want))
	}
	sameInOrder(tb, d, want)
	SameAtRandom(tb, d, want, 100, 7)
	sameAtEnd(tb, d, want)
	return sameByWalk(tb, d, want)
}

func sameInOrder(tb testing.TB, d Disk, want []byte) {
	tb.Helper()
	const step = 1 << 20
	var wg sync.WaitGroup
	for first := range 4 {
		wg.Go(func() {
			b := make([]byte, step)
			for off := first * step; off < len(want); off += 4 * step {
				n := min(step, len(want)-off)
				if _, err := d.ReadAt(b[:n], int64(off)); err != nil && err != io.EOF {
					tb.Errorf("read %d bytes at %d: %v", n, off, err)
					return
				}
				if !bytes.Equal(b[:n], want[off:off+n]) {
					tb.Errorf("%d bytes at %d differ", n, off)
					return
				}
			}
		})
	}
	wg.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
}

// SameAtRandom compares n reads of random place and length.
func SameAtRandom(tb testing.TB, d Disk, want []byte, n int, seed uint64) {
	tb.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, 300<<10)
	for range n {
		off := r.IntN(len(want))
		length := min(1+r.IntN(1<<r.IntN(18)), len(want)-off)
		clear(b[:length])
		if k, err := d.ReadAt(b[:length], int64(off)); k != length || (err != nil && err != io.EOF) {
			tb.Fatalf("seed %d: read %d bytes at %d: %d, %v", seed, length, off, k, err)
		}
		if !bytes.Equal(b[:length], want[off:off+length]) {
			tb.Fatalf("seed %d: %d bytes at %d differ", seed, length, off)
		}
	}
}

func sameAtEnd(tb testing.TB, d Disk, want []byte) {
	tb.Helper()
	b := make([]byte, 100)
	off := len(want) - 37
	if n, err := d.ReadAt(b, int64(off)); n != 37 || err != io.EOF || !bytes.Equal(b[:n], want[off:]) {
		tb.Fatalf("read over the end: %d, %v; want 37 bytes of the disk and EOF", n, err)
	}
	if n, err := d.ReadAt(b, d.Size()); n != 0 || err != io.EOF {
		tb.Fatalf("read at the end: %d, %v; want 0, EOF", n, err)
	}
	if _, err := d.ReadAt(b, -1); err == nil || err == io.EOF {
		tb.Fatalf("read at -1: %v; want an error", err)
	}
}

// sameByWalk builds the disk from its data extents.
func sameByWalk(tb testing.TB, d Disk, want []byte) (holes int64) {
	tb.Helper()
	got := make([]byte, len(want))
	off := int64(0)
	for {
		start, end, err := d.NextData(off)
		if err == io.EOF {
			break
		}
		if err != nil {
			tb.Fatalf("next data from %d: %v", off, err)
		}
		if start < off || end <= start || end > d.Size() {
			tb.Fatalf("next data from %d is [%d, %d) of %d", off, start, end, d.Size())
		}
		if _, err := d.ReadAt(got[start:end], start); err != nil && err != io.EOF {
			tb.Fatalf("read data [%d, %d): %v", start, end, err)
		}
		holes += start - off
		off = end
	}
	holes += d.Size() - off
	if !bytes.Equal(got, want) {
		tb.Fatal("the data extents alone do not make up the disk")
	}
	if _, _, err := d.NextData(d.Size()); err != io.EOF {
		tb.Fatalf("next data from the end: %v; want EOF", err)
	}
	return holes
}

// Holes is how many bytes of b lie in whole blocks of zeros.
func Holes(b []byte, block int) (n int64) {
	for len(b) > 0 {
		k := min(block, len(b))
		if allZero(b[:k]) {
			n += int64(k)
		}
		b = b[k:]
	}
	return n
}

// allZero compares b with itself, moved by one.
func allZero(b []byte) bool {
	return len(b) == 0 || (b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]))
}

// Probe reads a disk that may be damaged or hostile: as much as buf holds at its
// beginning, off its blocks, in its middle and at its end, and the first bytes of
// up to steps of its extents. It returns the error that the disk told of, and
// fails the test if the disk gave less than it owed without one, or extents that
// can't be.
func Probe(tb testing.TB, d Disk, buf []byte, steps int) error {
	tb.Helper()
	size := d.Size()
	read := func(p []byte, off int64) error {
		n, err := d.ReadAt(p, off)
		if err != nil && err != io.EOF {
			return err
		}
		if owed := min(int64(len(p)), max(0, size-off)); int64(n) < owed || n < len(p) && err == nil {
			tb.Fatalf("read at %d of %d: %d bytes, %v", off, size, n, err)
		}
		return nil
	}
	for _, off := range []int64{0, 4095, size / 2, max(0, size-int64(len(buf))), max(0, size-1)} {
		if err := read(buf, off); err != nil {
			return err
		}
	}
	off := int64(0)
	for range steps {
		start, end, err := d.NextData(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if start < off || end <= start || end > size {
			tb.Fatalf("next data from %d is [%d, %d) of %d", off, start, end, size)
		}
		if err := read(buf[:min(len(buf), 4096)], start); err != nil {
			return err
		}
		off = end
	}
	return nil
}
