package vfs

import (
	"bytes"
	"os"
	"testing"
)

// TestWriteZeros checks what stands in for fallocate where there is none.
func TestWriteZeros(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	const size = 3<<20 + 5
	for _, n := range []int64{2, size, 10} {
		if err := writeZeros(f, n); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte("abc"), make([]byte, size-3)...); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want abc and zeros up to %d", len(got), size)
	}
}
