package vmdk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

func stream1(t testing.TB, content []byte, workers int) []byte {
	t.Helper()
	var b bytes.Buffer
	opt := StreamOptions{Name: "disk.vmdk", CID: 0x1234abcd, Workers: workers}
	if err := WriteStream(context.Background(), &b, disktest.Memory(content), opt); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var noExtents = Files{
	Extent: func(name string) (Extent, error) { return nil, fmt.Errorf("%q: no such extent", name) },
	Parent: func(name string) (Parent, error) { return nil, fmt.Errorf("%q: no such parent", name) },
}

func openBytes(t testing.TB, b []byte) *Disk {
	t.Helper()
	d, err := Open(bytes.NewReader(b), int64(len(b)), noExtents)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// padded is content as a disk of whole sectors.
func padded(content []byte) []byte {
	return append(bytes.Clone(content), make([]byte, sectorsOf(int64(len(content)))*sectorSize-int64(len(content)))...)
}

var streamDisks = []struct {
	name    string
	content []byte
}{
	{"one sector", bytes.Repeat([]byte("x"), 512)},
	{"one byte", []byte("x")},
	{"odd size", disktest.Pattern(3<<20+12345, 1)},
	{"several tables", disktest.Pattern(34<<20, 2)},
	{"only holes", make([]byte, 33<<20)},
	{"a table without grains", append(make([]byte, 33<<20), disktest.Pattern(300<<10, 3)...)},
}

func TestWriteStream(t *testing.T) {
	for _, tt := range streamDisks {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := stream1(t, tt.content, 3)
			want := padded(tt.content)
			d := openBytes(t, b)
			if got := d.CreateType(); got != "streamOptimized" {
				t.Fatalf("create type is %q", got)
			}
			if len(want) > 600 {
				holes := disktest.Same(t, d, want)
				if least := disktest.Holes(want, streamGrainBytes); holes < least {
					t.Fatalf("%d bytes of holes, want at least %d", holes, least)
				}
			}
			if !bytes.Equal(b, stream1(t, tt.content, 1)) {
				t.Fatal("another number of workers gave other bytes")
			}
		})
	}
}

func TestWriteStreamQemu(t *testing.T) {
	testreq.Need(t, "qemu-img")
	for _, tt := range streamDisks {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			raw, out := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vmdk")
			writeFile(t, raw, padded(tt.content))
			writeFile(t, out, stream1(t, tt.content, 2))
			disktest.Run(t, "qemu-img", "check", "-f", "vmdk", out)
			disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "vmdk", raw, out)
			info := disktest.Run(t, "qemu-img", "info", out)
			for _, want := range []string{"file format: vmdk", "create type: streamOptimized", "cid: 305441741",
				fmt.Sprintf("(%d bytes)", len(padded(tt.content)))} {
				if !strings.Contains(info, want) {
					t.Errorf("qemu-img info does not say %q:\n%s", want, info)
				}
			}
		})
	}
}

// TestWriteStreamGolden: the bytes are a promise, whatever the number of
// workers and the machine.
func TestWriteStreamGolden(t *testing.T) {
	const want = "c613b014302d9521a6d1fb47f3c7bf0fae500ace8332088b64ebfc2044945629"
	got := fmt.Sprintf("%x", sha256.Sum256(stream1(t, disktest.Pattern(5<<20+100, 11), 2)))
	if got != want {
		t.Fatalf("sha256 of the stream is %s, want %s", got, want)
	}
}

// huge is a disk of any size, with data from its start.
type huge struct{ size, data int64 }

func (h huge) Size() int64                             { return h.size }
func (h huge) ReadAt(p []byte, off int64) (int, error) { clear(p); return len(p), nil }
func (h huge) NextData(off int64) (start, end int64, err error) {
	if off >= h.data {
		return 0, 0, io.EOF
	}
	return off, h.data, nil
}

type failing struct {
	left int
	err  error
}

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, f.err
	}
	return len(b), nil
}

