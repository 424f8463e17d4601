package repotest

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// pageBytes is the grain of a Disk: what was never written of a page is a hole.
const pageBytes = 4096

// A Disk is the bytes of a disk, of which only pages ever written take memory.
// The zero value is a disk of no bytes. Reading is safe for concurrent use.
type Disk struct {
	size  int64
	pages map[int64]*[pageBytes]byte // never changed, only replaced, so clones share them
	order []int64                    // keys of pages, ascending; nil: to be made
}

// NewDisk returns a disk of nothing but a hole.
func NewDisk(size int64) *Disk { return &Disk{size: size, pages: make(map[int64]*[pageBytes]byte)} }

// Clone returns a disk of its own with the same bytes.
func (d *Disk) Clone() *Disk {
	return &Disk{size: d.size, pages: maps.Clone(d.pages), order: d.order}
}

// Size returns the disk's length in bytes.
func (d *Disk) Size() int64 { return d.size }

// ReadAt reads as io.ReaderAt has it. Holes read as zeros.
func (d *Disk) ReadAt(p []byte, off int64) (n int, err error) {
	if off >= d.size {
		return 0, io.EOF
	}
	if rest := d.size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	for n < len(p) {
		in := (off + int64(n)) % pageBytes
		part := p[n:min(len(p), n+int(pageBytes-in))]
		if page := d.pages[(off+int64(n))/pageBytes]; page != nil {
			copy(part, page[in:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return n, err
}

// Write puts p at off, which it must lie within the disk with.
func (d *Disk) Write(p []byte, off int64) {
	if off < 0 || off+int64(len(p)) > d.size {
		panic(fmt.Sprintf("repotest: write %d bytes at %d of a disk of %d", len(p), off, d.size))
	}
	d.order = nil
	for n := 0; n < len(p); {
		no, in := (off+int64(n))/pageBytes, (off+int64(n))%pageBytes
		page := new([pageBytes]byte)
		if old := d.pages[no]; old != nil {
			*page = *old
		}
		n += copy(page[in:], p[n:])
		d.pages[no] = page
	}
}

// Trim makes a stretch zeros: whole pages become holes.
func (d *Disk) Trim(off, n int64) {
	for end := min(off+n, d.size); off < end; {
		in := off % pageBytes
		step := min(pageBytes-in, end-off)
		switch {
		case step == pageBytes || off+step == d.size && in == 0:
			delete(d.pages, off/pageBytes)
			d.order = nil
		case d.pages[off/pageBytes] != nil:
			d.Write(make([]byte, step), off)
		}
		off += step
	}
}

// Resize sets the length. What is added is a hole.
func (d *Disk) Resize(size int64) {
	if size < d.size {
		d.Trim(size, d.size-size)
	}
	d.size = size
}

// NextData finds the first stretch of pages at or after off that were written.
// io.EOF when there is none.
func (d *Disk) NextData(off int64) (start, end int64, err error) {
	order := d.order
	if order == nil {
		order = slices.Sorted(maps.Keys(d.pages))
	}
	i, _ := slices.BinarySearch(order, off/pageBytes)
	if i == len(order) || off >= d.size {
		return 0, 0, io.EOF
	}
	start = max(off, order[i]*pageBytes)
	for i++; i < len(order) && order[i] == order[i-1]+1; {
		i++
	}
	return start, min((order[i-1]+1)*pageBytes, d.size), nil
}

// settle prepares a disk that is not written any more for many readers.
func (d *Disk) settle() *Disk {
	d.order = slices.Sorted(maps.Keys(d.pages))
	return d
}

// zero tells whether a stretch is nothing but zeros.
func (d *Disk) zero(off, n int64) bool {
	for no := off / pageBytes; no*pageBytes < off+n; no++ {
		page := d.pages[no]
		if page == nil {
			continue
		}
		from, to := max(off-no*pageBytes, 0), min(off+n-no*pageBytes, pageBytes)
		for _, b := range page[from:to] {
			if b != 0 {
				return false
			}
		}
	}
	return true
}
