package fat

import "unicode"

// oem437 is what the bytes from 128 on are in code page 437.
var oem437 = [128]rune([]rune("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
	"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0"))

// lower437 is oem437 in small letters, where the code page has those.
var lower437 = func() (t [128]rune) {
	has := map[rune]bool{}
	for _, r := range oem437 {
		has[r] = true
	}
	for i, r := range oem437 {
		if t[i] = r; has[unicode.ToLower(r)] {
			t[i] = unicode.ToLower(r)
		}
	}
	return t
}()

// oemRune decodes a byte of a short name. What a name can't have, a slash or a
// NUL, becomes U+FFFD.
func oemRune(b byte, lower bool) rune {
	switch {
	case b >= 128 && lower:
		return lower437[b-128]
	case b >= 128:
		return oem437[b-128]
	case b == '/' || b == 0:
		return unicode.ReplacementChar
	case lower && 'A' <= b && b <= 'Z':
		return rune(b) + 'a' - 'A'
	}
	return rune(b)
}
