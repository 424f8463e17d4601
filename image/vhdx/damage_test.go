package vhdx

import (
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"holdfast/image/internal/disktest"
	"holdfast/image/internal/fault"
)

// readAll opens f and looks at all of it that disktest.Probe does.
func readAll(tb testing.TB, f *paged, open func(string) (Parent, error), buf []byte) error {
	tb.Helper()
	d, err := Open(f, f.size, open)
	if err != nil {
		return err
	}
	defer d.Close()
	return disktest.Probe(tb, d, buf, 1000)
}

// metadataPlace returns where the entry and the value of an item of a made disk
// lie.
func metadataPlace(f *paged, p places, id GUID) (entry, value int64) {
	for i := int64(1); ; i++ {
		e := f.read(p.metadata.off+32*i, 32)
		if GUID(e[:16]) == id {
			return p.metadata.off + 32*i, p.metadata.off + int64(le.Uint32(e[16:]))
		}
	}
}

func TestDamage(t *testing.T) {
	content := disktest.Pattern(4*mib, 6)
	held := func(int64) state { return fullyPresent }
	good, p := makeDisk(made{size: 4 * mib, content: of(content), held: held})
	child, pc := makeDisk(made{size: 4 * mib, content: of(content), held: func(int64) state { return partiallyPresent },
		sectorHeld: func(int64) bool { return true },
		parent:     []pair{{"parent_linkage", guid(1).String()}, {"relative_path", "p"}}})
	parent := func(string) (Parent, error) {
		f, _ := makeDisk(made{size: 4 * mib, dataID: guid(1), held: held})
		return Open(f, f.size, noParent)
	}
	u32 := func(v uint32) []byte { return le.AppendUint32(nil, v) }
	u64 := func(v uint64) []byte { return le.AppendUint64(nil, v) }

	type change func(f *paged)
	at := func(off int64, b []byte) change { return func(f *paged) { f.write(b, off) } }
	resum := func(off int64, n int, changes ...change) change {
		return func(f *paged) {
			for _, c := range changes {
				c(f)
			}
			b := f.read(off, n)
			f.write(sealed(clearSum(b)), off)
		}
	}
	header := func(off int64, b []byte) change {
		return resum(header2At, headerBytes, at(header2At+off, b))
	}
	regions := func(list ...region) change { return func(f *paged) { f.writeRegions(list...) } }
	batHere, metaHere := region{batRegion, p.bat, 1}, region{metadataRegion, p.metadata, 1}
	value := func(id GUID, b []byte) change {
		_, v := metadataPlace(good, p, id)
		return at(v, b)
	}
	entryOf := func(id GUID, off int64, b []byte) change {
		e, _ := metadataPlace(good, p, id)
		return at(e+off, b)
	}
	both := func(changes ...change) change {
		return func(f *paged) {
			for _, c := range changes {
				c(f)
			}
		}
	}
	cut := func(n int64) change { return func(f *paged) { f.size = n } }
	bat := func(i int64, v uint64) change { return at(p.bat.off+8*i, u64(v)) }
	_, locator := metadataPlace(child, pc, itemParent)

	tests := []struct {
		name string
		of   *paged
		do   change
		err  error
	}{
		{"as made", good, both(), nil},
		{"child as made", child, both(), nil},
		{"empty", good, cut(0), fault.ErrDamaged},
		{"another magic", good, at(0, []byte("vhdxfilf")), fault.ErrDamaged},
		{"magic only", good, cut(8), fault.ErrTruncated},
		{"second header damaged", good, at(header2At+200, []byte{1}), nil},
		{"first header damaged", good, at(header1At+200, []byte{1}), nil},
		{"both headers damaged", good, both(at(header1At+200, []byte{1}), at(header2At+200, []byte{1})), fault.ErrDamaged},
		{"two headers of one number", good, both(header(8, u64(7)), header(32, u64(9))), fault.ErrDamaged},
		{"two headers that are the same", good, header(8, u64(7)), nil},
		{"version 2", good, header(66, []byte{2, 0}), fault.ErrUnsupported},
		{"first region table damaged", good, at(regions1At+60000, []byte{1}), nil},
		{"both region tables damaged", good, both(at(regions1At+60000, []byte{1}), at(regions2At+60000, []byte{1})), fault.ErrDamaged},
		{"2^32 regions", good, both(resum(regions1At, regionsBytes, at(regions1At+8, u32(1<<32-1)))), fault.ErrDamaged},
		{"no regions", good, regions(), fault.ErrDamaged},
		{"no BAT", good, regions(metaHere), fault.ErrDamaged},
		{"two BATs", good, regions(batHere, metaHere, batHere), fault.ErrDamaged},
		{"region of the future", good, regions(batHere, metaHere, region{guid(9), extent{p.metadata.end(), mib}, 1}), fault.ErrUnsupported},
		{"region of the future, not required", good, regions(batHere, metaHere, region{guid(9), extent{p.metadata.end(), mib}, 0}), nil},
		{"regions over each other", good, regions(batHere, region{metadataRegion, p.bat, 1}), fault.ErrDamaged},
		{"region over the header", good, regions(batHere, region{metadataRegion, extent{0, mib}, 1}), fault.ErrDamaged},
		{"region over the log", good, regions(metaHere, region{batRegion, p.log, 1}), fault.ErrDamaged},
		{"region unaligned", good, regions(batHere, region{metadataRegion, extent{p.metadata.off + 4096, mib}, 1}), fault.ErrDamaged},
		{"region far", good, regions(batHere, region{metadataRegion, extent{1 << 40, mib}, 1}), fault.ErrTruncated},
		{"region at 8 EiB", good, regions(batHere, region{metadataRegion, extent{-mib, mib}, 1}), fault.ErrTruncated},
		{"no metadata", good, at(p.metadata.off, []byte("metadatb")), fault.ErrDamaged},
		{"65535 items", good, at(p.metadata.off+10, []byte{0xff, 0xff}), fault.ErrDamaged},
		{"item far", good, entryOf(itemDiskSize, 16, u32(1<<32-1)), fault.ErrDamaged},
		{"item in the table", good, entryOf(itemDiskSize, 16, u32(100)), fault.ErrDamaged},
		{"item too short", good, entryOf(itemDiskSize, 20, u32(7)), fault.ErrDamaged},
		{"item of the future", good, entryOf(itemDiskSize, 0, make([]byte, 16)), fault.ErrUnsupported},
		{"item of the user, required", good, entryOf(itemDiskSize, 24, u32(5)), fault.ErrUnsupported},
		{"item twice", good, entryOf(itemDiskSize, 0, itemDiskID[:]), fault.ErrDamaged},
		{"item missing", good, entryOf(itemDiskSize, 24, u32(1)), fault.ErrDamaged},
		{"block of 0", good, value(itemFileParameters, u32(0)), fault.ErrDamaged},
		{"block of 3 MiB", good, value(itemFileParameters, u32(3*mib)), fault.ErrDamaged},
		{"block of 512 MiB", good, value(itemFileParameters, u32(512*mib)), fault.ErrDamaged},
		{"parameters of the future", good, value(itemFileParameters, u64(mib|4<<32)), fault.ErrUnsupported},
		{"a parent and no locator", good, value(itemFileParameters, u64(mib|hasParent<<32)), fault.ErrDamaged},
		{"sectors of 1024", good, value(itemLogicalSector, u32(1024)), fault.ErrDamaged},
		{"physical sectors of 0", good, value(itemPhysicalSector, u32(0)), fault.ErrDamaged},
		{"size not of sectors", good, value(itemDiskSize, u64(4*mib-1)), fault.ErrDamaged},
		{"size of 64 TiB and a sector", good, value(itemDiskSize, u64(maxDisk+512)), fault.ErrDamaged},
		{"size of 16 EiB", good, value(itemDiskSize, u64(1<<64-512)), fault.ErrDamaged},
		{"64 TiB and a BAT for 4 MiB", good, value(itemDiskSize, u64(maxDisk)), fault.ErrDamaged},
		{"reserved bits", good, bat(1, 6|8|uint64(p.block[1])), fault.ErrDamaged},
		{"state 4", good, bat(1, 4), fault.ErrDamaged},
		{"held in part without a parent", good, bat(1, 7|uint64(p.block[1])), fault.ErrDamaged},
		{"block at 0", good, bat(1, 6), fault.ErrDamaged},
		{"block over the BAT", good, bat(1, 6|uint64(p.bat.off)), fault.ErrDamaged},
		{"block over metadata", good, bat(1, 6|uint64(p.metadata.off)), fault.ErrDamaged},
		{"block far", good, bat(1, 6|1<<50), fault.ErrTruncated},
		{"block at the end of all numbers", good, bat(1, 6|entryPlaceMask), fault.ErrTruncated},
		{"file cut", good, cut(good.size - 100), fault.ErrTruncated},
		{"file cut in the tables", good, cut(p.metadata.off + 100), fault.ErrTruncated},
		{"no bitmap", child, at(pc.bat.off+8*4096, u64(0)), fault.ErrDamaged},
		{"bitmap of no state", child, at(pc.bat.off+8*4096, u64(uint64(pc.bitmap[0])|3)), fault.ErrDamaged},
		{"bitmap far", child, at(pc.bat.off+8*4096, u64(1<<50|6)), fault.ErrTruncated},
		{"bitmap over the BAT", child, at(pc.bat.off+8*4096, u64(uint64(pc.bat.off)|6)), fault.ErrDamaged},
		{"locator of another kind", child, at(locator, make([]byte, 16)), fault.ErrUnsupported},
		{"locator of 65535 pairs", child, at(locator+18, []byte{0xff, 0xff}), fault.ErrDamaged},
		{"locator with a key outside", child, at(locator+20, u32(1<<32-1)), fault.ErrDamaged},
		{"locator without keys", child, at(locator+18, []byte{0, 0}), fault.ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.of.clone()
			tt.do(f)
			err := readAll(t, f, parent, make([]byte, 5*mib))
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
	c := makeChain(7, 512, []int64{3 * mib, 3 * mib}, []int64{mib, mib})
	dirty := makeCrashed(6)
	dirty.writeLog(dirty.p.log, logged{sequence: 1, guid: dirty.guid, flushed: dirty.size, last: dirty.size,
		writes: randomChanges(rand.New(rand.NewPCG(1, 1)), dirty)})
	reads := func(f *paged, inParent bool, n int) (int, error) {
		src := &disktest.Broken{ReaderAt: f, Left: n}
		open := c.open
		var own io.ReaderAt = src
		if inParent {
			own, src.ReaderAt = f, c.files[0]
			open = func(string) (Parent, error) { return Open(src, c.files[0].size, noParent) }
		}
		d, err := Open(own, f.size, open)
		if err == nil {
			_, err = d.ReadAt(make([]byte, d.Size()), 0)
		}
		return n - src.Left, err
	}
	for name, in := range map[string]struct {
		f        *paged
		inParent bool
	}{"child": {c.files[1], false}, "parent": {c.files[1], true}, "with a log": {dirty.paged, false}} {
		total, err := reads(in.f, in.inParent, 1<<30)
		if err != nil || total < 2 {
			t.Fatalf("%s: %d reads, %v", name, total, err)
		}
		for n := range total {
			if _, err := reads(in.f, in.inParent, n); !errors.Is(err, disktest.ErrBroken) {
				t.Errorf("%s: read %d of %d failed, and the error is %v", name, n, total, err)
			}
		}
	}
}

// TestHugeClaims: what the metadata claims costs neither memory nor time.
func TestHugeClaims(t *testing.T) {
	f, _ := makeDisk(made{size: maxDisk, block: maxBlock, held: func(int64) state { return notPresent }})
	if f.size > 8*mib {
		t.Fatalf("the file has %d bytes", f.size)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := f.open(t, noParent)
	if d.Size() != maxDisk {
		t.Fatalf("size is %d, want %d", d.Size(), int64(maxDisk))
	}
	if _, _, err := d.NextData(0); err != io.EOF {
		t.Fatalf("next data: %v, want EOF", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4*mib {
		t.Fatalf("it took %d bytes of memory", n)
	}
}

// TestCorruptions changes bytes of what describes the disk, and sets checksums
// right again so that the change is seen.
func TestCorruptions(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 12))
	c := makeChain(3, 512, []int64{3 * mib, 3 * mib}, []int64{mib, mib})
	_, pc := makeDisk(made{size: 3 * mib, parent: []pair{}, held: func(int64) state { return notPresent }})
	dirty := makeCrashed(5)
	next := int64(0)
	for n := range uint64(8) {
		next = dirty.writeLog(dirty.p.log, logged{at: next, tail: 0, sequence: 1 + n, guid: dirty.guid, flushed: dirty.size,
			last: dirty.size, writes: append(randomChanges(r, dirty), change{off: dirty.p.bat.off, data: dirty.read(dirty.p.bat.off, logSector)})})
	}
	kinds := []struct {
		name string
		f    *paged
		p    places
		log  int64 // bytes of it in use
	}{{"differencing", c.files[1], pc, 0}, {"with a log", dirty.paged, dirty.p, next}}
	buf := make([]byte, 3*mib)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begin, failed := time.Now(), 0
			const n = 1000
			for range n {
				f := k.f.clone()
				for range 1 + r.IntN(6) {
					corrupt(r, f, k.p, k.log)
				}
				if readAll(t, f, c.open, buf) != nil {
					failed++
				}
			}
			runtime.ReadMemStats(&after)
			perRead := (after.TotalAlloc - before.TotalAlloc) / n
			if took := time.Since(begin); took > time.Minute || perRead > 8*mib {
				t.Errorf("%d corruptions took %v and %d bytes each", n, took, perRead)
			}
			if failed < n/4 || failed == n {
				t.Errorf("%d of %d corruptions were noticed; some, and not all, can be", failed, n)
			}
			t.Logf("%d of %d noticed, %v, %d bytes each", failed, n, time.Since(begin), perRead)
		})
	}
}

