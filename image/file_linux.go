package image

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openFlags keep the open of a FIFO or a device without a medium from waiting.
const openFlags = os.O_RDONLY | unix.O_NONBLOCK

var errNoHoleMap = errors.New("the file system cannot say where data lies")

// seekData returns the next data of f at or after off, io.EOF when there is
// none. It moves the file's offset, which no reader uses: all reads are by
// position.
func seekData(f *os.File, off int64) (start, end int64, err error) {
	start, err = f.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, 0, errNoHoleMap
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = f.Seek(start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // cut between the two calls
		return 0, 0, io.EOF
	}
	return start, end, err
}

// Advice is advice: neither call below changes what is read, so their errors
// say nothing a caller could use.

func adviseSequential(f *os.File) { advise(f, 0, 0, unix.FADV_SEQUENTIAL) }

// dropPages gives up the cached pages that lie wholly in the range, also those
// which somebody else had brought in.
func dropPages(f *os.File, off, n int64) { advise(f, off, n, unix.FADV_DONTNEED) }

func advise(f *os.File, off, n int64, advice int) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), off, n, advice) })
}
