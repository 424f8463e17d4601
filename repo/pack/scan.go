package pack

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Scan finds the records in the first size bytes of a pack by their headers
// alone, in order, and calls fn for each; fn's error ends the scan and is
// returned. Bodies are neither read nor verified: ParseRecord does that.
//
// Where no record starts, unreadable bytes included, the scan goes on at the
// next bytes that are a record's header with the right CRC. Inside a damaged
// raw record those may be a guest's own copy of a pack, so a record found by
// Scan is trusted only as far as its digests prove it.
//
// Time is linear in size whatever the bytes are, and memory less than a MiB.
func Scan(r io.ReaderAt, size int64, fn func(e Entry, h *Header) error) error {
	_, err := scan(r, size, fn)
	return err
}

// scan is Scan. table is the offset of the record table when the scan ended
// there, else 0.
func scan(r io.ReaderAt, size int64, fn func(e Entry, h *Header) error) (table int64, err error) {
	w := window{r: r, size: min(size, MaxBytes)}
	var last Entry
	found := 0
	pos := int64(packHeaderBytes)
	for pos < w.size {
		p := w.at(pos, MaxHeaderBytes, hopBytes)
		h, _, err := ParseHeader(p)
		if err == nil && pos+int64(h.RecordBytes()) <= w.size {
			last = Entry{ID: h.ID, Base: h.Base, Kind: h.Kind, Flags: h.Flags, Off: uint32(pos), Len: uint32(h.RecordBytes())}
			if err := fn(last, &h); err != nil {
				return 0, err
			}
			found++
			pos += int64(last.Len)
			continue
		}
		if w.tableAt(pos, last, found) {
			return pos, nil
		}
		pos = w.search(pos + 1)
	}
	return 0, nil
}

const (
	hopBytes    = 16 << 10  // read at a header
	searchBytes = 256 << 10 // read while searching
)

// A window is the part of a file that a scan looks at.
type window struct {
	r    io.ReaderAt
	size int64
	off  int64
	buf  []byte
	mem  []byte
}

// at returns the bytes at pos, want of them or up to the end. If they are not
// in the window, it moves there and reads more bytes at once.
func (w *window) at(pos int64, want, more int) []byte {
	want = int(min(int64(want), w.size-pos))
	if pos < w.off || pos+int64(want) > w.off+int64(len(w.buf)) {
		if len(w.mem) < more+BlockBytes {
			w.mem = make([]byte, more+BlockBytes)
		}
		w.off = pos &^ (BlockBytes - 1)
		end := min(pos+int64(more), w.size)
		w.buf = w.mem[:end-w.off]
		readFull(w.r, w.buf, w.off)
	}
	return w.buf[pos-w.off:][:want]
}

// search returns the first place from pos on where a sound record header
// stands, or the size.
func (w *window) search(pos int64) int64 {
	for pos < w.size {
		w.at(pos, MaxHeaderBytes, searchBytes)
		p := w.buf[pos-w.off:]
		i := bytes.Index(p, []byte(recordMagic))
		if i < 0 {
			// A magic may lie across the window's end.
			pos = max(pos+1, pos+int64(len(p)-len(recordMagic)+1))
			continue
		}
		pos += int64(i)
		if _, ok := soundHeader(w.at(pos, MaxHeaderBytes, searchBytes)); ok {
			return pos
		}
		pos++
	}
	return w.size
}

// tableAt reports whether the record table starts at pos, right behind the last
// of the records found. The table's last entry must say so, too: a guest's
// own pack, stored raw, has other offsets.
func (w *window) tableAt(pos int64, last Entry, found int) bool {
	p := w.at(pos, 8, hopBytes)
	if len(p) < 8 || string(p[:4]) != tableMagic {
		return false
	}
	count := int64(binary.LittleEndian.Uint32(p[4:]))
	if count > MaxRecords || count < int64(found) || pos+tableFixed+count*EntryBytes > w.size {
		return false
	}
	if count == 0 {
		return pos == packHeaderBytes
	}
	want := appendTable(nil, []Entry{last})[8:][:EntryBytes]
	return bytes.Equal(w.at(pos+8+(count-1)*EntryBytes, EntryBytes, hopBytes), want)
}
