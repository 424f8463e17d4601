package pack

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

func scanAll(tb testing.TB, r io.ReaderAt, size int64) []Entry {
	var got []Entry
	err := Scan(r, size, func(e Entry, h *Header) error {
		if h.ID != e.ID || h.RecordBytes() != int(e.Len) {
			tb.Fatalf("entry %+v with header %+v", e, h)
		}
		got = append(got, e)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func TestScan(t *testing.T) {
	r := newRand(t, 20)
	// The smallest packs have parity blocks equal to their only data block: their
	// records must not be found twice.
	for _, size := range []int{500, 1000, 4000, 100 << 10, 2 << 20} {
		p := makePack(t, r, 3, size)
		if got := scanAll(t, bytes.NewReader(p.file), int64(len(p.file))); !slices.Equal(got, p.entries) {
			t.Errorf("%d bytes: %d records, want %d", size, len(got), len(p.entries))
		}
	}
}

// With bytes lost, all records are found but those whose headers are hit.
func TestScanDamaged(t *testing.T) {
	r := newRand(t, 21)
	for range 40 {
		p := makePack(t, r, 0, 1<<20)
		bad := map[int]bool{}
		damaged := bytes.Clone(p.file)
		for range 1 + r.IntN(20) {
			if b := r.IntN(len(p.file)/BlockBytes - 2); r.IntN(2) == 0 {
				bad[b] = true
			} else {
				copy(damaged[b*BlockBytes:][:BlockBytes], randBytes(r, BlockBytes))
			}
		}
		var want []Entry
		for _, e := range p.entries {
			rec := damaged[e.Off:][:e.Len]
			n, ok := soundHeader(rec)
			for b := int(e.Off) / BlockBytes; ok && b <= (int(e.Off)+n-1)/BlockBytes; b++ {
				ok = !bad[b]
			}
			if ok {
				want = append(want, e)
			}
		}
		got := scanAll(t, flaky{damaged, bad}, int64(len(damaged)))
		if !slices.Equal(got, want) {
			t.Fatalf("%d records, want %d of %d", len(got), len(want), len(p.entries))
		}
	}
}

// Bytes put in or taken out shift what follows; the scan finds it again.
func TestScanShifted(t *testing.T) {
	r := newRand(t, 22)
	p := makePack(t, r, 0, 300<<10)
	e := p.entries[len(p.entries)/2]
	cut := slices.Delete(bytes.Clone(p.file), int(e.Off)+10, int(e.Off)+33)
	got := scanAll(t, bytes.NewReader(cut), int64(len(cut)))
	if len(got) != len(p.entries)-1 || got[len(p.entries)/2].Off != e.Off+e.Len-23 {
		t.Fatalf("%d records", len(got))
	}
}

// A guest's own pack, stored raw in a record, does not end the scan when
// damage makes the scan go through it.
func TestScanPackInPack(t *testing.T) {
	r := newRand(t, 23)
	inner := makePack(t, r, 0, 30<<10)
	b, err := NewBuilder(Data, Name{}, Options{Parity: 3, PackBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var a Assembler
	a.Begin(nil, 4)
	a.Kind, a.ID, a.LogicalBytes = Chunk, fill32(r), 512<<10
	for range 4 {
		a.Add(append(a.Bytes(), append(inner.file, make([]byte, 128<<10-len(inner.file))...)...), fill32(r), 0)
	}
	outer := finish(&a)
	after := chunkRecord(r, 100)
	for _, rec := range [][]byte{outer, after} {
		if _, err := b.Add(rec); err != nil {
			t.Fatal(err)
		}
	}
	file, _, entries := b.Finish()
	if got := scanAll(t, bytes.NewReader(file), int64(len(file))); !slices.Equal(got, entries) {
		t.Fatalf("%d records in a sound pack, want 2", len(got))
	}
	file[100] ^= 1
	got := scanAll(t, bytes.NewReader(file), int64(len(file)))
	if len(got) == 0 || got[len(got)-1] != entries[1] {
		t.Fatalf("of %d records the last is not the pack's own", len(got))
	}
}

// counter counts the bytes read through it.
type counter struct {
	io.ReaderAt
	n int64
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}

// However the bytes are made, a scan reads them a few times at most.
func TestScanHostile(t *testing.T) {
	r := newRand(t, 24)
	rec := nodeRecord(r, 1)
	sound := bytes.Clone(rec)
	sound[5] = 9 // a sound header of no kind
	resum(sound)
	long := bytes.Clone(rec) // a record that ends behind the file
	long[12], long[13], long[14] = 0xff, 0xff, 0xff
	resum(long)
	const size = 4 << 20
	for name, unit := range map[string][]byte{
		"magics": []byte("HFrc"), "tables": []byte("HFrt"), "headers": sound[:160], "long": long[:160],
		"counts": append([]byte("HFrc\x01\x01\x00\x00\x78\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00"), 0, 0),
		"mixed":  append(bytes.Clone(rec), "HFrt\x00\x00\x00\x01"...),
	} {
		p := bytes.Repeat(unit, size/len(unit))
		c := &counter{ReaderAt: bytes.NewReader(p)}
		n := len(scanAll(t, c, int64(len(p))))
		if c.n > 3*size {
			t.Errorf("%s: %d records, %d bytes read of %d", name, n, c.n, size)
		}
		t.Logf("%s: %d records, %.1f times read", name, n, float64(c.n)/size)
	}
}

func TestScanStops(t *testing.T) {
	p := makePack(t, newRand(t, 25), 3, 100<<10)
	stop := errors.New("stop")
	n := 0
	err := Scan(bytes.NewReader(p.file), int64(len(p.file)), func(Entry, *Header) error { n++; return stop })
	if err != stop || n != 1 {
		t.Fatalf("%d records, %v", n, err)
	}
}
