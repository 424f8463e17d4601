package repo

import (
	"errors"
	"fmt"
	"io/fs"

	"holdfast/repo/vfs"
)

// maxTwinBytes bounds what is read of a file that has a twin.
const maxTwinBytes = 64 << 20

// writeTwins writes data to the twin of name and then to name, each durable
// when it returns. A copy that is there already is left alone: after a crash
// the second attempt completes the pair.
func writeTwins(fsys vfs.FS, name string, data []byte) error {
	for _, n := range []string{name + twinSuffix, name} {
		if err := vfs.WriteFile(fsys, n, data); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// readTwins returns the first copy of name that check accepts. Without one, the
// error is fs.ErrNotExist if both are missing, else what is wrong with each.
func readTwins(fsys vfs.FS, name string, check func([]byte) error) ([]byte, error) {
	var errs []error
	for _, n := range []string{name, name + twinSuffix} {
		data, err := vfs.ReadFile(fsys, n, maxTwinBytes)
		if err == nil {
			if err = check(data); err == nil {
				return data, nil
			}
			err = fmt.Errorf("%s: %w", n, err)
		}
		errs = append(errs, err)
	}
	// A missing copy says less than a damaged one.
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errs[1-i]
		}
	}
	return nil, errors.Join(errs...)
}

// completeTwins gives name its missing copy, if exactly one of the two is
// there and check accepts it. It reports whether it wrote one.
func completeTwins(fsys vfs.FS, name string, check func([]byte) error) (bool, error) {
	missing := ""
	for _, n := range []string{name, name + twinSuffix} {
		_, err := fsys.Stat(n)
		switch {
		case errors.Is(err, fs.ErrNotExist) && missing == "":
			missing = n
		case errors.Is(err, fs.ErrNotExist):
			return false, err // both missing
		case err != nil:
			return false, err
		}
	}
	if missing == "" {
		return false, nil
	}
	data, err := readTwins(fsys, name, check)
	if err != nil {
		return false, err
	}
	return true, vfs.WriteFile(fsys, missing, data)
}
