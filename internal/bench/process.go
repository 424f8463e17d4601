//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A command is a program with its arguments, working directory and what its
// environment has beyond ours.
type command struct {
	args []string
	dir  string
	env  []string
	in   []byte // its standard input
}

// A usage is what one process cost.
type usage struct {
	wall time.Duration
	cpu  time.Duration // user and system, with all children it waited for
	rss  int64         // peak of resident memory, in bytes
	anon int64         // peak of the part that is not file pages, sampled

	// Bytes that it read and wrote by system calls, its children too. What came
	// from the page cache counts like the rest, what it did through mmap doesn't.
	in, out int64
	storage int64 // of in: what came from storage, read-ahead included
}

func (c command) prepare(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	// Killed by a terminal's interrupt only through us, so that mounts are undone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run runs a command to its end and measures it. Its standard output is
// returned; its standard error is part of the error.
func (c command) run(ctx context.Context) (usage, []byte, error) {
	cmd := c.prepare(ctx)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if c.in != nil {
		cmd.Stdin = bytes.NewReader(c.in)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, nil, err
	}
	stop, sampled := make(chan struct{}), make(chan usage)
	go func() { sampled <- sampleMemory(cmd.Process.Pid, stop) }()
	var u usage
	if p, err := ended(cmd.Process.Pid); err == nil {
		u.in, u.out, u.storage = ioField(p, "rchar"), ioField(p, "wchar"), ioField(p, "read_bytes")
	}
	err := cmd.Wait()
	u.wall = time.Since(began)
	close(stop)
	memory := <-sampled
	u.rss, u.anon = memory.rss, memory.anon
	if s := cmd.ProcessState; s != nil {
		u.cpu = s.UserTime() + s.SystemTime()
	}
	if err != nil {
		return u, nil, fmt.Errorf("%s: %w: %s", strings.Join(c.args, " "), err, tail(errOut.String()+out.String()))
	}
	return u, out.Bytes(), nil
}

// tail returns the end of a program's output, where the reason stands.
func tail(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 800 {
		s = "…" + s[len(s)-800:]
	}
	return s
}

// sampleMemory follows a process until stop is closed. The peak of resident
// memory comes from VmHWM, which the kernel keeps, so that only growth in the
// last few milliseconds is missed. (The ru_maxrss of wait4 would begin at the
// size of the process that forked.)
func sampleMemory(pid int, stop <-chan struct{}) (u usage) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if p, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
			u.rss = max(u.rss, statusBytes(p, "VmHWM:"))
			u.anon = max(u.anon, statusBytes(p, "RssAnon:"))
		}
		select {
		case <-stop:
			return u
		case <-tick.C:
		}
	}
}

// statusBytes returns a field of /proc/PID/status that is in kB; 0 when it is
// not there.
func statusBytes(status []byte, field string) int64 {
	_, rest, ok := bytes.Cut(status, []byte("\n"+field))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(line)), " kB"), 10, 64)
	return n << 10
}

// ended waits until a child has ended, without taking its status, and returns
// what the kernel then says of its reads and writes.
func ended(pid int) ([]byte, error) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	}
}

// ioField returns a field of /proc/PID/io; 0 when it is not there.
func ioField(p []byte, field string) int64 {
	_, rest, _ := bytes.Cut(append([]byte("\n"), p...), []byte("\n"+field+": "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, _ := strconv.ParseInt(string(line), 10, 64)
	return n
}

// readBytes returns what a process made the storage read so far.
func readBytes(pid int) (int64, error) {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(p, []byte("\nread_bytes: "))
	if !ok {
		return 0, errors.New("no read_bytes in /proc/PID/io")
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.ParseInt(string(line), 10, 64)
}
