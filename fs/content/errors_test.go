package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/image/vmdk"
	"holdfast/repo"
)

// TestErrors turns every error of the repository by name.
func TestErrors(t *testing.T) {
	sentinels := map[string]struct{ err, want error }{
		"ErrNotRepository": {repo.ErrNotRepository, fs.ErrDamaged},
		"ErrExists":        {repo.ErrExists, fs.ErrInvalid},
		"ErrNewerFormat":   {repo.ErrNewerFormat, fs.ErrUnsupported},
		"ErrFormat":        {repo.ErrFormat, fs.ErrDamaged},
		"ErrNeedKey":       {repo.ErrNeedKey, fs.ErrPermission},
		"ErrWrongKey":      {repo.ErrWrongKey, fs.ErrPermission},
		"ErrNotSealed":     {repo.ErrNotSealed, fs.ErrPermission},
		"ErrLastKey":       {repo.ErrLastKey, fs.ErrPermission},
		"ErrKeyLocked":     {repo.ErrKeyLocked, fs.ErrPermission},
		"ErrPaper":         {repo.ErrPaper, fs.ErrInvalid},
		"ErrNotFound":      {repo.ErrNotFound, fs.ErrStale},
		"ErrTime":          {repo.ErrTime, fs.ErrInvalid},
		"ErrName":          {repo.ErrName, fs.ErrInvalid},
		"ErrMachine":       {repo.ErrMachine, fs.ErrInvalid},
		"ErrMachineFiles":  {repo.ErrMachineFiles, fs.ErrDamaged},
		"ErrReadOnly":      {repo.ErrReadOnly, fs.ErrReadOnly},
		"ErrNoSigner":      {repo.ErrNoSigner, fs.ErrPermission},
		"ErrChanges":       {repo.ErrChanges, fs.ErrInvalid},
		"ErrShortSource":   {repo.ErrShortSource, fs.ErrInvalid},
		"ErrNoSpace":       {repo.ErrNoSpace, fs.ErrNoSpace},
		"ErrEmptied":       {repo.ErrEmptied, fs.ErrPermission},
		"ErrClosure":       {repo.ErrClosure, fs.ErrDamaged},
		"ErrPinned":        {repo.ErrPinned, fs.ErrPermission},
		"ErrExpired":       {repo.ErrExpired, fs.ErrStale},
		"ErrSweepFirst":    {repo.ErrSweepFirst, fs.ErrRetry},
		"ErrTooLarge":      {repo.ErrTooLarge, fs.ErrUnsupported},
		"ErrClosed":        {repo.ErrClosed, fs.ErrStale},

		"*CorruptError":   {&repo.CorruptError{Err: io.ErrUnexpectedEOF}, fs.ErrDamaged},
		"*BusyError":      {&repo.BusyError{}, fs.ErrRetry},
		"*AmbiguousError": {&repo.AmbiguousError{}, fs.ErrInvalid},
	}
	for _, name := range treetest.Sentinels(t, "../../repo/errors.go") {
		if _, ok := sentinels[name]; !ok {
			t.Errorf("repo.%s is not in this table", name)
		}
	}
	for name, tt := range sentinels {
		for _, err := range []error{tt.err, fmt.Errorf("read point x: %w", tt.err)} {
			got := fsError(err)
			if !errors.Is(got, tt.want) || !errors.Is(got, err) {
				t.Errorf("%s becomes %v, want one that is %v too", name, got, tt.want)
			}
		}
	}
	if got := fsError(vmdk.ErrTooLarge); !errors.Is(got, fs.ErrUnsupported) {
		t.Errorf("a disk too large for a VMDK: %v", got)
	}
	for _, err := range []error{nil, io.EOF, context.Canceled, context.DeadlineExceeded, fs.ErrStale, errors.New("input/output error")} {
		if got := fsError(err); got != err {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}
