package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// WatchVerb is the first argument of a watcher that Mount starts by default.
const WatchVerb = "mount-watch"

// What the two tell each other.
const (
	watching = 'w' // by the watcher: whatever happens now, the mount won't stay
	released = 'r' // by the server: there is nothing left to watch over
)

// A watcher is the process that detaches a mount when its server has died. It
// sees that by the pipe to it, which closes with the server.
type watcher struct {
	cmd    *exec.Cmd
	pipe   io.WriteCloser
	answer io.ReadCloser
}

func startWatcher(args []string, dir string) (*watcher, error) {
	program := "/proc/self/exe"
	if len(args) == 0 {
		args = []string{os.Args[0], WatchVerb}
	} else {
		program = args[0]
	}
	cmd := exec.Command(program)
	cmd.Args = append(args[:len(args):len(args)], strconv.Itoa(os.Getpid()), dir)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	// What a terminal sends to the server's group is not meant for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answer, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, pipe.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, pipe.Close(), answer.Close())
	}
	return &watcher{cmd, pipe, answer}, nil
}

// ready waits until the watcher watches.
func (w *watcher) ready() error {
	if _, err := io.ReadFull(w.answer, make([]byte, 1)); err != nil {
		return fmt.Errorf("the watcher did not start: %w", err)
	}
	return nil
}

// release ends the watcher. That it has died before is told.
func (w *watcher) release() error {
	_, err := w.pipe.Write([]byte{released})
	return errors.Join(err, w.pipe.Close(), w.cmd.Wait())
}

// Watch is the main of a watcher. args are the two arguments that Mount added to
// Options.Watcher. It returns when the server that started it has unmounted, or
// has died and its mount is detached.
func Watch(args []string) error {
	if len(args) != 2 {
		return errors.New("a watcher is started by a mount")
	}
	server, dir := args[0], args[1]
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	if _, err := os.Stdout.Write([]byte{watching}); err != nil {
		return err
	}
	told, err := io.ReadAll(io.LimitReader(os.Stdin, 1))
	if err != nil {
		return err
	}
	if len(told) == 1 && told[0] == released {
		return nil
	}
	// The pipe closes somewhat before the rest of a process that dies. Once the
	// process is gone so is its end of the mount.
	const patience = 10 * time.Second
	if !until(patience, func() bool { return strconv.Itoa(os.Getppid()) != server }) {
		return fmt.Errorf("the server of %s neither lives nor dies", dir)
	}
	return detachDead(dir)
}
