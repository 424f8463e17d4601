package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/repo/vfs"
)

const socketName = "nfs.sock"

// socketPath names the socket by the directory's descriptor, which has no limit
// on the length of the directory's path.
func socketPath(state *vfs.Dir) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", state.Fd(), socketName)
}

// Listen makes the socket in a state directory. A socket that is left over belongs
// to a process that is gone, for the caller has the Manager of that state.
func Listen(state *vfs.Dir) (net.Listener, error) {
	path := socketPath(state)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return (&net.ListenConfig{Control: ownSocket}).Listen(context.Background(), "unix", path)
}

// Dial connects to the socket in a state directory.
func Dial(ctx context.Context, state *vfs.Dir) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", socketPath(state))
}

// ownSocket lets nobody but its user connect to a socket, and not for a moment
// anybody else: a socket's file gets the mode that the socket has when it is bound.
// Source: unix_bind in Linux' net/unix/af_unix.c.
func ownSocket(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}

// checkPeer refuses whoever is neither this process's user nor root.
func checkPeer(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%T tells nothing of its peer", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return cerr
	}
	if err == nil && cred.Uid != 0 && int(cred.Uid) != os.Getuid() {
		err = fmt.Errorf("process %d of user %d is not this user's", cred.Pid, cred.Uid)
	}
	return err
}
