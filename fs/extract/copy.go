package extract

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/fs"
)

// Copy copies what src describes, and if it is a directory all below it, to the
// name in dir. path is what it is called to Options.Failed. An empty name stands
// for dir itself, into which the entries of the directory src are copied.
//
// A full or read-only target ends it; whatever else goes wrong with an object
// leaves that one out. Directories that exist are filled.
func Copy(ctx context.Context, t fs.Tree, src fs.Attr, path string, dir *Dir, name string, opt Options) (Totals, error) {
	c := &copier{t: t, opt: opt, top: dir, made: make(map[fs.ID]*madeFile), buf: make([]byte, bufferBytes)}
	var err error
	if name == "" {
		if !src.IsDir() {
			return c.n, fmt.Errorf("%s: %w", path, fs.ErrNotDir)
		}
		if err = c.dirs.Enter(src.ID, 0); err == nil {
			err = c.entries(ctx, dir, "", path, &src)
		}
	} else {
		err = c.object(ctx, dir, "", path, name, &src)
	}
	opt.progress(&c.n)
	return c.n, err
}

type copier struct {
	t     fs.Tree
	opt   Options
	top   *Dir
	made  map[fs.ID]*madeFile // files that have more names
	dirs  fs.Dirs
	depth int
	buf   []byte
	n     Totals
}

// madeFile is where a file is that has more names to come.
type madeFile struct {
	path string
	left uint32
}

// object copies one object to the name in d. at is where d is below the top.
func (c *copier) object(ctx context.Context, d *Dir, at, path, name string, a *fs.Attr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := checkName(name)
	if err == nil {
		switch a.Type {
		case fs.TypeDir:
			return c.directory(ctx, d, at, path, name, a)
		case fs.TypeFile:
			err = c.file(ctx, d, at, name, a)
		case fs.TypeSymlink:
			err = c.symlink(ctx, d, name, a)
		default:
			err = c.special(ctx, d, name, a)
		}
	}
	c.opt.progress(&c.n)
	return c.failed(path, err)
}

// failed tells of an error, unless it is one for which to stop.
func (c *copier) failed(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: %w", path, err)
	}
	return c.opt.failed(&c.n, path, err)
}

func (c *copier) directory(ctx context.Context, d *Dir, at, path, name string, a *fs.Attr) error {
	if err := c.dirs.Enter(a.ID, c.depth); err != nil {
		return c.failed(path, err)
	}
	perm := uint32(a.Perm&0o777) | 0o700
	if c.opt.Attributes {
		perm = 0o700 // until it has its owner
	}
	sub, err := d.sub(name, perm)
	if err != nil {
		return c.failed(path, err)
	}
	defer sub.Close()
	c.n.Dirs++
	if err := c.entries(ctx, sub, join(at, name), path, a); err != nil {
		return err
	}
	if c.opt.Attributes {
		return c.failed(path, c.fileAttributes(ctx, sub.fd, a))
	}
	return nil
}

// entries copies what a directory has into d.
func (c *copier) entries(ctx context.Context, d *Dir, at, path string, a *fs.Attr) error {
	c.depth++
	defer func() { c.depth-- }()
	var cookie uint64
	for {
		var part []fs.Entry
		rerr := c.t.ReadDir(ctx, a.ID, cookie, func(e fs.Entry) bool {
			part = append(part, e)
			return len(part) < batch
		})
		for i := range part {
			e := &part[i]
			cookie = e.Cookie
			below := join(path, e.Name)
			sub := e.Attr
			if sub == nil {
				full, err := c.t.Attr(ctx, e.ID)
				if err != nil {
					if err := c.failed(below, err); err != nil {
						return err
					}
					continue
				}
				sub = &full
			}
			if err := c.object(ctx, d, at, below, e.Name, sub); err != nil {
				return err
			}
		}
		if rerr != nil {
			return c.failed(path, fmt.Errorf("read directory: %w", rerr))
		}
		if len(part) < batch {
			return nil
		}
	}
}

