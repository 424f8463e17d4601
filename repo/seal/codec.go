package seal

import "fmt"

// A Codec says how the bytes of one frame are stored. Its values are part of
// the format.
type Codec uint8

const (
	Raw  Codec = 0 // as they are
	S2   Codec = 1 // one S2 block
	Zstd Codec = 2 // a Zstandard frame
	Zero Codec = 3 // a frame of zeros; nothing is stored
)

// Valid reports whether c is a codec of this version.
func (c Codec) Valid() bool { return c <= Zero }

// String returns the codec's name, in lower case.
func (c Codec) String() string {
	switch c {
	case Raw:
		return "raw"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	case Zero:
		return "zero"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// Compression is the setting that says how hard an Encoder tries. A reader needs
// none: each frame names its codec.
type Compression string

const (
	Auto     Compression = "auto"  // fast zstd; raw where that saves less than 3 %
	None     Compression = "none"  // raw
	FastS2   Compression = "s2"    // S2, for any gain: three times as fast, stores a fifth more
	FastZstd Compression = "zstd"  // fast zstd, for any gain
	Dense    Compression = "dense" // zstd at two thirds of the speed, 4 % smaller
)

// ParseCompression reads a setting. The empty text means Auto.
func ParseCompression(s string) (Compression, error) {
	switch c := Compression(s); c {
	case "":
		return Auto, nil
	case Auto, None, FastS2, FastZstd, Dense:
		return c, nil
	}
	return "", fmt.Errorf("compression %q: want auto, none, s2, zstd or dense", s)
}
