package xdr

import (
	"bytes"
	"testing"
)

// TestGolden has one of each, as RFC 4506 shows them.
func TestGolden(t *testing.T) {
	var w Writer
	w.Uint32(0xdeadbeef)
	w.Uint64(1<<63 | 7)
	w.Bool(true)
	w.Bool(false)
	w.Fixed([]byte{1, 2, 3, 4, 5})
	w.Opaque([]byte{9})
	w.String("sillyprog")
	w.Opaque(nil)
	w.SetUint32(0, 0xcafef00d)
	want := []byte{
		0xca, 0xfe, 0xf0, 0x0d,
		0x80, 0, 0, 0, 0, 0, 0, 7,
		0, 0, 0, 1, 0, 0, 0, 0,
		1, 2, 3, 4, 5, 0, 0, 0,
		0, 0, 0, 1, 9, 0, 0, 0,
		0, 0, 0, 9, 's', 'i', 'l', 'l', 'y', 'p', 'r', 'o', 'g', 0, 0, 0,
		0, 0, 0, 0,
	}
	if !bytes.Equal(w.B, want) {
		t.Fatalf("got  %x\nwant %x", w.B, want)
	}
	r := NewReader(w.B)
	if r.Uint32() != 0xcafef00d || r.Uint64() != 1<<63|7 || !r.Bool() || r.Bool() || !bytes.Equal(r.Fixed(5), []byte{1, 2, 3, 4, 5}) ||
		!bytes.Equal(r.Opaque(1), []byte{9}) || string(r.Opaque(9)) != "sillyprog" || len(r.Opaque(0)) != 0 || !r.Done() {
		t.Errorf("does not read back; bad %v, left %x", r.Bad(), r.Rest())
	}
}

func TestBad(t *testing.T) {
	tests := map[string]struct {
		b    []byte
		read func(r *Reader)
	}{
		"short integer":       {[]byte{1, 2, 3}, func(r *Reader) { r.Uint32() }},
		"short hyper":         {make([]byte, 7), func(r *Reader) { r.Uint64() }},
		"boolean of 2":        {[]byte{0, 0, 0, 2}, func(r *Reader) { r.Bool() }},
		"short fixed":         {make([]byte, 7), func(r *Reader) { r.Fixed(8) }},
		"fixed without pad":   {make([]byte, 5), func(r *Reader) { r.Fixed(5) }},
		"negative":            {make([]byte, 5), func(r *Reader) { r.Fixed(-1) }},
		"opaque too long":     {[]byte{0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0}, func(r *Reader) { r.Opaque(4) }},
		"opaque of 4 GiB":     {[]byte{0xff, 0xff, 0xff, 0xff, 1}, func(r *Reader) { r.Opaque(1 << 40) }},
		"opaque cut":          {[]byte{0, 0, 0, 5, 1, 2, 3, 4}, func(r *Reader) { r.Opaque(100) }},
		"opaque without size": {[]byte{0, 0}, func(r *Reader) { r.Opaque(100) }},
	}
	for name, tt := range tests {
		r := NewReader(tt.b)
		tt.read(&r)
		if !r.Bad() || r.Done() {
			t.Errorf("%s: decoded", name)
		}
		if r.Uint32() != 0 || r.Uint64() != 0 || r.Bool() || r.Opaque(9) != nil || len(r.Rest()) != 0 {
			t.Errorf("%s: something comes after it", name)
		}
	}
}

// FuzzReader lets the input say what to read of itself: nothing that comes out
// is longer than what went in, and what decodes encodes to the same bytes.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4}, []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 9, 9, 9, 9, 0, 0, 0, 1, 5, 0, 0, 0})
	f.Add([]byte{4, 4}, []byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, ops, data []byte) {
		r := NewReader(data)
		var w Writer
		for _, op := range ops {
			switch op % 5 {
			case 0:
				w.Uint32(r.Uint32())
			case 1:
				w.Uint64(r.Uint64())
			case 2:
				w.Bool(r.Bool())
			case 3:
				w.Fixed(r.Fixed(int(op)))
			case 4:
				w.Opaque(r.Opaque(int(op)))
			}
			if r.Bad() {
				return
			}
		}
		again := NewReader(w.B)
		for _, op := range ops {
			switch op % 5 {
			case 0:
				again.Uint32()
			case 1:
				again.Uint64()
			case 2:
				again.Bool()
			case 3:
				again.Fixed(int(op))
			case 4:
				again.Opaque(int(op))
			}
		}
		if !again.Done() || len(w.B)+len(r.Rest()) != len(data) {
			t.Errorf("%d bytes of %d, %d left", len(w.B), len(data), len(r.Rest()))
		}
	})
}