func (c *copier) file(ctx context.Context, d *Dir, at, name string, a *fs.Attr) error {
	if done, err := c.hardLink(d, name, a); done || err != nil {
		return err
	}
	var perm uint32 = 0o600
	if !c.opt.Attributes {
		perm = uint32(a.Perm & 0o777)
	}
	err := d.staged(name, c.opt.Replace, func(temp string) error {
		f, err := d.create(temp, perm)
		if err != nil {
			return err
		}
		err = c.content(ctx, f, a)
		if err == nil && c.opt.Attributes {
			err = c.fileAttributes(ctx, int(f.Fd()), a)
		}
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return err
	}
	c.n.Files++
	if c.opt.Attributes && a.Nlink > 1 {
		c.made[a.ID] = &madeFile{join(at, name), a.Nlink - 1}
	}
	return nil
}

// hardLink makes another name of a file that was copied before.
func (c *copier) hardLink(d *Dir, name string, a *fs.Attr) (done bool, err error) {
	m := c.made[a.ID]
	if m == nil {
		return false, nil
	}
	err = d.staged(name, c.opt.Replace, func(temp string) error { return d.link(c.top, m.path, temp) })
	if errors.Is(err, unix.EMLINK) {
		delete(c.made, a.ID) // the target allows no more names: a file of its own
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if m.left--; m.left == 0 {
		delete(c.made, a.ID)
	}
	c.n.HardLinks++
	return true, nil
}

// content writes the bytes of a file, holes as holes.
func (c *copier) content(ctx context.Context, f *os.File, a *fs.Attr) error {
	if err := f.Truncate(a.Size); err != nil {
		return err
	}
	return stretches(ctx, c.t, a, func(off, n int64, hole bool) error {
		if hole {
			return nil
		}
		for end := off + n; off < end; {
			p := c.buf[:min(end-off, bufferBytes)]
			if err := readFull(ctx, c.t, a.ID, p, off); err != nil {
				return err
			}
			if _, err := f.WriteAt(p, off); err != nil {
				return err
			}
			off += int64(len(p))
			c.n.Bytes += int64(len(p))
			c.opt.progress(&c.n)
		}
		return nil
	})
}

func (c *copier) symlink(ctx context.Context, d *Dir, name string, a *fs.Attr) error {
	target, err := c.t.ReadLink(ctx, a.ID)
	if err != nil {
		return err
	}
	err = d.staged(name, c.opt.Replace, func(temp string) error {
		if err := unix.Symlinkat(target, d.fd, temp); err != nil {
			return os.NewSyscallError("symlink", err)
		}
		if !c.opt.Attributes {
			return nil
		}
		return c.nodeAttributes(ctx, d, temp, a)
	})
	if err == nil {
		c.n.Links++
	}
	return err
}

// special makes a FIFO, or a device node if that is asked for.
func (c *copier) special(ctx context.Context, d *Dir, name string, a *fs.Attr) error {
	mode, dev := uint32(unix.S_IFIFO), 0
	switch a.Type {
	case fs.TypeCharDevice:
		mode, dev = unix.S_IFCHR, int(unix.Mkdev(a.Major, a.Minor))
	case fs.TypeBlockDevice:
		mode, dev = unix.S_IFBLK, int(unix.Mkdev(a.Major, a.Minor))
	case fs.TypeFIFO:
	default: // a socket is nothing without its process
		c.n.Unmade++
		return nil
	}
	if !c.opt.Attributes || (a.Type != fs.TypeFIFO && !c.opt.Devices) {
		c.n.Unmade++
		return nil
	}
	err := d.staged(name, c.opt.Replace, func(temp string) error {
		if err := unix.Mknodat(d.fd, temp, mode|0o600, dev); err != nil {
			return os.NewSyscallError("mknod", err)
		}
		return c.nodeAttributes(ctx, d, temp, a)
	})
	if err == nil {
		c.n.Others++
	}
	return err
}
