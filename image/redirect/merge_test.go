package redirect

import (
	"bytes"
	"testing"

	"holdfast/repo/vfs"
)

// TestMergeUses overwrites all of a quota while it is sealed, again and again:
// when the layers are merged, no more is in use than there is.
func TestMergeUses(t *testing.T) {
	base := newBase(4, 100*grainBytes)
	opt := smallLog
	opt.QuotaBytes = 25 * grainBytes
	fsys := vfs.NewMem()
	s := mustCreate(t, fsys, opt, base)
	d := s.Disks()[0]
	for round := range 5 {
		p := bytes.Repeat([]byte{byte(round + 1)}, 10*grainBytes)
		if _, err := d.Write(p, 0, true); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		x, err := s.Seal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write(p, 0, true); err != nil {
			t.Fatalf("round %d, sealed: %v", round, err)
		}
		if err := x.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st, err := s.Stats(); err != nil || st.UsedBytes != 10*grainBytes || d.UsedBytes() != 10*grainBytes {
			t.Fatalf("round %d: %d bytes are used, %d by the disk; %v", round, st.UsedBytes, d.UsedBytes(), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUsedAgain opens a session whose log has several records of a grain: it
// counts once.
func TestUsedAgain(t *testing.T) {
	base := newBase(4, 100*grainBytes)
	fsys := vfs.NewMem()
	s := mustCreate(t, fsys, Options{}, base)
	d := s.Disks()[0]
	for i, p := range [][]byte{bytes.Repeat([]byte{1}, grainBytes), bytes.Repeat([]byte{2}, grainBytes), make([]byte, grainBytes)} {
		if _, err := d.Write(p, 0, true); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write(p, int64(8+i)*grainBytes, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, fsys, Options{}, base)
	defer s.Close()
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Stats(); err != nil || st.UsedBytes != 2*grainBytes {
		t.Errorf("%d bytes are used, %v", st.UsedBytes, err)
	}
}

// TestMergeLeavesNew has a merge end while the keeper writes the map anew: what
// it is writing stays.
func TestMergeLeavesNew(t *testing.T) {
	base := newBase(4, 10*grainBytes)
	fsys := vfs.NewMem()
	s := mustCreate(t, fsys, smallLog, base)
	defer s.Close()
	x, err := s.Seal()
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create(mapName + newSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := x.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Stat(mapName + newSuffix); err != nil {
		t.Errorf("the map that is being written: %v", err)
	}
	if _, err := fsys.Stat(dataName(0, 1)); err == nil {
		t.Error("the file of the merged layer is still there")
	}
}
