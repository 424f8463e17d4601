package ntfs_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
	"holdfast/fs/guest/ntfs"
	"holdfast/fs/treetest"
)

var update = flag.Bool("update", false, "make the sample volume and the golden files anew; needs root and programs")

// sample returns a small volume with a bit of everything, made by TestUpdate. It
// is kept as differences of its 16-bit words, gzipped: the table of capitals then
// takes next to nothing.
var sample = sync.OnceValues(func() ([]byte, error) {
	packed, err := os.ReadFile("testdata/sample.gz")
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	last := uint16(0)
	for i := 0; i+1 < len(b); i += 2 {
		last += binary.LittleEndian.Uint16(b[i:])
		binary.LittleEndian.PutUint16(b[i:], last)
	}
	return b, err
})

func packSample(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	diff := make([]byte, len(b))
	last := uint16(0)
	for i := 0; i+1 < len(b); i += 2 {
		v := binary.LittleEndian.Uint16(b[i:])
		binary.LittleEndian.PutUint16(diff[i:], v-last)
		last = v
	}
	if _, err := w.Write(diff); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func openBytes(tb testing.TB, b []byte) *ntfs.FS {
	tb.Helper()
	f, err := ntfs.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// listing is what is known of every path of a tree, as text.
func listing(tb testing.TB, f *ntfs.FS) string {
	snap := treetest.Snap(tb, f, f.Root())
	var out strings.Builder
	for _, note := range f.Notes() {
		fmt.Fprintf(&out, "note %s\n", note)
	}
	for _, path := range snap.Paths() {
		n := snap.Nodes[path]
		fmt.Fprintf(&out, "%q %v %#o %d:%d links %d size %d used %d\n\t%v %v %v %v\n",
			path, n.Type, n.Perm, n.UID, n.GID, n.Nlink, n.Size, n.Used, n.Atime, n.Mtime, n.Ctime, n.Btime)
		for _, s := range []struct{ what, value string }{{"target", n.Target}, {"sum", n.Sum}} {
			if s.value != "" {
				fmt.Fprintf(&out, "\t%s %q\n", s.what, s.value)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
			fmt.Fprintf(&out, "\t%s of %d bytes, CRC %08x\n", name, len(n.Xattrs[name]), crc32.ChecksumIEEE([]byte(n.Xattrs[name])))
		}
		for _, name := range slices.Sorted(maps.Keys(n.Streams)) {
			fmt.Fprintf(&out, "\tstream %q %+v\n", name, n.Streams[name])
		}
	}
	return out.String()
}

func TestSample(t *testing.T) {
	b, err := sample()
	must(t, err)
	f := openBytes(t, b)
	if !ntfs.Detect(bytes.NewReader(b), int64(len(b))) {
		t.Error("not detected")
	}
	got := listing(t, f)
	if *update {
		must(t, os.WriteFile("testdata/sample.txt", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/sample.txt")
	must(t, err)
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	treetest.Conform(t, f, treetest.Options{Device: bytes.NewReader(b), Seed: 7, Reopen: func() (fs.Tree, error) {
		return ntfs.Open(bytes.NewReader(b), int64(len(b)))
	}})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// find describes a path of the volume.
func find(tb testing.TB, f *ntfs.FS, path string) fs.Attr {
	tb.Helper()
	a, err := fs.Resolve(tb.Context(), f, f.Root(), path, false)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func contents(tb testing.TB, f *ntfs.FS, path string) ([]byte, error) {
	tb.Helper()
	return io.ReadAll(fs.File(tb.Context(), f, find(tb, f, path)))
}

func utf16le(s string) []byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}
