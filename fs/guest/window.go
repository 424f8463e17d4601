package guest

import (
	"encoding/binary"
	"io"
)

// windowBytes is how much is read at a time: superblocks stand close together
// at the two ends of a volume, so that a probe takes a few reads.
const windowBytes = 128 << 10

// window reads the places where superblocks are.
type window struct {
	dev  io.ReaderAt
	size int64
	have []piece
	err  error // the first error of dev that was not its end
}

type piece struct {
	off int64
	b   []byte
}

// at returns n bytes, at most windowBytes, from off on, or nil where the volume
// does not have them or they can't be read.
func (w *window) at(off int64, n int) []byte {
	if off < 0 || n > windowBytes || off > w.size-int64(n) {
		return nil
	}
	for _, p := range w.have {
		if off >= p.off && off+int64(n) <= p.off+int64(len(p.b)) {
			return p.b[off-p.off:][:n:n]
		}
	}
	start := off &^ (windowBytes - 1)
	if last := w.size - windowBytes; last > 0 && off >= last {
		start = last
	}
	p := piece{start, make([]byte, min(windowBytes, w.size-start))}
	if off+int64(n) > p.off+int64(len(p.b)) { // across two windows
		p = piece{off, make([]byte, n)}
	}
	got, err := w.dev.ReadAt(p.b, p.off)
	if got < len(p.b) && err != io.EOF && w.err == nil {
		w.err = err
	}
	p.b = p.b[:got]
	w.have = append(w.have, p)
	if off+int64(n) > p.off+int64(got) {
		return nil
	}
	return p.b[off-p.off:][:n:n]
}

// is says whether the bytes at off are magic.
func (w *window) is(off int64, magic string) bool {
	return string(w.at(off, len(magic))) == magic
}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)
