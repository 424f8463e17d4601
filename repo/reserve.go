package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"holdfast/repo/vfs"
)

// The reserve is a file whose only use is to be given up: on a full volume
// nothing could be removed otherwise, for the ledger must say so first. It keeps
// its name and its length, so that it can be given up and set aside again where
// the directory can't be changed any more; what is given up are its blocks.

// withReserve does what makes room, and needs a little of it. When there is no
// room it gives up the reserve, does it once more, and sets the reserve aside
// again if there is room then.
func (o *Owner) withReserve(do func() error) error {
	err := do()
	if !isFull(err) {
		return err
	}
	given, rerr := giveUpReserve(o.fsys)
	spares, serr := giveUpSpares(o.fsys)
	if rerr = errors.Join(rerr, serr); rerr != nil || !given && !spares {
		return errors.Join(err, rerr)
	}
	o.log.Warn("the volume is full; its reserve is used", "err", err)
	err = do()
	o.restoreReserve()
	return err
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// giveUpReserve frees the blocks of the reserve. It reports false when there is
// none.
func giveUpReserve(fsys vfs.FS) (bool, error) {
	info, err := fsys.Stat(reserveName)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f, err := fsys.OpenWrite(reserveName)
	if err != nil {
		return false, err
	}
	if err = f.Truncate(0); err == nil {
		err = f.Truncate(info.Size)
	}
	if err == nil {
		err = f.Sync() // only then the blocks are free
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("give up the reserve: %w", err)
	}
	return true, nil
}

// restoreReserve sets the reserve aside again where it may have been given up, or
// as much of it as half of the room there is, and spare files. It is no failure
// when that can't be done.
func (o *Owner) restoreReserve() {
	info, err := o.fsys.Stat(reserveName)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size == 0 {
		return // made without
	}
	if err == nil {
		err = setAside(o.fsys, info.Size)
	}
	if fixedFiles(o.fsys) {
		err = errors.Join(err, keepSpares(o.fsys))
	}
	if err != nil {
		o.log.Warn("the reserve can't be set aside again", "err", err)
	}
}

func setAside(fsys vfs.FS, n int64) error {
	free, err := fsys.Free()
	if err != nil {
		return err
	}
	const block = 4096
	if n = min(n, int64(min(free/2, 1<<62))/block*block); n == 0 {
		return nil
	}
	f, err := fsys.OpenWrite(reserveName)
	if err != nil {
		return err
	}
	if err = f.Preallocate(n); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
