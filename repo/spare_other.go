//go:build !linux

package repo

import "holdfast/repo/vfs"

// fixedFiles is not known here.
func fixedFiles(vfs.FS) bool { return false }
