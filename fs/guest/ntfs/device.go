package ntfs

import (
	"errors"
	"fmt"
	"io"

	"holdfast/fs"
)

const (
	pageBytes   = 32 << 10
	pagesBudget = 16 << 20
)

// device is the volume's bytes, with the metadata among them kept in pages.
type device struct {
	ra    io.ReaderAt
	size  int64
	pages *cache[int64, []byte]
}

func newDevice(ra io.ReaderAt, size int64) *device {
	return &device{ra, size, newCache[int64, []byte](pagesBudget)}
}

// check refuses what is not wholly on the device.
func (d *device) check(off, n int64) error {
	if off < 0 || n < 0 || off > d.size || n > d.size-off {
		return fmt.Errorf("%d bytes at %d of a device of %d: %w", n, off, d.size, fs.ErrDamaged)
	}
	return nil
}

// read fills p from off.
func (d *device) read(p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	n, err := d.ra.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read device at %d: %w", off, err)
}

// readMeta is read by way of the pages.
func (d *device) readMeta(p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		start := off - off%pageBytes
		page, ok := d.pages.get(start)
		if !ok {
			page = make([]byte, min(pageBytes, d.size-start))
			if err := d.read(page, start); err != nil {
				return err
			}
			d.pages.put(start, page, int64(len(page)))
		}
		n := copy(p, page[off-start:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}
