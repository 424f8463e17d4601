package ext4

import (
	"bytes"
	"io"
	"os"
	"slices"
	"testing"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

// TestCorrupt damages metadata. Where that has checksums, everything must be as
// it was or an error.
func TestCorrupt(t *testing.T) {
	n := 60
	if os.Getenv("HOLDFAST_LONG") == "1" {
		n = 1000
	}
	summed := map[string]bool{"plain": true, "ext4-dirty": true, "large-blocks": true}
	for i, name := range goldens {
		t.Run(name, func(t *testing.T) {
			image := golden(t, name)
			f := openBytes(t, image)
			c := treetest.Corruption{
				Image: bytes.NewReader(image),
				Size:  int64(len(image)),
				Meta:  metadata(t, f, image),
				N:     n,
				Seed:  uint64(i),
				Open:  func(dev io.ReaderAt, size int64) (fs.Tree, error) { return Open(dev, size) },
				Limits: treetest.Limits{
					FileBytes: 64 << 10,
				},
			}
			if summed[name] {
				c.Want = treetest.Snap(t, f, f.Root())
				// Where a journal ends before its end, nobody can tell damage
				// from the moment of the copy.
				c.Meta = outside(t, f, c.Meta)
			}
			treetest.Corrupt(t, c)
		})
	}
}

// metadata is what of an image is neither empty nor data: the contents of files
// and symbolic links have no checksums.
func metadata(t *testing.T, f *FS, image []byte) []treetest.Range {
	data := make(map[int64]bool) // blocks
	block := f.sb.blockBytes()
	err := fs.Walk(t.Context(), f, f.Root(), func(_ string, a fs.Attr, err error) error {
		if err != nil || (a.Type != fs.TypeFile && a.Type != fs.TypeSymlink) {
			return err
		}
		in, err := f.inode(a.ID.Ino)
		if err != nil || in.has(flagInlineData) || (a.Type == fs.TypeSymlink && f.fastLink(&in)) {
			return err
		}
		return f.mapBlocks(&in, 0, maxFileBlocks, func(e extent) bool {
			for i := uint64(0); !e.hole() && i < e.n; i++ {
				data[int64(e.at+i)] = true
			}
			return true
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	var list []treetest.Range
	zero := make([]byte, block)
	for at := int64(0); at+block <= int64(len(image)); at += block {
		if !data[at/block] && !bytes.Equal(image[at:at+block], zero) {
			list = append(list, treetest.Range{Off: at, Len: block})
		}
	}
	return list
}

// outside leaves out what belongs to the journal.
func outside(t *testing.T, f *FS, list []treetest.Range) []treetest.Range {
	if f.sb.compat&compatHasJournal == 0 {
		return list
	}
	j, err := f.openJournal()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list, func(r treetest.Range) bool {
		block := uint64(r.Off) >> f.sb.blockLog
		return slices.ContainsFunc(j.extents, func(e extent) bool { return e.at <= block && block < e.at+e.n })
	})
}