func TestWriteStreamRefuses(t *testing.T) {
	const tib = 1 << 40
	tests := []struct {
		name string
		src  Source
		opt  StreamOptions
		err  error
	}{
		{"too large", huge{62*tib + 1, 0}, StreamOptions{Name: "a"}, ErrTooLarge},
		{"too much data", huge{4 * tib, 2 * tib}, StreamOptions{Name: "a"}, ErrTooLarge},
		{"no bytes", huge{0, 0}, StreamOptions{Name: "a"}, nil},
		{"CID of no parent", huge{512, 0}, StreamOptions{Name: "a", CID: noParent}, nil},
		{"no name", huge{512, 0}, StreamOptions{}, nil},
		{"name with a quote", huge{512, 0}, StreamOptions{Name: `a"b`}, nil},
		{"name with a line end", huge{512, 0}, StreamOptions{Name: "a\nRW 1 ZERO"}, nil},
		{"name with a slash", huge{512, 0}, StreamOptions{Name: "../a"}, nil},
		{"level", huge{512, 0}, StreamOptions{Name: "a", Level: 10}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			err := WriteStream(context.Background(), &b, tt.src, tt.opt)
			if err == nil || (tt.err != nil && !errors.Is(err, tt.err)) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
			if b.Len() > 0 {
				t.Fatalf("%d bytes were written before it was refused", b.Len())
			}
		})
	}
}

// TestWriteStreamAtLimit writes a sparse disk of the largest size.
func TestWriteStreamAtLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	var b bytes.Buffer
	if err := WriteStream(context.Background(), &b, huge{maxSizeBytes, 0}, StreamOptions{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	d := openBytes(t, b.Bytes())
	if _, _, err := d.NextData(0); d.Size() != maxSizeBytes || err != io.EOF {
		t.Fatalf("%d bytes, %v; want %d and EOF", d.Size(), err, int64(maxSizeBytes))
	}
}

type badSource struct {
	disktest.Memory
	err error
}

func (s badSource) ReadAt(p []byte, off int64) (int, error) {
	if off > 4<<20 {
		return 0, s.err
	}
	return s.Memory.ReadAt(p, off)
}

func TestWriteStreamStops(t *testing.T) {
	content := bytes.Repeat([]byte("some bytes"), 1<<20)
	opt := StreamOptions{Name: "a", Workers: 3}
	full := errors.New("no space")
	for _, left := range []int{0, 100, 70 << 10, 100 << 10} {
		if err := WriteStream(context.Background(), &failing{left, full}, disktest.Memory(content), opt); !errors.Is(err, full) {
			t.Errorf("writer with %d bytes left: %v, want %v", left, err, full)
		}
	}
	sick := errors.New("bad sector")
	if err := WriteStream(context.Background(), io.Discard, badSource{content, sick}, opt); !errors.Is(err, sick) {
		t.Errorf("source that fails: %v, want %v", err, sick)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := WriteStream(ctx, io.Discard, disktest.Memory(content), opt); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want %v", err, context.Canceled)
	}
}

func TestFlatDescriptor(t *testing.T) {
	const want = `# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=0000002a
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 2049 FLAT "db 1-flat.vmdk" 0

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "1"
ddb.geometry.heads = "64"
ddb.geometry.sectors = "32"
ddb.virtualHWVersion = "10"
`
	got, err := FlatDescriptor("db 1.vmdk", 1<<20+1, 42)
	if err != nil || string(got) != want {
		t.Fatalf("got %v\n%s\nwant\n%s", err, got, want)
	}
	for _, size := range []int64{0, -1, maxSizeBytes + 1} {
		if _, err := FlatDescriptor("a.vmdk", size, 1); err == nil {
			t.Errorf("a disk of %d bytes was accepted", size)
		}
	}
}

func TestFlatDescriptorQemu(t *testing.T) {
	testreq.Need(t, "qemu-img")
	dir := t.TempDir()
	want := disktest.Pattern(1<<20+100, 4)
	raw, out := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vmdk")
	writeFile(t, raw, padded(want))
	writeFile(t, filepath.Join(dir, FlatExtentName("disk.vmdk")), padded(want))
	if got := FlatExtentBytes(int64(len(want))); got != int64(len(padded(want))) {
		t.Fatalf("the extent has %d bytes, want %d", got, len(padded(want)))
	}
	text, err := FlatDescriptor("disk.vmdk", int64(len(want)), 7)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, out, text)
	disktest.Run(t, "qemu-img", "check", "-f", "vmdk", out)
	disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "vmdk", raw, out)
}

func TestGeometry(t *testing.T) {
	tests := []struct{ sectors, cylinders, heads, perTrack int64 }{
		{1, 1, 64, 32},
		{1 << 20, 512, 64, 32},
		{1 << 21, 512, 128, 32},
		{1 << 22, 261, 255, 63},
		{1 << 31, 133674, 255, 63},
	}
	for _, tt := range tests {
		c, h, s := geometry(tt.sectors)
		if c != tt.cylinders || h != tt.heads || s != tt.perTrack {
			t.Errorf("%d sectors are %d/%d/%d, want %d/%d/%d", tt.sectors, c, h, s, tt.cylinders, tt.heads, tt.perTrack)
		}
	}
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
