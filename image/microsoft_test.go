package image_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"holdfast/image"
	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

// msFormat is a format of Microsoft's: what qemu-img calls it, and how a disk
// that it made becomes one over a parent.
type msFormat struct {
	name, qemu, options string
	block               int64 // what is written has whole blocks
	adopt               func(t *testing.T, child, parent []byte, name string) []byte
}

var msFormats = []msFormat{
	{"vhd", "vpc", "force_size=on", 2 << 20, adoptVHD},
	{"vhdx", "vhdx", "block_size=1M,block_state_zero=off", 1 << 20, adoptVHDX},
}

// adoptVHD turns a dynamic VHD, whose blocks QEMU fills whole, into a
// differencing one.
func adoptVHD(_ *testing.T, child, parent []byte, name string) []byte {
	be := binary.BigEndian
	b := bytes.Clone(child)
	foot := parent[len(parent)-512:]
	header := b[512:][:1024]
	copy(header[40:], foot[68:84]) // the parent's ID
	copy(header[56:], foot[24:28]) // and stamp
	for i, u := range utf16.Encode([]rune(name)) {
		be.PutUint16(header[64+2*i:], u)
	}
	seal := func(b []byte, own int) {
		var sum uint32
		clear(b[own : own+4])
		for _, c := range b {
			sum += uint32(c)
		}
		be.PutUint32(b[own:], ^sum)
	}
	seal(header, 36)
	for _, foot := range [][]byte{b[:512], b[len(b)-512:]} {
		be.PutUint32(foot[60:], 4)
		seal(foot, 64)
	}
	return b
}

// adoptVHDX turns a dynamic VHDX into a differencing one with a relative path.
func adoptVHDX(t *testing.T, child, parent []byte, name string) []byte {
	le := binary.LittleEndian
	b := bytes.Clone(child)
	id := vhdxDataID(parent)
	linkage := fmt.Sprintf("{%08x-%04x-%04x-%x-%x}", le.Uint32(id), le.Uint16(id[4:]), le.Uint16(id[6:]), id[8:10], id[10:])
	meta := b[bytes.Index(b, []byte("metadata")):]
	n := int(le.Uint16(meta[10:]))
	for i := range n { // the file parameters say that there is a parent
		if e := meta[32*(i+1):]; bytes.HasPrefix(e, []byte{0x37, 0x67, 0xa1, 0xca}) {
			meta[le.Uint32(e[16:])+4] |= 2
		}
	}
	const at = 128 << 10
	e := meta[32*(n+1):]
	copy(e, "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c")
	locator := []byte("\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a\xb7\x89\x25\xb8\xe9\x44\x59\x13\x00\x00\x02\x00")
	pairs := [][2]string{{"parent_linkage", linkage}, {"relative_path", name}}
	var text []byte
	for _, p := range pairs {
		var place [2]int
		for i, s := range p {
			place[i] = 20 + 12*len(pairs) + len(text)
			for _, u := range utf16.Encode([]rune(s)) {
				text = le.AppendUint16(text, u)
			}
		}
		locator = le.AppendUint32(locator, uint32(place[0]))
		locator = le.AppendUint32(locator, uint32(place[1]))
		locator = le.AppendUint16(locator, uint16(2*len(utf16.Encode([]rune(p[0])))))
		locator = le.AppendUint16(locator, uint16(2*len(utf16.Encode([]rune(p[1])))))
	}
	locator = append(locator, text...)
	if !isZero(meta[at : at+len(locator)]) {
		t.Fatal("something else lies where the locator should go")
	}
	copy(meta[at:], locator)
	le.PutUint32(e[16:], at)
	le.PutUint32(e[20:], uint32(len(locator)))
	le.PutUint32(e[24:], 4)
	le.PutUint16(meta[10:], uint16(n+1))
	return b
}

