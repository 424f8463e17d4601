package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

const (
	manyDirs = 60
	perDir   = 20 // files
)

// manyFiles is a tree of directories in directories, files before and behind them.
func manyFiles() *treetest.Tree {
	files := treetest.Files{}
	dir := ""
	for d := range manyDirs {
		for i := range perDir {
			files[fmt.Sprintf("%s%c-%d", dir, 'a'+i, d)] = treetest.File{Data: bytes.Repeat([]byte{byte(d), byte(i)}, 3000)}
		}
		if d%7 == 6 {
			dir = ""
		}
		dir += fmt.Sprintf("k-dir%d/", d)
	}
	return treetest.NewTree(files)
}

// trap is a tree with a file that ends whoever asks where it lies.
type trap struct{ *treetest.Tree }

func (t trap) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	trapped, err := fs.Resolve(ctx, t.Tree, t.Root(), "k-dir0/c-1", false)
	if err != nil || trapped.ID == id {
		os.Exit(3)
	}
	return t.Tree.Extents(ctx, id, off, n)
}

// asked counts the questions to the process.
func asked(c *Child) uint64 {
	c.mu.Lock()
	k := c.live
	c.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.next
}

// TestAhead reads all files of a tree in its order, with a few questions for each
// directory, and then some in no order, for which nothing else is asked.
func TestAhead(t *testing.T) {
	d := memDisk(deviceOf(t, manyFiles()))
	c := start(t, Options{Command: []string{self, sampleVerb}})
	tree := open(t, c, d, volume(d, "many"))
	before := asked(c)
	var all []fs.Attr
	read := func(path string, a fs.Attr) error {
		name := path[strings.LastIndexByte(path, '/')+1:]
		p := make([]byte, a.Size)
		if n, err := tree.ReadAt(t.Context(), a.ID, p, 0); int64(n) != a.Size {
			return fmt.Errorf("%s: %d bytes, %w", path, n, err)
		}
		if a.Size != 6000 || p[1] != name[0]-'a' || fmt.Sprint(p[0]) != name[2:] || !bytes.Equal(p, bytes.Repeat(p[:2], 3000)) {
			return fmt.Errorf("%s has other bytes", path)
		}
		return nil
	}
	names := map[fs.ID]string{}
	err := fs.Walk(t.Context(), tree, tree.Root(), func(path string, a fs.Attr, err error) error {
		if err != nil || a.Type != fs.TypeFile {
			return err
		}
		all, names[a.ID] = append(all, a), path
		return read(path, a)
	})
	if err != nil || len(all) != manyDirs*perDir {
		t.Fatalf("%d files, %v", len(all), err)
	}
	if n := asked(c) - before; n > 3*manyDirs {
		t.Errorf("%d questions for %d files in %d directories", n, len(all), manyDirs)
	}

	again := open(t, c, d, volume(d, "many"))
	err = fs.Walk(t.Context(), again, again.Root(), func(string, fs.Attr, error) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	tree = again
	rng := rand.New(rand.NewPCG(1, 1))
	const some = 100
	for range some {
		a := all[rng.IntN(len(all))]
		if err := read(names[a.ID], a); err != nil {
			t.Fatal(err)
		}
	}
	in := treeOf(t, again)
	in.extents.mu.Lock()
	defer in.extents.mu.Unlock()
	if n := in.extents.order.Len(); n > 2*some {
		t.Errorf("the places of %d files are known after %d were read", n, some)
	}
}

// TestTrap: a file that ends the process is nobody else's ruin.
func TestTrap(t *testing.T) {
	d := memDisk(deviceOf(t, manyFiles()))
	tree := open(t, start(t, Options{Command: []string{self, sampleVerb}}), d, volume(d, "trap"))
	failed := 0
	err := fs.Walk(t.Context(), tree, tree.Root(), func(path string, a fs.Attr, err error) error {
		if err != nil || a.Type != fs.TypeFile {
			return err
		}
		p := make([]byte, a.Size)
		if _, err = tree.ReadAt(t.Context(), a.ID, p, 0); err != nil && path == "k-dir0/c-1" {
			failed++
			if errors.Is(err, fs.ErrRetry) || errors.Is(err, fs.ErrDamaged) {
				return nil
			}
		}
		return err
	})
	if err != nil || failed != 1 {
		t.Errorf("%v, %d files failed, want 1", err, failed)
	}
}

func deviceOf(t *testing.T, tree *treetest.Tree) []byte {
	t.Helper()
	dev, err := io.ReadAll(tree.Device())
	if err != nil {
		t.Fatal(err)
	}
	return append(make([]byte, 4096), dev...)
}

// treeOf is a tree without what it can do beside.
func treeOf(t *testing.T, of fs.Tree) *tree {
	t.Helper()
	switch v := of.(type) {
	case struct {
		*tree
		xattrs
		streams
		notes
	}:
		return v.tree
	}
	t.Fatalf("it is a %T", of)
	return nil
}
