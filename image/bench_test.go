package image_test

import (
	"path/filepath"
	"slices"
	"testing"

	"holdfast/image"
	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

// BenchmarkRead reads a real disk from front to back, 1 MiB at a time, holes
// too, from the page cache.
func BenchmarkRead(b *testing.B) {
	testreq.Need(b, "qemu-img", "mkfs.ext4")
	dir := b.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	disktest.Ext4(b, raw)
	read := func(b *testing.B, path string, opt image.Options) {
		d := open(b, path, opt)
		buf := make([]byte, 1<<20)
		b.SetBytes(d.Size())
		b.ReportAllocs()
		for b.Loop() {
			for off := int64(0); off < d.Size(); off += int64(len(buf)) {
				if _, err := d.ReadAt(buf, off); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("raw", func(b *testing.B) { read(b, raw, image.Options{}) })
	b.Run("raw dropped", func(b *testing.B) { read(b, raw, image.Options{DropCache: true}) })
	for _, f := range slices.Concat(vmdkForms, qcow2Forms, vhdForms, vhdxForms) {
		path := filepath.Join(dir, "disk."+f.name)
		args := append(append([]string{"convert", "-f", "raw"}, f.args...), raw, path)
		disktest.Run(b, "qemu-img", args...)
		b.Run(f.format+" "+f.name, func(b *testing.B) { read(b, path, image.Options{}) })
	}
}
