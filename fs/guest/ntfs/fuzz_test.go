package ntfs_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"holdfast/fs"
	"holdfast/fs/guest/ntfs"
)

// FuzzOpen opens the sample volume after changes, of an offset, a length and
// bytes each, walks over what is in it and reads. It hits records and index
// blocks only: each change names one of them and a place in it.
func FuzzOpen(f *testing.F) {
	whole, err := sample()
	if err != nil {
		f.Fatal(err)
	}
	places := metadata(whole)
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0x0d, 1, 8})               // boot sector: larger clusters
	f.Add([]byte{0, 1, 0, 0x18, 1, 0x80})            // record 0: bytes in use
	f.Add([]byte{0, 6, 0, 0x98, 4, 1, 2, 3, 4})      // root directory
	f.Add([]byte{0, 70, 1, 0x00, 2, 0xff, 0xff})     // attributes of some file
	f.Add([]byte{0, 200, 0, 0x40, 3, 0xff, 0, 0xff}) // an index block, perhaps
	f.Fuzz(func(t *testing.T, changes []byte) {
		b := bytes.Clone(whole)
		for len(changes) > 5 {
			place := places[(int(changes[0])<<8|int(changes[1]))%len(places)]
			off := place.Off + int64(int(changes[2])<<8|int(changes[3]))%place.Len
			n := min(int(changes[4])%16, len(changes)-5)
			copy(b[off:], changes[5:5+n])
			changes = changes[5+n:]
		}
		visit(t, b)
	})
}

// FuzzBoot opens whatever bytes.
func FuzzBoot(f *testing.F) {
	whole, err := sample()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:512])
	f.Add([]byte("\xeb\x52\x90NTFS    "))
	f.Fuzz(visit)
}

// visit walks over a volume and reads the beginning and the middle of all.
func visit(t *testing.T, b []byte) {
	dev := bytes.NewReader(b)
	tree, err := ntfs.Open(dev, dev.Size())
	if err != nil {
		return
	}
	if !ntfs.Detect(dev, dev.Size()) && len(tree.Notes()) == 0 {
		t.Fatal("opened, but not detected")
	}
	ctx, count := context.Background(), 0
	p := make([]byte, 5000)
	_ = fs.Walk(ctx, tree, tree.Root(), func(_ string, a fs.Attr, err error) error {
		if count++; count > 300 {
			return io.EOF
		}
		if err != nil {
			return nil
		}
		_, _ = tree.ReadLink(ctx, a.ID)
		_, _ = tree.Extents(ctx, a.ID, 0, 10)
		_, _ = tree.Xattrs(ctx, a.ID)
		_, _ = tree.Lookup(ctx, a.ID, "linked")
		streams, _ := tree.Streams(ctx, a.ID)
		for _, s := range append(streams, fs.Stream{ID: a.ID, Size: a.Size}) {
			for _, off := range []int64{0, s.Size / 2} {
				n, err := tree.ReadAt(ctx, s.ID, p, off)
				if a.Type == fs.TypeFile && n < len(p) && off+int64(n) < s.Size && (err == nil || err == io.EOF) {
					t.Fatalf("%d bytes at %d of %d, %v", n, off, s.Size, err)
				}
			}
		}
		return nil
	})
	_, _ = tree.StatFS(ctx, tree.Root())
}
