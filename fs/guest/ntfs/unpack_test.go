package ntfs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"testing"

	"holdfast/fs"
)

// Prose is n bytes that compress well, and no two chunks of them alike.
func Prose(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "line %d of a text that says little, %x\n", i, i*i)
	}
	return b[:n]
}

// lznt1Example is that of [MS-XCA] 3.3.
const (
	lznt1Packed = "38b08846232000204720410010a24701a045204400084501507900c045200524138805b4024a44ef0358028c091601484500be009e00040118900000"
	lznt1Text   = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\x00"
)

type unpackSample struct {
	name        string
	unpack      func(dst, src []byte) error
	packed, dst []byte
}

func unpackSamples(tb testing.TB) []unpackSample {
	lznt1, err := hex.DecodeString(lznt1Packed)
	if err != nil {
		tb.Fatal(err)
	}
	list := []unpackSample{{"LZNT1", unpackLZNT1, lznt1, []byte(lznt1Text)}}
	for _, s := range []unpackSample{{"xpress", unpackXpress, nil, Prose(4000)}, {"lzx", unpackLZX, nil, Prose(12_000)}} {
		if s.packed, err = os.ReadFile("testdata/" + s.name); err != nil {
			tb.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func TestUnpack(t *testing.T) {
	for _, s := range unpackSamples(t) {
		got := make([]byte, len(s.dst))
		if err := s.unpack(got, s.packed); err != nil || !bytes.Equal(got, s.dst) {
			t.Errorf("%s: %q, %v", s.name, got[:min(len(got), 200)], err)
		}
		// All that is too short is known to be.
		for n := range len(s.packed) - 2 {
			if err := s.unpack(got, s.packed[:n]); !errors.Is(err, fs.ErrDamaged) {
				t.Fatalf("%s, %d bytes of %d: %v", s.name, n, len(s.packed), err)
			}
		}
		if err := s.unpack(make([]byte, len(s.dst)+9000), s.packed); !errors.Is(err, fs.ErrDamaged) {
			t.Errorf("%s, more wanted than is there: %v", s.name, err)
		}
	}
}

// FuzzUnpack unpacks whatever bytes, each way.
func FuzzUnpack(f *testing.F) {
	samples := unpackSamples(f)
	for i, s := range samples {
		f.Add(byte(i), uint16(len(s.dst)), s.packed)
	}
	f.Fuzz(func(t *testing.T, way byte, n uint16, src []byte) {
		s := samples[int(way)%len(samples)]
		if err := s.unpack(make([]byte, n%(lzxWindow+1)), src); err != nil && !errors.Is(err, fs.ErrDamaged) {
			t.Errorf("%s: %v", s.name, err)
		}
	})
}

func BenchmarkUnpack(b *testing.B) {
	for _, s := range unpackSamples(b) {
		b.Run(s.name, func(b *testing.B) {
			dst := make([]byte, len(s.dst))
			b.SetBytes(int64(len(dst)))
			for b.Loop() {
				if err := s.unpack(dst, s.packed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
