package image_test

import (
	"os"
	"path/filepath"
	"testing"

	"holdfast/image"
	"holdfast/image/internal/disktest"
)

// FuzzOpen opens whatever bytes beside a file that they may name.
func FuzzOpen(f *testing.F) {
	samples, err := filepath.Glob("qcow2/testdata/*.qcow2")
	if err != nil || len(samples) == 0 {
		f.Fatalf("samples: %v, %v", samples, err)
	}
	for _, name := range samples {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(vmdkText("custom", `RW 100 FLAT "s.raw" 7`, `RW 33 ZERO`))
	f.Add(deltaText("vmfsSparse", "s.vmdk", 0x12345678, `RW 128 VMFSSPARSE "s-delta.vmdk"`))
	f.Add(append(make([]byte, 1024), vhdFooter()...))
	f.Add([]byte("vhdxfile"))
	dir := f.TempDir()
	write(f, filepath.Join(dir, "s.raw"), make([]byte, 100<<10))
	write(f, filepath.Join(dir, "s.vmdk"), vmdkText("custom", `RW 128 FLAT "s.raw" 0`))
	write(f, filepath.Join(dir, "s-delta.vmdk"), disktest.RandomLayer(64<<10, 512, 92).COWD())
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "disk")
		write(t, path, b)
		d, err := image.Open(path, image.Options{})
		if err != nil {
			return
		}
		defer d.Close()
		if d.Size() < 0 || image.FormatOf(d) == "" {
			t.Fatalf("a %q of %d bytes", image.FormatOf(d), d.Size())
		}
		_, _ = d.ReadAt(make([]byte, 10000), d.Size()/2)
		if start, end, err := d.NextData(0); err == nil && (start < 0 || end <= start || end > d.Size()) {
			t.Fatalf("next data is [%d, %d) of %d", start, end, d.Size())
		}
	})
}
