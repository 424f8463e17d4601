package repo

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// maxNameBytes is the longest name of a machine, disk or job: what a directory
// entry of the content tree can hold.
const maxNameBytes = 255

// CheckName returns ErrName unless name can stand for a machine, disk or job,
// in listings and as a directory: 1 to 255 bytes of UTF-8, no slash, no control
// characters, neither "." nor "..". what is named in the error.
func CheckName(what, name string) error {
	bad := func(why string) error { return fmt.Errorf("%w: %s %.64q %s", ErrName, what, name, why) }
	switch {
	case name == "":
		return fmt.Errorf("%w: %s is empty", ErrName, what)
	case len(name) > maxNameBytes:
		return bad(fmt.Sprintf("has %d bytes, more than %d", len(name), maxNameBytes))
	case name == "." || name == "..":
		return bad("stands for a directory")
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	}
	for _, r := range name {
		if r == '/' {
			return bad("has a slash")
		}
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return bad("has control characters")
		}
	}
	return nil
}
