package child

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running child and the line to it.
type process struct {
	line   net.Conn
	cmd    *exec.Cmd
	stderr *tail
	exited chan struct{} // closed when it has ended and is waited for
	state  string        // how it ended; set before exited is closed
}

// namespaces are what a process gets of its own, from much to nothing.
var namespaces = []struct {
	flags uintptr
	user  bool // by way of a user namespace, for those who are not root
	lacks string
}{
	{unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS | unix.CLONE_NEWPID, false, ""},
	// Without the right to empty a namespace of mounts, it would only keep what is
	// mounted now in use.
	{unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID, true, ""},
	{0, false, "namespaces: not permitted here"},
}

// startProcess starts the program again with the most namespaces it may have.
// lacks says what could not be had.
func startProcess(command []string) (p *process, lacks string, err error) {
	for _, ns := range namespaces {
		if ns.flags != 0 && ns.user == (os.Geteuid() == 0) {
			continue
		}
		if p, err = startIn(command, ns.flags, ns.user); err == nil {
			return p, ns.lacks, nil
		}
	}
	return nil, "", err
}

func startIn(command []string, flags uintptr, user bool) (*process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "line"), os.NewFile(uintptr(pair[1]), "line")
	defer theirs.Close()
	line, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, err
	}
	p := &process{line: line, stderr: &tail{}, exited: make(chan struct{})}
	p.cmd = exec.Command(command[0], command[1:]...)
	if command[0] == self { // what it is called may decide what it does
		p.cmd.Args[0] = os.Args[0]
	}
	p.cmd.Env = []string{}
	p.cmd.Dir = "/"
	p.cmd.Stderr = p.stderr
	p.cmd.WaitDelay = time.Second
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL, Setsid: true}
	if user {
		p.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		p.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
		p.cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
	}
	if err := p.start(); err != nil {
		line.Close()
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	return p, nil
}

// start starts the process from a thread that lives as long: a parent's death
// is, to the kernel, that of the thread which started the child.
func (p *process) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = p.cmd.Wait()
		p.state = "exit status 0"
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			p.state = err.Error()
		}
		if last := p.stderr.reason(); last != "" {
			p.state += ": " + last
		}
		close(p.exited)
	}()
	return <-started
}

// kill ends the process and waits for that.
func (p *process) kill() {
	p.line.Close()
	p.cmd.Process.Kill()
	<-p.exited
}

// cpu is the processor time that the process has used.
func (p *process) cpu() (time.Duration, error) { return cpuOf(p.cmd.Process.Pid) }

func cpuOf(pid int) (time.Duration, error) {
	// The kernel's number for the clock of a process: see clock_getcpuclockid(3).
	const scheduled = 2
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &ts)
	return time.Duration(ts.Nano()), err
}

// tail keeps the beginning of what a process says on its standard error, where
// the reason stands, and no more.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const maxStderr = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:min(len(p), maxStderr-len(t.b))]...)
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// reason is the line that says most: of a Go program that crashed, the one that
// begins with panic or fatal error.
func (t *tail) reason() string {
	first := ""
	for line := range strings.Lines(t.text()) {
		line = printable(strings.TrimSpace(line))
		if first == "" {
			first = line
		}
		for _, sign := range []string{"panic: ", "fatal error: ", "runtime: "} {
			if strings.HasPrefix(line, sign) {
				return line
			}
		}
	}
	return first[:min(len(first), 200)]
}
