package ntfs

import (
	"errors"
	"fmt"

	"holdfast/fs"
)

// listing is one call of ReadDir.
type listing struct {
	f   *FS
	n   *node
	fn  func(fs.Entry) bool
	bad bool  // something was passed over
	why error // the first such
}

func (l *listing) damage(err error) {
	if l.bad = true; l.why == nil {
		l.why = err
	}
}

// entries passes on those of a block that end behind off. False: fn wants no more.
func (l *listing) entries(b []byte, block int64, off int) bool {
	for at := 0; ; {
		e, n, err := nextEntry(b[at:])
		if err != nil {
			l.damage(err)
			return true
		}
		if e.last {
			return true
		}
		if at += n; at <= off {
			continue
		}
		entry, ok := l.entry(e)
		if !ok {
			continue
		}
		entry.Cookie = makeCookie(block, at, l.bad)
		if !l.fn(entry) {
			return false
		}
	}
}

// entry makes of e what people see; false: nothing.
func (l *listing) entry(e indexEntry) (fs.Entry, bool) {
	name, err := parseFileName(e.key)
	if err != nil {
		l.damage(err)
		return fs.Entry{}, false
	}
	if name.space == spaceDOS {
		return fs.Entry{}, false
	}
	if e.ref.num() < firstPublic {
		if l.n.num != fileRoot {
			l.damage(fmt.Errorf("entry that leads to file record %d: %w", e.ref.num(), fs.ErrDamaged))
		}
		return fs.Entry{}, false
	}
	entry := fs.Entry{Name: decodeName(name.utf16), ID: fs.ID{Ino: e.ref.num()}}
	if err := checkName(entry.Name); err != nil {
		l.damage(err)
		return fs.Entry{}, false
	}
	child, err := l.f.follow(e.ref)
	var gone *goneError
	switch {
	case errors.As(err, &gone):
		entry.ID = l.f.goneID(e.ref.num())
	case err == nil:
		entry.Type = child.attr.Type
		if entry.Type != fs.TypeSymlink { // whose size takes work
			entry.Attr = &child.attr
		}
	}
	return entry, true
}
