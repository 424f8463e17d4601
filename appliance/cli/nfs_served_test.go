package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/nfs/nfstest"
)

// served is a process of its own that serves a repository with one machine.
type served struct {
	t              *testing.T
	dir            string // holds repo, redirect and state
	addr           string
	cmd            *exec.Cmd
	out            bytes.Buffer
	restarts       int
	longest, bytes time.Duration // from a start to the first answer, and from that to the first byte of a disk
}

// program is this test as the program that it tests.
func (s *served) program(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "holdfast"
	cmd.Env = append(os.Environ(), "HOLDFAST_STATE="+filepath.Join(s.dir, "state"))
	return cmd
}

// run runs a verb to its end and returns what it printed.
func (s *served) run(args ...string) string {
	s.t.Helper()
	var stderr bytes.Buffer
	cmd := s.program(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("holdfast %q: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// start starts the server and waits until it answers.
func (s *served) start(more ...string) {
	s.t.Helper()
	s.out.Reset()
	s.cmd = s.program(append([]string{"nfs", "serve", "--repo", filepath.Join(s.dir, "repo"), "--redirect", filepath.Join(s.dir, "redirect"),
		"--listen", s.addr, "--portmap", "none"}, more...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for {
		c, err := nfstest.Dial(s.t.Context(), s.addr)
		if err == nil {
			_, err = c.Mount(datastorePath)
			c.Close()
			if err == nil {
				break
			}
		}
		if time.Since(began) > time.Minute {
			s.t.Fatalf("the server does not answer: %v\n%s", err, s.out.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.restarts++
	s.longest = max(s.longest, time.Since(began))
}

// end ends the server and waits for that.
func (s *served) end(sig os.Signal) {
	_ = s.cmd.Process.Signal(sig)
	_ = s.cmd.Wait()
}

// freePort returns an address that nobody listens on.
func freePort(t *testing.T) string {
	l, err := listenTCP(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr())
}
