//go:build !linux

package vfstest

import (
	"errors"

	"holdfast/repo/vfs"
)

func setImmutable(*vfs.Dir, string, bool) error { return errors.ErrUnsupported }
