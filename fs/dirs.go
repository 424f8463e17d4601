package fs

import "fmt"

// maxDepth is how deep directories are followed. Linux stops at paths of 4,096
// bytes for one call; real trees are a few dozen deep.
const maxDepth = 4096

// Dirs are the directories that somebody who goes through a tree has been in.
// Each has one name. Where damage leads to one a second time it may be its own
// ancestor, and names would never end, or stand below two others, and with few of
// those there are more paths than anybody can walk. The zero value has none.
type Dirs struct {
	seen map[ID]struct{}
}

// Enter notes that a directory, depth below where it began, is gone into. If it
// must not be, the error wraps ErrDamaged.
func (d *Dirs) Enter(dir ID, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directory is more than %d deep: %w", maxDepth, ErrDamaged)
	}
	if _, again := d.seen[dir]; again {
		return fmt.Errorf("directory has another name, under which it was read: %w", ErrDamaged)
	}
	if d.seen == nil {
		d.seen = make(map[ID]struct{})
	}
	d.seen[dir] = struct{}{}
	return nil
}
