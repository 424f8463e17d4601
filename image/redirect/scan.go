package redirect

import (
	"fmt"
	"io"
)

// A row is a file of batches one after another, from start on.
type row struct {
	name  string
	r     io.ReaderAt
	from  origin
	start int64
	size  int64 // no batch reaches beyond
	unit  int64 // alignment of batches
	wal   bool
}

// scan calls fn for every batch in order, with where it begins, and returns
// where the row ends and the checksum of its last batch. A batch that is not
// whole ends the row: it was being written when the power went. But when a
// later one says that its place was synced, bytes were lost that had been
// promised, and that is damage.
//
// What fn gets is good until it returns.
func (w row) scan(fn func(b *batch) error) (end int64, last uint32, err error) {
	buf := make([]byte, 64<<10)
	for end = w.start; end+batchBytes <= w.size; {
		b, ok, err := w.at(&buf, end)
		if err != nil {
			return end, last, err
		}
		if !ok || b.prev != last {
			return end, last, w.mustEnd(end)
		}
		if err := fn(&b); err != nil {
			return end, last, err
		}
		end += int64(b.length)
		last = b.sum
	}
	return end, last, nil
}

// at reads the batch at off, if there is one.
func (w row) at(buf *[]byte, off int64) (b batch, ok bool, err error) {
	n := min(w.unit, w.size-off)
	if err := w.read((*buf)[:n], off); err != nil {
		return b, false, err
	}
	h, _, err := decodeHead((*buf)[:n], w.from, off, w.size-off, w.unit)
	if err != nil {
		return b, false, nil
	}
	if int(h.length) > len(*buf) {
		*buf = make([]byte, h.length)
		n = 0
	}
	if int64(h.length) > n {
		if err := w.read((*buf)[n:h.length], off+n); err != nil {
			return b, false, err
		}
	}
	b, err = decodeBatch((*buf)[:h.length], w.from, off, w.unit, w.wal)
	return b, err == nil, nil
}

// read fills p; what lies behind the end of the file reads as zeros.
func (w row) read(p []byte, off int64) error {
	n, err := w.r.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:])
		err = nil
	}
	if err != nil {
		return fmt.Errorf("read %s at %d: %w", w.name, off, err)
	}
	return nil
}

// mustEnd gives an error when a batch behind end says that end was synced.
func (w row) mustEnd(end int64) error {
	window := make([]byte, max(0, min(mib, w.size-end-w.unit)))
	for at := end + w.unit; at+batchBytes <= w.size; at += int64(len(window)) {
		n := min(int64(len(window)), w.size-at)
		if err := w.read(window[:n], at); err != nil {
			return err
		}
		for i := int64(0); i+batchBytes <= n; i += w.unit {
			h, records, err := decodeHead(window[i:n], w.from, at+i, w.size-at-i, w.unit)
			if err != nil || h.durable <= uint64(end) {
				continue
			}
			// A head alone may be chance; its checksum is not.
			whole := make([]byte, headBytes(records, w.unit))
			if err := w.read(whole, at+i); err != nil {
				return err
			}
			if le.Uint32(whole[4:]) == w.from.checksum(whole[8:]) {
				return damaged(w.name, end, "a record that was synced is not whole")
			}
		}
	}
	return nil
}
