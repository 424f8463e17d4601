package content

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"holdfast/repo"
)

// maxName is how long a name may get before what is put behind it.
const maxName = 255 - len("-stream.vmdk") - len("~00000000")

// escape makes a name an element of a path, without which repo.CheckName lets
// none be; where it already is one it stays as it is. Different names stay
// different, but for a digest's luck with very long ones.
func escape(name, also string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c < 0x20, c == '/', c == 0x7f, strings.IndexByte(also, c) >= 0,
			c == '%' && i+2 < len(name) && isHex(name[i+1]) && isHex(name[i+2]),
			c == '.' && (name == "." || name == ".."):
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() == 0 {
		return "%"
	}
	return b.String()
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f'
}

// shorten leaves room behind a name for a suffix.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	cut := maxName
	for cut > 0 && !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + "~" + hex.EncodeToString(sum[:4])
}

// viewNames are what the disks of a point are called in disks/, without what a
// view puts behind it. A disk that is called like the file it came from loses
// that file's extension, unless two disks would then share a name.
func viewNames(disks []repo.DiskInfo) []string {
	names := make([]string, len(disks))
	count := make(map[string]int)
	for i, d := range disks {
		names[i] = strings.TrimSuffix(d.Name, imageExt(d.Name))
		count[names[i]]++
	}
	taken := make(map[string]bool)
	for i, d := range disks {
		if count[names[i]] > 1 {
			names[i] = d.Name
		}
		// No descriptor of a VMDK can hold these.
		base := shorten(escape(names[i], `"\`))
		names[i] = base
		for free := false; !free; {
			free = true
			for _, v := range views {
				if taken[names[i]+v.suffix] { // as "a-flat" of a disk has it beside "a"
					names[i], free = names[i]+"~"+digestName(d.Name)[4:], false
					break
				}
			}
		}
		for _, v := range views {
			taken[names[i]+v.suffix] = true
		}
	}
	return names
}

func digestName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:4])
}

// imageExt returns the extension of a name if it is that of a disk image.
func imageExt(name string) string {
	ext := filepath.Ext(name)
	switch strings.ToLower(ext) {
	case ".raw", ".vmdk", ".qcow2", ".vhdx", ".vhd", ".vdi", ".img":
		if ext != name {
			return ext
		}
	}
	return ""
}
