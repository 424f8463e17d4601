package guest

import (
	"bytes"
	"fmt"
	"strings"
)

// disc recognises ISO 9660 and UDF. Both have descriptors of 2 KiB from 32 KiB
// on; a disc that is both is named UDF, since what is made so (by Windows, say)
// has all of its files there only.
//
// Sources: ECMA-119, 8.4, "Primary Volume Descriptor"; ECMA-167, part 2.
func disc(w *window) (found, bool) {
	const first, unit, most = 32 << 10, 2 << 10, 64
	iso, udf := found{}, false
	for i := range int64(most) {
		b := w.at(first+i*unit, unit)
		if b == nil {
			break
		}
		switch string(b[1:6]) {
		case "CD001":
			if b[0] == 1 && iso.format == "" {
				iso = found{
					format: "iso9660", label: text(bytes.TrimRight(b[40:72], " ")), uuid: isoDate(b[830:847], b[813:830]),
					bytes: int64(le.Uint32(b[80:])) * int64(le.Uint16(b[128:])),
				}
			}
			continue
		case "BEA01", "BOOT2", "CDW02":
			continue
		case "NSR02", "NSR03":
			udf = true
		}
		break
	}
	if udf {
		f := found{format: "udf"}
		f.label, f.uuid = udfNames(w)
		return f, true
	}
	return iso, iso.format != ""
}

// isoDate writes the first of two dates that is set as blkid does for a UUID.
func isoDate(dates ...[]byte) string {
	for _, d := range dates {
		if s := string(d[:16]); s != "0000000000000000" && len(bytes.Trim(d[:16], "0123456789")) == 0 {
			return dashes(s, 4, 2, 2, 2, 2, 2, 2)
		}
	}
	return ""
}

// udfNames finds the logical volume's identifier and that of the volume set: the
// anchor in sector 256 leads to a row of descriptors, which have them.
func udfNames(w *window) (label, id string) {
	for _, sector := range []int64{2048, 512, 4096} {
		const primaryTag, anchorTag, logicalTag, endTag = 1, 2, 6, 8
		a := w.at(256*sector, 512)
		if a == nil || le.Uint16(a) != anchorTag || int64(le.Uint32(a[12:])) != 256 {
			continue
		}
		length, at := int64(le.Uint32(a[16:])), int64(le.Uint32(a[20:]))
		for i := range min(length/sector, 64) {
			b := w.at((at+i)*sector, 512)
			if b == nil || le.Uint16(b) == endTag {
				break
			}
			switch le.Uint16(b) {
			case primaryTag:
				id = udfUUID(dstring(b[72 : 72+128]))
			case logicalTag:
				label = dstring(b[84 : 84+128])
			}
		}
		break
	}
	return label, id
}

// udfUUID makes sixteen hexadecimal digits of a volume set's identifier as blkid
// does: UDF wants it to begin with that many, of which the first eight are a
// time; what is no digit is given in hexadecimal itself.
func udfUUID(set string) string {
	digits := len(set) - len(strings.TrimLeft(set, "0123456789abcdefABCDEF"))
	switch {
	case digits >= 16:
		return strings.ToLower(set[:16])
	case digits >= 8 && len(set) >= 12:
		return strings.ToLower(set[:8]) + fmt.Sprintf("%x", set[8:12])
	case digits < 8 && len(set) >= 8:
		return fmt.Sprintf("%x", set[:8])
	}
	return ""
}

// dstring decodes a field of OSTA compressed Unicode whose last byte is how much
// of it is used.
func dstring(b []byte) string {
	n := min(int(b[len(b)-1]), len(b)-1)
	switch {
	case n < 2:
		return ""
	case b[0] == 8:
		var s []rune
		for _, c := range b[1:n] {
			s = append(s, rune(c))
		}
		return string(s)
	case b[0] == 16:
		swapped := make([]byte, 0, n)
		for i := 1; i+1 < n; i += 2 {
			swapped = append(swapped, b[i+1], b[i])
		}
		return utf16Text(swapped)
	}
	return ""
}
