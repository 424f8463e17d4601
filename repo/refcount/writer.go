package refcount

import (
	"bufio"
	"errors"

	"holdfast/repo/vfs"
)

// writer writes a file from front to back: rows, fences, and at last the
// header. It keeps one block, a write buffer and the fences.
type writer struct {
	f      vfs.File
	out    *bufio.Writer
	b      block
	filled int // rows or fences in b
	number uint32
	sums   sumOfSums
	fences []uint64
	head   header
}

const writeBytes = 64 << 10

func newWriter(f vfs.File, number uint64) (*writer, error) {
	w := &writer{f: f, out: bufio.NewWriterSize(f, writeBytes), head: header{number: number}, number: 1}
	_, err := w.out.Write(w.b[:]) // the place of the header
	return w, err
}

// row adds the next row.
func (w *writer) row(r row) error {
	if w.filled == 0 {
		w.fences = append(w.fences, r.fence())
	}
	w.b.putRow(w.filled, r)
	w.head.rows++
	return w.fill(rowsPerBlock)
}

// fill counts what was put into the block.
func (w *writer) fill(perBlock int) error {
	if w.filled++; w.filled < perBlock {
		return nil
	}
	return w.flush()
}

// flush seals the block and writes it, if there is something in it.
func (w *writer) flush() error {
	if w.filled == 0 {
		return nil
	}
	w.sums.add(w.b.seal(w.number))
	_, err := w.out.Write(w.b[:])
	w.b, w.filled = block{}, 0
	w.number++
	return err
}

// finish writes fences and header. It does not sync.
func (w *writer) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	for _, v := range w.fences {
		w.b.putFence(w.filled, v)
		if err := w.fill(fencesPerBlock); err != nil {
			return err
		}
	}
	if err := errors.Join(w.flush(), w.out.Flush()); err != nil {
		return err
	}
	w.head.sum = uint32(w.sums)
	_, err := w.f.WriteAt(w.head.encode()[:], 0)
	return err
}
