package vmdk

import (
	"fmt"
	"io"

	"holdfast/image/internal/fault"
)

// sparseKinds are the kinds of extent that have tables.
var sparseKinds = map[string]func(ra io.ReaderAt, size int64, c *caches) (*sparse, error){
	"SPARSE":     openHosted,
	"VMFSSPARSE": openCOWD,
	"SESPARSE":   openSeSparse,
}

// view shows the part of f that the line speaks of, and what lies below it where
// it may be absent.
func (line extentLine) view(f Extent, parent *below, c *caches) (blocks, error) {
	sizeBytes := line.sectors * sectorSize
	if open := sparseKinds[line.kind]; open != nil {
		sp, err := open(f, f.Size(), c)
		if err != nil {
			return nil, err
		}
		if sp.sizeBytes < sizeBytes {
			return nil, fmt.Errorf("%w: the extent has %d sectors, the descriptor says %d",
				fault.ErrDamaged, sp.sizeBytes/sectorSize, line.sectors)
		}
		return window{sp.over(parent), 0, sizeBytes}, nil
	}
	if have := f.Size() / sectorSize; have < line.offset || have-line.offset < line.sectors {
		return nil, fmt.Errorf("%w: it has %d sectors, the descriptor speaks of %d from %d",
			fault.ErrTruncated, have, line.sectors, line.offset)
	}
	return window{f, line.offset * sectorSize, sizeBytes}, nil
}

// window is the size bytes of src from base.
type window struct {
	src        blocks
	base, size int64
}

// ReadAt is called for what lies in the window only.
func (w window) ReadAt(p []byte, off int64) (int, error) { return w.src.ReadAt(p, w.base+off) }

func (w window) NextData(off int64) (start, end int64, err error) {
	start, end, err = w.src.NextData(w.base + off)
	if err != nil {
		return 0, 0, err
	}
	if start -= w.base; start >= w.size {
		return 0, 0, io.EOF
	}
	return start, min(end-w.base, w.size), nil
}
