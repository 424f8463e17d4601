package vfs

import (
	"fmt"
	"testing"
)

// TestFirstByte asks about files next to each other: where the file system
// tells, no two lie in the same place, and one that has no bytes lies nowhere.
func TestFirstByte(t *testing.T) {
	d, err := OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Mkdir(TempDir); err != nil {
		t.Fatal(err)
	}
	seen := make(map[uint64]string)
	for i, size := range []int{0, 1 << 20, 1 << 20} {
		name := fmt.Sprint("f", i)
		if err := WriteFile(d, name, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		f, err := d.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		at, ok := FirstByte(f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		switch {
		case size == 0 && ok:
			t.Errorf("an empty file lies at %d", at)
		case ok && seen[at] != "":
			t.Errorf("%s and %s both lie at %d", name, seen[at], at)
		case ok:
			seen[at] = name
		}
	}
	t.Logf("the file system told of %d files", len(seen))
	if _, ok := FirstByte(nil); ok {
		t.Error("no file at all lies somewhere")
	}
}

// TestFirstByteInMemory has nothing to tell.
func TestFirstByteInMemory(t *testing.T) {
	m := NewMem()
	f, err := m.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := FirstByte(f); ok {
		t.Error("a file in memory has a place on a disk")
	}
}
