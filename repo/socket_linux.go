package repo

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ownSocket lets nobody but its user connect to a socket, and not for a moment
// anybody else: a socket's file gets the mode that the socket has when it is
// bound. Source: unix_bind in Linux' net/unix/af_unix.c.
func ownSocket(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}
