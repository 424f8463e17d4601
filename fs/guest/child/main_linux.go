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
	// With the runtime's poller: then one thread takes a question, answers it and
	// waits for the next, instead of waking another one each time.
	if err := unix.SetNonblock(lineFD, true); err != nil {
		return err
	}
	line := os.NewFile(lineFD, "line")
	defer line.Close()
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
