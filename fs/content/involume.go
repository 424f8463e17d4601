package content

import (
	"context"
	"fmt"

	"holdfast/fs"
)

// inVolume is an inode of a guest's file system. It has its own number there,
// and here that of its volume beside it.
type inVolume struct {
	t   *Tree
	p   *point
	key volumeKey
	id  fs.ID
}

// there is the inode as the guest's file system has it.
func (v *inVolume) there() fs.ID { return fs.ID{Ino: v.id.Ino} }

// here is an inode of the guest's file system as this tree has it.
func (v *inVolume) here(id fs.ID) fs.ID { return fs.ID{FS: v.id.FS, Ino: id.Ino} }

func (v *inVolume) attrHere(a fs.Attr) fs.Attr {
	a.ID, a.Fixed = v.here(a.ID), true
	return a
}

// with calls fn with the open volume.
func (v *inVolume) with(ctx context.Context, fn func(*openVolume) error) error {
	if v.p.gone && !v.t.points.has(v.p.ID) {
		return fmt.Errorf("point %s: %w", v.p.ID, fs.ErrStale)
	}
	open, release, err := v.t.volumes.acquire(ctx, v.key)
	if err != nil {
		return err
	}
	defer release()
	return fn(open)
}

func (v *inVolume) attr(ctx context.Context) (a fs.Attr, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		a, err = o.tree.Attr(ctx, v.there())
		a = v.attrHere(a)
		return err
	})
	return a, err
}

func (v *inVolume) lookup(ctx context.Context, name string) (a fs.Attr, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		if name == ".." && v.id.Ino == o.root {
			a, err = v.t.Attr(ctx, v.p.id(diskIno(v.key.disk, inoVolumes)))
			return err
		}
		a, err = o.tree.Lookup(ctx, v.there(), name)
		a = v.attrHere(a)
		return err
	})
	return a, err
}

func (v *inVolume) readDir(ctx context.Context, cookie uint64, fn func(fs.Entry) bool) error {
	return v.with(ctx, func(o *openVolume) error {
		return o.tree.ReadDir(ctx, v.there(), cookie, func(e fs.Entry) bool {
			e.ID = v.here(e.ID)
			if e.Attr != nil {
				a := v.attrHere(*e.Attr)
				e.Attr = &a
			}
			return fn(e)
		})
	})
}

func (v *inVolume) readLink(ctx context.Context) (target string, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		target, err = o.tree.ReadLink(ctx, v.there())
		return err
	})
	return target, err
}

func (v *inVolume) readAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		n, err = o.tree.ReadAt(ctx, v.there(), p, off)
		return err
	})
	return n, err
}

func (v *inVolume) extents(ctx context.Context, off int64, n int) (list []fs.Extent, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		list, err = o.tree.Extents(ctx, v.there(), off, n)
		return err
	})
	for i := range list {
		if list[i].Kind == fs.Stored { // on a device that nobody sees here
			list[i].Kind, list[i].At = fs.Made, 0
		}
	}
	return list, err
}

func (v *inVolume) statFS(ctx context.Context) (s fs.StatFS, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		s, err = o.tree.StatFS(ctx, v.there())
		return err
	})
	return s, err
}

func (v *inVolume) xattrs(ctx context.Context) (names []string, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		if x, ok := o.tree.(fs.XattrTree); ok {
			names, err = x.Xattrs(ctx, v.there())
		}
		return err
	})
	return names, err
}

func (v *inVolume) xattr(ctx context.Context, name string) (value []byte, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		x, ok := o.tree.(fs.XattrTree)
		if !ok {
			_, err = o.tree.Attr(ctx, v.there())
			if err == nil {
				err = fmt.Errorf("%q: %w", name, fs.ErrNoXattr)
			}
			return err
		}
		value, err = x.Xattr(ctx, v.there(), name)
		return err
	})
	return value, err
}

func (v *inVolume) streams(ctx context.Context) (list []fs.Stream, err error) {
	err = v.with(ctx, func(o *openVolume) error {
		if s, ok := o.tree.(fs.StreamTree); ok {
			list, err = s.Streams(ctx, v.there())
		}
		return err
	})
	for i := range list {
		list[i].ID = v.here(list[i].ID)
	}
	return list, err
}
