package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/repo/chunk"
	"holdfast/repo/seal"
)

// recordCases are one record of each shape, with bodies of a pattern.
func recordCases() map[string][]byte {
	id := func(b byte) (x [32]byte) {
		for i := range x {
			x[i] = b + byte(i)
		}
		return x
	}
	body := func(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }
	cases := map[string][]byte{}
	var a Assembler

	a.Begin(nil, 4)
	a.Kind, a.ID, a.LogicalBytes = Chunk, id(1), 256<<10
	a.Add(append(a.Bytes(), body(40, 'a')...), id(10), seal.Zstd)
	a.AddZero(id(11))
	a.Add(append(a.Bytes(), body(30, 'b')...), id(12), seal.S2)
	a.AddZero(id(11))
	cases["chunk"] = finish(&a)

	a.Begin(a.Bytes(), 4)
	a.Kind, a.Flags, a.ID, a.LogicalBytes = Chunk, Sealed, id(2), 256<<10
	copy(a.Salt[:], body(SaltBytes, 's'))
	for i := range byte(3) {
		a.Add(append(a.Bytes(), body(24+int(i), 'c'+i)...), id(20+i), seal.S2)
	}
	a.AddZero(id(11))
	cases["sealed"] = finish(&a)

	a.Begin(a.Bytes(), 4)
	a.Kind, a.Flags, a.ID, a.Base, a.LogicalBytes = Patch, HasBase, id(3), id(1), 256<<10
	a.AddBase(Frame{Digest: id(10), Off: uint32(HeaderBytes(4)), Stored: 40, Codec: seal.Zstd})
	a.Add(append(a.Bytes(), body(50, 'd')...), id(30), seal.Zstd)
	a.AddBase(Frame{Digest: id(12), Off: uint32(HeaderBytes(4)) + 40, Stored: 30, Codec: seal.S2})
	a.AddZero(id(11))
	cases["patch"] = finish(&a)

	a.Begin(a.Bytes(), 1)
	payload := append(append([]byte{1, 0, 0, 0, 0x20}, make([]byte, 31)...), body(32, 'e')...)
	a.Kind, a.ID, a.LogicalBytes = Node, id(4), uint32(len(payload))
	a.Add(append(a.Bytes(), payload...), id(4), seal.Raw)
	cases["node"] = finish(&a)

	a.Begin(a.Bytes(), 2)
	payload[0] = 0
	a.Kind, a.Flags, a.ID, a.Base, a.LogicalBytes = Node, HasBase|Sealed, id(5), id(6), uint32(len(payload))+200
	copy(a.Salt[:], body(SaltBytes, 't'))
	a.Add(append(a.Bytes(), payload...), id(5), seal.Raw)
	a.Add(append(a.Bytes(), body(90, 'f')...), id(50), seal.Zstd)
	cases["leaf"] = finish(&a)
	return cases
}

func TestRecordRoundTrip(t *testing.T) {
	for name, rec := range recordCases() {
		h, err := ParseRecord(rec)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := AppendHeader(nil, &h)
		if err != nil || !bytes.Equal(got, rec[:h.HeaderBytes()]) {
			t.Errorf("%s: written again it differs, %v", name, err)
		}
		logical := 0
		for i := range h.Frames {
			logical += h.FrameBytes(i)
		}
		if logical != int(h.LogicalBytes) {
			t.Errorf("%s: frames of %d bytes together, logical length %d", name, logical, h.LogicalBytes)
		}
	}
}

func TestRecordFields(t *testing.T) {
	h, n, err := ParseHeader(recordCases()["patch"])
	if err != nil || n != 120+4*40 {
		t.Fatal(n, err)
	}
	at := uint32(n)
	want := []Frame{
		{Off: at, Stored: 40, Codec: seal.Zstd, InBase: true},
		{Off: at, Stored: 50, Codec: seal.Zstd},
		{Off: at + 40, Stored: 30, Codec: seal.S2, InBase: true},
		{Off: at + 50, Codec: seal.Zero},
	}
	for i := range want {
		want[i].Digest = h.Frames[i].Digest
	}
	if d := cmp.Diff(want, h.Frames); d != "" {
		t.Error(d)
	}
	if h.Kind != Patch || h.Flags != HasBase || h.ID[0] != 3 || h.Base[0] != 1 || h.BodyBytes != 50 || h.RecordBytes() != n+50 {
		t.Errorf("%+v", h)
	}
}

