package ntfs_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"holdfast/fs"
	"holdfast/fs/guest/ntfs"
)

// FuzzOpen opens whatever bytes, walks over what is in them and reads.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("\xeb\x52\x90NTFS    "))
	f.Fuzz(func(t *testing.T, b []byte) {
		dev := bytes.NewReader(b)
		tree, err := ntfs.Open(dev, dev.Size())
		if err != nil {
			return
		}
		if !ntfs.Detect(dev, dev.Size()) && len(tree.Notes()) == 0 {
			t.Fatal("opened, but not detected")
		}
		ctx, count := context.Background(), 0
		_ = fs.Walk(ctx, tree, tree.Root(), func(_ string, a fs.Attr, err error) error {
			if count++; count > 200 {
				return io.EOF
			}
			if err != nil {
				return nil
			}
			_, _ = tree.ReadLink(ctx, a.ID)
			_, _ = tree.Extents(ctx, a.ID, 0, 10)
			_, _ = tree.Streams(ctx, a.ID)
			_, _ = tree.Xattrs(ctx, a.ID)
			p := make([]byte, 5000)
			for _, off := range []int64{0, a.Size / 2} {
				n, err := tree.ReadAt(ctx, a.ID, p, off)
				if a.Type == fs.TypeFile && n < len(p) && off+int64(n) < a.Size && (err == nil || err == io.EOF) {
					t.Fatalf("%d bytes at %d of %d, %v", n, off, a.Size, err)
				}
			}
			return nil
		})
		_, _ = tree.StatFS(ctx, tree.Root())
	})
}
