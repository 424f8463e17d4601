package nfs

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const canWritev = true

// maxIov is how many pieces one call takes.
const maxIov = 1024

// writev writes what it can of iov. EAGAIN if that is nothing now.
func writev(fd uintptr, iov [][]byte) (int, error) {
	if len(iov) == 1 {
		n, err := syscall.Write(int(fd), iov[0])
		return max(n, 0), err
	}
	n, err := unix.Writev(int(fd), iov[:min(len(iov), maxIov)])
	return max(n, 0), err
}