// vhdxDataID is the GUID of the data in the newer header.
func vhdxDataID(b []byte) []byte {
	one, two := b[64<<10:], b[128<<10:]
	if binary.LittleEndian.Uint64(two[8:]) > binary.LittleEndian.Uint64(one[8:]) {
		one = two
	}
	return one[32:48]
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// create makes a disk of the given size in the format, whose blocks, by number,
// are filled with a value each; over parent if that is not "". It changes want
// in the same way.
func (f msFormat) create(t *testing.T, path string, want []byte, blocks map[int64]byte, parent, name string) {
	t.Helper()
	disktest.Run(t, "qemu-img", "create", "-q", "-f", f.qemu, "-o", f.options, path, fmt.Sprint(len(want)))
	args := []string{"-f", f.qemu}
	for b, v := range blocks {
		args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", v, b*f.block, f.block))
		copy(want[b*f.block:], bytes.Repeat([]byte{v}, int(f.block)))
	}
	disktest.Run(t, "qemu-io", append(args, path)...)
	if parent != "" {
		write(t, path, f.adopt(t, read(t, path), read(t, parent), name))
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMicrosoftChains reads differencing disks whose parents lie below them, and
// what QEMU made over one.
func TestMicrosoftChains(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	for _, f := range msFormats {
		t.Run(f.name, func(t *testing.T) {
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			if err := os.MkdirAll(at("sub/deep"), 0o755); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, 16<<20)
			f.create(t, at("sub/deep/Größe."+f.name), want, map[int64]byte{0: 1, 1: 2, 5: 3}, "", "")
			f.create(t, at("sub/mid."+f.name), want, map[int64]byte{1: 4, 2: 5}, at("sub/deep/Größe."+f.name), `.\deep\Größe.`+f.name)
			f.create(t, at("top."+f.name), want, map[int64]byte{2: 6, 7: 7}, at("sub/mid."+f.name), `sub\mid.`+f.name)
			d := open(t, at("top."+f.name), image.Options{})
			if got := image.FormatOf(d); got != f.name {
				t.Errorf("format is %q, want %q", got, f.name)
			}
			if holes, least := disktest.Same(t, d, want), disktest.Holes(want, int(f.block)); holes < least {
				t.Errorf("%d bytes of holes, want at least %d", holes, least)
			}

			disktest.Run(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "top."+f.name, "-F", f.qemu, at("over.qcow2"), fmt.Sprint(len(want)))
			disktest.Same(t, open(t, at("over.qcow2"), image.Options{}), want)
		})
	}
}

// TestMovedParent: a chain that was moved into one directory is still found, by
// the last element of a name that leads elsewhere.
func TestMovedParent(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	for _, f := range msFormats {
		for _, name := range []string{`..\parents\base.x`, `D:\vms\base.x`, `\\?\D:\vms\base.x`} {
			dir := t.TempDir()
			want := make([]byte, 4<<20)
			f.create(t, filepath.Join(dir, "base.x"), want, map[int64]byte{0: 1}, "", "")
			f.create(t, filepath.Join(dir, "top"), want, map[int64]byte{1: 2}, filepath.Join(dir, "base.x"), name)
			disktest.Same(t, open(t, filepath.Join(dir, "top"), image.Options{}), want)
		}
	}
}

func TestMicrosoftParentRefused(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	for _, f := range msFormats {
		t.Run(f.name, func(t *testing.T) { testMicrosoftParentRefused(t, f) })
	}
}

func testMicrosoftParentRefused(t *testing.T, f msFormat) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret.x")
	at := func(name string) string { return filepath.Join(dir, name) }
	zeros := make([]byte, 4<<20)
	f.create(t, outside, zeros, nil, "", "")
	f.create(t, at("other.x"), zeros, nil, "", "")
	if err := os.Symlink(outside, at("link.x")); err != nil {
		t.Fatal(err)
	}
	write(t, at("raw.x"), make([]byte, 1<<20))
	tests := []struct {
		name, parent string
		err          error
		says         string
	}{
		{"absolute", strings.ReplaceAll(outside, "/", `\`), image.ErrOutside, "absolute"},
		{"dots", `..\secret.x`, image.ErrOutside, `".."`},
		{"dots inside", `sub\..\other2.x`, image.ErrOutside, `".."`},
		{"symbolic link", "link.x", image.ErrOutside, "symbolic link"},
		{"missing", "none.x", fs.ErrNotExist, "none.x"},
		{"another disk", "other.x", image.ErrDamaged, "other.x"},
		{"another format", "raw.x", image.ErrDamaged, "raw.x"},
		{"itself", "disk.x", image.ErrCycle, "disk.x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.create(t, at("disk.x"), zeros, nil, outside, tt.parent)
			d, err := image.Open(at("disk.x"), image.Options{})
			if err == nil {
				d.Close()
			}
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error is %v, want one that is %q and says %q", err, tt.err, tt.says)
			}
			t.Log(err)
		})
	}
	t.Run("format not said", func(t *testing.T) {
		f.create(t, at("base.x"), zeros, nil, "", "")
		f.create(t, at("diff.x"), zeros, nil, at("base.x"), "base.x")
		disktest.Run(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "diff.x", "-F", "raw", at("top.qcow2"), "4M")
		cut := strings.Replace(string(read(t, at("top.qcow2"))), "\xe2\x79\x2a\xca", "\x00\x00\x00\x00", 1)
		write(t, at("top.qcow2"), []byte(cut))
		if _, err := image.Open(at("top.qcow2"), image.Options{}); !errors.Is(err, image.ErrUntold) {
			t.Fatalf("error is %v, want %v", err, image.ErrUntold)
		}
	})
	if f.name == "vhdx" {
		return // what follows is about names only, and these files have 4 MiB and more
	}
	t.Run("too deep", func(t *testing.T) {
		// The same disk over and over: only the name of its parent differs. What
		// is too deep is refused before anybody asks which disk it is.
		f.create(t, at("one.x"), zeros, nil, "", "")
		one, parent := read(t, at("one.x")), read(t, outside)
		for i := range 65 {
			write(t, at(fmt.Sprintf("e%02d.x", i)), f.adopt(t, one, parent, fmt.Sprintf("e%02d.x", i+1)))
		}
		if _, err := image.Open(at("e00.x"), image.Options{}); !errors.Is(err, image.ErrCycle) {
			t.Fatalf("error is %v, want %v", err, image.ErrCycle)
		}
	})
}

// TestCrashedVHDX reads a VHDX with a log that is to be replayed as what it is
// after the replay, and does not write to it.
func TestCrashedVHDX(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "a.vhdx")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", path, "4M")
	disktest.Run(t, "qemu-io", "-f", "vhdx", "-c", "write -P 1 0 1M", path)
	bat := bytes.Index(read(t, path)[192<<10:], []byte("\x66\x77\xc2\x2d")) + 192<<10
	sector := binary.LittleEndian.Uint64(read(t, path)[bat+16:]) / 512
	disktest.Run(t, "sh", "-c", fmt.Sprintf("qemu-io -c 'write -P 2 2M 1M' --image-opts driver=vhdx,file.driver=blkdebug,"+
		"file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.sector=%d,"+
		"file.image.driver=file,file.image.filename=%s; true", sector, path))
	before := read(t, path)
	want := make([]byte, 4<<20)
	copy(want, bytes.Repeat([]byte{1}, 1<<20))
	copy(want[2<<20:], bytes.Repeat([]byte{2}, 1<<20))
	disktest.Same(t, open(t, path, image.Options{}), want)
	if !bytes.Equal(before, read(t, path)) {
		t.Fatal("the file was changed")
	}
	disktest.Run(t, "qemu-img", "check", "-f", "vhdx", "-r", "all", path)
	if bytes.Equal(before, read(t, path)) {
		t.Fatal("there was no log to replay")
	}
	disktest.Same(t, open(t, path, image.Options{}), want)
}
