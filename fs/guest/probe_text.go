package guest

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// uuid writes 16 bytes in the order they stand, "" if all are zero.
func uuid(b []byte) string {
	if len(b) != 16 || len(bytes.Trim(b, "\x00")) == 0 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// text returns the bytes before the first NUL without blanks behind them. What
// is not UTF-8 becomes U+FFFD: labels are shown to people, not looked up.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	s := strings.TrimRight(string(b), " ")
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	return s
}

// utf16Text decodes little-endian UTF-16 up to the first NUL.
func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) > 1 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, le.Uint16(b))
	}
	return string(utf16.Decode(units))
}
