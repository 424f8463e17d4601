package redirect

import (
	"bytes"
	"testing"

	"holdfast/repo/vfs"
)

// TestZerosOverSome writes zeros over a disk of which every other grain is zeros
// already: that takes no more of the map than there is room for.
func TestZerosOverSome(t *testing.T) {
	const size = 40 * mib
	base := &memBase{data: bytes.Repeat([]byte{7}, size)}
	fsys := vfs.NewMem()
	s := mustCreate(t, fsys, Options{WALBytes: mib}, base)
	d, verifier := s.Disks()[0], s.Verifier()
	for off := int64(0); off < size; off += 2 * grainBytes {
		if _, err := d.Write(zeroGrain[:], off, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, size)
	if _, err := d.Write(zeros, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint(); err != nil {
		t.Error(err)
	}
	if s.Verifier() != verifier {
		t.Error("the session failed")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, fsys, Options{}, base)
	defer s.Close()
	if err := same(s.Disks()[0], zeros); err != nil {
		t.Error(err)
	}
}
