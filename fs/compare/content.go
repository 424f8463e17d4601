package compare

import (
	"bytes"
	"context"
	"fmt"

	"holdfast/fs"
)

// batch is how many extents are asked for at a time.
const batch = 512

// bufferBytes is how much of each side is read at a time: not much more than the
// unit in which a repository knows what is the same.
const bufferBytes = 128 << 10

// cursor goes over the extents of a file.
type cursor struct {
	t    fs.Tree
	a    *fs.Attr
	list []fs.Extent
}

// at returns the extent that begins at off, which never falls.
func (c *cursor) at(ctx context.Context, off int64) (fs.Extent, error) {
	for len(c.list) > 0 {
		e := c.list[0]
		if skip := off - e.Off; skip < e.Len {
			e.Off, e.Len, e.At = off, e.Len-skip, e.At+skip
			return e, nil
		}
		c.list = c.list[1:]
	}
	list, err := c.t.Extents(ctx, c.a.ID, off, batch)
	if err != nil && !isEnd(err) {
		return fs.Extent{}, err
	}
	if len(list) == 0 || list[0].Off != off || list[0].Len <= 0 {
		return fs.Extent{}, fmt.Errorf("ends at %d of %d bytes: %w", off, c.a.Size, fs.ErrDamaged)
	}
	c.list = list
	return list[0], nil
}

// bytes says whether two files of one size differ in content.
func (c *comparer) bytes(ctx context.Context, at [2]*fs.Attr) (bool, error) {
	var cur [2]cursor
	for i := range cur {
		cur[i] = cursor{t: c.sides[i].Tree, a: at[i]}
	}
	for off := int64(0); off < at[0].Size; {
		a, err := cur[0].at(ctx, off)
		if err != nil {
			return false, err
		}
		b, err := cur[1].at(ctx, off)
		if err != nil {
			return false, err
		}
		n := min(a.Len, b.Len, at[0].Size-off)
		if same := c.same(a, b, n); same > 0 {
			n = same
		} else {
			n = min(n, bufferBytes)
			if differ, err := c.stretch(ctx, at, off, n); differ || err != nil {
				return differ, err
			}
		}
		off += n
	}
	return false, nil
}

// same says how many of the first n bytes of two extents are known to be equal.
func (c *comparer) same(a, b fs.Extent, n int64) int64 {
	switch {
	case a.Kind != b.Kind:
		return 0
	case a.Kind == fs.Hole:
		return n
	case a.Kind == fs.Stored && a.At == b.At && c.opt.Same != nil:
		return min(n, c.opt.Same(a.At, n))
	}
	return 0
}

// stretch compares n bytes of two files by reading them.
func (c *comparer) stretch(ctx context.Context, at [2]*fs.Attr, off, n int64) (bool, error) {
	for i, s := range c.sides {
		if c.bufs[i] == nil {
			c.bufs[i] = make([]byte, bufferBytes)
		}
		got, err := s.Tree.ReadAt(ctx, at[i].ID, c.bufs[i][:n], off)
		if int64(got) < n {
			if err == nil || isEnd(err) {
				err = fmt.Errorf("ends at byte %d: %w", off+int64(got), fs.ErrDamaged)
			}
			return false, err
		}
	}
	c.n.ReadBytes += n
	if c.opt.Progress != nil {
		c.opt.Progress(c.n)
	}
	return !bytes.Equal(c.bufs[0][:n], c.bufs[1][:n]), nil
}
