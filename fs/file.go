package fs

import (
	"context"
	"io"
)

// File returns a regular file of a tree, or a stream, as an io.ReaderAt with a
// size. ctx bounds all its reads. Safe for concurrent use, as the tree is.
func File(ctx context.Context, t Tree, a Attr) *io.SectionReader {
	return io.NewSectionReader(fileAt{ctx, t, a.ID}, 0, a.Size)
}

type fileAt struct {
	ctx  context.Context // of the value's whole life, which is one use of the file
	tree Tree
	id   ID
}

func (f fileAt) ReadAt(p []byte, off int64) (int, error) {
	return f.tree.ReadAt(f.ctx, f.id, p, off)
}

// NextData finds the first stretch of a regular file at or after off that is
// not a hole: from start up to end. It may be told in parts. io.EOF when there
// is none.
func NextData(ctx context.Context, t Tree, id ID, off int64) (start, end int64, err error) {
	const batch = 64
	for {
		extents, err := t.Extents(ctx, id, off, batch)
		if err != nil {
			return 0, 0, err
		}
		for i, e := range extents {
			if e.Kind == Hole {
				off = e.Off + e.Len
				continue
			}
			end := e.Off + e.Len
			for _, next := range extents[i+1:] {
				if next.Kind == Hole {
					break
				}
				end = next.Off + next.Len
			}
			return e.Off, end, nil
		}
	}
}
