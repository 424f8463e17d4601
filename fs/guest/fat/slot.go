package fat

import (
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"holdfast/fs"
)

// A slot of a directory is 32 bytes: name 0–10, attributes 11, case 12, made
// 13–17, read 18, cluster 20 and 26, written 22–25, size 28.
const slotBytes = 32

const (
	attrReadOnly = 0x01
	attrLabel    = 0x08
	attrDir      = 0x10
	attrLong     = 0x0f // read-only, hidden, system, label: part of a long name
	attrMask     = 0x3f

	lowerBase = 0x08 // in byte 12: the short name is shown in small letters,
	lowerExt  = 0x10 // or what follows its dot

	slotEnd     = 0x00 // as the first byte: no more slots
	slotDeleted = 0xe5
	slotE5      = 0x05 // stands for a name that begins with 0xe5
)

// maxUnits is the longest long name, in units of UTF-16; 13 of them are in a
// slot.
const maxUnits = 255

// isLong says whether a slot is a piece of a long name.
func isLong(slot []byte) bool { return slot[11]&attrMask == attrLong }

// live says whether a slot stands for a file or directory that has a name: no
// piece of one, no label, not deleted, not "." or "..".
func live(slot []byte) bool {
	switch slot[0] {
	case slotEnd, slotDeleted:
		return false
	case '.':
		if string(slot[:11]) == ".          " || string(slot[:11]) == "..         " {
			return false
		}
	}
	return slot[11]&attrLabel == 0 && string(slot[:8]) != "        "
}

// shortName returns the name in the slot itself, as people see it.
func shortName(slot []byte) string {
	base, ext := slot[:8], slot[8:11]
	var buf [64]byte
	name := appendOEM(buf[:0], base, slot[12]&lowerBase != 0, true)
	if n := len(name); n > 0 {
		name = append(name, '.')
		if name = appendOEM(name, ext, slot[12]&lowerExt != 0, false); len(name) == n+1 {
			name = name[:n]
		}
	}
	return string(name)
}

// appendOEM decodes a blank-padded part of a short name.
func appendOEM(name, part []byte, lower, first bool) []byte {
	n := len(part)
	for n > 0 && part[n-1] == ' ' {
		n--
	}
	for i, b := range part[:n] {
		if first && i == 0 && b == slotE5 {
			b = slotDeleted
		}
		name = utf8.AppendRune(name, oemRune(b, lower))
	}
	return name
}

// labelName decodes a volume label, whose eleven bytes are one part.
func labelName(b []byte) string {
	s := string(appendOEM(nil, b, false, true))
	if s == "NO NAME" {
		return ""
	}
	return s
}

// checksum is of the short name, and stands in each piece of the long one.
func checksum(slot []byte) byte {
	var sum byte
	for _, b := range slot[:11] {
		sum = sum<<7 | sum>>1
		sum += b
	}
	return sum
}

// longName puts together the long name of slot i from the slots before it: they
// count backwards from 1 to the one with 0x40, and all have the checksum of the
// short name. ok is false when there is none or the row is broken, as after a
// system that knows no long names; the short name is then the name.
func longName(raw []byte, i int) (name string, ok bool) {
	const last = 0x40
	sum := checksum(raw[i*slotBytes:])
	var room [20 * 13]uint16
	units := room[:0]
	for k := 1; k <= 20 && k <= i; k++ {
		s := raw[(i-k)*slotBytes:][:slotBytes]
		if !isLong(s) || s[0] == slotDeleted || int(s[0]&^last) != k || s[13] != sum || s[12] != 0 {
			return "", false
		}
		units = appendUnits(units, s)
		if s[0]&last != 0 {
			return decodeUnits(units)
		}
	}
	return "", false
}

// appendUnits appends the 13 characters that a slot has in three places.
func appendUnits(units []uint16, s []byte) []uint16 {
	for _, part := range [][]byte{s[1:11], s[14:26], s[28:32]} {
		for ; len(part) > 0; part = part[2:] {
			units = append(units, le.Uint16(part))
		}
	}
	return units
}

// decodeUnits turns a long name, up to its NUL, into UTF-8. What can't be a name
// of ours is not ok.
func decodeUnits(units []uint16) (string, bool) {
	var buf [3 * maxUnits]byte
	name := buf[:0]
	for i := 0; i < len(units) && units[i] != 0; i++ {
		r := rune(units[i])
		switch {
		case i >= maxUnits || r == '/':
			return "", false
		case utf16.IsSurrogate(r):
			if i+1 < len(units) {
				if pair := utf16.DecodeRune(r, rune(units[i+1])); pair != utf8.RuneError {
					name = utf8.AppendRune(name, pair)
					i++
					continue
				}
			}
			name = append(name, 0xe0|byte(r>>12), 0x80|byte(r>>6)&0x3f, 0x80|byte(r)&0x3f)
		default:
			name = utf8.AppendRune(name, r)
		}
	}
	s := string(name)
	return s, s != "" && s != "." && s != ".."
}

// slotTime decodes a date, a time if there is one, and hundredths of a second
// to add. What is no date is not known, the zero Time.
func slotTime(date, clock []byte, hundredths byte) fs.Time {
	d := le.Uint16(date)
	year, month, day := 1980+int(d>>9), int(d>>5&15), int(d&31)
	if month < 1 || month > 12 || day < 1 {
		return fs.Time{}
	}
	var hour, minute, second int
	if clock != nil {
		c := le.Uint16(clock)
		hour, minute, second = int(c>>11), int(c>>5&63), int(c&31)*2
	}
	if hour > 23 || minute > 59 || second > 59 {
		return fs.Time{}
	}
	if hundredths > 199 {
		hundredths = 0
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, int(hundredths)*1e7, time.UTC)
	return fs.TimeOf(t)
}
