package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/fs/guest"
)

// lineFD is the descriptor of the line to the parent.
const lineFD = 3

// Exit codes of Main.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 64
)

// Main is the process that Start starts: it gives up what it may do, answers
// until its parent hangs up, and returns the exit code.
func Main() int { return run(guest.Direct{}, confine) }

// run is Main with a reader and a way to give up what the process may do.
func run(reader guest.Reader, confine func(memory int64) (has, lacks []string, err error)) int {
	if kind, err := unix.GetsockoptInt(lineFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		fmt.Fprintln(os.Stderr, "this is begun by holdfast itself, to read the file systems of strangers")
		return exitUsage
	}
	if err := runOn(reader, confine); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	return exitDone
}

func runOn(reader guest.Reader, confine func(int64) ([]string, []string, error)) error {
	if err := unix.SetNonblock(lineFD, false); err != nil { // a thread waits in the read
		return err
	}
	line := blockingLine{}
	kind, _, body, err := readFrame(line)
	if err != nil {
		return fmt.Errorf("read the first message: %w", err)
	}
	c := &cursor{b: body}
	v, memory := c.u32(), c.i64()
	if err := c.end(); err != nil || kind != kindConfig || v != version || memory <= 0 {
		return fmt.Errorf("%v of version %d: %w", kind, v, errProtocol)
	}
	has, lacks, err := confine(memory)
	if err != nil {
		return err
	}
	if _, err := line.Write(newFrame(256).u32(version).strs(has).strs(lacks).bytes(kindHello, 0)); err != nil {
		return err
	}
	err = newServer(line, reader).serve(context.Background())
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) { // the parent has died
		return nil
	}
	return err
}

// blockingLine is the line without the runtime's poller, which would need more
// system calls and another thread's help for each message.
type blockingLine struct{}

func (blockingLine) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(lineFD, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (blockingLine) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(lineFD, p[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
