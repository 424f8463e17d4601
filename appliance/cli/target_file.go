package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/image/vmdk"
	"holdfast/repo"
)

// staged is a file under a temporary name beside the one it will get.
type staged struct {
	*os.File
	path    string // it will get
	replace bool   // what has that name
	done    bool   // placed or discarded
}

// restoredPerm is for the owner alone: a disk holds what its machine kept secret.
const restoredPerm = 0o600

// stage makes the temporary file. A file that will be replaced passes on its
// mode and, as far as we may, its owner.
func stage(path string, replace bool) (*staged, error) {
	dir, base := filepath.Split(path)
	const room = 200 // of the 255 bytes of a name
	part := strings.ToValidUTF8(base[:min(len(base), room)], "")
	f, err := os.CreateTemp(filepath.Clean(dir+"."), "."+part+".*.partial")
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: errors.Unwrap(err)}
	}
	s := &staged{File: f, path: path, replace: replace}
	perm := fs.FileMode(restoredPerm)
	if old, err := os.Stat(path); err == nil && replace {
		perm = old.Mode().Perm()
		if st, ok := old.Sys().(*syscall.Stat_t); ok {
			f.Chown(int(st.Uid), int(st.Gid)) //nolint:errcheck // only root may; the file is then ours
		}
	}
	if err := f.Chmod(perm); err != nil {
		return nil, errors.Join(err, s.discard())
	}
	return s, nil
}

// place makes the name durable. A file that came there meanwhile stays, unless
// it is to be replaced.
func (s *staged) place() error {
	if err := s.Close(); err != nil {
		return errors.Join(err, s.discard())
	}
	if err := rename(s.Name(), s.path, s.replace); err != nil {
		return errors.Join(err, s.discard())
	}
	s.done = true
	return syncDir(filepath.Dir(s.path))
}

func (s *staged) discard() error {
	if s.done {
		return nil
	}
	s.done = true
	s.Close() //nolint:errcheck // it goes away
	return os.Remove(s.Name())
}

func rename(from, to string, replace bool) error {
	if replace {
		return os.Rename(from, to)
	}
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return existsError(to)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// A file system without it, such as NFS: a link does not replace either.
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	case err != nil:
		return &fs.PathError{Op: "rename", Path: to, Err: err}
	}
	return nil
}

// rawFile is a sparse file that is the disk.
type rawFile struct{ *staged }

func newRawFile(path string, _ int64, force bool) (target, error) {
	s, err := stage(path, force)
	if err != nil {
		return nil, err
	}
	return rawFile{s}, nil
}

func (t rawFile) restore(ctx context.Context, d *repo.Disk, show func(int64)) (repo.RestoreResult, error) {
	return restoreRaw(ctx, t.File, d, d.Size(), show)
}

// restoreRaw writes the disk to a new file of length bytes.
func restoreRaw(ctx context.Context, f *os.File, d *repo.Disk, length int64, show func(int64)) (repo.RestoreResult, error) {
	if err := f.Truncate(length); err != nil {
		return repo.RestoreResult{}, err
	}
	out := &behind{f: f}
	res, err := d.Restore(ctx, out, repo.RestoreOptions{Progress: func(done, _ int64) { show(done) }})
	out.wait()
	if err != nil {
		return res, err
	}
	return res, f.Sync()
}

// streamFile is a streamOptimized VMDK.
type streamFile struct{ *staged }

func newStreamFile(path string, size int64, force bool) (target, error) {
	if err := checkVMDK(path, size); err != nil {
		return nil, err
	}
	s, err := stage(path, force)
	if err != nil {
		return nil, err
	}
	return streamFile{s}, nil
}

func (t streamFile) restore(ctx context.Context, d *repo.Disk, show func(int64)) (repo.RestoreResult, error) {
	opt := vmdk.StreamOptions{Name: filepath.Base(t.path), CID: contentID(d), Workers: runtime.GOMAXPROCS(0)}
	err := vmdk.WriteStream(ctx, t.File, &watched{Disk: d, show: show}, opt)
	if err != nil {
		return repo.RestoreResult{}, err
	}
	if err := t.Sync(); err != nil {
		return repo.RestoreResult{}, err
	}
	info, err := t.Stat()
	if err != nil {
		return repo.RestoreResult{}, err
	}
	return repo.RestoreResult{WrittenBytes: info.Size()}, nil
}

// flatFile is a monolithicFlat VMDK: a descriptor, and beside it the bytes.
type flatFile struct {
	extent     *staged
	descriptor *staged
}

func newFlatFile(path string, size int64, force bool) (target, error) {
	if err := checkVMDK(path, size); err != nil {
		return nil, err
	}
	extent := flatExtent(path)
	_, err := os.Lstat(extent)
	switch {
	case err == nil && !force:
		return nil, existsError(extent)
	case err != nil && !errors.Is(err, fs.ErrNotExist): // too long for a name
		return nil, err
	}
	var t flatFile
	if t.extent, err = stage(extent, force); err != nil {
		return nil, err
	}
	if t.descriptor, err = stage(path, force); err != nil {
		return nil, errors.Join(err, t.extent.discard())
	}
	return t, nil
}

// flatExtent is where the bytes of the disk with the descriptor path go.
func flatExtent(path string) string {
	return filepath.Join(filepath.Dir(path), vmdk.FlatExtentName(filepath.Base(path)))
}

func (t flatFile) restore(ctx context.Context, d *repo.Disk, show func(int64)) (repo.RestoreResult, error) {
	text, err := vmdk.FlatDescriptor(filepath.Base(t.descriptor.path), d.Size(), contentID(d))
	if err != nil {
		return repo.RestoreResult{}, err
	}
	if _, err := t.descriptor.Write(text); err != nil {
		return repo.RestoreResult{}, err
	}
	if err := t.descriptor.Sync(); err != nil {
		return repo.RestoreResult{}, err
	}
	return restoreRaw(ctx, t.extent.File, d, vmdk.FlatExtentBytes(d.Size()), show)
}

// place names the descriptor last, because it is what one opens. An old one
// goes first: it must not describe the new bytes.
func (t flatFile) place() error {
	if t.descriptor.replace {
		if err := os.Remove(t.descriptor.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, t.discard())
		}
	}
	if err := t.extent.place(); err != nil {
		return errors.Join(err, t.discard())
	}
	return t.descriptor.place()
}

func (t flatFile) discard() error { return errors.Join(t.extent.discard(), t.descriptor.discard()) }

// checkVMDK refuses a disk that a VMDK cannot hold, or a name it cannot have.
func checkVMDK(path string, size int64) error {
	_, err := vmdk.FlatDescriptor(filepath.Base(path), size, 1)
	return err
}

// contentID is the number by which a VMDK names the content of its disk: the
// same for the same content, and never the one that means "no parent".
func contentID(d *repo.Disk) uint32 {
	root := d.Info().Root
	id := uint32(root[0])<<24 | uint32(root[1])<<16 | uint32(root[2])<<8 | uint32(root[3])
	return min(id, 0xfffffffe)
}

// watched is a disk that says how far it was read.
type watched struct {
	*repo.Disk
	show func(int64)
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.Disk.ReadAt(p, off)
	w.show(off + int64(n))
	return n, err
}
