package treetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"holdfast/fs"
)

func TestMemWriteConforms(t *testing.T) {
	m := NewMemWrite(MemOptions{})
	ctx := t.Context()
	dir := m.Root()
	for i := range 700 {
		c, err := m.Create(ctx, dir, fmt.Sprintf("f%d", i), fs.Creation{}, fs.SetAttr{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if i%100 != 0 {
			continue
		}
		if _, err := m.WriteAt(ctx, c.Object.ID, noise(uint64(i), 5000), int64(i)*997, i%200 == 0); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Link(ctx, c.Object.ID, dir, fmt.Sprintf("l%d", i), nil); err != nil {
			t.Fatal(err)
		}
		d, err := m.Mkdir(ctx, dir, fmt.Sprintf("d%d", i), fs.SetAttr{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir = d.Object.ID
		if _, err := m.Symlink(ctx, dir, "s", "../target", fs.SetAttr{}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Mknod(ctx, dir, "null", fs.Node{Type: fs.TypeCharDevice, Major: 1, Minor: 3}, fs.SetAttr{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	Conform(t, m, Options{})
}

func TestMemWriteConformsToWrite(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := NewMemWrite(MemOptions{Bytes: 64 << 20})
			crash := func() (fs.WriteTree, error) {
				m.PowerCut()
				return m, nil
			}
			ConformWrite(t, m, WriteOptions{Seed: seed, Crash: crash, RoomBytes: 128 << 20})
		})
	}
}

func TestMemWriteLosesPower(t *testing.T) {
	m := NewMemWrite(MemOptions{})
	ctx := t.Context()
	c, err := m.Create(ctx, m.Root(), "f", fs.Creation{}, fs.SetAttr{}, func(c fs.Change) []byte { return []byte("made f") })
	if err != nil {
		t.Fatal(err)
	}
	id, old := c.Object.ID, noise(1, 200_000)
	if _, err := m.WriteAt(ctx, id, old, 0, true); err != nil {
		t.Fatal(err)
	}
	b, err := m.Borrow(ctx, id, 60_000, 20_000)
	if err != nil {
		t.Fatal(err)
	}
	lent := bytes.Clone(bytes.Join(b.Segments, nil))
	for i := range 20 {
		if w, err := m.WriteAt(ctx, id, noise(uint64(i+2), 30_000), int64(i)*11_111, false); err != nil || w.Durable {
			t.Fatal(w, err)
		}
	}
	if got := bytes.Join(b.Segments, nil); !bytes.Equal(got, lent) || !bytes.Equal(got, old[60_000:80_000]) {
		t.Error("lent bytes changed")
	}
	b.Release()
	verifier := m.Verifier()
	m.PowerCut()
	got := make([]byte, 200_001)
	if n, err := m.ReadAt(ctx, id, got, 0); n != 200_000 || err != io.EOF || !bytes.Equal(got[:n], old) {
		t.Errorf("%d bytes, %v; not what was durable", n, err)
	}
	if m.Verifier() == verifier {
		t.Error("the verifier is the same")
	}
	var notes []string
	if err := m.RecordedNotes(ctx, func(n []byte) { notes = append(notes, string(n)) }); err != nil || len(notes) != 1 || notes[0] != "made f" {
		t.Errorf("notes %q, %v", notes, err)
	}
	if _, err := m.SetAttr(ctx, id, fs.SetAttr{Set: fs.GuardCtime | fs.SetPerm}); !errors.Is(err, fs.ErrChanged) {
		t.Errorf("guarded: %v", err)
	}
}
