package compare

import (
	"cmp"
	"context"
	"slices"

	"holdfast/fs"
)

// streams says whether the alternate streams of two objects differ, in names or
// content. No time is trusted to tell: NTFS writes it when a stream is closed,
// and not even then if a program wants it so.
func (c *comparer) streams(ctx context.Context, at [2]*fs.Attr) (bool, error) {
	var lists [2][]fs.Stream
	for i, s := range c.sides {
		t, ok := s.Tree.(fs.StreamTree)
		if !ok {
			continue
		}
		list, err := t.Streams(ctx, at[i].ID)
		if err != nil {
			return false, err
		}
		slices.SortFunc(list, func(a, b fs.Stream) int { return cmp.Compare(a.Name, b.Name) })
		lists[i] = list
	}
	a, b := lists[0], lists[1]
	if !slices.EqualFunc(a, b, func(a, b fs.Stream) bool { return a.Name == b.Name && a.Size == b.Size }) {
		return true, nil
	}
	for i := range a {
		pair := [2]*fs.Attr{{ID: a[i].ID, Size: a[i].Size}, {ID: b[i].ID, Size: b[i].Size}}
		if differ, err := c.bytes(ctx, pair); differ || err != nil {
			return differ, err
		}
	}
	return false, nil
}
