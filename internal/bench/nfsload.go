//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"holdfast/nfs/nfstest"
)

// nfsJob is what a process that makes load is told.
type nfsJob struct {
	Addr  string
	Mount string // path to mount
	Dir   string // below it; "" for none
	File  string // in there

	Kind     string // of the kinds of nfsKinds
	Proc     uint32
	Size     int
	Random   bool
	InFlight int
	Bytes    int64 // of the file to use
	From     int64 // of File
	Requests int
	For      time.Duration
	Stable   uint32
	Gen      uint32
	Seed     uint64
	Verify   bool
}

// nfsReport is what came of it.
type nfsReport struct {
	Requests int
	Bytes    int64
	Seconds  float64
	P99      float64 // seconds
	CPU      float64 // of this process, meanwhile
}

// nfsKinds are what a job can be.
var nfsKinds = map[string]func(ctx context.Context, j nfsJob, c *nfstest.Client, dir nfstest.Handle) (nfsReport, error){
	"load":  jobLoad,
	"names": jobNames,
	"known": jobKnown,
	"list":  jobList,
}

// childNFSLoad makes load as one process.
func childNFSLoad(in childInput) error {
	j := *in.Load
	ctx := context.Background()
	c, err := nfstest.Dial(ctx, j.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	dir, err := j.directory(c)
	if err != nil {
		return err
	}
	kind := nfsKinds[j.Kind]
	if kind == nil {
		return errors.New("unknown kind of load")
	}
	r, err := kind(ctx, j, c, dir)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// directory mounts and goes to the directory of the job. ganesha has its MOUNT
// program on another port.
func (j *nfsJob) directory(c *nfstest.Client) (nfstest.Handle, error) {
	mounter := c
	if j.Addr == "127.0.0.1:4049" {
		m, err := nfstest.Dial(context.Background(), "127.0.0.1:4050")
		if err != nil {
			return nil, err
		}
		defer m.Close()
		mounter = m
	}
	// Not by the client's Mount, as go-nfs doesn't offer AUTH_SYS, but takes it.
	res, err := mounter.Call(nfstest.Mount, 3, 1, nfstest.Words(j.Mount))
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", j.Mount, err)
	}
	d := nfstest.Decoder{B: res}
	if status := nfstest.Status(d.Uint32()); status != 0 {
		return nil, fmt.Errorf("mount %s: %w", j.Mount, status)
	}
	dir := nfstest.Handle(d.Opaque())
	if j.Dir != "" {
		dir, _, err = c.Lookup(dir, j.Dir)
	}
	return dir, err
}

// measured runs a load and adds what this process took for it.
func measured(run func() (nfstest.Result, error)) (nfsReport, error) {
	before := ownCPU()
	res, err := run()
	return nfsReport{res.Requests, res.Bytes, res.Dur.Seconds(), res.P99.Seconds(), (ownCPU() - before).Seconds()}, err
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (j *nfsJob) load(files ...nfstest.Handle) nfstest.Load {
	return nfstest.Load{
		Addr: j.Addr, Cred: nfstest.Sys(0, 0), Proc: j.Proc, File: files, From: j.From, Bytes: j.Bytes, Size: j.Size, Stable: j.Stable,
		Random: j.Random, Verify: j.Verify, Gen: j.Gen, InFlight: j.InFlight, Requests: j.Requests, For: j.For, Seed: j.Seed,
	}
}

// jobLoad reads or writes a file. What is written UNSTABLE is committed as a part
// of it, under the verifier of the writes.
func jobLoad(ctx context.Context, j nfsJob, c *nfstest.Client, dir nfstest.Handle) (nfsReport, error) {
	file, _, err := c.Lookup(dir, j.File)
	if err != nil {
		return nfsReport{}, fmt.Errorf("look up %s: %w", j.File, err)
	}
	l := j.load(file)
	return measured(func() (nfstest.Result, error) {
		began := time.Now()
		res, err := l.Run(ctx)
		if err == nil && j.Proc == nfstest.Write && j.Stable == nfstest.Unstable {
			_, err = c.Commit(file)
			res.Dur = time.Since(began)
		}
		return res, err
	})
}

func benchName(n int) string { return fmt.Sprintf("a-file-of-the-bench-%06d", n) }

// jobNames creates, looks up or removes names in the directory.
func jobNames(ctx context.Context, j nfsJob, _ *nfstest.Client, dir nfstest.Handle) (nfsReport, error) {
	l := j.load(dir)
	l.Names = benchName
	return measured(func() (nfstest.Result, error) { return l.Run(ctx) })
}

// jobKnown asks for the attributes of all files of the directory, in turn.
func jobKnown(ctx context.Context, j nfsJob, c *nfstest.Client, dir nfstest.Handle) (nfsReport, error) {
	var files []nfstest.Handle
	if err := list(c, dir, func(e nfstest.Entry) { files = append(files, e.Handle) }); err != nil {
		return nfsReport{}, err
	}
	l := j.load(files...)
	return measured(func() (nfstest.Result, error) { return l.Run(ctx) })
}

// jobList lists the directory with attributes, again and again.
func jobList(ctx context.Context, j nfsJob, c *nfstest.Client, dir nfstest.Handle) (nfsReport, error) {
	return measured(func() (res nfstest.Result, err error) {
		began := time.Now()
		for res.Dur < j.For && err == nil {
			err = list(c, dir, func(nfstest.Entry) { res.Requests++ })
			res.Dur = time.Since(began)
		}
		return res, err
	})
}

// list calls fn for the files of a directory, which have attributes and handles.
func list(c *nfstest.Client, dir nfstest.Handle, fn func(nfstest.Entry)) error {
	cookie := uint64(0)
	for {
		entries, eof, err := c.ReadDirPlus(dir, cookie, 32<<10, 256<<10)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		for _, e := range entries {
			cookie = e.Cookie
			if e.Attr != nil && e.Attr.Type == 1 && len(e.Handle) > 0 {
				fn(e)
			}
		}
		if eof {
			return nil
		}
		if len(entries) == 0 {
			return errors.New("list: a part without entries")
		}
	}
}
