package seal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"holdfast/repo/chunk"
)

var settings = []Compression{Auto, None, FastS2, FastZstd, Dense}

func newEncoder(t testing.TB, c Compression) *Encoder {
	e, err := NewEncoder(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// frames are inputs that take different ways through an encoder, with the codec
// that Auto must choose.
func frames() map[string]struct {
	bytes []byte
	auto  Codec
} {
	const size = chunk.DefaultFrameBytes
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, size)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	text := bytes.Repeat([]byte("a row of words, not quite the same; "), size/36+1)[:size]
	for i := 0; i < size; i += 97 {
		text[i] = byte('a' + rng.IntN(26))
	}
	half := append(bytes.Clone(noise[:size/2]), text[:size/2]...)
	// A gain of a hundredth does not pay for a reader's work.
	hardly := append(bytes.Clone(noise[:size-size/100]), make([]byte, size/100)...)
	last := make([]byte, size)
	last[size-1] = 1
	return map[string]struct {
		bytes []byte
		auto  Codec
	}{
		"noise": {noise, Raw}, "text": {text, Zstd}, "half": {half, Zstd}, "hardly": {hardly, Raw},
		"zeros": {make([]byte, size), Zero}, "zeros but one": {last, Zstd},
		"table": {bytes.Repeat(text, 5), Zstd}, // longer than any frame, as a leaf's frame table may be
		"empty": {nil, Zero}, "byte": {[]byte{7}, Raw}, "short": {[]byte("short"), Raw},
	}
}

func TestEncodeDecode(t *testing.T) {
	d := NewDecoder()
	for _, c := range settings {
		e := newEncoder(t, c)
		for name, f := range frames() {
			size := len(f.bytes)
			out, codec := e.Encode([]byte("head"), f.bytes)
			if !bytes.HasPrefix(out, []byte("head")) {
				t.Fatalf("%s %s: Encode changed what dst held", c, name)
			}
			stored := out[4:]
			if c == Auto && codec != f.auto {
				t.Errorf("auto %s: got %s with %d bytes, want %s", name, codec, len(stored), f.auto)
			}
			if codec == Raw && len(stored) != size || codec != Raw && len(stored) >= size && size != 0 {
				t.Errorf("%s %s: stored %d bytes for %d as %s", c, name, len(stored), size, codec)
			}
			got, err := d.Decode([]byte("head"), stored, codec, size)
			if err != nil || !bytes.Equal(got, append([]byte("head"), f.bytes...)) {
				t.Errorf("%s %s: came back different through %s: %v", c, name, codec, err)
			}
			if codec == Zero {
				continue
			}
			for _, n := range []int{-1, 0, size - 1, size + 1, maxLogicalBytes + 1} {
				if got, err := d.Decode([]byte("head"), stored, codec, n); !errors.Is(err, ErrFormat) || string(got) != "head" {
					t.Errorf("%s %s: Decode to %d bytes of %d gave %v, want ErrFormat", c, name, n, size, err)
				}
			}
		}
	}
}

func TestSettingsUseTheirCodec(t *testing.T) {
	text := frames()["text"].bytes
	size := map[Compression]int{}
	for c, want := range map[Compression]Codec{Auto: Zstd, None: Raw, FastS2: S2, FastZstd: Zstd, Dense: Zstd} {
		out, codec := newEncoder(t, c).Encode(nil, text)
		if codec != want {
			t.Errorf("%s: got %s, want %s", c, codec, want)
		}
		size[c] = len(out)
	}
	if !(size[Dense] < size[FastZstd] && size[FastZstd] < size[FastS2] && size[FastS2] < size[None]) {
		t.Errorf("sizes do not follow the settings: %v", size)
	}
}

func TestParseCompression(t *testing.T) {
	for _, c := range settings {
		if got, err := ParseCompression(string(c)); err != nil || got != c {
			t.Errorf("%s: got %s, %v", c, got, err)
		}
	}
	if got, err := ParseCompression(""); err != nil || got != Auto {
		t.Errorf("empty: got %s, %v, want auto", got, err)
	}
	for _, s := range []string{"ZSTD", "zstd,1", "lz4", " auto"} {
		if _, err := ParseCompression(s); err == nil {
			t.Errorf("%q is a compression", s)
		}
		if _, err := NewEncoder(Compression(s)); err == nil {
			t.Errorf("%q makes an encoder", s)
		}
	}
}

func TestCodecNames(t *testing.T) {
	for c, want := range map[Codec]string{Raw: "raw", S2: "s2", Zstd: "zstd", Zero: "zero", 4: "codec 4", 0x82: "codec 130"} {
		if c.String() != want || c.Valid() != (c < 4) {
			t.Errorf("codec %d: %s, valid %v", uint8(c), c, c.Valid())
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	zeros := make([]byte, 64<<20)
	w, err := zstd.NewWriter(nil, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	bomb := w.EncodeAll(zeros, nil)
	small := w.EncodeAll(zeros[:1000], nil)
	// A frame that does not say how long it is: magic, descriptor 0, a window of
	// 1 MiB, blocks of 128 KiB each from one byte.
	silent := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0x50}
	for range 500 {
		silent = append(silent, 0x02, 0, 0x10, 'x')
	}
	silent = append(silent, 1, 0, 0)
	text := frames()["text"].bytes
	for name, c := range map[string]struct {
		stored []byte
		codec  Codec
		size   int
	}{
		"unknown codec":          {text, 4, len(text)},
		"in-base bit":            {text, 0x80, len(text)},
		"zeros with bytes":       {[]byte{0}, Zero, 4096},
		"s2 bomb":                {s2.Encode(nil, zeros), S2, 131072},
		"s2 length without data": {[]byte{0x80, 0x80, 0x08}, S2, 131072},
		"s2 endless length":      {bytes.Repeat([]byte{0xff}, 12), S2, 131072},
		"s2 empty":               {nil, S2, 131072},
		"zstd bomb":              {bomb, Zstd, 131072},
		"zstd silent bomb":       {silent, Zstd, 131072},
		"zstd two frames":        {append(bytes.Clone(small), small...), Zstd, 1000},
		"zstd cut":               {small[:len(small)-1], Zstd, 1000},
		"zstd tail":              {append(bytes.Clone(small), 1), Zstd, 1000},
		"zstd empty":             {nil, Zstd, 131072},
		"zstd of text":           {text, Zstd, 131072},
	} {
		d := NewDecoder()
		dst := make([]byte, 0, c.size)
		_, _ = d.Decode(dst, small, Zstd, 1000) // its tables are no part of what follows
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := d.Decode(dst, c.stored, c.codec, c.size)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrFormat) || len(got) != 0 {
			t.Errorf("%s: %d bytes, %v, want ErrFormat", name, len(got), err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

func TestDecoderConcurrent(t *testing.T) {
	d, f := NewDecoder(), frames()["half"].bytes
	var wg sync.WaitGroup
	for _, c := range settings {
		stored, codec := newEncoder(t, c).Encode(nil, f)
		wg.Go(func() {
			var buf []byte
			for range 20 {
				var err error
				if buf, err = d.Decode(buf[:0], stored, codec, len(f)); err != nil || !bytes.Equal(buf, f) {
					t.Errorf("%s: came back different: %v", c, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestCodingAllocatesNothing(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties pools
	d := NewDecoder()
	for _, c := range settings {
		e := newEncoder(t, c)
		for name, f := range frames() {
			var buf, back []byte
			code := func() {
				var codec Codec
				buf, codec = e.Encode(buf[:0], f.bytes)
				back, _ = d.Decode(back[:0], buf, codec, len(f.bytes))
			}
			for range 10 { // the encoder makes its tables as it comes to need them
				code()
			}
			n := testing.AllocsPerRun(5, code)
			if n > 0 && !raceEnabled {
				t.Errorf("%s %s: %v allocations", c, name, n)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range settings {
		e := newEncoder(f, c)
		for _, in := range frames() {
			frame := in.bytes[len(in.bytes)-min(len(in.bytes), 4096):]
			stored, codec := e.Encode(nil, frame)
			f.Add(stored, byte(codec), len(frame))
		}
	}
	d := NewDecoder()
	f.Fuzz(func(t *testing.T, stored []byte, codec byte, size int) {
		size = min(size, 1<<18)
		got, err := d.Decode([]byte("head"), stored, Codec(codec), size)
		if string(got[:4]) != "head" {
			t.Fatalf("dst is %q", got[:4])
		}
		if err == nil && len(got) != 4+size || err != nil && (len(got) != 4 || !errors.Is(err, ErrFormat)) {
			t.Errorf("%d bytes for %d, %v", len(got)-4, size, err)
		}
	})
}

func FuzzEncode(f *testing.F) {
	for _, in := range frames() {
		f.Add(in.bytes[:min(len(in.bytes), 4096)])
	}
	d := NewDecoder()
	var encoders []*Encoder
	for _, c := range settings {
		encoders = append(encoders, newEncoder(f, c))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for i, e := range encoders {
			stored, codec := e.Encode(nil, frame)
			if got, err := d.Decode(nil, stored, codec, len(frame)); err != nil || !bytes.Equal(got, frame) {
				t.Errorf("%s: came back different through %s: %v", settings[i], codec, err)
			}
		}
	})
}
