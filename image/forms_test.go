package image_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/image"
	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

// form is one way to hold a disk, made by qemu-img from a raw file.
type form struct {
	name   string
	format string
	args   []string // of qemu-img convert
	unit   int      // holes of this size must be found
}

var vmdkForms = []form{
	{"monolithicSparse", "vmdk", []string{"-O", "vmdk", "-o", "subformat=monolithicSparse"}, 64 << 10},
	{"monolithicFlat", "vmdk", []string{"-O", "vmdk", "-o", "subformat=monolithicFlat"}, 1 << 20},
	{"twoGbMaxExtentSparse", "vmdk", []string{"-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"}, 64 << 10},
	{"twoGbMaxExtentFlat", "vmdk", []string{"-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"}, 1 << 20},
	{"streamOptimized", "vmdk", []string{"-O", "vmdk", "-o", "subformat=streamOptimized"}, 64 << 10},
	{"zeroed grains", "vmdk", []string{"-O", "vmdk", "-o", "subformat=monolithicSparse,zeroed_grain=on"}, 64 << 10},
}

var qcow2Forms = []form{
	{"v2", "qcow2", []string{"-O", "qcow2", "-o", "compat=0.10"}, 64 << 10},
	{"v3", "qcow2", []string{"-O", "qcow2", "-o", "compat=1.1"}, 64 << 10},
	{"512", "qcow2", []string{"-O", "qcow2", "-o", "cluster_size=512"}, 64 << 10},
	{"4k", "qcow2", []string{"-O", "qcow2", "-o", "cluster_size=4k"}, 4 << 10},
	{"2M", "qcow2", []string{"-O", "qcow2", "-o", "cluster_size=2M"}, 2 << 20},
	{"zlib", "qcow2", []string{"-O", "qcow2", "-c"}, 64 << 10},
	{"zstd", "qcow2", []string{"-O", "qcow2", "-c", "-o", "compression_type=zstd"}, 64 << 10},
	{"zstd 2M", "qcow2", []string{"-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=2M"}, 2 << 20},
	{"extended L2", "qcow2", []string{"-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"}, 4 << 10},
	{"extended L2 zlib", "qcow2", []string{"-O", "qcow2", "-c", "-o", "extended_l2=on"}, 64 << 10},
}

var vhdForms = []form{
	{"dynamic", "vhd", []string{"-O", "vpc", "-o", "subformat=dynamic,force_size=on"}, 2 << 20},
	{"fixed", "vhd", []string{"-O", "vpc", "-o", "subformat=fixed,force_size=on"}, 64 << 10},
}

var vhdxForms = []form{
	{"dynamic", "vhdx", []string{"-O", "vhdx", "-o", "subformat=dynamic"}, 64 << 10},
	{"dynamic 1M", "vhdx", []string{"-O", "vhdx", "-o", "subformat=dynamic,block_size=1M"}, 1 << 20},
	{"dynamic 256M", "vhdx", []string{"-O", "vhdx", "-o", "subformat=dynamic,block_size=256M"}, 64 << 10},
	{"large log", "vhdx", []string{"-O", "vhdx", "-o", "log_size=4M,block_size=2M"}, 2 << 20},
	{"fixed", "vhdx", []string{"-O", "vhdx", "-o", "subformat=fixed"}, 64 << 10},
}

// TestForms reads a real disk in every form that qemu-img makes.
func TestForms(t *testing.T) {
	testreq.Need(t, "qemu-img", "mkfs.ext4")
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	want := disktest.Ext4(t, raw)
	sameDisk(t, raw, "raw", want, 1<<20)
	t.Run("forms", func(t *testing.T) {
		for _, f := range slices.Concat(vmdkForms, qcow2Forms, vhdForms, vhdxForms) {
			t.Run(f.format+" "+f.name, func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "disk.img")
				args := append(append([]string{"convert", "-f", "raw"}, f.args...), raw, path)
				disktest.Run(t, "qemu-img", args...)
				sameDisk(t, path, f.format, want, f.unit)
			})
		}
	})
}

// sameDisk opens path and compares it, and demands that holes of unit bytes are
// found.
func sameDisk(t *testing.T, path, format string, want []byte, unit int) {
	t.Helper()
	d := open(t, path, image.Options{DropCache: true})
	if got := image.FormatOf(d); got != format {
		t.Fatalf("format is %q, want %q", got, format)
	}
	holes := disktest.Same(t, d, want)
	if least := disktest.Holes(want, unit); holes < least || least == 0 {
		t.Fatalf("%d bytes of holes found, want at least %d, which is more than 0", holes, least)
	}
}

func open(t testing.TB, path string, opt image.Options) image.Disk {
	t.Helper()
	d, err := image.Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func write(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestVMFS reads the flat disk of a datastore: a descriptor with a VMFS extent.
func TestVMFS(t *testing.T) {
	dir := t.TempDir()
	want := disktest.Pattern(1<<20, 3)
	write(t, filepath.Join(dir, "vm-flat.vmdk"), want)
	path := write(t, filepath.Join(dir, "vm.vmdk"), vmdkText("vmfs", fmt.Sprintf(`RW %d VMFS "vm-flat.vmdk"`, len(want)/512)))
	disktest.Same(t, open(t, path, image.Options{}), want)
}

// TestExtents puts a disk together from pieces of files and from nothing.
func TestExtents(t *testing.T) {
	dir := t.TempDir()
	file := disktest.Pattern(1<<20, 5)
	write(t, filepath.Join(dir, "sub/a.bin"), file)
	path := write(t, filepath.Join(dir, "vm.vmdk"), vmdkText("custom",
		`RW 100 FLAT "sub/a.bin" 7`, `RW 33 ZERO`, `RDONLY 200 FLAT "sub/a.bin" 0`))
	var want []byte
	want = append(want, file[7*512:107*512]...)
	want = append(want, make([]byte, 33*512)...)
	want = append(want, file[:200*512]...)
	disktest.Same(t, open(t, path, image.Options{}), want)
}

// deltaText is a descriptor of what was changed since a parent.
func deltaText(createType, parent string, parentCID int, extents ...string) []byte {
	line := fmt.Sprintf("parentCID=%08x\n", parentCID)
	if parent != "" {
		line += fmt.Sprintf("parentFileNameHint=\"%s\"\n", parent)
	}
	return bytes.Replace(vmdkText(createType, extents...), []byte("parentCID=ffffffff\n"), []byte(line), 1)
}

func vmdkText(createType string, extents ...string) []byte {
	text := "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"" + createType + "\"\n\n# Extent description\n"
	for _, e := range extents {
		text += e + "\n"
	}
	return []byte(text + "\nddb.adapterType = \"lsilogic\"\n")
}