// resum gives a changed header its right CRC.
func resum(p []byte) []byte {
	n := HeaderBytes(int(binary.LittleEndian.Uint16(p[20:])))
	binary.LittleEndian.PutUint32(p[n-4:], crc(p[:n-4]))
	return p
}

// A header with a good CRC and one field wrong is refused, each field in turn.
func TestParseHeaderStrict(t *testing.T) {
	le := binary.LittleEndian
	entry := func(i int) int { return headerEntries + i*FrameEntryBytes }
	add := func(at int, d int32) func(p []byte) {
		return func(p []byte) { le.PutUint32(p[at:], le.Uint32(p[at:])+uint32(d)) }
	}
	set := func(at int, b ...byte) func(p []byte) { return func(p []byte) { copy(p[at:], b) } }
	for _, c := range []struct {
		record, what string
		change       func(p []byte)
		want         error
	}{
		{"chunk", "version", set(4, 2), ErrVersion},
		{"chunk", "kind 0", set(5, 0), ErrFormat},
		{"chunk", "kind 5", set(5, 5), ErrFormat},
		{"chunk", "kind node", set(5, 3), ErrFormat},
		{"chunk", "flag 4", set(6, 4), ErrFormat},
		{"chunk", "base flag", set(6, 2), ErrFormat},
		{"chunk", "base and flag", func(p []byte) { p[6], p[80] = 2, 1 }, ErrFormat},
		{"chunk", "base", set(80, 1), ErrFormat},
		{"chunk", "reserved 7", set(7, 1), ErrFormat},
		{"chunk", "reserved 22", set(22, 1), ErrFormat},
		{"chunk", "reserved 23", set(23, 1), ErrFormat},
		{"chunk", "body longer", add(12, 1), ErrFormat},
		{"chunk", "body shorter", add(12, -1), ErrFormat},
		{"chunk", "body huge", add(12, -71), ErrFormat},
		{"chunk", "logical odd", add(16, 1), ErrFormat},
		{"chunk", "logical 512K in 4", add(16, 256<<10), nil},
		{"chunk", "logical 8M", add(16, 8<<20-256<<10), ErrFormat},
		{"chunk", "logical 0", add(16, -256<<10), ErrFormat},
		{"chunk", "null id", func(p []byte) { clear(p[24:56]) }, ErrFormat},
		{"chunk", "salt", set(56, 1), ErrFormat},
		{"chunk", "offset", add(entry(0)+32, 1), ErrFormat},
		{"chunk", "zero's offset", add(entry(1)+32, 1), ErrFormat},
		{"chunk", "stored more", add(entry(0)+36, 1), ErrFormat},
		{"chunk", "zeros stored", add(entry(1)+36, 1), ErrFormat},
		{"chunk", "codec 4", set(entry(0)+39, 4), ErrFormat},
		{"chunk", "codec zero, stored", set(entry(0)+39, 3), ErrFormat},
		{"chunk", "codec raw, short", set(entry(0)+39, 0), ErrFormat},
		{"chunk", "in base", set(entry(0)+39, 0x82), ErrFormat},
		{"sealed", "shorter than its tag", func(p []byte) {
			add(entry(0)+36, -8)(p)
			add(entry(1)+32, -8)(p)
			add(entry(1)+36, 8)(p)
		}, ErrFormat},
		{"patch", "no flag", set(6, 0), ErrFormat},
		{"patch", "no base", func(p []byte) { clear(p[80:112]) }, ErrFormat},
		{"patch", "its own base", func(p []byte) { copy(p[80:112], p[24:56]) }, ErrFormat},
		{"patch", "in the base's header", add(entry(0)+32, -1), ErrFormat},
		{"patch", "far in the base", set(entry(0)+32, 0xff, 0xff, 0xff, 0xff), ErrFormat},
		{"patch", "as a chunk", set(5, 1), ErrFormat},
		{"patch", "nothing in base", func(p []byte) { set(entry(0)+32, 0, 0, 0, 0, 0, 0, 0, 3)(p) }, ErrFormat},
		{"node", "digest", set(entry(0), 9), ErrFormat},
		{"node", "codec", set(entry(0)+39, 1), ErrFormat},
		{"node", "logical", add(16, 1), ErrFormat},
		{"node", "as a blob", set(5, 4), nil},
		{"node", "base", func(p []byte) { p[6], p[80] = 2, 1 }, ErrFormat},
		{"leaf", "table too long", add(16, maxTableBytes), ErrFormat},
		{"leaf", "table shorter than stored", add(16, -127), ErrFormat},
		{"leaf", "no table", add(16, -200), ErrFormat},
	} {
		p := bytes.Clone(recordCases()[c.record])
		c.change(p)
		_, _, err := ParseHeader(resum(p))
		if !errors.Is(err, c.want) {
			t.Errorf("%s, %s: %v, want %v", c.record, c.what, err, c.want)
		}
		if _, _, err := ParseHeader(recordCases()[c.record]); err != nil {
			t.Fatal(err)
		}
	}
}

