package repo

import (
	"errors"
	"fmt"
	"syscall"
)

// A full volume must not keep anybody from making room on it. The repository
// holds a file of some bytes from the beginning, and gives it up when expiring
// or sweeping finds no room for the little they write.

// isFull reports whether an operation failed for lack of room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// withReserve lets do make room: when there is not enough for what it writes
// itself, the reserve is given up and do runs again. Afterwards the reserve is
// made again if there is room for it.
func (o *Owner) withReserve(do func() error) error {
	err := do()
	if !isFull(err) {
		return err
	}
	size, gerr := o.giveReserve()
	if gerr != nil || size == 0 {
		return errors.Join(err, gerr)
	}
	o.log.Warn("the volume is full: the reserve is given up until there is room again", "bytes", size)
	err = do()
	if merr := o.restoreReserve(size); merr != nil {
		o.log.Warn("there is no room for the reserve yet", "err", merr)
	}
	return err
}

// giveReserve removes the reserve and returns how large it was.
func (o *Owner) giveReserve() (int64, error) {
	info, err := o.fsys.Stat(reserveName)
	if err != nil {
		return 0, notThere(err)
	}
	if err := o.fsys.Remove(reserveName); err != nil {
		return 0, fmt.Errorf("give up the reserve: %w", err)
	}
	return info.Size, o.fsys.SyncDir(".")
}

// restoreReserve makes the reserve again, unless that would take the last room.
func (o *Owner) restoreReserve(size int64) error {
	free, err := o.fsys.Free()
	if err != nil {
		return err
	}
	if free < 2*uint64(size) {
		return fmt.Errorf("%w: %d bytes are free", ErrNoSpace, free)
	}
	return makeReserve(o.fsys, size)
}
