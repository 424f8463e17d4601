package datastore

import (
	"bytes"
	"testing"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

// TestTurnWithFaults lets each operation fail of a write that moves a small file
// into one of its own while the journal turns. Whatever is answered, the bytes
// that the file had before are there, also after the power went.
func TestTurnWithFaults(t *testing.T) {
	ops := turnWithFault(t, -1)
	if len(ops) < 12 {
		t.Fatalf("%d operations: the journal was not turned: %v", len(ops), ops)
	}
	for at := range ops {
		turnWithFault(t, at)
	}
}

// turnWithFault lets the operation of that number fail, counted from the begin
// of the write, and returns all operations of it.
func turnWithFault(t *testing.T, at int) []vfs.Op {
	t.Helper()
	mem := vfs.NewMem()
	faulty := vfs.NewFaulty(mem)
	if err := Create(faulty, Options{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(faulty, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Create(t.Context(), s.Root(), "f", fs.Creation{}, fs.SetAttr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, want := c.Object.ID, bytes.Repeat([]byte{7}, 50000)
	for s.root.j.fits(1) {
		if _, err := s.WriteAt(t.Context(), id, want, 0, true); err != nil {
			t.Fatal(err)
		}
		if s.root.j.fits(len(want)+2*batchAlign) || !s.root.j.fits(1) {
			continue
		}
		for s.root.j.fits(1) {
			if _, err := s.SetAttr(t.Context(), id, fs.SetAttr{Set: fs.SetMtimeNow}); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := faulty.Count()
	if at >= 0 {
		faulty.FailAt(first+at, nil)
	}
	_, werr := s.WriteAt(t.Context(), id, []byte{8}, inlineBytes, true)
	ops := faulty.Ops()[first:]
	look := func(when string, s *Store) {
		t.Helper()
		p := make([]byte, len(want))
		if n, err := s.ReadAt(t.Context(), id, p, 0); n < len(p) || !bytes.Equal(p, want) {
			t.Errorf("operation %d of %v failed, write: %v; %s %d bytes, %v", at, ops[at], werr, when, n, err)
		}
	}
	if at < 0 {
		if werr != nil {
			t.Fatal(werr)
		}
		return ops
	}
	look("afterwards", s)
	again, err := Open(mem.CrashClone(vfs.CrashOptions{}), Options{})
	if err != nil {
		t.Fatalf("operation %d of %v failed: %v", at, ops[at], err)
	}
	look("after a power cut", again)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	_ = s.Close() // it says again what has failed
	return ops
}
