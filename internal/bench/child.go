//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

// childEnv names the job of a process that bench starts as itself, because the
// Go API is to be measured in a process of its own.
const childEnv = "HOLDFAST_BENCH_CHILD"

// childInput is what such a process is told, as JSON on its standard input.
type childInput struct {
	Repo    string
	State   string
	Pass    string // file with the passphrase; "" for none
	Profile string // where a CPU profile goes; "" for none

	// For "read": a file on a peer's mount, served by a process, or "" for
	// the Go API.
	File    string
	Server  int
	Offsets []int64
	Depth   int
	Limit   time.Duration

	// For "recovery": Bytes is the cache's size, Limit what a read takes; for
	// "decode" there are Offsets and Depth.

	// For "stream": how much of File from its beginning, how often, and
	// whether the kernel may keep the pages.
	Bytes  int64
	Passes int
	Keep   bool

	Apart bool // for "readall": the guest's file system is read by a process of its own

	// For "work".
	Disk   string // to back up; "": restore the latest point to Target
	Target string

	Upkeep upkeep // for "upkeep"
	Points int    // for "many": to make, of 100 machines
	Point  string // for "open"

	Addr string  // for "nfs" and "gonfs": where to listen
	Load *nfsJob // for "nfsload"
}

func runChild(job string) (err error) {
	var in childInput
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return err
	}
	if in.Profile != "" {
		stop, err := startProfile(in.Profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	switch job {
	case "read":
		return childRead(in)
	case "work":
		return childWork(in)
	case "upkeep":
		return childUpkeep(in)
	case "many":
		return childMany(in)
	case "open":
		return childOpen(in)
	case "stream":
		return childStream(in)
	case "loopback":
		return childLoopback(in)
	case "list":
		return childList(in)
	case "readall":
		return childReadAll(in)
	case "recovery":
		return childRecovery(in)
	case "decode":
		return childDecode(in)
	case "nodes":
		return childNodes(in)
	case "nfs":
		return childNFS(in)
	case "gonfs":
		return childGoNFS(in)
	case "nfsload":
		return childNFSLoad(in)
	}
	return errors.New("unknown job")
}

// startChild runs a job in a process of its own and returns what it printed.
func startChild(ctx context.Context, job string, in childInput) ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childEnv+"="+job)
	if in.File != "" {
		// The signals by which Go interrupts its own threads would interrupt
		// FUSE requests, which restic answers with EIO.
		cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1")
	}
	cmd.Stdin = bytes.NewReader(p)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, tail(errOut.String()))
	}
	return out, nil
}

// directories opens the repository's directory and the state directory.
func (in childInput) directories() (dir *vfs.Dir, opt repo.Options, err error) {
	if dir, err = vfs.OS(in.Repo); err != nil {
		return nil, opt, err
	}
	if opt.State, err = vfs.OS(in.State); err != nil {
		return nil, opt, err
	}
	if in.Pass != "" {
		p, err := os.ReadFile(in.Pass)
		if err != nil {
			return nil, opt, err
		}
		opt.Passphrase = []byte(strings.TrimSpace(string(p)))
	}
	return dir, opt, nil
}

// input names the site to a child.
func (h *holdfast) input(s site) childInput {
	in := childInput{Repo: s.repo(), State: s.state()}
	if h.seal {
		in.Pass = s.pass()
	}
	return in
}

// openLatest opens the only disk of the latest point that bench made.
func openLatest(ctx context.Context, dir *vfs.Dir, opt repo.Options) (*repo.Disk, func() error, error) {
	r, err := repo.Open(ctx, dir, opt)
	if err != nil {
		return nil, nil, err
	}
	p, err := r.Find(ctx, "bench@latest", time.UTC)
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	reader, err := r.OpenPoint(p.ID)
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	closeAll := func() error { return errors.Join(reader.Close(), r.Close()) }
	d, err := reader.Disk("")
	if err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	return d, closeAll, nil
}
