package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// wantHealed checks that a damaged pack is found damaged, and is rebuilt and
// read as it was.
func wantHealed(tb testing.TB, p *testPack, damaged []byte, bad map[int]bool) {
	tb.Helper()
	f, err := Open(flaky{damaged, bad}, int64(len(damaged)))
	if err != nil {
		tb.Fatal(err)
	}
	d, err := f.Check(context.Background())
	if err != nil || !d.Any() || !d.Healable() {
		tb.Fatalf("check: %+v, %v", d, err)
	}
	if len(bad) > 0 && !errors.Is(d.Unreadable, errBadSector) {
		tb.Fatalf("check does not tell the first error: %v", d.Unreadable)
	}
	var out bytes.Buffer
	if err := f.Rebuild(context.Background(), &out); err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), p.file) {
		tb.Fatal("rebuilt file differs")
	}
	entries, err := f.Records()
	if err != nil {
		tb.Fatal(err)
	}
	if !slices.Equal(p.entries, entries) {
		tb.Fatal("another list of records")
	}
}

// wantRecords checks that every record of a damaged pack reads as it was.
func wantRecords(tb testing.TB, p *testPack, damaged []byte) {
	tb.Helper()
	f := mustOpen(tb, damaged)
	for i, e := range p.entries {
		if _, rec, err := f.ReadRecord(e); err != nil || !bytes.Equal(rec, p.records[i]) {
			tb.Fatalf("record %d: %v", i, err)
		}
	}
}

// spoil changes some bytes of a block.
func spoil(r *rand.Rand, file []byte, block int) {
	p := file[block*BlockBytes:][:BlockBytes]
	switch r.IntN(3) {
	case 0:
		p[r.IntN(len(p))] ^= 1 << r.IntN(8)
	case 1:
		p[r.IntN(len(p))] ^= 0xFF
		clear(p[:r.IntN(len(p))])
		p[r.IntN(len(p))] ^= 1
	default:
		copy(p, randBytes(r, len(p)))
	}
}

func TestHealAnyBlocksOfStripe(t *testing.T) {
	r := newRand(t, 4)
	for _, parity := range []int{1, 3, 20} {
		for _, size := range []int{500, 5 << 10, 100 << 10, 399 << 10, 410 << 10, 830 << 10} {
			p := makePack(t, r, parity, size)
			l := p.layout(t)
			for range max(1, 20<<10/size) {
				damaged := bytes.Clone(p.file)
				hit := 0
				for col := range l.Stripes {
					rows := r.Perm(l.rows() + parity)[:parity]
					for _, row := range rows {
						if at := l.at(row, col); at >= 0 {
							spoil(r, damaged, l.fileBlock(at))
							hit++
						}
					}
				}
				// One tail may go, too.
				if r.IntN(2) == 0 {
					spoil(r, damaged, l.tailB()+r.IntN(l.Tail))
				} else {
					spoil(r, damaged, l.tailA()+r.IntN(l.Tail))
				}
				wantHealed(t, p, damaged, nil)
				wantRecords(t, p, damaged)
			}
		}
	}
}