// corrupt changes one byte of a header, a table or the log, with its checksum.
func corrupt(r *rand.Rand, f *paged, p places, log int64) {
	one := func(off, n int64) { f.write([]byte{byte(r.Uint32())}, off+r.Int64N(n)) }
	seal := func(off int64, n int) { f.write(sealed(clearSum(f.read(off, n))), off) }
	switch r.IntN(6) {
	case 0:
		one(header1At, 80)
		seal(header1At, headerBytes)
	case 1:
		off := int64(regions1At + r.IntN(2)*(regions2At-regions1At))
		one(off, 16+3*32)
		seal(off, regionsBytes)
	case 2:
		one(p.metadata.off, 32*8)
	case 3:
		one(p.items.off, 400)
	case 4:
		one(p.bat.off, 8*8)
	case 5:
		if log == 0 {
			one(p.bat.off+8*4096, 8)
			return
		}
		off := p.log.off + r.Int64N(log)/logSector*logSector
		one(off, 64+4*32)
		if n := le.Uint32(f.read(off+8, 4)); string(f.read(off, 4)) == entryMagic && n <= mib && n >= logSector {
			seal(off, int(n))
		}
	}
}

// FuzzOpen puts the parts of a file to their places, with right checksums where
// they have some.
func FuzzOpen(f *testing.F) {
	c := makeChain(4, 512, []int64{2 * mib, 2 * mib}, []int64{mib, mib})
	child, pc := c.files[1], places{}
	_, pc = makeDisk(made{size: 2 * mib, parent: []pair{}, held: func(int64) state { return notPresent }})
	dirty := makeCrashed(5)
	dirty.writeLog(dirty.p.log, logged{sequence: 1, guid: dirty.guid, flushed: dirty.size, last: dirty.size,
		writes: []change{{off: dirty.p.bat.off, data: dirty.read(dirty.p.bat.off, logSector)}, {off: 9 * mib, n: mib}}})
	add := func(f0 *paged, p places) {
		f.Add(f0.read(header1At, 80), f0.read(regions1At, 112), f0.read(p.metadata.off, 256), f0.read(p.items.off, 400),
			f0.read(p.bat.off, 128), f0.read(p.log.off, 2*logSector), uint32(f0.size))
	}
	add(child, pc)
	add(dirty.paged, dirty.p)
	buf := make([]byte, 40<<10)
	f.Fuzz(func(t *testing.T, header, regions, table, items, bat, log []byte, size uint32) {
		g := newPaged()
		g.write([]byte(fileMagic), 0)
		put := func(b []byte, off int64, n int, seal bool) {
			full := make([]byte, n)
			copy(full, b)
			if seal {
				sealed(clearSum(full))
			}
			g.write(full, off)
		}
		put(header, header1At, headerBytes, true)
		put(regions, regions1At, regionsBytes, true)
		put(table, pc.metadata.off, metadataTable, false)
		put(items, pc.items.off, 4*kib, false)
		put(bat, pc.bat.off, 4*kib, false)
		if len(log) >= 12 {
			n := min(int(le.Uint32(log[8:])), 64*kib)
			put(log, pc.log.off, max(n, 12), true)
		}
		g.size = int64(size)
		d, err := Open(g, g.size, c.open)
		if err != nil {
			return
		}
		defer d.Close()
		disktest.Probe(t, d, buf, 20) //nolint:errcheck // any error will do
	})
}

// TestLocatorOfSharedText: entries of a locator that all lie over the same text
// do not each become a text of their own.
func TestLocatorOfSharedText(t *testing.T) {
	const n, textBytes = 20000, 65000
	b := make([]byte, 20+12*n)
	copy(b, vhdxLocator[:])
	le.PutUint16(b[18:], n)
	for i := range n {
		e := b[20+12*i:]
		le.PutUint32(e, uint32(len(b)+i))
		le.PutUint32(e[4:], uint32(len(b)+i))
		le.PutUint16(e[8:], textBytes)
		le.PutUint16(e[10:], textBytes)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range n + textBytes {
		b = append(b, byte(1+r.IntN(255)))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := parseLocator(b); !errors.Is(err, fault.ErrDamaged) {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 16 {
		t.Errorf("%d MiB were allocated for a locator of %d bytes", got, len(b))
	}
}
