package repo

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
)

// PointID names a restore point: 20 lower-case base32 characters. The first ten
// are the time, so that ids sort as they were made, and the rest are random.
type PointID string

// RunID names a run, in the same form.
type RunID string

const (
	idChars       = 20
	minPrefix     = 4
	idTimeBits    = 48
	base32Letters = "234567abcdefghijklmnopqrstuvwxyz" // ascending, as names sort
)

var idEncoding = base32.NewEncoding(base32Letters).WithPadding(base32.NoPadding)

// newID makes an id for time t: 48 bits of milliseconds since 1970 and 52 bits
// from rand, most significant first.
func newID(t time.Time, rand io.Reader) (string, error) {
	var b [13]byte // 100 bits and four that don't show
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(t.UnixMilli())<<(64-idTimeBits))
	copy(b[:6], ms[:6])
	if _, err := io.ReadFull(rand, b[6:]); err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return idEncoding.EncodeToString(b[:])[:idChars], nil
}

// time returns when the point was made, to the millisecond.
func (id PointID) time() time.Time {
	var b [13]byte
	if _, err := idEncoding.Decode(b[:], []byte(string(id)+"2")); err != nil {
		return time.Time{}
	}
	var ms [8]byte
	copy(ms[2:], b[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:]))).UTC()
}

// isID reports whether s has the form of a point or run id.
func isID(s string) bool { return len(s) == idChars && isPrefix(s) }

// isPrefix reports whether s could be the start of an id.
func isPrefix(s string) bool {
	return len(s) <= idChars && strings.Trim(s, base32Letters) == ""
}
