package layer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"holdfast/image/internal/fault"
)

// ParentError says that a disk is in order and its parent is not to be had.
type ParentError struct{ err error }

func (e *ParentError) Error() string { return "parent " + e.err.Error() }
func (e *ParentError) Unwrap() error { return e.err }

// FindParent opens the parent by the first of names under which anything is
// found, and checks with fits that it is the right one. A name that leads to
// nothing, or outside, gives way to the next; whatever is found decides, or an
// image with many names on each floor would be searched for ever. An error is a
// *ParentError.
func FindParent[P io.Closer](names []string, open func(name string) (P, error), fits func(P) error) (P, error) {
	var none P
	if len(names) == 0 {
		return none, &ParentError{fmt.Errorf("%w: it is named nowhere", fault.ErrDamaged)}
	}
	var all error
	for _, name := range names {
		p, err := open(name)
		if err == nil {
			if err = fits(p); err == nil {
				return p, nil
			}
			return none, &ParentError{errors.Join(fmt.Errorf("%q: %w", name, err), p.Close())}
		}
		if all = and(all, err); !elsewhere(err) {
			break
		}
	}
	return none, &ParentError{all}
}

// elsewhere says whether another name may do better.
func elsewhere(err error) bool {
	var deeper *ParentError
	return !errors.As(err, &deeper) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fault.ErrOutside))
}

func and(all, err error) error {
	if all == nil {
		return err
	}
	return fmt.Errorf("%w; %w", all, err)
}

// Names turns file names as Windows has them into names with slashes, each once
// and in order, and behind them the last element of each, for a chain that was
// moved into one directory.
func Names(windows ...string) []string {
	var names []string
	add := func(name string) {
		if name != "" && name != "." && name != "/" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range windows {
		name = strings.ReplaceAll(name, `\`, "/")
		if rest, ok := strings.CutPrefix(name, "./"); ok {
			name = rest
		}
		add(name)
	}
	for _, name := range names[:len(names):len(names)] {
		add(path.Base(name))
	}
	return names
}

// UTF16 decodes b up to the first NUL.
func UTF16(b []byte, order binary.ByteOrder) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := order.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
