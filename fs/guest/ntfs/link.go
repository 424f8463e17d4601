package ntfs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"holdfast/fs"
)

// maxParts is how many names of a target are looked up. Windows' paths have up
// to 32,767 characters; those of people a few dozen names.
const maxParts = 256

// target returns where a symbolic link leads.
func (f *FS) target(n *node) (string, error) {
	var target string
	var err error
	switch n.tag {
	case tagSymlink, tagMount:
		target, err = f.windowsTarget(n)
	case tagLXSymlink:
		if len(n.reparse) < 4 || le.Uint32(n.reparse) != 2 {
			return "", fmt.Errorf("link of WSL in %d bytes: %w", len(n.reparse), fs.ErrDamaged)
		}
		target = string(n.reparse[4:])
	default:
		target = n.interix
	}
	if err == nil && (target == "" || strings.Contains(target, "\x00")) {
		err = fmt.Errorf("target %q: %w", target, fs.ErrDamaged)
	}
	return target, err
}

// link is a Windows link as it stands in a reparse point.
type link struct {
	path     string // as the kernel takes it: \??\C:\x, or relative
	shown    string // as people see it
	relative bool   // by the flag; "\x" is not
}

// parseLink. Source: [MS-FSCC] 2.1.2.4 and 2.1.2.5.
func parseLink(tag uint32, b []byte) (link, error) {
	header := 8
	if tag == tagSymlink {
		header = 12
	}
	if len(b) < header {
		return link{}, fmt.Errorf("%d bytes: %w", len(b), fs.ErrDamaged)
	}
	text := func(at int) string {
		from, n := int(le.Uint16(b[at:])), int(le.Uint16(b[at+2:]))
		if header+from+n > len(b) {
			return ""
		}
		return decodeName(b[header+from : header+from+n])
	}
	l := link{path: text(0), shown: text(4)}
	l.relative = tag == tagSymlink && le.Uint32(b[8:])&1 != 0 && !strings.HasPrefix(l.path, `\`)
	if l.path == "" {
		return link{}, fmt.Errorf("no target: %w", fs.ErrDamaged)
	}
	return l, nil
}

// onVolume returns the path below the root of the volume that an absolute link
// has in mind if its drive is this one.
func (l link) onVolume() (path string, ok bool) {
	p := l.path
	for _, prefix := range []string{`\??\`, `\\?\`, `\DosDevices\`} {
		p = strings.TrimPrefix(p, prefix)
	}
	if len(p) >= 2 && p[1] == ':' && (p[0]|0x20) >= 'a' && (p[0]|0x20) <= 'z' {
		if p = p[2:]; p == "" || p[0] == '\\' {
			return p, true
		}
		return "", false
	}
	return p, p == l.path && strings.HasPrefix(p, `\`) && !strings.HasPrefix(p, `\\`)
}

// windowsTarget makes a target of a Windows link, as the package comment has it.
func (f *FS) windowsTarget(n *node) (string, error) {
	l, err := parseLink(n.tag, n.reparse)
	if err != nil {
		return "", err
	}
	if l.relative {
		up, err := f.parent(n)
		if err != nil {
			return "", err
		}
		parts, _, err := f.respell(up, split(l.path))
		return strings.Join(parts, "/"), err
	}
	path, ok := l.onVolume()
	if ok {
		root, err := f.node(fileRoot)
		if err != nil {
			return "", err
		}
		parts, found, err := f.respell(root, split(path))
		if err != nil {
			return "", err
		}
		if found {
			up, err := f.depth(n)
			if up == 0 && len(parts) == 0 {
				return ".", err
			}
			return strings.Join(append(slices.Repeat([]string{".."}, up), parts...), "/"), err
		}
	}
	if l.shown == "" {
		l.shown = l.path
	}
	if ok {
		return strings.ReplaceAll(l.shown, `\`, "/"), nil
	}
	return l.shown, nil
}

// split splits a Windows path at its backslashes, leaving out what is empty.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '\\' })
}

// respell gives the names of a path from the directory at on the case that they
// have on the volume. found is false if one is not there; a link on the way ends
// the search well.
func (f *FS) respell(at *node, parts []string) (spelled []string, found bool, err error) {
	if len(parts) > maxParts {
		return parts, false, nil
	}
	for i, part := range parts {
		next, name, err := f.lookFolded(at, part)
		switch {
		case errors.Is(err, fs.ErrNotFound), errors.Is(err, fs.ErrDamaged), errors.Is(err, fs.ErrStale):
			return append(spelled, parts[i:]...), false, nil
		case err != nil:
			return nil, false, err
		}
		spelled = append(spelled, name)
		if next.attr.Type == fs.TypeSymlink {
			return append(spelled, parts[i+1:]...), true, nil
		}
		at = next
	}
	return spelled, true, nil
}

// lookFolded finds a name in a directory, if need be under other case, and
// returns it as it stands there.
func (f *FS) lookFolded(at *node, name string) (*node, string, error) {
	switch name {
	case ".":
		return at, name, nil
	case "..":
		up, err := f.parent(at)
		return up, name, err
	}
	want, ok := encodeName(name)
	if !ok || at.attr.Type != fs.TypeDir {
		return nil, "", fs.ErrNotFound
	}
	x, err := f.openIndex(at, nameI30)
	if err != nil {
		return nil, "", err
	}
	exact, folded, err := f.searchName(x, want)
	if err != nil {
		return nil, "", err
	}
	if exact.ref != 0 {
		folded = exact
	}
	if folded.ref.num() < firstPublic {
		return nil, "", fs.ErrNotFound
	}
	next, err := f.follow(folded.ref)
	return next, folded.name, err
}

// depth is how many directories n is below the root.
func (f *FS) depth(n *node) (int, error) {
	up, err := f.parent(n)
	for depth := 0; err == nil; depth++ {
		if up.num == fileRoot {
			return depth, nil
		}
		if depth == 4096 {
			return 0, fmt.Errorf("file record %d is its own ancestor: %w", n.num, fs.ErrDamaged)
		}
		up, err = f.parent(up)
	}
	return 0, err
}
