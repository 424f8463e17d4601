//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"holdfast/fs"
	"holdfast/fs/datastore"
	"holdfast/fs/treetest"
	"holdfast/image/redirect"
	"holdfast/nfs"
	"holdfast/repo/vfs"
)

// What the servers of the NFS tables export: a file to be read, and a directory
// to be written to with a large file in it.
const (
	hotFile   = "hot"
	writeFile = "disk-flat"
	writeSize = 1 << 30
	hotSize   = 512 << 20
)

// childNFS is our server, of /hot if there is a File, with a copy of that in
// memory, as our cache has it; and of /data if there is a directory Target, a
// datastore with one disk of zeros that is written to through a redirect layer.
func childNFS(in childInput) (err error) {
	everyone := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	var exports []nfs.Export
	if in.File != "" {
		hot, err := inMemory(in.File)
		if err != nil {
			return err
		}
		exports = append(exports, nfs.Export{ID: 1, Path: "/hot", Tree: hot, Allow: everyone, Key: [16]byte{1}})
	}
	if in.Target != "" {
		store, closeAll, err := benchStore(in.Target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeAll()) }()
		exports = append(exports, nfs.Export{ID: 2, Path: "/data", Tree: store, Allow: everyone, Key: [16]byte{2}})
	}
	s, err := nfs.New(nfs.Options{Exports: exports})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", in.Addr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(l); !errors.Is(err, nfs.ErrClosed) {
		return err
	}
	return s.Close()
}

// inMemory returns a tree with one file, read from another.
func inMemory(file string) (*treetest.MemWrite, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ctx := context.Background()
	tree := treetest.NewMemWrite(treetest.MemOptions{Bytes: 4 << 30})
	c, err := tree.Create(ctx, tree.Root(), hotFile, fs.Creation{}, fs.SetAttr{}, nil)
	if err != nil {
		return nil, err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := io.ReadFull(f, p)
		if n > 0 {
			if _, err := tree.WriteAt(ctx, c.Object.ID, p[:n], off, true); err != nil {
				return nil, err
			}
			off += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return tree, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// zeroDisk is a disk without a byte of data.
type zeroDisk struct{}

func (zeroDisk) ReadAt(p []byte, _ int64) (int, error)        { clear(p); return len(p), nil }
func (zeroDisk) Size() int64                                  { return writeSize }
func (zeroDisk) NextData(int64) (start, end int64, err error) { return 0, 0, io.EOF }
func (zeroDisk) identity() (id redirect.Identity)             { id.Point, id.Size = "bench", writeSize; return id }

// benchStore makes a datastore in dir with a session of one disk.
func benchStore(dir string) (s *datastore.Store, closeAll func() error, err error) {
	layer, store := filepath.Join(dir, "layer"), filepath.Join(dir, "store")
	for _, d := range []string{layer, store} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, iofs.ErrExist) {
			return nil, nil, err
		}
	}
	layerFS, err := vfs.OS(layer)
	if err != nil {
		return nil, nil, err
	}
	storeFS, err := vfs.OS(store)
	if err != nil {
		return nil, nil, err
	}
	session, err := redirect.Create(layerFS, []redirect.DiskSpec{{Name: writeFile, Identity: zeroDisk{}.identity(), Base: zeroDisk{}}}, redirect.Options{})
	if err != nil {
		return nil, nil, err
	}
	below := func() error { return errors.Join(session.Close(), layerFS.Close(), storeFS.Close()) }
	d, err := session.Disk(writeFile)
	if err != nil {
		return nil, nil, errors.Join(err, below())
	}
	if err := datastore.Create(storeFS, datastore.Options{}); err != nil {
		return nil, nil, errors.Join(err, below())
	}
	if s, err = datastore.Open(storeFS, datastore.Options{}); err != nil {
		return nil, nil, errors.Join(err, below())
	}
	all := func() error { return errors.Join(s.Close(), below()) }
	number, err := s.AddSession(datastore.SessionSpec{Name: "vm", Disks: []datastore.DiskFile{{Name: writeFile, Size: writeSize}}})
	if err == nil {
		err = s.Attach(number, map[string]datastore.Disk{writeFile: datastore.Redirected(session, d)})
	}
	if err != nil {
		return nil, nil, errors.Join(err, all())
	}
	return s, all, nil
}
