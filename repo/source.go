package repo

import (
	"errors"
	"fmt"
	"io"
)

// A Source is a disk to back up. image.Disk is one. ReadAt and NextData are
// called from several goroutines at once.
type Source interface {
	// Size is the disk's length in bytes, the same for the whole run.
	Size() int64

	// ReadAt reads as io.ReaderAt has it. Holes read as zeros.
	ReadAt(p []byte, off int64) (int, error)

	// NextData finds the first stretch at or after off that may hold data, from
	// start up to end; between off and start all is zeros. io.EOF when there is
	// no more.
	NextData(off int64) (start, end int64, err error)
}

// readFull fills p from src. A source that ends before its size is
// ErrShortSource.
func readFull(src Source, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends at %d, its size is %d", ErrShortSource, off+int64(n), src.Size())
	}
	return fmt.Errorf("read source at %d: %w", off+int64(n), err)
}
