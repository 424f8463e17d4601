package recovery

import (
	"fmt"
	"io"

	"holdfast/fs"
)

// gone stands for the base of a disk that has been migrated, of which nothing is
// read any more.
type gone int64

func (g gone) Size() int64 { return int64(g) }

func (g gone) ReadAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("%w: the restore point below a migrated disk", fs.ErrStale)
}

func (g gone) NextData(off int64) (start, end int64, err error) {
	if off >= int64(g) {
		return 0, 0, io.EOF
	}
	return off, int64(g), nil
}
