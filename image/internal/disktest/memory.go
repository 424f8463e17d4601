package disktest

import (
	"bytes"
	"io"
)

// Memory is a disk in memory. Blocks of 4 KiB that hold only zeros are its
// holes.
type Memory []byte

// Size is the length of the disk.
func (m Memory) Size() int64 { return int64(len(m)) }

// Close does nothing.
func (m Memory) Close() error { return nil }

// ReadAt reads from the bytes.
func (m Memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

// NextData finds the next run of blocks that are not all zeros.
func (m Memory) NextData(off int64) (start, end int64, err error) {
	const block = 4096
	size := int64(len(m))
	hole := func(at int64) bool { return Holes(m[at:min(at/block*block+block, size)], block) > 0 }
	for start = off; start < size && hole(start); {
		start = start/block*block + block
	}
	if start >= size {
		return 0, 0, io.EOF
	}
	for end = start; end < size && !hole(end); {
		end = end/block*block + block
	}
	return start, min(end, size), nil
}
