package treetest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs"
)

// SnapHost takes a snapshot of a directory as the kernel shows it, by system
// calls alone: no name is interpreted, nothing is followed, and what lies in
// holes is not read. Times of reading stay as they are where the caller may ask
// for that. What can't be read fails the test and is noted in the node.
func SnapHost(tb testing.TB, dir string) *Snapshot {
	tb.Helper()
	h := hostSnap{s: &Snapshot{Nodes: map[string]*Node{}}, paths: map[fs.ID][]string{}}
	fd, err := openAt(unix.AT_FDCWD, dir, unix.O_DIRECTORY)
	if err != nil {
		tb.Fatalf("snapshot of %s: %v", dir, err)
	}
	defer unix.Close(fd)
	h.visit(fd, ".", ".")
	h.s.setLinks(h.paths)
	for _, p := range h.s.Paths() {
		if err := h.s.Nodes[p].Err; err != nil {
			tb.Errorf("snapshot of %s: %q: %v", dir, p, err)
		}
	}
	return h.s
}

type hostSnap struct {
	s     *Snapshot
	paths map[fs.ID][]string
}

// visit describes the name in the directory dirfd.
func (h *hostSnap) visit(dirfd int, name, path string) {
	n := &Node{}
	h.s.Nodes[path] = n
	note := func(what string, err error) {
		if err != nil && n.Err == nil {
			n.Err = fmt.Errorf("%s: %w", what, err)
		}
	}
	var st unix.Statx_t
	if err := unix.Statx(dirfd, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		note("statx", err)
		return
	}
	n.Attr = hostAttr(&st)
	var err error
	n.Xattrs, err = hostXattrs(fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name))
	note("xattrs", err)
	if !n.IsDir() {
		h.paths[n.ID] = append(h.paths[n.ID], path)
	}
	switch n.Type {
	case fs.TypeFile:
		n.Sum, err = hostSum(dirfd, name, n.Size)
		note("read", err)
	case fs.TypeSymlink:
		buf := make([]byte, 1<<16)
		m, err := unix.Readlinkat(dirfd, name, buf)
		note("readlink", err)
		n.Target = string(buf[:max(m, 0)])
	case fs.TypeDir:
		note("read directory", h.children(dirfd, name, path))
	}
}

func (h *hostSnap) children(dirfd int, name, path string) error {
	fd, err := openAt(dirfd, name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var names []string
	for buf := make([]byte, 1<<16); ; {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	for _, child := range names {
		if path == "." {
			h.visit(fd, child, child)
		} else {
			h.visit(fd, child, path+"/"+child)
		}
	}
	return nil
}

// openAt opens for reading, if it may without changing the time of access.
func openAt(dirfd int, name string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW
	fd, err := unix.Openat(dirfd, name, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		fd, err = unix.Openat(dirfd, name, flags, 0)
	}
	return fd, err
}

func hostAttr(st *unix.Statx_t) fs.Attr {
	when := func(t unix.StatxTimestamp) fs.Time { return fs.Time{Sec: t.Sec, Nsec: t.Nsec} }
	types := map[uint16]fs.Type{
		unix.S_IFREG: fs.TypeFile, unix.S_IFDIR: fs.TypeDir, unix.S_IFLNK: fs.TypeSymlink, unix.S_IFCHR: fs.TypeCharDevice,
		unix.S_IFBLK: fs.TypeBlockDevice, unix.S_IFIFO: fs.TypeFIFO, unix.S_IFSOCK: fs.TypeSocket,
	}
	a := fs.Attr{
		ID:   fs.ID{Ino: st.Ino},
		Type: types[st.Mode&unix.S_IFMT], Perm: st.Mode & 0o7777,
		Nlink: st.Nlink, UID: st.Uid, GID: st.Gid, Size: int64(st.Size), Used: int64(st.Blocks) * 512,
		Major: st.Rdev_major, Minor: st.Rdev_minor,
		Atime: when(st.Atime), Mtime: when(st.Mtime), Ctime: when(st.Ctime),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		a.Btime = when(st.Btime)
	}
	return a
}

func hostXattrs(path string) (map[string]string, error) {
	buf := make([]byte, 1<<16) // the most that Linux lets a list and a value take
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ENOTSUP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	all := make(map[string]string, len(names))
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return all, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = string(buf[:n])
	}
	return all, nil
}

// hostSum is sumReader's sum, made without reading holes.
func hostSum(dirfd int, name string, size int64) (string, error) {
	fd, err := openAt(dirfd, name, unix.O_NONBLOCK)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	h := newSum(size)
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // a hole up to the end
			off = size
			continue
		case err == unix.EINVAL: // a driver without holes
			data = off
		case err != nil:
			return "", err
		}
		off = max(off, data-data%blockBytes)
		part := buf[:min(int64(len(buf)), size-off)]
		if n, err := f.ReadAt(part, off); n < len(part) {
			if err == io.EOF {
				err = fmt.Errorf("%d bytes at %d of %d: %w", n, off, size, errShort)
			}
			return "", err
		}
		h.add(off, part)
		off += int64(len(part))
	}
	if n, err := f.ReadAt(bytes.Clone(zeros[:1]), size); n != 0 || err != io.EOF {
		return "", fmt.Errorf("read behind the end at %d: %d bytes, %v; want 0, EOF", size, n, err)
	}
	return h.String(), nil
}
