package pack

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
)

func FuzzParseHeader(f *testing.F) {
	for _, rec := range recordCases() {
		f.Add(rec)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		// With its CRC put right a header gets further than chance lets it.
		for _, p := range [][]byte{p, resumIfLong(p)} {
			h, n, err := ParseHeader(p)
			if err != nil {
				if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
					t.Fatal(err)
				}
				continue
			}
			if h.RecordBytes() > MaxRecordBytes || len(h.Frames) > MaxFrames {
				t.Fatalf("%d frames, %d bytes", len(h.Frames), h.RecordBytes())
			}
			again, err := AppendHeader(nil, &h)
			if err != nil || !bytes.Equal(again, p[:n]) {
				t.Fatalf("written again it differs: %v", err)
			}
			ParseRecord(p)
		}
	})
}

func resumIfLong(p []byte) []byte {
	if len(p) < 22 || HeaderBytes(int(p[20])|int(p[21])<<8) > len(p) {
		return p
	}
	return resum(bytes.Clone(p))
}

// FuzzOpen reads packs made of any bytes in every way there is.
func FuzzOpen(f *testing.F) {
	file := goldenPack(f)
	f.Add(file)
	f.Add(file[:len(file)-BlockBytes])
	f.Add(file[BlockBytes:])
	f.Fuzz(func(t *testing.T, p []byte) {
		f, err := Open(bytes.NewReader(p), int64(len(p)))
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		entries, _ := f.Records()
		for _, e := range entries {
			f.ReadRecord(e)
		}
		d, err := f.Check(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := f.Rebuild(context.Background(), &out); err == nil && !d.Healable() {
			t.Fatalf("healable %v, %v", d.Healable(), err)
		}
	})
}

// FuzzTrailer reads a pack whose trailer, its CRC put right, says anything.
func FuzzTrailer(f *testing.F) {
	file := goldenPack(f)
	f.Add(file[len(file)-trailerBytes:])
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) != trailerBytes {
			return
		}
		forged := bytes.Clone(file)
		at := forged[len(forged)-trailerBytes:]
		copy(at, p)
		putCRC(at)
		pf, err := Open(bytes.NewReader(forged), int64(len(forged)))
		if err != nil {
			return
		}
		pf.Records()
		pf.Check(context.Background())
		pf.Heal(0, BlockBytes)
	})
}

func putCRC(p []byte) {
	c := crc(p[:len(p)-4])
	copy(p[len(p)-4:], []byte{byte(c), byte(c >> 8), byte(c >> 16), byte(c >> 24)})
}

func FuzzScan(f *testing.F) {
	f.Add(goldenPack(f))
	for _, rec := range recordCases() {
		f.Add(append(make([]byte, packHeaderBytes), rec...))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		next := int64(0)
		err := Scan(bytes.NewReader(p), int64(len(p)), func(e Entry, h *Header) error {
			if int64(e.Off) < next || int64(e.Off)+int64(e.Len) > int64(len(p)) {
				t.Fatalf("record at %d, %d bytes, after %d", e.Off, e.Len, next)
			}
			next = int64(e.Off) + int64(e.Len)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzHeal damages a sound pack; what is then read of it is right, or an
// error. Each three bytes of edits say where and what.
func FuzzHeal(f *testing.F) {
	file := goldenPack(f)
	entries, err := mustOpen(f, file).Records()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 5, 1, 0x40, 0, 1}, uint16(0))
	f.Add([]byte{0x10, 0, 255}, uint16(5000))
	f.Fuzz(func(t *testing.T, edits []byte, cut uint16) {
		p := bytes.Clone(file)
		for ; len(edits) >= 3; edits = edits[3:] {
			p[(int(edits[0])<<8|int(edits[1]))%len(p)] ^= edits[2]
		}
		p = p[:max(0, len(p)-int(cut))]
		if bytes.Equal(p, file) {
			return
		}
		pf, err := Open(bytes.NewReader(p), int64(len(p)))
		if err != nil {
			return
		}
		d, err := pf.Check(context.Background())
		if err != nil || !d.Any() {
			t.Fatalf("damage not found: %v", err)
		}
		var out bytes.Buffer
		err = pf.Rebuild(context.Background(), &out)
		if d.Healable() != (err == nil) || err == nil && !bytes.Equal(out.Bytes(), file) {
			t.Fatalf("healable %v, rebuild: %v", d.Healable(), err)
		}
		for _, e := range entries {
			if _, rec, err := pf.ReadRecord(e); err == nil && !bytes.Equal(rec, file[e.Off:e.Off+e.Len]) {
				t.Fatal("wrong bytes of a record")
			}
		}
		if got, err := pf.Records(); err == nil && !slices.Equal(got, entries) {
			t.Fatal("wrong list of records")
		}
	})
}
