package image_test

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/image"
	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	outside := write(t, filepath.Join(t.TempDir(), "secret.raw"), make([]byte, 1<<20))
	if err := os.Symlink(outside, filepath.Join(dir, "link.raw")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.raw"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "short.raw"), make([]byte, 1000))
	write(t, filepath.Join(dir, "alone.vmdk"), vmdkText("custom", "RW 8 ZERO"))
	write(t, filepath.Join(dir, "sick.vmdk"), vmdkText("custom", `RW 8 FLAT "gone.raw" 0`))
	write(t, filepath.Join(dir, "other.qcow2"), append([]byte("QFI\xfb"), make([]byte, 4096)...))
	delta := func(parent string, cid int) []byte { return deltaText("custom", parent, cid, "RW 8 ZERO") }
	flat := func(file string) []byte { return vmdkText("monolithicFlat", `RW 2048 FLAT "`+file+`" 0`) }
	sector := func(magic string) []byte { return append([]byte(magic), make([]byte, 4096)...) }
	tests := []struct {
		name    string
		content []byte
		err     error
		says    string
	}{
		{"extent with an absolute name", flat(outside), image.ErrOutside, "absolute name"},
		{"extent with ..", flat("../secret.raw"), image.ErrOutside, `".."`},
		{"extent with .. inside", flat("a/../b.raw"), image.ErrOutside, `".."`},
		{"extent by a symbolic link", flat("link.raw"), image.ErrOutside, "symbolic link"},
		{"extent is a FIFO", flat("fifo"), fs.ErrInvalid, "neither a regular file"},
		{"extent is a directory", flat("dir.raw"), fs.ErrInvalid, "neither a regular file"},
		{"extent is missing", flat("none.raw"), fs.ErrNotExist, `"none.raw"`},
		{"extent without a name", flat(""), image.ErrDamaged, ""},
		{"extent is the descriptor", flat("disk"), image.ErrCycle, ""},
		{"extent too short", flat("short.raw"), image.ErrTruncated, "1 sectors"},
		{"extent far too long", vmdkText("monolithicFlat", `RW 9007199254740992 FLAT "short.raw" 0`), image.ErrDamaged, ""},
		{"extents that overflow", vmdkText("x", `RW 2000000000000 ZERO`, `RW 2000000000000 ZERO`), image.ErrDamaged, ""},
		{"extent beyond any number", vmdkText("x", `RW 99999999999999999999 ZERO`), image.ErrDamaged, ""},
		{"extent of a raw device", vmdkText("vmfsRawDeviceMap", `RW 8 VMFSRDM "short.raw"`), image.ErrUnsupported, "VMFSRDM"},
		{"extent of no access", vmdkText("x", `NOACCESS 8 ZERO`), image.ErrUnsupported, "no access"},
		{"extent not sparse", vmdkText("x", `RW 8 SPARSE "short.raw"`), image.ErrDamaged, ""},
		{"no extents", vmdkText("monolithicFlat"), image.ErrDamaged, "no extents"},
		{"no create type", []byte("# Disk DescriptorFile\nRW 8 ZERO\n"), image.ErrDamaged, "createType"},
		{"parent with an absolute name", delta(outside, 7), image.ErrOutside, "absolute name"},
		{"parent with ..", delta("../secret.raw", 7), image.ErrOutside, `".."`},
		{"parent by a symbolic link", delta("link.raw", 7), image.ErrOutside, "symbolic link"},
		{"parent is missing", delta("none.vmdk", 7), fs.ErrNotExist, `parent "none.vmdk"`},
		{"parent without a name", delta("", 7), image.ErrDamaged, "CID 00000007"},
		{"parent is itself", delta("disk", 7), image.ErrCycle, ""},
		{"parent is no VMDK", delta("short.raw", 7), image.ErrDamaged, `parent "short.raw"`},
		{"parent is a qcow2", delta("other.qcow2", 7), image.ErrDamaged, `parent "other.qcow2"`},
		{"parent was changed", delta("alone.vmdk", 7), image.ErrDamaged, "its CID is 12345678 and was 00000007"},
		{"parent cannot be opened", delta("sick.vmdk", 7), fs.ErrNotExist, `parent "sick.vmdk": extent "gone.raw"`},
		{"descriptor too long", append(vmdkText("x", "RW 8 ZERO"), make([]byte, 2<<20)...), image.ErrDamaged, ""},
		{"COWD alone", sector("COWD"), image.ErrUnsupported, "a COWD (vmfsSparse) extent of a VMDK without its descriptor"},
		{"seSparse alone", sector("\xbe\xba\xfe\xca\x00\x00\x00\x00"), image.ErrUnsupported, "a seSparse extent of a VMDK without its descriptor"},
		{"VHDX without headers", sector("vhdxfile"), image.ErrTruncated, "VHDX"},
		{"VDI", append(make([]byte, 64), sector("\x7f\x10\xda\xbe")...), image.ErrUnsupported, "VDI"},
		{"VHD of no version", append(make([]byte, 8192), vhdFooter()...), image.ErrUnsupported, "VHD"},
		{"VHD with a footer in front only", append([]byte("conectix"), make([]byte, 8192)...), image.ErrDamaged, "VHD"},
		{"sparse header only", []byte("KDMV"), image.ErrTruncated, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, filepath.Join(dir, "disk"), tt.content)
			d, err := image.Open(path, image.Options{})
			if err == nil {
				d.Close()
				t.Fatal("it was opened")
			}
			if !errors.Is(err, tt.err) {
				t.Fatalf("error is %q, want one that is %q", err, tt.err)
			}
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %q does not say %q and the path", err, tt.says)
			}
			t.Log(err)
		})
	}
}

