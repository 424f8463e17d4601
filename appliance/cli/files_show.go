package cli

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/fs"
)

// guestFile is what --json says of a file.
type guestFile struct {
	Path      string `json:"path"`
	PathBytes string `json:"pathBytes,omitempty"` // in base 64, where path is not UTF-8
	Type      string `json:"type"`
	Mode      string `json:"mode"` // octal
	UID       uint32 `json:"uid"`
	GID       uint32 `json:"gid"`
	Links     uint32 `json:"links"`
	SizeBytes int64  `json:"sizeBytes"`
	UsedBytes int64  `json:"usedBytes"`
	Accessed  string `json:"accessed,omitempty"`
	Modified  string `json:"modified,omitempty"`
	Changed   string `json:"changed,omitempty"`
	Created   string `json:"created,omitempty"`
	Inode     uint64 `json:"inode"`
	Target    string `json:"target,omitempty"`
	Error     string `json:"error,omitempty"`
}

func listGuestFile(path string, a *fs.Attr, target string) guestFile {
	l := guestFile{
		Path: path, Type: typeName(a.Type), Mode: fmt.Sprintf("%04o", a.Perm), UID: a.UID, GID: a.GID, Links: a.Nlink,
		SizeBytes: a.Size, UsedBytes: a.Used, Inode: a.ID.Ino, Target: target,
		Accessed: timeText(a.Atime), Modified: timeText(a.Mtime), Changed: timeText(a.Ctime), Created: timeText(a.Btime),
	}
	l.Path, l.PathBytes = jsonPath(path)
	return l
}

// jsonPath returns a path for JSON, and its bytes where JSON can't have them.
func jsonPath(path string) (text, bytes string) {
	if utf8.ValidString(path) {
		return path, ""
	}
	return path, base64.StdEncoding.EncodeToString([]byte(path))
}

func timeText(t fs.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.String()
}

// typeLetters are what "find --type" takes, as find(1) does.
var typeLetters = map[fs.Type]string{
	fs.TypeFile: "f", fs.TypeDir: "d", fs.TypeSymlink: "l", fs.TypeCharDevice: "c", fs.TypeBlockDevice: "b", fs.TypeFIFO: "p", fs.TypeSocket: "s",
}

func typeName(t fs.Type) string { return strings.ReplaceAll(t.String(), " ", "-") }

// modeText is the first column of "ls -l".
func modeText(a *fs.Attr) string {
	letter := typeLetters[a.Type]
	switch letter {
	case "f":
		letter = "-"
	case "":
		letter = "?"
	}
	b := []byte(letter + "rwxrwxrwx")
	for i := range 9 {
		if a.Perm>>(8-i)&1 == 0 {
			b[1+i] = '-'
		}
	}
	for _, s := range []struct {
		bit uint16
		at  int
		set byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		if a.Perm&s.bit == 0 {
			continue
		}
		if b[s.at] == '-' {
			s.set -= 'a' - 'A' // set, but not to be executed
		}
		b[s.at] = s.set
	}
	return string(b)
}

// plain makes a name from a guest fit for a terminal: what it could take for a
// command is written as \x1b.
func plain(name string) string {
	clean := utf8.ValidString(name)
	for _, r := range name {
		clean = clean && unicode.IsPrint(r)
	}
	if clean {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(name[i : i+n])
		} else {
			for _, c := range []byte(name[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
		i += n
	}
	return b.String()
}
