// Package ledger reads and writes the ledger: the signed record of what was
// made in a repository, expired, swept and repaired.
//
//	segment 1 ◄── sha256 ── segment 2 ◄── sha256 ── segment 3 …
//	 init, packs              packs, point            …
//
// A segment is one file, written once. Each names the digest of the one
// before, so none can be taken out or changed without all after it; the
// signature says that the repository's writer made it. The bytes are in
// repo/FORMAT.md, "Ledger".
//
// The package turns bytes into values and back, and does no I/O.
package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"holdfast/repo/seal"
)

var (
	// ErrFormat says that bytes are not a segment, or that its records cannot be
	// true.
	ErrFormat = errors.New("bad ledger segment")

	// ErrVersion says that a segment is of a version not known here.
	ErrVersion = errors.New("unknown ledger version")

	// ErrChain says that segments do not follow each other: one is missing,
	// changed or out of place.
	ErrChain = errors.New("broken ledger chain")

	// ErrSignature says that a segment is not signed by whom it should be.
	ErrSignature = errors.New("bad ledger signature")

	// ErrTooLarge says that records do not fit one segment. Packs may be spread
	// over several.
	ErrTooLarge = errors.New("ledger segment too large")
)

const (
	// MaxBodyBytes is the longest body in JSON.
	MaxBodyBytes = 16 << 20

	// MaxPacks is the most packs that one segment records: 8 TiB of 32 MiB.
	MaxPacks = 1 << 18

	// MaxSegmentBytes is the length of the longest segment, for those who read
	// the files.
	MaxSegmentBytes = headBytes + MaxBodyBytes + MaxPacks*packBytes + tailBytes

	// MaxNumber is the highest number of a segment, of eight decimal digits.
	MaxNumber = 99_999_999

	magic     = "HFlg"
	version   = 1
	headBytes = 4 + 2 + 2 + 8 + sha256.Size + 4 + 4
	tailBytes = seal.SignatureBytes + sha256.Size
)

// A Head names a segment and so all before it. The zero Head is that of an
// empty ledger.
type Head struct {
	Number uint64 // from 1
	Sum    Sum    // of the whole segment
}

// A Signer signs what it is given with Ed25519.
type Signer interface {
	Sign(message []byte) []byte
}

// A Segment is one segment, read. Its framing and its digest are right; that it
// follows the one before, and its signature, are checked by State.Add.
type Segment struct {
	Head // its own
	Body
	Prev Sum // of the segment before; zeros for the first

	signed    []byte // what the signature is over
	signature []byte
}

// Append returns the segment that follows prev, nil for the first, and its head.
// ErrTooLarge when the records do not fit; ErrFormat for records that
// ParseSegment would refuse.
func Append(prev *Head, body Body, s Signer) ([]byte, Head, error) {
	if prev == nil {
		prev = new(Head)
	}
	if prev.Number >= MaxNumber {
		return nil, Head{}, fmt.Errorf("%w: number %d is the last", ErrTooLarge, prev.Number)
	}
	number := prev.Number + 1
	fail := func(err error) ([]byte, Head, error) {
		return nil, Head{}, fmt.Errorf("make ledger segment %d: %w", number, err)
	}
	if err := body.check(); err != nil {
		return fail(err)
	}
	body.Time = body.Time.UTC()
	text, err := json.Marshal(body)
	if err != nil {
		return fail(err)
	}
	if len(text) > MaxBodyBytes || len(body.Records) > maxRecords || len(body.Packs) > MaxPacks {
		return fail(fmt.Errorf("%w: %d records in %d bytes, %d packs", ErrTooLarge, len(body.Records), len(text), len(body.Packs)))
	}
	size := headBytes + len(text) + len(body.Packs)*packBytes + tailBytes
	p := make([]byte, 0, size)
	p = append(p, magic...)
	p = binary.LittleEndian.AppendUint16(p, version)
	p = binary.LittleEndian.AppendUint16(p, 0)
	p = binary.LittleEndian.AppendUint64(p, number)
	p = append(p, prev.Sum[:]...)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(text)))
	p = binary.LittleEndian.AppendUint32(p, uint32(len(body.Packs)))
	p = append(p, text...)
	for i := range body.Packs {
		p = appendPack(p, &body.Packs[i])
	}
	p = append(p, s.Sign(p)...)
	sum := sha256.Sum256(p)
	p = append(p, sum[:]...)
	if len(p) != size {
		return fail(fmt.Errorf("%w: not of %d bytes", ErrSignature, seal.SignatureBytes))
	}
	return p, Head{Number: number, Sum: sha256.Sum256(p)}, nil
}

// ParseSegment reads one segment, the whole file p. Anything but a whole segment
// with the right digest gives ErrFormat, another version ErrVersion.
func ParseSegment(p []byte) (*Segment, error) {
	bad := func(format string, args ...any) (*Segment, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
	le := binary.LittleEndian
	switch {
	case len(p) < headBytes+tailBytes || string(p[:4]) != magic:
		return bad("no segment in %d bytes", len(p))
	case le.Uint16(p[4:]) != version:
		return nil, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, le.Uint16(p[4:]), version)
	case le.Uint16(p[6:]) != 0:
		return bad("reserved bytes set")
	}
	bodyBytes, packs := int64(le.Uint32(p[headBytes-8:])), int64(le.Uint32(p[headBytes-4:]))
	if bodyBytes > MaxBodyBytes || packs > MaxPacks || bodyBytes+packs*packBytes != int64(len(p)-headBytes-tailBytes) {
		return bad("a body of %d bytes and %d packs in a segment of %d", bodyBytes, packs, len(p))
	}
	signed := headBytes + bodyBytes + packs*packBytes
	end := len(p) - sha256.Size
	h := sha256.New()
	h.Write(p[:end])
	if !bytes.Equal(h.Sum(nil), p[end:]) {
		return bad("it does not match its digest")
	}
	h.Write(p[end:])
	s := &Segment{
		Head:      Head{Number: le.Uint64(p[8:]), Sum: Sum(h.Sum(nil))},
		Prev:      Sum(p[16 : 16+sha256.Size]),
		signed:    p[:signed],
		signature: p[signed:end],
	}
	if s.Number == 0 || s.Number > MaxNumber {
		return bad("number %d", s.Number)
	}
	if err := json.Unmarshal(p[headBytes:headBytes+bodyBytes], &s.Body); err != nil {
		return bad("segment %d: %w", s.Number, err)
	}
	if packs > 0 {
		s.Packs = make([]Pack, 0, packs)
	}
	for at := headBytes + bodyBytes; at < signed; at += packBytes {
		lp, err := parsePack(p[at : at+packBytes])
		if err != nil {
			return bad("segment %d: %w", s.Number, err)
		}
		s.Packs = append(s.Packs, lp)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("ledger segment %d: %w", s.Number, err)
	}
	return s, nil
}

// SignedBy reports whether the segment's signature is the signer's.
func (s *Segment) SignedBy(p seal.Public) bool { return p.Verify(s.signed, s.signature) }

// numberDigits is the length of a segment's file name.
const numberDigits = 8

// FileName is the name of a segment's file: its number in eight digits.
func FileName(number uint64) string { return fmt.Sprintf("%0*d", numberDigits, number) }

// ParseFileName reads what FileName wrote, and nothing else.
func ParseFileName(name string) (number uint64, ok bool) {
	n, err := strconv.ParseUint(name, 10, 64)
	return n, err == nil && n > 0 && n <= MaxNumber && FileName(n) == name
}
