package seal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"holdfast/repo/chunk"
)

// kinds are frames that take different ways through an encoder.
func kinds() map[string][]byte {
	rng := rand.New(rand.NewChaCha8([32]byte{1}))
	noise := make([]byte, chunk.DefaultFrameBytes)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	text := bytes.Repeat([]byte("a row of words, not quite the same; "), 4096)[:chunk.DefaultFrameBytes]
	for i := 0; i < len(text); i += 97 {
		text[i] = byte('a' + rng.IntN(26))
	}
	half := bytes.Clone(noise)
	copy(half[len(half)/2:], text)
	// Letters without matches: only entropy coding makes this smaller.
	skew := make([]byte, chunk.DefaultFrameBytes)
	for i := range skew {
		skew[i] = byte('A' + rng.IntN(16))
	}
	long := bytes.Repeat(text, 5) // longer than any frame, as a frame table may be
	return map[string][]byte{
		"noise": noise, "text": text, "half": half, "skew": skew, "long": long,
		"zeros": make([]byte, chunk.DefaultFrameBytes), "byte": {7}, "empty": {}, "short": []byte("short"),
	}
}

var settings = []Compression{Auto, None, FastS2, FastZstd, Dense}

func TestEncodeDecode(t *testing.T) {
	d := NewDecoder()
	for _, c := range settings {
		e, err := NewEncoder(c)
		if err != nil {
			t.Fatal(err)
		}
		for name, frame := range kinds() {
			out, codec := e.Encode([]byte("head"), frame)
			if !bytes.HasPrefix(out, []byte("head")) {
				t.Fatalf("%s %s: Encode changed what dst held", c, name)
			}
			stored := out[4:]
			if len(stored) > len(frame) {
				t.Errorf("%s %s: stored %d bytes for %d", c, name, len(stored), len(frame))
			}
			got, err := d.Decode([]byte("head"), stored, codec, len(frame))
			if err != nil {
				t.Errorf("%s %s: %v", c, name, err)
			} else if !bytes.Equal(got, append([]byte("head"), frame...)) {
				t.Errorf("%s %s: came back different through %s", c, name, codec)
			}
			for _, n := range []int{len(frame) - 1, len(frame) + 1} {
				if got, err := d.Decode([]byte("head"), stored, codec, n); codec != Zero && !errors.Is(err, ErrFormat) || string(got[:4]) != "head" {
					t.Errorf("%s %s: Decode to %d bytes of %d gave %v, want ErrFormat", c, name, n, len(frame), err)
				}
			}
		}
	}
}
