package ntfs

import (
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"holdfast/fs"
)

// decodeName makes WTF-8 of UTF-16: halves of surrogate pairs that stand alone
// become three bytes.
func decodeName(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i+1 < len(b); i += 2 {
		r := rune(le.Uint16(b[i:]))
		if utf16.IsSurrogate(r) {
			if i+3 < len(b) {
				if full := utf16.DecodeRune(r, rune(le.Uint16(b[i+2:]))); full != utf8.RuneError {
					out = utf8.AppendRune(out, full)
					i += 2
					continue
				}
			}
			out = append(out, 0xe0|byte(r>>12), 0x80|byte(r>>6)&0xbf, 0x80|byte(r)&0xbf)
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// encodeName is the way back; no name of a volume has other bytes.
func encodeName(name string) ([]uint16, bool) {
	out := make([]uint16, 0, len(name))
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && n == 1 {
			half, ok := decodeHalf(name[i:])
			if !ok {
				return nil, false
			}
			// Two halves that match would be written as one.
			if last := len(out) - 1; last >= 0 && utf16.DecodeRune(rune(out[last]), rune(half)) != utf8.RuneError {
				return nil, false
			}
			out = append(out, half)
			i += 3
			continue
		}
		out = utf16.AppendRune(out, r)
		i += n
	}
	return out, true
}

// decodeHalf decodes the half of a surrogate pair that s begins with.
func decodeHalf(s string) (uint16, bool) {
	if len(s) < 3 || s[0] != 0xed || s[1]&0xe0 != 0xa0 || s[2]&0xc0 != 0x80 {
		return 0, false
	}
	return 0xd000 | uint16(s[1]&0x3f)<<6 | uint16(s[2]&0x3f), true
}

// checkName refuses names that no directory can have.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("name %q: %w", name, fs.ErrDamaged)
	}
	return nil
}

func utf16Of(b []byte) []uint16 {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = le.Uint16(b[2*i:])
	}
	return u
}

// upCase is the volume's table of capitals, by which directories are in order.
type upCase []uint16

func (u upCase) of(c uint16) uint16 {
	if int(c) < len(u) {
		return u[c]
	}
	return c
}

// compare orders name against the UTF-16 in key as directories do, but for
// names that differ in case alone, which it finds equal.
func (u upCase) compare(name []uint16, key []byte) int {
	for i, c := range name {
		if 2*i+1 >= len(key) {
			return 1
		}
		if a, b := u.of(c), u.of(le.Uint16(key[2*i:])); a != b {
			return int(a) - int(b)
		}
	}
	return len(name) - len(key)/2
}
