package extract

import (
	"fmt"
	"strings"
)

// zipName writes a path so that no program takes it for another one. On Windows a
// backslash divides names, by which a guest's file could get above the place where
// it is unpacked, and "C:" in front is a drive. Such a byte is written as in the
// address of a page, %5C, and so is a per cent sign where that could be what it
// begins, so that different paths stay different. (No program undoes it. Without
// it, what there is of such names in a Linux guest, such as units of systemd, would
// be a directory or an error on Windows.)
func zipName(path string) string {
	drive := len(path) > 1 && path[1] == ':' && (path[0]|0x20 >= 'a' && path[0]|0x20 <= 'z')
	if !drive && !strings.ContainsAny(path, `\%`) {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c == '\\' || c == '%' && likeEscape(path[i+1:], i) || drive && i == 1 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// likeEscape says whether what stands behind a per cent sign at byte at makes it
// look like one of ours.
func likeEscape(rest string, at int) bool {
	code := strings.ToUpper(rest[:min(2, len(rest))])
	return code == "5C" || code == "25" || code == "3A" && at == 1
}
