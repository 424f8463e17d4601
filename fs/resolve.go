package fs

import (
	"context"
	"fmt"
	"strings"
)

// maxLinks is how many symbolic links one path may lead through, as in Linux.
const maxLinks = 40

// Resolve describes what a path leads to from the directory root, which is also
// what "/" at the beginning of the path or of a symbolic link means: nothing
// leads above it. Links on the way are followed, and the last name too if
// follow says so. An error names the part of the path that it is about.
func Resolve(ctx context.Context, t Tree, root ID, path string, follow bool) (Attr, error) {
	at, err := t.Attr(ctx, root)
	if err != nil {
		return Attr{}, err
	}
	up := []Attr{} // the directories above at
	links := 0
	var gone []string // the names that led to at
	rest := strings.Split(path, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			if len(rest) > 0 && !at.IsDir() {
				return Attr{}, pathError(append(gone, name), ErrNotDir)
			}
			continue
		case "..":
			if !at.IsDir() {
				return Attr{}, pathError(gone, ErrNotDir)
			}
			if n := len(up); n > 0 {
				at, up, gone = up[n-1], up[:n-1], gone[:n-1]
			}
			continue
		}
		if !at.IsDir() {
			return Attr{}, pathError(gone, ErrNotDir)
		}
		next, err := t.Lookup(ctx, at.ID, name)
		if err != nil {
			return Attr{}, pathError(append(gone, name), err)
		}
		if next.Type != TypeSymlink || (!follow && onlySlashes(rest)) {
			up, at, gone = append(up, at), next, append(gone, name)
			continue
		}
		if links++; links > maxLinks {
			return Attr{}, pathError(append(gone, name), ErrLoop)
		}
		target, err := t.ReadLink(ctx, next.ID)
		if err != nil {
			return Attr{}, pathError(append(gone, name), err)
		}
		if target == "" {
			return Attr{}, pathError(append(gone, name), ErrNotFound)
		}
		if target[0] == '/' && len(up) > 0 {
			at, up, gone = up[0], nil, nil
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

func onlySlashes(rest []string) bool {
	for _, s := range rest {
		if s != "" {
			return false
		}
	}
	return true
}

func pathError(names []string, err error) error {
	return fmt.Errorf("%s: %w", "/"+strings.Join(names, "/"), err)
}
