package fat

import (
	"context"
	"fmt"

	"holdfast/fs"
)

// Lookup finds a name as FAT does: without regard to case, and by the short
// name that a file with a long one also has. A name spelled exactly so comes
// first.
func (f *FS) Lookup(ctx context.Context, id fs.ID, name string) (fs.Attr, error) {
	fo, err := f.dirs.folder(ctx, id)
	if err != nil {
		return fs.Attr{}, fmt.Errorf("look up %q: %w", name, err)
	}
	switch name {
	case ".":
		return f.Attr(ctx, id)
	case "..":
		return f.Attr(ctx, fs.ID{Ino: fo.d.parent.ino})
	}
	if i := fo.find(name); i >= 0 {
		return f.attr(fo.ino(i), fo.slot(i)), nil
	}
	err = fs.ErrNotFound
	if fo.err != nil { // it may have been there
		err = fo.err
	}
	return fs.Attr{}, fmt.Errorf("look up %q in directory %d: %w", name, id.Ino, err)
}

// ReadDir lists a directory in the order of its slots. A cookie is the number
// of the slot behind an entry's own.
func (f *FS) ReadDir(ctx context.Context, id fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	fo, err := f.dirs.folder(ctx, id)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	for i := min(cookie, uint64(fo.slots())); i < uint64(fo.slots()); i++ {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !fo.shown(int(i)) {
			continue
		}
		a := f.attr(fo.ino(int(i)), fo.slot(int(i)))
		if !fn(fs.Entry{Name: fo.name(int(i)), ID: a.ID, Type: a.Type, Cookie: i + 1, Attr: &a}) {
			return nil
		}
	}
	if fo.err != nil {
		return fmt.Errorf("read directory %d: %w", id.Ino, fo.err)
	}
	return nil
}

// findLabel returns the volume's label: of the root directory's own slot for
// it, or else as the boot sector has it.
func (f *FS) findLabel() (string, error) {
	fo, err := f.dirs.folder(context.Background(), f.Root())
	if err != nil {
		return "", err
	}
	for i := range fo.slots() {
		s := fo.slot(i)
		if s[0] != slotDeleted && !isLong(s) && s[11]&(attrLabel|attrDir) == attrLabel {
			return labelName(s[:11]), nil
		}
	}
	return f.g.label, nil
}
