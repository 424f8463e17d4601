package pack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
)

func TestBuilderReadsBack(t *testing.T) {
	r := newRand(t, 1)
	for _, parity := range []int{0, 1, 3, 20} {
		for _, size := range []int{600, 4 << 10, 50 << 10, 1 << 20} {
			p := makePack(t, r, parity, size)
			if sha256.Sum256(p.file) != p.sum {
				t.Fatalf("parity %d, %d bytes: SHA-256 is not the file's", parity, size)
			}
			f := mustOpen(t, p.file)
			entries, err := f.Records()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(p.entries, entries) {
				t.Fatalf("%d records, want %d", len(entries), len(p.entries))
			}
			var sum int64
			for i, e := range entries {
				h, rec, err := f.ReadRecord(e)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(rec, p.records[i]) || h.ID != e.ID {
					t.Fatalf("record %d differs", i)
				}
				sum += int64(len(rec))
			}
			if want := LayoutFor(sum, len(entries), parity); want.Bytes() != int64(len(p.file)) || want != p.layout(t) {
				t.Fatalf("layout %+v, the pack has %+v in %d bytes", want, p.layout(t), len(p.file))
			}
		}
	}
}

// A builder that is used again makes the same bytes as a new one, whatever it
// made before, and never takes more memory.
func TestBuilderReuse(t *testing.T) {
	r := newRand(t, 2)
	recs := [][]byte{chunkRecord(r, 3000), nodeRecord(r, 7), chunkRecord(r, 9)}
	make1 := func(b *Builder) []byte {
		for _, rec := range recs {
			if _, err := b.Add(rec); err != nil {
				t.Fatal(err)
			}
		}
		file, _, _ := b.Finish()
		return bytes.Clone(file)
	}
	opt := Options{Parity: 3, PackBytes: 1 << 20, RecordBytes: 1 << 20}
	b, err := NewBuilder(Meta, Name{3: 1}, opt)
	if err != nil {
		t.Fatal(err)
	}
	want := make1(b)

	b.Reset(Name{3: 2})
	before := cap(b.buf)
	for !b.Full() {
		if _, err := b.Add(chunkRecord(r, 40<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Add(recs[0]); !errors.Is(err, ErrFull) {
		t.Fatalf("add to a full pack: %v", err)
	}
	b.Finish()
	b.Reset(Name{3: 1})
	if got := make1(b); !bytes.Equal(got, want) {
		t.Fatal("the second pack from a builder differs from the first from another")
	}
	if cap(b.buf) != before {
		t.Fatalf("buffer grew from %d to %d bytes", before, cap(b.buf))
	}
}

func TestBuilderRefuses(t *testing.T) {
	for _, opt := range []Options{{Parity: -1, PackBytes: 1 << 20}, {Parity: 21, PackBytes: 1 << 20}, {PackBytes: 0}, {PackBytes: 1 << 30}, {PackBytes: 1 << 20, RecordBytes: MaxRecordBytes + 1}} {
		if _, err := NewBuilder(Data, Name{}, opt); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
	b, err := NewBuilder(Data, Name{}, Options{PackBytes: 1 << 20, RecordBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	r := newRand(t, 3)
	rec := nodeRecord(r, 3)
	for name, bad := range map[string][]byte{"nothing": nil, "half": rec[:len(rec)-1], "more": append(bytes.Clone(rec), 0), "long": nodeRecord(r, 255)[:8<<10+1], "noise": randBytes(r, 500)} {
		before := b.Len()
		if _, err := b.Add(bad); !errors.Is(err, ErrFormat) || b.Len() != before {
			t.Errorf("%s: %v, length %d before, %d after", name, err, before, b.Len())
		}
	}
}
