package refcount

import (
	"holdfast/repo/blockfile"
	"holdfast/repo/vfs"
)

// writer writes a file from front to back: rows, fences, and at last the
// header.
type writer struct {
	f    vfs.File
	out  *blockfile.Writer
	head header
}

const writeBytes = 64 << 10

func newWriter(f vfs.File, number uint64) (*writer, error) {
	out, err := blockfile.NewWriter(f, writeBytes)
	return &writer{f: f, out: out, head: header{number: number}}, err
}

// row adds the next row.
func (w *writer) row(r row) error {
	b, i := w.out.Place(r.fence())
	putRow(b, i, r)
	w.head.rows++
	return w.out.Placed(rowsPerBlock)
}

// finish writes fences and header. It does not sync.
func (w *writer) finish() error {
	sums, err := w.out.Finish()
	if err != nil {
		return err
	}
	w.head.sum = uint32(sums)
	_, err = w.f.WriteAt(w.head.encode()[:], 0)
	return err
}
