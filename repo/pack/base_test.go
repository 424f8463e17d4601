package pack

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

// The list of records has the bases, whether it comes from the builder, the
// record table or a scan.
func TestBases(t *testing.T) {
	p := makePack(t, newRand(t, 40), 3, 2<<20)
	n := 0
	for i, e := range p.entries {
		h, err := ParseRecord(p.records[i])
		if err != nil || h.Base != e.Base {
			t.Fatalf("record %d has base %s, its entry %s, %v", i, h.Base.Short(), e.Base.Short(), err)
		}
		if !e.Base.IsNull() {
			n++
		}
	}
	if n < 20 {
		t.Fatalf("only %d of %d records have a base", n, len(p.entries))
	}
	if got, err := mustOpen(t, p.file).Records(); err != nil || !slices.Equal(got, p.entries) {
		t.Fatalf("records: %v", err)
	}
	if got := scanAll(t, bytes.NewReader(p.file), int64(len(p.file))); !slices.Equal(got, p.entries) {
		t.Fatal("the scan has other entries")
	}
}

// calls counts the reads.
type calls struct {
	io.ReaderAt
	n int
}

func (c *calls) ReadAt(p []byte, off int64) (int, error) {
	c.n++
	return c.ReaderAt.ReadAt(p, off)
}

// Headers that stand close together are read together.
func TestBasesInFewReads(t *testing.T) {
	r := newRand(t, 41)
	b, err := NewBuilder(Data, Name{}, Options{PackBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		rec := patchRecord(r, 12<<10)
		if i%100 == 99 { // a long record between them
			rec = chunkRecord(r, 60<<10)
		}
		if _, err := b.Add(rec); err != nil {
			t.Fatal(err)
		}
	}
	file, _, entries := b.Finish()
	c := &calls{ReaderAt: bytes.NewReader(file)}
	f, err := Open(c, int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Records()
	if err != nil || !slices.Equal(got, entries) {
		t.Fatalf("records: %v", err)
	}
	if most := 3 + 4 + len(file)/baseRunBytes*5/4; c.n > most {
		t.Errorf("%d reads of %d bytes, want at most %d", c.n, len(file), most)
	}
}

// A header that is lost leaves its base unknown; all else is listed, and the
// error tells the case.
func TestBaseLost(t *testing.T) {
	r := newRand(t, 42)
	for _, parity := range []int{0, 1} {
		p := makePack(t, r, parity, 300<<10)
		i := slices.IndexFunc(p.entries, func(e Entry) bool { return e.Kind == Patch })
		at := int(p.entries[i].Off) + 90 // in the base
		want := slices.Clone(p.entries)
		damaged := bytes.Clone(p.file)
		damaged[at] ^= 1
		block := at / BlockBytes
		if parity == 0 {
			want[i].Base = [32]byte{}
		}
		entries, err := mustOpen(t, damaged).Records()
		if !slices.Equal(entries, want) {
			t.Errorf("parity %d: another list of records", parity)
		}
		var corrupt *CorruptError
		switch {
		case parity > 0 && err != nil:
			t.Errorf("healed, but %v", err)
		case parity == 0 && (!errors.Is(err, ErrBase) || !errors.Is(err, ErrDamaged) ||
			!errors.As(err, &corrupt) || corrupt.Offset != int64(p.entries[i].Off)):
			t.Errorf("got %v, want ErrBase of the record at %d", err, p.entries[i].Off)
		}

		// Unreadable blocks are healed, or cost the bases whose headers they hold.
		f, err := Open(flaky{p.file, map[int]bool{block: true}}, int64(len(p.file)))
		if err != nil {
			t.Fatal(err)
		}
		entries, err = f.Records()
		if len(entries) != len(p.entries) || errors.Is(err, ErrBase) != (parity == 0) {
			t.Fatalf("parity %d: %d of %d records, %v", parity, len(entries), len(p.entries), err)
		}
		for k, e := range entries {
			from, to := int(e.Off)/BlockBytes, (int(e.headerEnd())-1)/BlockBytes
			if hit := parity == 0 && from <= block && block <= to; !hit && e != p.entries[k] || hit && k == i && !e.Base.IsNull() {
				t.Errorf("parity %d: entry %d is %+v, want %+v", parity, k, e, p.entries[k])
			}
		}
	}
}