func vhdFooter() []byte {
	b := make([]byte, 512)
	copy(b, "conectix")
	var sum uint32
	for _, c := range b {
		sum += uint32(c)
	}
	binary.BigEndian.PutUint32(b[64:], ^sum)
	return b
}

func TestNamedFileRefused(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, "/dev/null"} {
		if _, err := image.Open(path, image.Options{}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: error is %v, want %v", path, err, fs.ErrInvalid)
		}
	}
	if _, err := image.Open(filepath.Join(dir, "none"), image.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v, want %v", err, fs.ErrNotExist)
	}
	path := write(t, filepath.Join(dir, "disk"), make([]byte, 512))
	if _, err := image.Open(path, image.Options{Format: "floppy"}); err == nil || !strings.Contains(err.Error(), "known are") {
		t.Errorf("error is %v, want one with the known formats", err)
	}
	if _, err := image.Open(path, image.Options{Format: "vmdk"}); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("error is %v, want %v", err, image.ErrDamaged)
	}
}

// TestForcedRaw reads the container of another format as it is.
func TestForcedRaw(t *testing.T) {
	want := append([]byte("KDMV"), disktest.Pattern(1<<20, 6)...)
	path := write(t, filepath.Join(t.TempDir(), "disk.vmdk"), want)
	d := open(t, path, image.Options{Format: "raw"})
	if got := image.FormatOf(d); got != "raw" {
		t.Fatalf("format is %q, want raw", got)
	}
	disktest.Same(t, d, want)
}

// TestChanceFooter: a raw disk may hold the cookie of a VHD in its last sector.
func TestChanceFooter(t *testing.T) {
	want := append(disktest.Pattern(1<<20, 6), vhdFooter()...)
	want[len(want)-100] ^= 1
	path := write(t, filepath.Join(t.TempDir(), "disk"), want)
	disktest.Same(t, open(t, path, image.Options{}), want)
}

func TestRaw(t *testing.T) {
	for _, size := range []int{1, 511, 4096, 1<<20 + 13} {
		want := disktest.Pattern(size+64, 9)[:size]
		want[0] = 1
		path := write(t, filepath.Join(t.TempDir(), "disk"), want)
		if size > 37 {
			disktest.Same(t, open(t, path, image.Options{DropCache: true}), want)
		}
	}
	d := open(t, write(t, filepath.Join(t.TempDir(), "empty"), nil), image.Options{})
	if _, _, err := d.NextData(0); err != io.EOF || d.Size() != 0 {
		t.Fatalf("an empty file has %d bytes and %v, want 0 and EOF", d.Size(), err)
	}
}

// TestCutWhileOpen: a raw file that is cut after it was opened must not read as
// a disk whose end is a hole.
func TestCutWhileOpen(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "disk"), disktest.Pattern(1<<20, 2))
	d := open(t, path, image.Options{})
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	n, err := d.ReadAt(make([]byte, 8192), 0)
	if n != 5000 || !errors.Is(err, image.ErrTruncated) {
		t.Errorf("read %d, %v; want 5000 bytes and %v", n, err, image.ErrTruncated)
	}
	if _, err := d.ReadAt(make([]byte, 1), 6000); !errors.Is(err, image.ErrTruncated) {
		t.Errorf("read behind the cut: %v; want %v", err, image.ErrTruncated)
	}
	if _, _, err := d.NextData(8192); !errors.Is(err, image.ErrTruncated) {
		t.Errorf("next data: %v; want %v", err, image.ErrTruncated)
	}
}

// TestBlockDevice reads a loop device, which is raw whatever its content.
func TestBlockDevice(t *testing.T) {
	testreq.Need(t, "loop", "losetup")
	want := append([]byte("KDMV"), disktest.Pattern(2<<20, 8)...)[:2<<20]
	path := write(t, filepath.Join(t.TempDir(), "disk"), want)
	dev := strings.TrimSpace(disktest.Run(t, "losetup", "--find", "--show", "--read-only", path))
	defer disktest.Run(t, "losetup", "--detach", dev)
	d, err := image.Open(dev, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := image.FormatOf(d); got != "raw" {
		t.Fatalf("format is %q, want raw", got)
	}
	disktest.Same(t, d, want)
}
