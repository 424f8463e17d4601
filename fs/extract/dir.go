package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is a directory of this machine that is held open. What is made in it is
// made in it, wherever it may be moved.
type Dir struct{ fd int }

// OpenDir opens the directory path, following links: the caller chose it.
func OpenDir(path string) (*Dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{fd}, nil
}

// Close lets go of the directory.
func (d *Dir) Close() error { return unix.Close(d.fd) }

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// sub opens a directory in d, which it makes unless it is there. A link to a
// directory is none.
func (d *Dir) sub(name string, perm uint32) (*Dir, error) {
	err := unix.Mkdirat(d.fd, name, perm)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, os.NewSyscallError("mkdir", err)
	}
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("on the target it is no directory: %w", fs.ErrExist)
	}
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return &Dir{fd}, nil
}

// free says whether something may be made under a name.
func (d *Dir) free(name string, replace bool) error {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return os.NewSyscallError("stat", err)
	case !replace:
		return fs.ErrExist
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return fmt.Errorf("on the target it is a directory: %w", fs.ErrExist)
	}
	return nil
}

// staged calls make with a name of which there is nothing yet, and then gives
// what was made its own name. When that fails nothing is left of it.
func (d *Dir) staged(name string, replace bool, make func(name string) error) error {
	if err := d.free(name, replace); err != nil {
		return err
	}
	for {
		temp := fmt.Sprintf(".%016x.partial", rand.Uint64())
		err := make(temp)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil {
			if err = d.rename(temp, name, replace); err == nil {
				return nil
			}
		}
		if uerr := unix.Unlinkat(d.fd, temp, 0); uerr != nil && !errors.Is(uerr, unix.ENOENT) {
			err = errors.Join(err, os.NewSyscallError("unlink", uerr))
		}
		return err
	}
}

func (d *Dir) rename(from, to string, replace bool) error {
	if replace {
		return os.NewSyscallError("rename", unix.Renameat(d.fd, from, d.fd, to))
	}
	err := unix.Renameat2(d.fd, from, d.fd, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return fs.ErrExist
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// A file system without it, such as NFS: a link does not replace either.
		if err := unix.Linkat(d.fd, from, d.fd, to, 0); err != nil {
			return os.NewSyscallError("link", err)
		}
		return os.NewSyscallError("unlink", unix.Unlinkat(d.fd, from, 0))
	}
	return os.NewSyscallError("rename", err)
}

// create makes a file that was not there.
func (d *Dir) create(name string, perm uint32) (*os.File, error) {
	fd, err := openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, perm)
	if err != nil {
		return nil, os.NewSyscallError("create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// link makes another name of what lies at path below top, on which there may be
// no links.
func (d *Dir) link(top *Dir, path, name string) error {
	parent, base := ".", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, base = path[:i], path[i+1:]
	}
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(top.fd, parent, &how)
	if err != nil {
		return os.NewSyscallError("openat2", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("link", unix.Linkat(fd, base, d.fd, name, 0))
}
