//go:build !linux

package repo

import "syscall"

// ownSocket does nothing where the directory's own mode must protect the socket.
func ownSocket(_, _ string, _ syscall.RawConn) error { return nil }
