package vhd

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"holdfast/image/internal/disktest"
	"holdfast/image/internal/fault"
)

// readAll opens b and looks at all of it that disktest.Probe does.
func readAll(tb testing.TB, b []byte, open func(string) (Parent, error), buf []byte) error {
	tb.Helper()
	d, err := Open(bytes.NewReader(b), int64(len(b)), open)
	if err != nil {
		return err
	}
	defer d.Close()
	return disktest.Probe(tb, d, buf, 1000)
}

func TestDamage(t *testing.T) {
	content := disktest.Pattern(1<<20, 6)
	content[0], content[len(content)-1] = 1, 1
	good, p := makeDisk(made{}, content)
	child, pc := makeDisk(made{kind: differencing, parentName: "p.vhd"}, content)
	fix := makeFixed(made{}, content)
	foot := len(good) - footerBytes
	last := p.blocks[len(p.blocks)-1]
	if last == 0 || p.blocks[0] == 0 {
		t.Fatal("the first and the last block should be there")
	}

	// both changes footer and copy alike and sets their checksums right, as
	// head does with the header.
	both := func(off int, b ...byte) []byte {
		g := bytes.Clone(good)
		copy(g[off:], b)
		copy(g[foot+off:], b)
		resum(g, p)
		return g
	}
	head := func(off int, b ...byte) []byte {
		g := bytes.Clone(good)
		copy(g[p.header+off:], b)
		resum(g, p)
		return g
	}
	at := func(b []byte, off int, with ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[off:], with)
		return b
	}
	u32 := func(v uint32) []byte { return be.AppendUint32(nil, v) }
	u64 := func(v uint64) []byte { return be.AppendUint64(nil, v) }
	huge := both(48, u64(64<<40)...)

	tests := []struct {
		name string
		b    []byte
		err  error
	}{
		{"as made", good, nil},
		{"fixed as made", fix, nil},
		{"empty", nil, fault.ErrTruncated},
		{"cookie only", []byte("conectix"), fault.ErrTruncated},
		{"checksums of both footers", at(at(good, 100, 1), foot+100, 1), fault.ErrDamaged},
		{"version 2", both(12, 0, 2), fault.ErrUnsupported},
		{"type 0", both(60, u32(0)...), fault.ErrUnsupported},
		{"type 6", both(60, u32(6)...), fault.ErrUnsupported},
		{"size not of sectors", both(48, u64(1<<20+1)...), fault.ErrDamaged},
		{"size of 8 EiB", both(48, u64(1<<63)...), fault.ErrDamaged},
		{"larger than its block table", both(48, u64(1<<30)...), fault.ErrDamaged},
		{"64 TiB in a small file", huge, fault.ErrDamaged},
		{"footers differ in size", func() []byte {
			g := at(good, 48, u64(1<<19)...)
			resum(g, p)
			return g
		}(), fault.ErrDamaged},
		{"footers differ in ID", func() []byte {
			g := at(good, 70, 9)
			resum(g, p)
			return g
		}(), fault.ErrDamaged},
		{"header far", both(16, u64(1<<62)...), fault.ErrTruncated},
		{"header in the footer", both(16, u64(0)...), fault.ErrDamaged},
		{"header's checksum", at(good, p.header+100, 1), fault.ErrDamaged},
		{"header version 2", head(24, u32(2<<16)...), fault.ErrUnsupported},
		{"block of 0", head(32, u32(0)...), fault.ErrDamaged},
		{"block of 3000", head(32, u32(3000)...), fault.ErrDamaged},
		{"block of 256", head(32, u32(256)...), fault.ErrDamaged},
		{"table far", head(16, u64(1<<62)...), fault.ErrTruncated},
		{"table of 16 GiB", head(28, u32(1<<32-1)...), fault.ErrTruncated},
		{"no table", head(28, u32(0)...), fault.ErrDamaged},
		{"block in the footer", at(good, p.table, u32(0)...), fault.ErrDamaged},
		{"block in the header", at(good, p.table, u32(1)...), fault.ErrDamaged},
		{"block in the table", at(good, p.table, u32(uint32(p.table/sectorSize))...), fault.ErrDamaged},
		{"block far", at(good, p.table, u32(0xfffffffe)...), fault.ErrTruncated},
		{"block over the footer", at(good, p.table, u32(uint32(foot/sectorSize))...), fault.ErrTruncated},
		{"cut in the blocks", good[:foot-100], fault.ErrTruncated},
		{"cut in the table", good[:p.table+3], fault.ErrTruncated},
		{"cut in the header", good[:p.header+100], fault.ErrTruncated},
		{"fixed and too short", append(bytes.Clone(fix[:1<<19]), fix[1<<20:]...), fault.ErrTruncated},
		{"fixed without its disk", makeFooter(made{kind: fixed, size: 512}, 0), fault.ErrTruncated},
		{"fixed with its footer in front", append(makeFooter(made{kind: fixed, size: 1 << 20}, 0), make([]byte, 1<<20)...), fault.ErrTruncated},
		{"child without a parent's name", func() []byte {
			g := bytes.Clone(child)
			clear(g[pc.header+64:][:512])
			resum(g, pc)
			return g
		}(), fault.ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := readAll(t, tt.b, noParent, make([]byte, 2<<20))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
			if err != nil {
				t.Log(err)
			}
		})
	}
}

