package pack

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Kind says what a pack holds.
type Kind uint8

// The kinds of packs.
const (
	Data Kind = 1 // chunks and patches
	Meta Kind = 2 // nodes
)

// String returns the kind's name, which is also its directory's.
func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Meta:
		return "meta"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

func (k Kind) known() bool { return k == Data || k == Meta }

// A Name is a pack's name: the writer's epoch, big-endian so that names sort
// by it, then 12 random bytes.
type Name [16]byte

const (
	epochDigits  = 8
	nameDigits   = 33 // eight digits, a dash, 24 digits
	pathSuffix   = ".pack"
	lowerCaseHex = "0123456789abcdef"
)

// NewName returns a name of the given epoch, its other bytes read from rand.
func NewName(epoch uint32, rand io.Reader) (Name, error) {
	var n Name
	binary.BigEndian.PutUint32(n[:], epoch)
	if _, err := io.ReadFull(rand, n[4:]); err != nil {
		return Name{}, fmt.Errorf("name a pack: %w", err)
	}
	return n, nil
}

// Epoch returns the epoch of the writer that made the pack.
func (n Name) Epoch() uint32 { return binary.BigEndian.Uint32(n[:]) }

// String returns the name as 8 and 24 lower-case hexadecimal digits joined by
// a dash.
func (n Name) String() string {
	b := make([]byte, 0, nameDigits)
	b = hex.AppendEncode(b, n[:4])
	b = append(b, '-')
	return string(hex.AppendEncode(b, n[4:]))
}

// Path returns the pack's path below the repository's directory, with slashes.
func (n Name) Path(k Kind) string { return n.Dir(k) + "/" + n.String() + pathSuffix }

// Dir returns the directory of Path.
func (n Name) Dir(k Kind) string {
	return "packs/" + k.String() + "/" + hex.EncodeToString(n[4:5])
}

// ParseName reads what String wrote, and nothing else.
func ParseName(s string) (Name, error) {
	var n Name
	if len(s) != nameDigits || s[epochDigits] != '-' {
		return n, fmt.Errorf("%w: %q", ErrName, s)
	}
	digits := s[:epochDigits] + s[epochDigits+1:]
	if strings.Trim(digits, lowerCaseHex) != "" {
		return n, fmt.Errorf("%w: %q", ErrName, s)
	}
	if _, err := hex.Decode(n[:], []byte(digits)); err != nil {
		return Name{}, fmt.Errorf("%w: %q", ErrName, s)
	}
	return n, nil
}

// ParsePath reads what Path wrote, and nothing else.
func ParsePath(path string) (Kind, Name, error) {
	for _, k := range []Kind{Data, Meta} {
		rest, ok := strings.CutPrefix(path, "packs/"+k.String()+"/")
		if !ok || len(rest) < 3 {
			continue
		}
		base, ok := strings.CutSuffix(rest[3:], pathSuffix)
		if !ok {
			continue
		}
		if n, err := ParseName(base); err == nil && n.Path(k) == path {
			return k, n, nil
		}
	}
	return 0, Name{}, fmt.Errorf("%w: path %q", ErrName, path)
}
