package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"
)

var (
	// ErrNotRepository says that the directory holds no format.json of ours.
	ErrNotRepository = errors.New("not a holdfast repository")

	// ErrExists says that Create found something where the repository should go.
	ErrExists = errors.New("directory is not empty")

	// ErrNewerFormat says that a newer program wrote this; the text names the version.
	ErrNewerFormat = errors.New("written in a newer format")

	// ErrFormat says that a file is not what its place says it is.
	ErrFormat = errors.New("bad format")

	// ErrNeedKey says that the repository is sealed and no key was given.
	ErrNeedKey = errors.New("repository is sealed and no passphrase or identity was given")

	// ErrWrongKey says that no key file opens with what was given.
	ErrWrongKey = errors.New("no key of the repository opens with this passphrase or identity")

	// ErrNotSealed says that a repository without keys was asked to change them.
	ErrNotSealed = errors.New("repository is not sealed, so it has no keys")

	// ErrLastKey says that nothing would open the repository any more.
	ErrLastKey = errors.New("no other key would open the repository")

	// ErrKeyLocked says that a key file can't be removed yet.
	ErrKeyLocked = errors.New("key file is locked")

	// ErrPaper says that a key was not typed in as it is printed.
	ErrPaper = errors.New("not as it is printed")

	// ErrNotFound says that no restore point or disk answers to the name.
	ErrNotFound = errors.New("not found")

	// ErrTime says that a moment is not written as one.
	ErrTime = errors.New("bad time")

	// ErrName says that a machine, disk or job can't have this name.
	ErrName = errors.New("bad name")

	// ErrMachine says that a machine of this name has another identity.
	ErrMachine = errors.New("machine has another identity")

	// ErrReadOnly says that the medium can't be written.
	ErrReadOnly = errors.New("repository is on a read-only medium")

	// ErrNoSigner says that the private signing key is not in the state directory,
	// or another one is.
	ErrNoSigner = errors.New("signing key missing")

	// ErrMachineFiles says that a machine's files are more than a point takes, or
	// not as they were written.
	ErrMachineFiles = errors.New("bad machine files")

	// ErrChanges says that a change list can't be used and must be, or is not one.
	ErrChanges = errors.New("bad change list")

	// ErrShortSource says that a source ended before the size it claims.
	ErrShortSource = errors.New("source is shorter than its size")

	// ErrNoSpace says that there is less room than an operation is going to take.
	ErrNoSpace = errors.New("not enough room")

	// ErrEmptied says that a repository lacks so much that was copied from it that
	// nothing is let expire because of it.
	ErrEmptied = errors.New("source looks emptied or rolled back")

	// ErrClosure says that a commit would name something that isn't stored.
	ErrClosure = errors.New("point refers to a chunk that is not stored")

	// ErrPinned says that a restore point is pinned; the text names the pins.
	ErrPinned = errors.New("pinned")

	// ErrExpired says that a restore point has expired, though it may still be there.
	ErrExpired = errors.New("point has expired")

	// ErrSweepFirst says that the counts of the last sweep are too far behind, or
	// damaged, to tell without another what is needed.
	ErrSweepFirst = errors.New("not known until the next sweep")

	// ErrTooLarge says that a question is about more than memory is given for.
	ErrTooLarge = errors.New("too much to be told at once")

	// ErrClosed says that the repository, point or disk was closed before.
	ErrClosed = errors.New("already closed")
)

// A BusyError says that another process owns the repository.
type BusyError struct {
	Holder Holder
}

func (e *BusyError) Error() string {
	if e.Holder.PID == 0 {
		return "repository is in use by another process"
	}
	return fmt.Sprintf("repository is in use by process %d on %s (%s, since %s)",
		e.Holder.PID, e.Holder.Host, e.Holder.Doing, e.Holder.Since.UTC().Format(time.RFC3339))
}

// An AmbiguousError says that more than one restore point answers to a name.
type AmbiguousError struct {
	Spec    string
	Matches []Point
}

func (e *AmbiguousError) Error() string {
	ids := make([]string, len(e.Matches))
	for i, p := range e.Matches {
		ids[i] = fmt.Sprintf("%s (%s, %s)", p.ID, p.Machine, p.Time.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%q is ambiguous: %s", e.Spec, strings.Join(ids, ", "))
}

// mayPass reports whether err says that something is not there, or that this
// process has no descriptors or memory left to look.
func mayPass(err error) bool {
	for _, e := range []error{fs.ErrNotExist, errNotIndexed, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// A CorruptError says that stored bytes are damaged beyond what parity, a twin
// or another copy could heal. Unknown facts are zero.
type CorruptError struct {
	Point PointID // the point being read
	Disk  string  // the disk being read
	Off   int64   // first byte of the disk that can't be had
	Len   int64   // how many
	Pack  string  // the damaged file, by its path in the repository
	Err   error

	// Missing says that what holds the bytes is not there, or that it can't be
	// opened now. While the repository is being written that may pass.
	Missing bool
}

func (e *CorruptError) Error() string {
	var b strings.Builder
	b.WriteString("damaged")
	if e.Point != "" {
		fmt.Fprintf(&b, ": point %s", e.Point)
	}
	if e.Disk != "" {
		fmt.Fprintf(&b, ", disk %s, bytes %d to %d", e.Disk, e.Off, e.Off+e.Len)
	}
	if e.Pack != "" {
		fmt.Fprintf(&b, ", in %s", e.Pack)
	}
	return fmt.Sprintf("%s: %v", b.String(), e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }
