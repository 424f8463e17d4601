package content

import (
	"context"
	"errors"
	"fmt"
	"io"

	"holdfast/fs"
	"holdfast/image/vmdk"
	"holdfast/repo"
)

// turns is the border where errors of the repository become those of a tree.
// The first that matches wins; the error itself stays in the chain.
var turns = []struct {
	is func(error) bool
	to error
}{
	{kind[*repo.CorruptError], fs.ErrDamaged},
	{kind[*repo.BusyError], fs.ErrRetry},
	{kind[*repo.AmbiguousError], fs.ErrInvalid},
	{wraps(repo.ErrClosed), fs.ErrStale},
	{wraps(repo.ErrNotFound), fs.ErrStale}, // a point that has gone; names are looked up before
	{wraps(repo.ErrExpired), fs.ErrStale},
	{wraps(repo.ErrFormat), fs.ErrDamaged},
	{wraps(repo.ErrClosure), fs.ErrDamaged},
	{wraps(repo.ErrNotRepository), fs.ErrDamaged},
	{wraps(repo.ErrNewerFormat), fs.ErrUnsupported},
	{wraps(repo.ErrTooLarge), fs.ErrUnsupported},
	{wraps(repo.ErrSweepFirst), fs.ErrRetry},
	{wraps(repo.ErrNeedKey), fs.ErrPermission},
	{wraps(repo.ErrWrongKey), fs.ErrPermission},
	{wraps(repo.ErrNotSealed), fs.ErrPermission},
	{wraps(repo.ErrLastKey), fs.ErrPermission},
	{wraps(repo.ErrKeyLocked), fs.ErrPermission},
	{wraps(repo.ErrNoSigner), fs.ErrPermission},
	{wraps(repo.ErrPinned), fs.ErrPermission},
	{wraps(repo.ErrEmptied), fs.ErrPermission},
	{wraps(repo.ErrReadOnly), fs.ErrReadOnly},
	{wraps(repo.ErrNoSpace), fs.ErrNoSpace},
	{wraps(repo.ErrPaper), fs.ErrInvalid},
	{wraps(repo.ErrTime), fs.ErrInvalid},
	{wraps(repo.ErrName), fs.ErrInvalid},
	{wraps(repo.ErrMachine), fs.ErrInvalid},
	{wraps(repo.ErrMachineFiles), fs.ErrDamaged},
	{wraps(repo.ErrExists), fs.ErrInvalid},
	{wraps(repo.ErrChanges), fs.ErrInvalid},
	{wraps(repo.ErrShortSource), fs.ErrInvalid},
	{wraps(vmdk.ErrTooLarge), fs.ErrUnsupported},
}

// ours are the errors that need no turning.
var ours = []error{
	fs.ErrNotFound, fs.ErrStale, fs.ErrNotDir, fs.ErrIsDir, fs.ErrInvalid, fs.ErrNoXattr, fs.ErrLoop, fs.ErrDamaged,
	fs.ErrUnsupported, fs.ErrRetry, fs.ErrNoSpace, fs.ErrReadOnly, fs.ErrPermission,
	io.EOF, context.Canceled, context.DeadlineExceeded,
}

// fsError turns an error of the repository, or of what is made of it, into one
// of package fs. What is neither, such as an error of the medium, stays as it
// is.
func fsError(err error) error {
	if err == nil {
		return nil
	}
	for _, own := range ours {
		if errors.Is(err, own) {
			return err
		}
	}
	for _, turn := range turns {
		if turn.is(err) {
			return fmt.Errorf("%w: %w", turn.to, err)
		}
	}
	return err
}

func wraps(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func kind[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}
