package ntfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"

	"holdfast/fs"
)

// bare is a volume of nothing but b, with 64 KiB clusters.
func bare(b []byte) *FS {
	return &FS{
		geometry: geometry{clusterBytes: 64 << 10, clusters: 1 << 20, recordBytes: 1024},
		dev:      newDevice(bytes.NewReader(b), int64(len(b))),
		nodes:    newCache[uint64, *node](nodesBudget),
		runs:     newCache[pieceKey, []run](runsBudget),
		units:    newCache[unitKey, []byte](unitsBudget),
	}
}

// A hole of 2^47 clusters of 64 KiB ends where an int64 does, one of 2^48 at 0.
func TestHoleBeyondNumbers(t *testing.T) {
	for _, flags := range []uint16{flagSparse, flagSparse | 1} {
		for _, clusters := range []int64{1 << 47, 1<<47 + 1<<46, 1 << 48, 1<<52 - 1} {
			pairs := binary.LittleEndian.AppendUint64(nil, uint64(clusters)<<8|7)
			a := &attribute{
				typ: typeData, flags: flags, unit: 4, size: maxBytes, valid: maxBytes,
				pieces: []piece{{last: clusters - 1, pairs: pairs}},
			}
			f := bare(nil)
			for _, off := range []int64{0, 1 << 61} {
				if n, err := f.readData(a, make([]byte, 100), off); !errors.Is(err, fs.ErrDamaged) {
					t.Errorf("flags %#x, %d clusters, at %d: %d bytes, %v", flags, clusters, off, n, err)
				}
			}
		}
	}
}

// Two compressed streams of one name, as no good record has them, are not taken
// for each other.
func TestCompressedTwins(t *testing.T) {
	chunk := append([]byte{0xff, 0x3f}, bytes.Repeat([]byte{'x'}, chunkBytes)...) // not packed
	packed := make([]byte, 64<<10)
	for at := 0; at+len(chunk) < len(packed); at += len(chunk) {
		copy(packed[at:], chunk)
	}
	pairs := []byte{0x11, 1, 0, 0x01, 1, 0} // a cluster at 0, then a hole
	twin := func(id uint16, valid int64) *attribute {
		return &attribute{
			typ: typeData, flags: 1, unit: 1, rec: 30, at: 72 * int(id), name: "a\x00", size: valid, valid: valid,
			pieces: []piece{{last: 1, rec: 30, at: 72 * int(id), pairs: pairs}},
		}
	}
	f := bare(packed)
	for i, valid := range []int64{10, 20000} {
		p := make([]byte, valid)
		n, err := f.readData(twin(uint16(i), valid), p, 0)
		if want := bytes.Repeat([]byte{'x'}, int(valid)); n != len(p) || err != nil || !bytes.Equal(p, want) {
			t.Errorf("twin %d: %d bytes of %d, %v", i, n, valid, err)
		}
	}
	p := make([]byte, 10)
	if n, err := f.readData(twin(1, 20000), p, 19000); n != 10 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// nonResident is an unnamed $DATA with the id 3 and one cluster, the first of the
// volume or a later one.
func nonResident(first byte, flags uint16, allocated int64) []byte {
	b := make([]byte, 72)
	le.PutUint32(b, typeData)
	le.PutUint32(b[4:], uint32(len(b)))
	b[8] = 1
	le.PutUint16(b[12:], flags)
	le.PutUint16(b[14:], 3)  // id
	le.PutUint16(b[32:], 64) // mapping pairs
	le.PutUint64(b[40:], uint64(allocated))
	le.PutUint64(b[48:], 64<<10)
	le.PutUint64(b[56:], 64<<10)
	copy(b[64:], []byte{0x11, 1, first})
	return b
}

// Two streams of one name and id, as damage may make them, are not taken for
// each other by what remembers where they lie.
func TestTwins(t *testing.T) {
	f := bare(append(bytes.Repeat([]byte{'a'}, 64<<10), bytes.Repeat([]byte{'b'}, 64<<10)...))
	attributes := append(nonResident(0, 0, 64<<10), nonResident(1, 0, 64<<10)...)
	r := record{num: 30, b: append(attributes, 0xff, 0xff, 0xff, 0xff)}
	var twins []attribute
	if err := r.eachAttribute(func(a attribute) error { twins = append(twins, a); return nil }); err != nil || len(twins) != 2 {
		t.Fatalf("%d attributes, %v", len(twins), err)
	}
	for range 2 {
		for i, want := range "ab" {
			p := make([]byte, 10)
			if n, err := f.readData(&twins[i], p, 0); n != 10 || err != nil || p[0] != byte(want) {
				t.Errorf("twin %d: %d bytes of %q, %v; want %q", i, n, p[0], err, want)
			}
		}
	}
}

// A run that lost its place is no hole where there are none, and a size that is
// below zero is none.
func TestLostPlace(t *testing.T) {
	f := bare(nil)
	for _, flags := range []uint16{0, flagSparse} {
		b := nonResident(0, flags, 0)
		copy(b[64:], []byte{0x01, 1, 0})
		a, _, err := parseAttribute(b)
		if err != nil {
			t.Fatal(err)
		}
		n, err := f.readData(&a, make([]byte, 100), 0)
		if good := n == 100 && err == nil; good != (flags != 0) || !good && !errors.Is(err, fs.ErrDamaged) {
			t.Errorf("flags %#x: %d bytes, %v", flags, n, err)
		}
	}
	for _, allocated := range []int64{-1, maxBytes + 1} {
		plain := nonResident(0, 0, allocated)
		sparse := nonResident(0, flagSparse, 0)
		sparse[34] = 4
		le.PutUint64(sparse[64:], uint64(allocated))
		for _, b := range [][]byte{plain, sparse} {
			if a, _, err := parseAttribute(b); !errors.Is(err, fs.ErrDamaged) {
				t.Errorf("%d bytes allocated: %v", a.allocated, err)
			}
		}
	}
	n := node{attrs: []attribute{{typ: typeData, allocated: maxBytes}, {typ: typeIndexAlloc, allocated: maxBytes}, {typ: typeIndexAlloc, allocated: maxBytes}}}
	if n.sizes(); n.attr.Used < 0 {
		t.Errorf("uses %d bytes", n.attr.Used)
	}
}

// An attribute list whose entries lead to thousands of large records, which are
// all the same clusters of the volume, is not followed to its end.
func TestListOfManyRecords(t *testing.T) {
	const recordBytes, entries, firstExtension = 64 << 10, 1500, 100
	makeRecord := func(base uint64, attributes []byte) []byte {
		b := make([]byte, recordBytes)
		copy(b, "FILE")
		const fixups = 0x30
		le.PutUint16(b[4:], fixups)
		le.PutUint16(b[6:], recordBytes/stride+1)
		le.PutUint16(b[0x10:], 1) // sequence
		at := fixups + 2*(recordBytes/stride+1) + 6
		at -= at % 8
		le.PutUint16(b[0x14:], uint16(at))
		le.PutUint16(b[0x16:], recordInUse)
		le.PutUint32(b[0x18:], uint32(at+len(attributes)+8))
		le.PutUint64(b[0x20:], base)
		copy(b[at:], attributes)
		le.PutUint32(b[at+len(attributes):], typeEnd)
		for i := range recordBytes / stride { // the number of the update sequence is 0
			end := (i+1)*stride - 2
			copy(b[fixups+2+2*i:][:2], b[end:end+2])
			b[end], b[end+1] = 0, 0
		}
		return b
	}
	resident := func(typ uint32, value []byte) []byte {
		b := make([]byte, (24+len(value)+7)/8*8)
		le.PutUint32(b, typ)
		le.PutUint32(b[4:], uint32(len(b)))
		le.PutUint32(b[16:], uint32(len(value)))
		le.PutUint16(b[20:], 24)
		copy(b[24:], value)
		return b
	}
	const baseRef = 99 | 1<<48
	var list []byte
	for i := range uint64(entries) {
		e := make([]byte, 32)
		le.PutUint32(e, typeData)
		le.PutUint16(e[4:], 32)
		e[7] = 26
		le.PutUint64(e[16:], firstExtension+i|1<<48)
		list = append(list, e...)
	}
	var many []byte
	for range 2500 {
		many = append(many, resident(typeData, nil)...)
	}
	f := bare(append(makeRecord(0, resident(typeList, list)), makeRecord(baseRef, many)...))
	f.recordBytes, f.records = recordBytes, firstExtension+entries
	f.mft = []run{{99, 1, 0}}
	for i := range int64(entries) {
		f.mft = append(f.mft, run{firstExtension + i, 1, 1})
	}
	base, err := f.record(99)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	all, err := f.attributes(base)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, fs.ErrDamaged) {
		t.Errorf("%d attributes, %v", len(all), err)
	}
	if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 256 {
		t.Errorf("%d MiB were allocated", got)
	}
}

// A volume that claims more clusters and records than there are bytes, and whose
// bitmaps are holes, is counted as far as the device goes.
func TestCountOfClaims(t *testing.T) {
	f := bare(make([]byte, 1<<20))
	f.clusters, f.records = 1<<46, 1<<52
	f.stateOnce.Do(func() {})
	hole := func(typ uint32) *node {
		const clusters = 1 << 34
		pairs := binary.LittleEndian.AppendUint64(nil, clusters<<8|7)
		return &node{attrs: []attribute{{
			typ: typ, flags: flagSparse, size: clusters << 16, valid: clusters << 16,
			pieces: []piece{{last: clusters - 1, rec: uint64(typ), pairs: pairs}},
		}}}
	}
	f.nodes.put(fileBitmap, hole(typeData), 1)
	f.nodes.put(fileMFT, hole(typeBitmap), 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if s, err := f.count(ctx); err != nil || s.FreeBytes != 1<<20 || s.FreeFiles != 1<<10 {
		t.Errorf("%+v, %v", s, err)
	}
}
