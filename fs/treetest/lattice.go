package treetest

import (
	"context"
	"fmt"
	"strings"

	"holdfast/fs"
)

// Lattice is a damaged tree: of a chain of directories each has the next under
// two names, "a" and "b", so that two to the power of their number paths lead to
// the file "end" in the last. Whoever reads directories without end gets an error
// that is none of damage.
type Lattice struct {
	*Tree
	reads int
}

// NewLattice makes one of so many directories below the root.
func NewLattice(levels int) *Lattice {
	return &Lattice{Tree: NewTree(Files{strings.Repeat("a/", levels) + "end": {Data: []byte("here")}})}
}

// Lookup finds a directory by either of its names.
func (l *Lattice) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	if name == "b" {
		name = "a"
	}
	return l.Tree.Lookup(ctx, dir, name)
}

// ReadDir has both names.
func (l *Lattice) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	if l.reads++; l.reads > 10000 {
		return fmt.Errorf("directories were read %d times", l.reads)
	}
	if cookie >= 2 {
		return nil
	}
	return l.Tree.ReadDir(ctx, dir, 0, func(e fs.Entry) bool {
		if e.Type != fs.TypeDir {
			e.Cookie = 2
			return fn(e)
		}
		for i, name := range []string{"a", "b"} {
			e.Name, e.Cookie = name, uint64(i+1)
			if e.Cookie > cookie && !fn(e) {
				return false
			}
		}
		return true
	})
}
