package repo

import (
	"context"

	"holdfast/repo/blockmap"
)

// lostChunks returns the chunks of the parent's disk that are known to be damaged:
// the source has them still, and is asked for them whatever a change list says.
// A block map that can't be read is an error, upon which everything is read.
// While no damage is known this costs nothing; else it goes over the whole map.
func (r *run) lostChunks(ctx context.Context, d SourceDisk, parent *parentDisk) ([]Range, error) {
	if r.store.damage.Load() == nil {
		return nil, nil
	}
	geo := r.store.settings.Geometry
	chunks := geo.Chunks(d.Source.Size())
	var lost []Range
	err := blockmap.Walk(ctx, r.nodes, parent.tree(geo), blockmap.Visitor{Leaf: func(at blockmap.Place, l *blockmap.Leaf) error {
		for i, id := range l.Node.Children {
			n := at.First + int64(i)
			if gone, err := r.store.isLost(id); err != nil {
				return err
			} else if gone && n < chunks {
				lost = append(lost, Range{n, 1})
			}
		}
		return nil
	}})
	if len(lost) > 0 {
		r.log.Info("asking again for chunks that are damaged", "machine", r.opt.Machine, "disk", d.Name, "chunks", len(lost))
	}
	return lost, err
}