// TestBrokenReads: a read that fails is told as what it is, and nothing else is
// taken for what it should have given.
func TestBrokenReads(t *testing.T) {
	c := makeChain(7, []int{256 << 10, 256 << 10}, []int{64 << 10, 64 << 10})
	fix := makeFixed(made{}, c.want)
	reads := func(file []byte, inParent bool, n int) (int, error) {
		src := &disktest.Broken{ReaderAt: bytes.NewReader(file), Left: n}
		var own io.ReaderAt = src
		open := c.open
		if inParent {
			own = bytes.NewReader(file)
			open = func(string) (Parent, error) {
				src.ReaderAt = bytes.NewReader(c.files[0])
				return Open(src, int64(len(c.files[0])), noParent)
			}
		}
		d, err := Open(own, int64(len(file)), open)
		if err == nil {
			_, err = d.ReadAt(make([]byte, d.Size()), 0)
		}
		return n - src.Left, err
	}
	for name, in := range map[string]struct {
		file     []byte
		inParent bool
	}{"fixed": {fix, false}, "child": {c.files[1], false}, "parent": {c.files[1], true}} {
		total, err := reads(in.file, in.inParent, 1<<30)
		if err != nil || total < 2 {
			t.Fatalf("%s: %d reads, %v", name, total, err)
		}
		for n := range total {
			if _, err := reads(in.file, in.inParent, n); !errors.Is(err, disktest.ErrBroken) {
				t.Errorf("%s: read %d of %d failed, and the error is %v", name, n, total, err)
			}
		}
	}
}

// TestHugeClaims: what a header claims costs neither memory nor time.
func TestHugeClaims(t *testing.T) {
	content := disktest.Pattern(1<<20, 6)
	b, p := makeDisk(made{block: 512}, content)
	// 2^31 of disk for each of the entries there are: 4 TiB.
	size := uint64(len(p.blocks)) << 31
	for _, off := range []int{0, len(b) - footerBytes} {
		be.PutUint64(b[off+48:], size)
	}
	be.PutUint32(b[p.header+32:], 1<<31)
	for i := range p.blocks {
		be.PutUint32(b[p.table+4*i:], entryAbsent)
	}
	resum(b, p)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := openBytes(t, b, noParent)
	if d.Size() != int64(size) {
		t.Fatalf("size is %d, want %d", d.Size(), size)
	}
	if _, _, err := d.NextData(0); err != io.EOF {
		t.Fatalf("next data: %v, want EOF", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Fatalf("it took %d bytes of memory", n)
	}
}

// TestCorruptions changes bytes of what describes the disk, and sets checksums
// right again so that the change is seen.
func TestCorruptions(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	c := makeChain(3, []int{256 << 10, 256 << 10}, []int{64 << 10, 4 << 10})
	dyn, p := makeDisk(made{block: 16 << 10}, disktest.Pattern(256<<10, 1))
	_, pc := makeDisk(made{block: 4 << 10, held: func(int) bool { return true }, locators: []locator{{}}}, make([]byte, 256<<10))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin, failed, buf := time.Now(), 0, make([]byte, 512<<10)
	const each = 1000
	for i := range 2 * each {
		b, at := bytes.Clone(dyn), p
		if i%2 == 1 {
			b, at = bytes.Clone(c.files[1]), pc
		}
		meta := at.table + 4*len(at.blocks)
		for range 1 + r.IntN(6) {
			b[r.IntN(meta)] = byte(r.Uint32())
		}
		if r.IntN(4) > 0 {
			if r.IntN(2) == 0 {
				copy(b[len(b)-footerBytes:], b[:footerBytes])
			}
			copy(b, footerMagic)
			copy(b[at.header:], headerMagic)
			resum(b, at)
		}
		if readAll(t, b, c.open, buf) != nil {
			failed++
		}
	}
	runtime.ReadMemStats(&after)
	perRead := (after.TotalAlloc - before.TotalAlloc) / (2 * each)
	if took := time.Since(begin); took > time.Minute || perRead > 4<<20 {
		t.Errorf("%d corruptions took %v and %d bytes each", 2*each, took, perRead)
	}
	if failed < each/4 || failed == 2*each {
		t.Errorf("%d of %d corruptions were noticed; some, and not all, can be", failed, 2*each)
	}
	t.Logf("%d of %d noticed, %v, %d bytes each", failed, 2*each, time.Since(begin), perRead)
}

func FuzzOpen(f *testing.F) {
	content := disktest.Pattern(64<<10, 26) // small, or the fuzzer spends its time on making them smaller
	c := makeChain(4, []int{16 << 10, 24 << 10}, []int{4 << 10, 4 << 10})
	dyn, p := makeDisk(made{block: 4 << 10}, content[:32<<10])
	f.Add(dyn, true)
	f.Add(c.files[1], false)
	f.Add(makeFixed(made{}, content[:1024]), false)
	buf := make([]byte, 100<<10)
	f.Fuzz(func(t *testing.T, b []byte, right bool) {
		if right && len(b) > p.table+footerBytes {
			resum(b, p)
		}
		d, err := Open(bytes.NewReader(b), int64(len(b)), c.open)
		if err != nil {
			return
		}
		defer d.Close()
		disktest.Probe(t, d, buf, 20) //nolint:errcheck // any error will do
	})
}