// Every run of m × S blocks heals, wherever in the file it is, unreadable or
// overwritten.
func TestHealContiguous(t *testing.T) {
	r := newRand(t, 5)
	for _, c := range []struct{ parity, size int }{{1, 700}, {3, 3 << 10}, {3, 30 << 10}, {1, 420 << 10}, {3, 830 << 10}, {20, 430 << 10}} {
		t.Run(fmt.Sprintf("parity=%d/bytes=%d", c.parity, c.size), func(t *testing.T) {
			p := makePack(t, r, c.parity, c.size)
			l := p.layout(t)
			run := l.Parity * l.Stripes
			step := 1 + l.fileBlocks()/8
			for at := 1 - run; at < l.fileBlocks(); at += 1 + r.IntN(step) {
				from, to := max(0, at), min(at+run, l.fileBlocks())
				if r.IntN(2) == 0 {
					bad := map[int]bool{}
					for b := from; b < to; b++ {
						bad[b] = true
					}
					wantHealed(t, p, p.file, bad)
					continue
				}
				damaged := bytes.Clone(p.file)
				copy(damaged[from*BlockBytes:to*BlockBytes], randBytes(r, (to-from)*BlockBytes))
				wantHealed(t, p, damaged, nil)
			}
			// The edges of the parts are always among the positions.
			for _, edge := range []int{0, l.tailA(), l.tailA() + l.Tail, l.tailB(), l.fileBlocks()} {
				for _, from := range []int{edge - run, edge - run/2, edge - 1, edge} {
					from, to := max(0, from), min(from+run, l.fileBlocks())
					if from >= to {
						continue
					}
					damaged := bytes.Clone(p.file)
					clear(damaged[from*BlockBytes : to*BlockBytes])
					if !bytes.Equal(damaged, p.file) {
						wantHealed(t, p, damaged, nil)
					}
				}
			}
		})
	}
}

// Any single wrong bit of a file is found and put right.
func TestHealEveryByte(t *testing.T) {
	r := newRand(t, 6)
	p := makePack(t, r, 1, 1500)
	for i := range p.file {
		p.file[i] ^= 1 << r.IntN(8)
		damaged := p.file[i]
		f := mustOpen(t, p.file)
		d, err := f.Check(context.Background())
		if err != nil || len(d.Bad) != 1 || d.Bad[0] != uint32(i/BlockBytes) || !d.Healable() {
			t.Fatalf("byte %d: %+v, %v", i, d, err)
		}
		var out bytes.Buffer
		if err := f.Rebuild(context.Background(), &out); err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
		p.file[i] = out.Bytes()[i]
		if !bytes.Equal(out.Bytes(), p.file) || p.file[i] == damaged {
			t.Fatalf("byte %d: rebuilt file differs", i)
		}
	}
}

