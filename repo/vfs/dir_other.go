//go:build !linux

package vfs

import (
	"errors"
	"os"
)

// Repositories are served on Linux. Elsewhere this compiles, so that the
// packages above can be worked on, and refuses what it cannot do.

func lockFile(*os.File, LockMode) error      { return errors.ErrUnsupported }
func unlockFile(*os.File) error              { return errors.ErrUnsupported }
func freeBytes(*os.File) (uint64, error)     { return 0, errors.ErrUnsupported }
func immutable(*os.File) (bool, error)       { return false, nil }
func preallocate(f *os.File, n int64) error  { return writeZeros(f, n) }
func dropCache(*os.File, int64, int64) error { return nil }

func (f osFile) syncData() error { return f.Sync() }
