// Package fault names the ways in which a virtual disk can be unreadable, so
// that every format says the same thing with the same value. Package image
// shows these values to the rest of the program.
package fault

import "errors"

var (
	// ErrTruncated: a file ends before the place its own header points to.
	ErrTruncated = errors.New("source is shorter than its header says")

	// ErrDamaged: a header, table or compressed block contradicts itself or
	// the format.
	ErrDamaged = errors.New("source is damaged")

	// ErrUnsupported: the format or one of its features is known by name, and
	// this program does not read it.
	ErrUnsupported = errors.New("not readable yet")

	// ErrOutside: a disk names a parent or an extent that is not an ordinary
	// file below the directory of the disk that was asked for.
	ErrOutside = errors.New("outside the directory of the disk")

	// ErrUntold: the format of a parent is not said, and its content alone is
	// not enough to believe it.
	ErrUntold = errors.New("format not said")

	// ErrCycle: a disk is its own parent, or has too many ancestors.
	ErrCycle = errors.New("chain of parents does not end")
)
