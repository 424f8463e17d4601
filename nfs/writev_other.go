//go:build !linux

package nfs

import "syscall"

const canWritev = false

func writev(uintptr, [][]byte) (int, error) { return 0, syscall.ENOSYS }