// Damage beyond the guarantee gives ErrDamaged or the right bytes.
func TestHealBeyond(t *testing.T) {
	r := newRand(t, 7)
	lost := 0
	for n := range 40 {
		parity := []int{0, 1, 3}[n%3]
		p := makePack(t, r, parity, 1+r.IntN(600<<10))
		l := p.layout(t)
		damaged := bytes.Clone(p.file)
		for range 1 + r.IntN(1+4*l.Stripes*(parity+1)) {
			spoil(r, damaged, r.IntN(l.fileBlocks()))
		}
		f, err := Open(bytes.NewReader(damaged), int64(len(damaged)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			lost++
			continue
		}
		d, err := f.Check(context.Background())
		if err != nil || !d.Any() {
			t.Fatalf("damage not found: %+v %v", d, err)
		}
		var out bytes.Buffer
		err = f.Rebuild(context.Background(), &out)
		switch {
		case d.Healable() != (err == nil), err == nil && !bytes.Equal(out.Bytes(), p.file):
			t.Fatalf("healable %v, rebuild: %v", d.Healable(), err)
		case err != nil && !errors.Is(err, ErrDamaged):
			t.Fatal(err)
		}
		for i, e := range p.entries {
			_, rec, err := f.ReadRecord(e)
			if err == nil && !bytes.Equal(rec, p.records[i]) {
				t.Fatalf("record %d: wrong bytes", i)
			}
			var corrupt *CorruptError
			if err != nil {
				lost++
				if !errors.Is(err, ErrDamaged) || !errors.As(err, &corrupt) || corrupt.Pack != f.Name() {
					t.Fatalf("record %d: %v", i, err)
				}
			}
			got, err := f.Heal(int64(e.Off), int(e.Len))
			if err == nil && !bytes.Equal(got, p.records[i]) || err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatalf("heal record %d: %v", i, err)
			}
		}
		found, err := f.Records()
		if err == nil && !slices.Equal(found, p.entries) {
			t.Fatal("wrong list of records, and no error")
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	}
	if lost == 0 {
		t.Fatal("nothing was beyond the guarantee: the test tests nothing")
	}
}

func TestHealTruncatedAndExtended(t *testing.T) {
	r := newRand(t, 8)
	p := makePack(t, r, 3, 1500<<10)
	l := p.layout(t)
	for _, cut := range []int{1, 100, BlockBytes, l.Tail * BlockBytes, l.Tail*BlockBytes + 1, (l.Tail + 3*l.Stripes) * BlockBytes} {
		wantHealed(t, p, p.file[:len(p.file)-cut], nil)
	}
	for _, more := range []int{1, 127, BlockBytes, 300*BlockBytes + 5} {
		longer := append(bytes.Clone(p.file), randBytes(r, more)...)
		wantHealed(t, p, longer, nil)
		d, err := mustOpen(t, longer).Check(context.Background())
		if err != nil || d.Extra != int64(more) || len(d.Bad) != 0 {
			t.Fatalf("%d more bytes: %+v, %v", more, d, err)
		}
	}
	// A pack cut within its data has no tail left.
	f := mustOpen(t, p.file[:l.Data/2*BlockBytes])
	if d, err := f.Check(context.Background()); err != nil || !d.Blind || d.Healable() {
		t.Fatalf("half a pack: %+v, %v", d, err)
	}
	if err := f.Rebuild(context.Background(), new(bytes.Buffer)); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	entries, err := f.Records()
	if !errors.Is(err, ErrDamaged) || len(entries) == 0 || !slices.Equal(entries, p.entries[:len(entries)]) {
		t.Fatalf("half a pack: %d records, %v", len(entries), err)
	}
}

// Without either tail the records still read, and the list of them is whole.
func TestHealNoTails(t *testing.T) {
	r := newRand(t, 9)
	p := makePack(t, r, 3, 600<<10)
	l := p.layout(t)
	for _, at := range []int{l.tailA(), l.tailA() + l.Tail - 1} {
		damaged := bytes.Clone(p.file)
		for _, b := range []int{at, at + l.tailB() - l.tailA()} {
			damaged[b*BlockBytes] ^= 1
			damaged[(b+1)*BlockBytes-trailerBytes] ^= 1
		}
		wantRecords(t, p, damaged)
		f := mustOpen(t, damaged)
		if entries, err := f.Records(); err != nil || !slices.Equal(entries, p.entries) {
			t.Fatalf("%d of %d records, %v", len(entries), len(p.entries), err)
		}
		if _, err := f.Heal(0, 10); !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		// A record that is damaged as well is not served.
		e := p.entries[len(p.entries)/2]
		damaged[e.Off+e.Len-1] ^= 4
		if _, _, err := mustOpen(t, damaged).ReadRecord(e); !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	}
}

func TestHealRange(t *testing.T) {
	r := newRand(t, 10)
	p := makePack(t, r, 3, 900<<10)
	l := p.layout(t)
	damaged := bytes.Clone(p.file)
	for b := range 3 * l.Stripes {
		spoil(r, damaged, 20+b)
	}
	f := mustOpen(t, damaged)
	end := l.Data * BlockBytes
	for range 200 {
		off := r.IntN(end)
		n := r.IntN(min(end-off, 300<<10) + 1)
		got, err := f.Heal(int64(off), n)
		if err != nil || !bytes.Equal(got, p.file[off:off+n]) {
			t.Fatalf("%d bytes at %d: %v", n, off, err)
		}
	}
	for _, c := range []struct {
		off int64
		n   int
	}{{-1, 5}, {int64(end) - 4, 5}, {0, -1}, {0, maxHealBytes + 1}, {1 << 62, 4}} {
		if _, err := f.Heal(c.off, c.n); !errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes at %d: %v", c.n, c.off, err)
		}
	}
}

func TestCheckCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f := mustOpen(t, makePack(t, newRand(t, 11), 3, 10<<10).file)
	if _, err := f.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := f.Rebuild(ctx, new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
