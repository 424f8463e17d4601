//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// eachData calls fn for each stretch of a file that is not a hole.
func eachData(f *os.File, fn func(off, end int64) error) error {
	var off int64
	for {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := fn(start, end); err != nil {
			return err
		}
		off = end
	}
}

// dataBytes counts what of a file is not a hole.
func dataBytes(path string) (n int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	err = eachData(f, func(off, end int64) error { n += end - off; return nil })
	return n, err
}

// warm reads a file's data into the page cache.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return eachData(f, func(off, end int64) error {
		_, err := io.Copy(io.Discard, io.NewSectionReader(f, off, end-off))
		return err
	})
}

// chill drops all files below dir from the page cache.
func chill(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		// Dirty pages would stay.
		if err := unix.Fdatasync(int(f.Fd())); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

// settle waits until what was written to the file system of dir is on its disk,
// so that nobody's run pays for the one before.
func settle(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// treeBytes adds up the sizes of all files below dir.
func treeBytes(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// sameDisk compares two disk images where either has data.
func sameDisk(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	ia, err := fa.Stat()
	if err != nil {
		return err
	}
	ib, err := fb.Stat()
	if err != nil {
		return err
	}
	if ia.Size() != ib.Size() {
		return fmt.Errorf("%s has %d bytes, %s %d", a, ia.Size(), b, ib.Size())
	}
	pa, pb := make([]byte, 1<<20), make([]byte, 1<<20)
	compare := func(off, end int64) error {
		for ; off < end; off += int64(len(pa)) {
			n := min(int64(len(pa)), end-off)
			if _, err := fa.ReadAt(pa[:n], off); err != nil {
				return err
			}
			if _, err := fb.ReadAt(pb[:n], off); err != nil {
				return err
			}
			if !bytes.Equal(pa[:n], pb[:n]) {
				return fmt.Errorf("%s and %s differ at or after byte %d", a, b, off)
			}
		}
		return nil
	}
	if err := eachData(fa, compare); err != nil {
		return err
	}
	return eachData(fb, compare)
}
