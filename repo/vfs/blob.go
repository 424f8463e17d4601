package vfs

import "maps"

// A blob is the bytes of a file in memory: pages of 4 KiB, sparse, in segments
// of 64. Blobs share segments and pages. Who may write in place is decided by
// stamps: a blob writes only into segments and pages that carry its own stamp
// and copies the others first. Freezing a blob takes its stamp away, so that
// any number of clones can share it, and the next writer begins a new one.
type blob struct {
	stamp *stamp // nil: frozen
	size  int64
	segs  map[int64]*segment
	pages int64 // how many there are
}

const (
	pageSize = 4096
	segPages = 64
)

// stamp is an identity; it has a size, so that no two share an address.
type stamp struct{ _ byte }

type segment struct {
	stamp *stamp
	pages [segPages]*page
}

type page struct {
	stamp *stamp
	data  [pageSize]byte
}

// zeroPage stands for space that is taken but was never written.
var zeroPage page

// emptyBlob is frozen.
var emptyBlob blob

func (b *blob) freeze() *blob {
	if b.stamp != nil { // a frozen one may be read by others now
		b.stamp = nil
	}
	return b
}

// thaw returns a blob of the same bytes that may be changed: b or a copy.
func (b *blob) thaw() *blob {
	if b.stamp != nil {
		return b
	}
	c := &blob{stamp: new(stamp), size: b.size, pages: b.pages, segs: maps.Clone(b.segs)}
	if c.segs == nil {
		c.segs = make(map[int64]*segment)
	}
	return c
}

// page returns page i, or nil where there is none.
func (b *blob) page(i int64) *page {
	if s := b.segs[i/segPages]; s != nil {
		return s.pages[i%segPages]
	}
	return nil
}

// slot returns where the pointer to page i is kept, for changing it.
func (b *blob) slot(i int64) **page {
	s := b.segs[i/segPages]
	switch {
	case s == nil:
		s = &segment{stamp: b.stamp}
		b.segs[i/segPages] = s
	case s.stamp != b.stamp:
		s = &segment{stamp: b.stamp, pages: s.pages}
		b.segs[i/segPages] = s
	}
	return &s.pages[i%segPages]
}

// own returns page i for writing into it.
func (b *blob) own(i int64) *page {
	slot := b.slot(i)
	switch p := *slot; {
	case p == nil:
		*slot = &page{stamp: b.stamp}
		b.pages++
	case p.stamp != b.stamp:
		*slot = &page{stamp: b.stamp, data: p.data}
	}
	return *slot
}

// readAt fills p from off on; beyond the end there are zeros.
func (b *blob) readAt(p []byte, off int64) {
	for len(p) > 0 {
		at := off % pageSize
		n := min(int64(len(p)), pageSize-at)
		if pg := b.page(off / pageSize); pg != nil {
			copy(p[:n], pg.data[at:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
}

// writeAt writes p at off, growing the file.
func (b *blob) writeAt(p []byte, off int64) {
	b.size = max(b.size, off+int64(len(p)))
	for len(p) > 0 {
		n := copy(b.own(off / pageSize).data[off%pageSize:], p)
		p, off = p[n:], off+int64(n)
	}
}

// resize sets the length; what is cut off is gone, what is added is zeros.
func (b *blob) resize(size int64) {
	if size < b.size {
		end := (size + pageSize - 1) / pageSize // the first page to go
		for s, seg := range b.segs {
			if (s+1)*segPages <= end {
				continue
			}
			for k, pg := range seg.pages {
				if i := s*segPages + int64(k); pg != nil && i >= end {
					*b.slot(i) = nil
					b.pages--
				}
			}
			if s*segPages >= end {
				delete(b.segs, s)
			}
		}
		if at := size % pageSize; at > 0 && b.page(size/pageSize) != nil {
			clear(b.own(size / pageSize).data[at:])
		}
	}
	b.size = size
}

// missing counts the pages from byte off to byte end that do not exist yet.
func (b *blob) missing(off, end int64) int64 {
	var n int64
	for i := off / pageSize; i*pageSize < end; i++ {
		if b.page(i) == nil {
			n++
		}
	}
	return n
}

// fill takes the space of the first n bytes.
func (b *blob) fill(n int64) {
	for i := int64(0); i*pageSize < n; i++ {
		if b.page(i) == nil {
			*b.slot(i) = &zeroPage
			b.pages++
		}
	}
	b.size = max(b.size, n)
}
