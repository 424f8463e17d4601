//go:build !linux

package redirect

import "holdfast/repo/vfs"

func fdatasync(vfs.File) (err error, ok bool) { return nil, false }

func hintExtents(vfs.File) {}
