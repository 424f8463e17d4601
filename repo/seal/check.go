package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Settings and key files are one line of JSON whose last field, check, is the
// SHA-256 of the line, its newline included, with check set to "":
//
//	{"version":1,…,"check":"0123…cdef"}⏎
//
// The digest is over the bytes as they are, never over a re-encoding, so the
// field has one fixed place.
const (
	checkHead   = `,"check":"`
	checkTail   = "\"}\n"
	checkDigits = 2 * sha256.Size
)

// AddCheck returns the line for a JSON object that has at least one field and
// no check yet, without white space around its braces, as json.Marshal makes
// it. It panics on anything else that does not look like one.
func AddCheck(object []byte) []byte {
	if len(object) < len(`{"":0}`) || object[0] != '{' || object[len(object)-1] != '}' || bytes.IndexByte(object, '\n') >= 0 {
		panic("seal: AddCheck of what is no object")
	}
	line := make([]byte, 0, len(object)+len(checkHead)+checkDigits+len(checkTail))
	line = append(line, object[:len(object)-1]...)
	line = append(line, checkHead...)
	sum := sha256.Sum256(append(line, checkTail...))
	line = hex.AppendEncode(line, sum[:])
	return append(line, checkTail...)
}

// CutCheck verifies a line that AddCheck made and returns its object, which has
// no check. A line that does not verify gives ErrFormat.
func CutCheck(line []byte) ([]byte, error) {
	bare := len(line) - len(checkTail) - checkDigits
	if bare < len(checkHead) || !bytes.HasSuffix(line[:bare], []byte(checkHead)) || !bytes.HasSuffix(line, []byte(checkTail)) {
		return nil, fmt.Errorf("%w: line does not end in a check", ErrFormat)
	}
	h := sha256.New()
	h.Write(line[:bare])
	h.Write([]byte(checkTail))
	want := hex.AppendEncode(nil, h.Sum(nil))
	if !bytes.Equal(want, line[bare:bare+checkDigits]) {
		return nil, fmt.Errorf("%w: check does not match", ErrFormat)
	}
	object := append([]byte(nil), line[:bare-len(checkHead)]...)
	return append(object, '}'), nil
}

// lineVersion is the version of key files.
const lineVersion = 1

// maxLineBytes is far beyond any line of ours.
const maxLineBytes = 64 << 10

// parseLine verifies a line of version lineVersion and decodes it into v, which
// must know every field but check. A newer version is refused first, because
// what else it changed is not known.
func parseLine(line []byte, v any) error {
	if len(line) > maxLineBytes {
		return fmt.Errorf("%w: %d bytes", ErrFormat, len(line))
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if head.Version > lineVersion {
		return fmt.Errorf("%w: version %d, this program reads up to %d", ErrNewer, head.Version, lineVersion)
	}
	if head.Version != lineVersion {
		return fmt.Errorf("%w: version %d", ErrFormat, head.Version)
	}
	object, err := CutCheck(line)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(object))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one object", ErrFormat)
	}
	return nil
}
