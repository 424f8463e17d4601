package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

// openDir opens a repository's directory. A directory that is not there is not
// a repository.
func openDir(dir string) (*vfs.Dir, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%s: %w: there is no such directory", dir, repo.ErrNotRepository)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s: %w: it is not a directory", dir, repo.ErrNotRepository)
	}
	return vfs.OS(dir)
}

// reading runs fn with the repository in dir open for reading.
func (a *app) reading(ctx context.Context, dir string, fn func(*repo.Repository) error) (err error) {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // nothing was written through it
	r, err := withKeys(a, func(opt repo.Options) (*repo.Repository, error) { return repo.Open(ctx, d, opt) })
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return fn(r)
}

// owning runs fn as the owner of the repository in dir, for which it waits at
// most wait. doing says what for, to those that have to wait.
func (a *app) owning(ctx context.Context, dir, doing string, wait time.Duration, fn func(*repo.Owner) error) (err error) {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // the owner has synced what it wrote
	state, err := openState()
	if err != nil {
		return err
	}
	defer state.Close() //nolint:errcheck // the same
	o, err := withKeys(a, func(opt repo.Options) (*repo.Owner, error) {
		opt.State, opt.Doing = state, doing
		return repo.Own(ctx, d, opt, wait)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	return fn(o)
}

// withKeys opens with the keys that were given. When the repository is sealed
// and there were none, a person at a terminal is asked for the passphrase.
func withKeys[R any](a *app, open func(repo.Options) (R, error)) (R, error) {
	var none R
	opt, err := a.openOptions()
	if err != nil {
		return none, err
	}
	if opt.Passphrase == nil && opt.Identities == nil {
		opt.Passphrase = a.asked
	}
	r, err := open(opt)
	if errors.Is(err, repo.ErrNeedKey) && a.interactive() {
		if opt.Passphrase, err = a.ask("Passphrase: "); err != nil {
			return none, err
		}
		a.asked = opt.Passphrase // a verb may open the repository twice
		r, err = open(opt)
	}
	return r, err
}

func (a *app) openOptions() (opt repo.Options, err error) {
	if opt.Log, err = a.logger(); err != nil {
		return opt, err
	}
	if opt.Passphrase, err = a.passphrase(); err != nil {
		return opt, err
	}
	opt.Identities, err = a.identities()
	return opt, err
}

// openState opens the state directory, which it makes for this user alone.
func openState() (*vfs.Dir, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		// The signing key will be in it, which no repository may outlive.
		if err := errors.Join(os.MkdirAll(dir, 0o700), syncDir(filepath.Dir(dir))); err != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
	}
	d, err := vfs.OS(dir)
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w", err)
	}
	return d, nil
}