// Any wrong bit of a record is found.
func TestParseRecordEveryBit(t *testing.T) {
	for name, rec := range recordCases() {
		for i := range len(rec) * 8 {
			rec[i/8] ^= 1 << (i % 8)
			if _, err := ParseRecord(rec); !errors.Is(err, ErrFormat) {
				t.Fatalf("%s: bit %d: %v", name, i, err)
			}
			rec[i/8] ^= 1 << (i % 8)
		}
		for n := range rec {
			if _, err := ParseRecord(rec[:n]); !errors.Is(err, ErrFormat) {
				t.Fatalf("%s: first %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestAssemblerRefuses(t *testing.T) {
	id := chunk.ID{1}
	for name, frames := range map[string]func(a *Assembler){
		"no frame":     func(a *Assembler) {},
		"one too few":  func(a *Assembler) { a.AddZero(chunk.Digest{}) },
		"one too many": func(a *Assembler) { a.AddZero(chunk.Digest{}); a.AddZero(chunk.Digest{}); a.AddZero(chunk.Digest{}) },
		"longer than fits": func(a *Assembler) {
			a.Add(append(a.Bytes(), make([]byte, 128<<10+1)...), chunk.Digest{}, seal.Zstd)
			a.AddZero(chunk.Digest{})
		},
	} {
		var a Assembler
		a.Begin(nil, 2)
		a.Kind, a.ID, a.LogicalBytes = Chunk, id, 256<<10
		frames(&a)
		if p, err := a.Finish(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %d bytes, %v", name, len(p), err)
		}
	}
}

// The longest record there can be is accepted; nothing a header says makes a
// reader expect more.
func TestLongestRecord(t *testing.T) {
	var a Assembler
	a.Begin(make([]byte, 0, MaxRecordBytes), MaxFrames)
	a.Kind, a.Flags, a.ID, a.LogicalBytes = Chunk, Sealed, chunk.ID{1}, chunk.MaxChunkBytes
	first := &a.Bytes()[0]
	for range MaxFrames {
		a.Add(append(a.Bytes(), make([]byte, chunk.MinFrameBytes+sealBytes)...), chunk.Digest{}, seal.Raw)
	}
	p, err := a.Finish()
	if err != nil || len(p) != MaxRecordBytes || &p[0] != first {
		t.Fatalf("%d bytes, want %d in the same memory: %v", len(p), MaxRecordBytes, err)
	}
}
