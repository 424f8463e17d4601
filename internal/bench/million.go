//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
)

// perDirectory is how many files each directory of the tree with very many has.
const perDirectory = 1000

// makeMany makes a file system with many empty files.
func (b *runner) makeMany(ctx context.Context, image string) (err error) {
	dir := filepath.Join(b.opt.work, "out", "many")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for i := 0; i < b.opt.many; i++ {
		sub := filepath.Join(dir, fmt.Sprintf("directory %05d", i/perDirectory))
		if i%perDirectory == 0 {
			if err := errors.Join(os.MkdirAll(sub, 0o755), ctx.Err()); err != nil {
				return err
			}
		}
		f, err := os.Create(filepath.Join(sub, fmt.Sprintf("a file with the number %07d", i)))
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	inodes := b.opt.many + b.opt.many/perDirectory + 100
	_, _, err = command{args: []string{
		sbin("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-N", strconv.Itoa(inodes), "-d", dir,
		"-E", "lazy_itable_init=1,nodiscard", image, strconv.Itoa(inodes/1024+128) + "M",
	}}.run(ctx)
	return err
}

// tree walks over a tree with very many files.
func (b *runner) tree(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, manyDisk)
	if err != nil {
		return nil, err
	}
	s, err := b.begin(ctx, b.plain)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(s.dir)
	if _, _, err := b.plain.backup(s, d.Dir, "first").run(ctx); err != nil {
		return nil, err
	}
	r := &result{
		Title: fmt.Sprintf("a guest's ext4 with %d files in directories of %d", b.opt.many, perDirectory),
		columns: []column{
			colWall, colCPU,
			{"entries/s", func(f figures) string { return number(float64(f.Reads) / f.Wall) }},
			{"entries/CPU s", func(f figures) string { return number(float64(f.Reads) / f.CPU) }},
			{"server's RSS", func(f figures) string { return size(f.RSS) }},
		},
	}
	contenders := b.walkers(s)
	runs := make([][]figures, len(contenders))
	for range b.times() {
		for i, w := range contenders {
			f, err := w.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			if want := b.opt.many; f.Reads != want {
				return nil, fmt.Errorf("%s: found %d files, want %d", w.name, f.Reads, want)
			}
			f.Tool, f.Peer = w.name, w.peer
			b.say("  %-44s %8.2f s wall %8.2f s CPU", f.Tool, f.Wall, f.CPU)
			runs[i] = append(runs[i], f)
		}
	}
	for _, run := range runs {
		r.Rows = append(r.Rows, median(run))
	}
	ours, _ := r.row(nameFindAttr)
	nodes, _ := r.row(peerFindAttr)
	r.atLeast("find with attributes: entries/CPU s of ours / go-fuse's nodes", nodes.CPU/ours.CPU, 1)
	r.atMost("find with attributes: server's RSS of ours / go-fuse's nodes", float64(ours.RSS)/float64(nodes.RSS), 1)
	r.note("CPU of find and server. go-fuse's nodes are the same fs.Tree served through its node interface, which keeps an object for each inode that the kernel knows")
	return r, nil
}

// A walker is one way to walk over the tree.
type walker struct {
	name string
	peer bool
	run  func(context.Context) (figures, error)
}

const (
	nameFindAttr = "find -size, holdfast mount"
	peerFindAttr = "find -size, go-fuse's nodes"
)

func (b *runner) walkers(s site) []walker {
	find := func(peer bool, tests ...string) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) { return b.find(ctx, s, peer, tests) }
	}
	return []walker{
		{"walk, fs.Tree", false, func(ctx context.Context) (figures, error) { return b.guestChild(ctx, "readall", b.plain.input(s)) }},
		{"find, holdfast mount", false, find(false)},
		{"find, go-fuse's nodes", true, find(true)},
		{nameFindAttr, false, find(false, "-size", "-1000")},
		{peerFindAttr, true, find(true, "-size", "-1000")},
	}
}

// find runs find through a fresh mount.
func (b *runner) find(ctx context.Context, s site, peer bool, tests []string) (f figures, err error) {
	dir, err := b.mountpoint("find")
	if err != nil {
		return f, err
	}
	var srv server
	top := filepath.Join(dir, "directory 00000")
	if peer {
		in := b.plain.input(s)
		in.File = dir
		if srv, err = childServer("nodes", in, top); err != nil {
			return f, err
		}
	} else {
		c, _ := mountedHoldfast{b.plain}.mount(s, "", dir)
		srv = server{*c, filepath.Join(dir, "bench", "latest", "files", diskName, "whole", "directory 00000")}
	}
	err = serving(ctx, srv, dir, func(first string, pid int) error {
		before, err := familyCPU(pid)
		if err != nil {
			return err
		}
		u, out, err := command{args: append([]string{"find", filepath.Dir(first), "-type", "f"}, append(tests, "-printf", "x")...)}.run(ctx)
		if err != nil {
			return err
		}
		after, err := familyCPU(pid)
		if err != nil {
			return err
		}
		f = figures{Wall: u.wall.Seconds(), CPU: (u.cpu + after - before).Seconds(), Reads: len(out)}
		f.RSS, err = familyRSS(pid)
		return err
	})
	return f, err
}

// childNodes serves the files of a guest through go-fuse's node interface.
func childNodes(in childInput) error {
	t, top, closeAll, err := in.openContent(context.Background())
	if err != nil {
		return err
	}
	err = serveNodes(&treeNode{t: t, id: top.ID}, in.File, "nodes", fuse.MountOptions{}, 24*time.Hour)
	return errors.Join(err, closeAll())
}

// A treeNode is an inode of an fs.Tree as a node of go-fuse.
type treeNode struct {
	gofs.Inode
	t  fs.Tree
	id fs.ID
}

var (
	_ gofs.NodeLookuper  = (*treeNode)(nil)
	_ gofs.NodeGetattrer = (*treeNode)(nil)
	_ gofs.NodeReaddirer = (*treeNode)(nil)
)

func nodeMode(a fs.Attr) uint32 {
	if a.IsDir() {
		return fuse.S_IFDIR
	}
	return fuse.S_IFREG
}

func fillNode(out *fuse.Attr, a fs.Attr) {
	out.Ino, out.Size, out.Nlink = a.ID.Ino, uint64(a.Size), a.Nlink
	out.Mode = nodeMode(a) | uint32(a.Perm)
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), a.Mtime.Nsec
}

func (n *treeNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	a, err := n.t.Lookup(ctx, n.id, name)
	if err != nil {
		return nil, gofs.ToErrno(os.ErrNotExist)
	}
	fillNode(&out.Attr, a)
	return n.NewInode(ctx, &treeNode{t: n.t, id: a.ID}, gofs.StableAttr{Mode: nodeMode(a), Ino: a.ID.Ino}), 0
}

func (n *treeNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	a, err := n.t.Attr(ctx, n.id)
	if err != nil {
		return gofs.ToErrno(err)
	}
	fillNode(&out.Attr, a)
	return 0
}

func (n *treeNode) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	err := n.t.ReadDir(ctx, n.id, 0, func(e fs.Entry) bool {
		list = append(list, fuse.DirEntry{Name: e.Name, Ino: e.ID.Ino, Mode: nodeMode(fs.Attr{Type: e.Type})})
		return true
	})
	if err != nil {
		return nil, gofs.ToErrno(err)
	}
	return gofs.NewListDirStream(list), 0
}
