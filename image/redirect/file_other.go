//go:build !linux

package redirect

import "holdfast/repo/vfs"

func fdatasync(vfs.File) (err error, ok bool) { return nil, false }

func volumeBytes(vfs.FS) (int64, error) { return 0, nil }

func hintExtents(vfs.File) {}
