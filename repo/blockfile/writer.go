package blockfile

import (
	"bufio"
	"errors"
	"io"
)

// Writer writes the blocks of a file from front to back: rows, then fences. The
// place of block 0 is left zero, for the owner to write when all is known. It
// keeps one block, a write buffer and the fences.
type Writer struct {
	out    *bufio.Writer
	b      Block
	rows   int // or fences, in b
	number uint32
	sums   SumOfSums
	fences []uint64
}

// NewWriter returns a writer with a buffer of so many bytes.
func NewWriter(w io.Writer, bufferBytes int) (*Writer, error) {
	bw := &Writer{out: bufio.NewWriterSize(w, bufferBytes), number: 1}
	_, err := bw.out.Write(bw.b[:])
	return bw, err
}

// Place returns the block into which the next row goes and the row's place
// there. fence is what the row would be among the fences. Placed is to follow.
func (w *Writer) Place(fence uint64) (*Block, int) {
	if w.rows == 0 {
		w.fences = append(w.fences, fence)
	}
	return &w.b, w.rows
}

// Placed counts the row that was put where Place said.
func (w *Writer) Placed(perBlock int) error {
	if w.rows++; w.rows < perBlock {
		return nil
	}
	return w.Flush()
}

// Flush seals the block and writes it, if there is a row in it. The next row
// begins another.
func (w *Writer) Flush() error {
	if w.rows == 0 {
		return nil
	}
	w.sums.Add(w.b.Seal(w.number))
	_, err := w.out.Write(w.b[:])
	w.b, w.rows = Block{}, 0
	w.number++
	return err
}

// Finish writes the fences and all that is buffered, and returns what the
// header is to say of the blocks after it. It does not sync.
func (w *Writer) Finish() (SumOfSums, error) {
	if err := w.Flush(); err != nil {
		return 0, err
	}
	for _, v := range w.fences {
		w.b.putFence(w.rows, v)
		if err := w.Placed(FencesPerBlock); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(w.Flush(), w.out.Flush()); err != nil {
		return 0, err
	}
	return w.sums, nil
}
