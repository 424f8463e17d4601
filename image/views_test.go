package image_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/image/qcow2"
	"holdfast/image/vhdx"
	"holdfast/image/vmdk"
	"holdfast/internal/testreq"
)

// source is what all views are made of.
type source interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// rendered is a format that a disk is shown in.
type rendered struct {
	name   string
	format string
	unit   int  // holes of this size must be found
	check  bool // qemu-img checks files of it
	view   func(t testing.TB, src source, dir string) source
}

var renderedForms = []rendered{
	{"raw", "raw", 1 << 20, false, func(_ testing.TB, src source, _ string) source { return src }},
	{"vmdk stream", "vmdk", 64 << 10, true, func(t testing.TB, src source, _ string) source {
		v, err := vmdk.NewStreamView(src, "disk.img", 7)
		if err == nil {
			err = v.Load(context.Background())
		}
		return must(t, v, err)
	}},
	{"vmdk flat", "vmdk", 1 << 20, true, func(t testing.TB, src source, dir string) source {
		store(t, vmdk.FlatView{Source: src}, filepath.Join(dir, vmdk.FlatExtentName("disk.img")))
		text, err := vmdk.FlatDescriptor("disk.img", src.Size(), 7)
		return must(t, disktest.Memory(text), err)
	}},
	{"vhdx", "vhdx", 1 << 20, true, func(t testing.TB, src source, _ string) source {
		v, err := vhdx.NewView(src, vhdx.ViewOptions{Identity: "a test"})
		return must(t, v, err)
	}},
	{"qcow2", "qcow2", 64 << 10, true, func(t testing.TB, src source, _ string) source {
		v, err := qcow2.NewView(src)
		return must(t, v, err)
	}},
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// store writes the data of a view to a file, and leaves out its holes.
func store(t testing.TB, v source, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); ; {
		start, end, err := v.NextData(off)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.NewOffsetWriter(f, start), io.NewSectionReader(v, start, end-start)); err != nil || n != end-start {
			t.Fatalf("%d bytes of [%d, %d): %v", n, start, end, err)
		}
		off = end
	}
	if err := f.Truncate(v.Size()); err != nil {
		t.Fatal(err)
	}
}

// TestViews shows a real disk in every format: QEMU finds the file in order and
// the disk in it, and so do we, with its holes.
func TestViews(t *testing.T) {
	testreq.Need(t, "qemu-img", "mkfs.ext4")
	raw := filepath.Join(t.TempDir(), "disk.raw")
	want := disktest.Ext4(t, raw)
	src := disktest.Memory(want)
	for _, r := range renderedForms {
		t.Run(r.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.img")
			v := r.view(t, src, dir)
			store(t, v, path)
			if r.check {
				disktest.Run(t, "qemu-img", "check", "-f", r.format, path)
			}
			disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", r.format, raw, path)
			sameDisk(t, path, r.format, want, r.unit)
			file, err := os.ReadFile(path)
			disktest.Same(t, v, must(t, file, err)) // also where NextData says nothing is
		})
	}
}

// BenchmarkViews reads views as FUSE does, 128 KiB after 128 KiB, of a disk in
// memory.
func BenchmarkViews(b *testing.B) {
	content := disktest.Memory(disktest.Pattern(64<<20, 91))
	for _, r := range renderedForms {
		b.Run(r.name, func(b *testing.B) {
			v := r.view(b, content, b.TempDir())
			if r.name == "vmdk flat" {
				v = vmdk.FlatView{Source: content} // not the descriptor
			}
			buf := make([]byte, 128<<10)
			b.SetBytes(v.Size())
			b.ReportAllocs()
			for b.Loop() {
				for off := int64(0); off < v.Size(); off += int64(len(buf)) {
					if _, err := v.ReadAt(buf, off); err != nil && err != io.EOF {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
