//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A server is a program that serves a mount point until that is unmounted.
type server struct {
	command
	shows string // a pattern that a path below the mount point matches when it is ready
}

// childServer is this program as a server.
func childServer(job string, in childInput, shows string) (server, error) {
	self, err := os.Executable()
	if err != nil {
		return server{}, err
	}
	p, err := json.Marshal(in)
	return server{command{args: []string{self}, env: []string{childEnv + "=" + job}, in: p}, shows}, err
}

// mountpoint makes the directory that servers mount on.
func (b *runner) mountpoint(name string) (string, error) {
	dir := filepath.Join(b.opt.work, "out", name)
	return dir, os.MkdirAll(dir, 0o755)
}

// serving runs fn while a server serves dir. path is what matched, pid the
// server's process.
func serving(ctx context.Context, s server, dir string, fn func(path string, pid int) error) (err error) {
	cmd := s.prepare(context.WithoutCancel(ctx))
	if s.in != nil {
		cmd.Stdin = strings.NewReader(string(s.in))
	}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		if e := unmount(dir); e != nil {
			err = errors.Join(err, e, cmd.Process.Kill())
		}
		<-ended
		if err != nil && errOut.Len() > 0 {
			err = fmt.Errorf("%w: %s", err, tail(errOut.String()))
		}
	}()
	path, err := appears(ctx, s.shows, ended)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return fn(path, cmd.Process.Pid)
}

// processCPU is what a process, and children of it that it has waited for, took
// so far. It is counted in hundredths of a second.
func processCPU(pid int) (time.Duration, error) {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses.
	fields := strings.Fields(string(p[strings.LastIndexByte(string(p), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// familyCPU is processCPU of a process and its living children.
func familyCPU(pid int) (sum time.Duration, err error) {
	pids, err := family(pid)
	for _, p := range pids {
		d, perr := processCPU(p)
		sum, err = sum+d, errors.Join(err, perr)
	}
	return sum, err
}

// family lists a process and its living children.
func family(pid int) ([]int, error) {
	pids := []int{pid}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	for _, name := range tasks {
		p, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for f := range strings.FieldsSeq(string(p)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids, nil
}

// familyRSS is the most memory that a process and its living children have had,
// each at its own time.
func familyRSS(pid int) (rss int64, err error) {
	pids, err := family(pid)
	for _, n := range pids {
		p, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/status", n))
		err = errors.Join(err, rerr)
		rss += statusBytes(p, "VmHWM:")
	}
	return rss, err
}
