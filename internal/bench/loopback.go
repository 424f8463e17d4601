//go:build linux

package main

import (
	"context"
	"os/signal"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// childLoopback serves a directory through go-fuse's own loopback file system,
// as its example does, until it is told to end. Files are read by the server:
// the kernel is not let through to them.
func childLoopback(in childInput) error {
	root, err := gofs.NewLoopbackRoot(in.Target)
	if err != nil {
		return err
	}
	return serveNodes(root, in.File, "loopback", fuse.MountOptions{DisabledCapabilities: fuse.CAP_PASSTHROUGH}, time.Second)
}

// serveNodes serves a file system of go-fuse's node interface on a directory. The
// kernel needn't ask again about what it was told for the time valid.
func serveNodes(root gofs.InodeEmbedder, dir, name string, opt fuse.MountOptions, valid time.Duration) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	opt.Name, opt.FsName, opt.DirectMount = name, "bench", true
	s, err := gofs.Mount(dir, root, &gofs.Options{NullPermissions: true, EntryTimeout: &valid, AttrTimeout: &valid, MountOptions: opt})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { s.Unmount() })
	s.Wait()
	return nil
}
