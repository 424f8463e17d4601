package datastore

import (
	"context"

	"holdfast/fs"
)

// Disk is the bytes of a big file: a restore point's disk with what was written
// on top. Its length never changes. All methods may be called by several
// goroutines at once. Errors that wrap one of package fs reach the client as
// what they are, all others as an I/O error. Redirected makes one of a
// redirect.Disk.
type Disk interface {
	// ReadAt reads len(p) bytes from byte off. n < len(p) only at the end, with
	// io.EOF, or with the error that stopped it.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)

	// WriteAt writes p, which it does not keep, at byte off, within the disk.
	// With durable the bytes are on stable storage when it returns, otherwise
	// after a Commit under the same Verifier. fs.ErrNoSpace.
	WriteAt(ctx context.Context, p []byte, off int64, durable bool) error

	// Commit makes every write that has returned durable.
	Commit(ctx context.Context) error

	// Verifier is another number whenever writes that were not durable may have
	// been lost.
	Verifier() uint64

	// Size is the length in bytes.
	Size() int64

	// UsedBytes is what the disk takes, for FATTR.used. It is asked often and
	// must answer at once.
	UsedBytes() int64

	// NextData finds the first stretch at or after off that is not a hole, as
	// image.Disk has it. io.EOF when there is none.
	NextData(off int64) (start, end int64, err error)
}

// Lender is a Disk that lends its bytes.
type Lender interface {
	// Borrow is as fs.BorrowTree has it; 0 <= off < Size. fs.ErrUnsupported
	// where ReadAt is to be used.
	Borrow(ctx context.Context, off int64, n int) (fs.Borrowed, error)
}

// Teller is a Disk that knows what it has in memory.
type Teller interface {
	// Cached says that n bytes from off would now be read without waiting for
	// a device.
	Cached(off int64, n int) bool
}
