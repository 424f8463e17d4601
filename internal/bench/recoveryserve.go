//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"holdfast/fs"
	"holdfast/image/redirect"
	"holdfast/nfs"
	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// childRecovery serves the disk of the latest point over NFS, through a redirect
// layer in Target, from a cache of Bytes, until it is told to end. It prints its
// address. With a Limit it serves zeros, each read of which takes so long.
func childRecovery(in childInput) (err error) {
	base, closeBase, err := recoveryBase(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBase()) }()
	dir, err := vfs.OS(in.Target)
	if err != nil {
		return err
	}
	session, err := redirect.Create(dir, []redirect.DiskSpec{{
		Name: diskName, Base: base, Identity: redirect.Identity{Repository: "bench", Point: "bench", Root: "bench", Size: base.Size()},
	}}, redirect.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	s, err := nfs.New(nfs.Options{Exports: []nfs.Export{{
		ID: 1, Path: "/", Tree: oneDisk{session.Disks()[0]}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Key: [16]byte{1},
	}}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(l); !errors.Is(err, nfs.ErrClosed) {
		return err
	}
	return s.Close() // waits
}

// recoveryBase is what is served.
func recoveryBase(in childInput) (redirect.Base, func() error, error) {
	if in.Limit > 0 {
		return fakeBase{in.Limit, 1 << 40}, func() error { return nil }, nil
	}
	dir, opt, err := in.directories()
	if err != nil {
		return nil, nil, err
	}
	opt.Frames = repo.NewFrameCache(in.Bytes, recoveryDecoders())
	return opened(openLatest(context.Background(), dir, opt))
}

// opened passes on a disk as a base.
func opened(d *repo.Disk, closeAll func() error, err error) (redirect.Base, func() error, error) {
	return d, closeAll, err
}

// fakeBase is zeros that take a while, as from a store whose frames arrive
// decoded.
type fakeBase struct {
	delay time.Duration
	size  int64
}

func (f fakeBase) Size() int64 { return f.size }

func (f fakeBase) NextData(int64) (start, end int64, err error) { return 0, 0, io.EOF }

func (f fakeBase) ReadAt(p []byte, _ int64) (int, error) {
	time.Sleep(f.delay)
	clear(p)
	return len(p), nil
}

// oneDisk is a tree of one file, a redirected disk.
type oneDisk struct{ d *redirect.Disk }

var (
	_ fs.BorrowTree = oneDisk{}
	_ fs.CachedTree = oneDisk{}

	oneRoot = fs.ID{Ino: 1}
	oneFile = fs.ID{Ino: 2}
)

func (t oneDisk) Root() fs.ID  { return oneRoot }
func (t oneDisk) Close() error { return nil }

func (t oneDisk) Attr(_ context.Context, id fs.ID) (fs.Attr, error) {
	switch id {
	case oneRoot:
		return fs.Attr{ID: oneRoot, Type: fs.TypeDir, Perm: 0o755, Nlink: 2}, nil
	case oneFile:
		return fs.Attr{ID: oneFile, Type: fs.TypeFile, Perm: 0o644, Nlink: 1, Size: t.d.Size(), Used: t.d.UsedBytes()}, nil
	}
	return fs.Attr{}, fs.ErrStale
}

func (t oneDisk) Lookup(ctx context.Context, _ fs.ID, name string) (fs.Attr, error) {
	switch name {
	case "..":
		return t.Attr(ctx, oneRoot)
	case diskName:
		return t.Attr(ctx, oneFile)
	}
	return fs.Attr{}, fs.ErrNotFound
}

func (t oneDisk) ReadDir(_ context.Context, _ fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	if cookie == 0 {
		fn(fs.Entry{Name: diskName, ID: oneFile, Type: fs.TypeFile, Cookie: 1})
	}
	return nil
}

func (t oneDisk) ReadLink(context.Context, fs.ID) (string, error) { return "", fs.ErrInvalid }

func (t oneDisk) ReadAt(_ context.Context, _ fs.ID, p []byte, off int64) (int, error) {
	return t.d.ReadAt(p, off)
}

func (t oneDisk) Extents(_ context.Context, _ fs.ID, off int64, _ int) ([]fs.Extent, error) {
	if off >= t.d.Size() {
		return nil, io.EOF
	}
	return []fs.Extent{{Off: off, Len: t.d.Size() - off, Kind: fs.Made}}, nil
}

func (t oneDisk) StatFS(context.Context, fs.ID) (fs.StatFS, error) {
	return fs.StatFS{Type: "bench", BlockBytes: 4096, Bytes: t.d.Size()}, nil
}

func (t oneDisk) Borrow(ctx context.Context, _ fs.ID, off int64, n int) (fs.Borrowed, error) {
	segments, pinned, release, lent, err := t.d.Borrow(ctx, off, n)
	if !lent {
		return fs.Borrowed{}, fs.ErrUnsupported
	}
	return fs.Borrowed{Segments: segments, Pinned: pinned, Release: release}, err
}

func (t oneDisk) CachedAttr(fs.ID) bool { return true }

func (t oneDisk) Cached(_ fs.ID, off int64, n int) bool { return t.d.Cached(off, n) }

// childDecode decodes and verifies as many frames as there are Offsets, from
// memory, by Depth goroutines.
func childDecode(in childInput) error {
	frames, err := storedFrames(filepath.Join(in.Repo, "packs", "data"), len(in.Offsets))
	if err != nil {
		return err
	}
	geo := chunk.Geometry{ChunkBytes: chunk.DefaultChunkBytes, FrameBytes: chunk.DefaultFrameBytes}
	decoder, hasher := seal.NewDecoder(), chunk.NewHasher(geo, nil)
	var next atomic.Int64
	var bad atomic.Int64
	var wg sync.WaitGroup
	before, err := processCPU(os.Getpid())
	if err != nil {
		return err
	}
	began := time.Now()
	for range in.Depth {
		wg.Go(func() {
			out := make([]byte, geo.FrameBytes)
			for i := int(next.Add(1)) - 1; i < len(frames); i = int(next.Add(1)) - 1 {
				f := &frames[i]
				got, err := decoder.Decode(out[:0], f.stored, f.Codec, geo.FrameBytes)
				if err != nil || hasher.Frame(got) != f.Digest {
					bad.Add(1)
				}
			}
		})
	}
	wg.Wait()
	r := readReport{Seconds: time.Since(began).Seconds(), Read: int64(len(frames))}
	after, err := processCPU(os.Getpid())
	if err != nil {
		return err
	}
	r.CPU = (after - before).Seconds()
	if bad.Load() > 0 {
		return fmt.Errorf("%d of %d frames don't verify", bad.Load(), len(frames))
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

type storedFrame struct {
	pack.Frame
	stored []byte
}

// storedFrames reads n frames of chunks, or as many as there are, spread over the
// packs of a directory.
func storedFrames(dir string, n int) (frames []storedFrame, err error) {
	var packs []string
	if err := eachFile(dir, func(path string) error { packs = append(packs, path); return nil }); err != nil {
		return nil, err
	}
	for i, path := range packs {
		want := (n - len(frames)) / (len(packs) - i)
		if frames, err = packFrames(frames, path, want); err != nil {
			return nil, err
		}
	}
	return frames, nil
}

func packFrames(frames []storedFrame, path string, n int) ([]storedFrame, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p, err := pack.Open(f, info.Size())
	if err != nil {
		return nil, err
	}
	records, err := p.Records()
	if err != nil {
		return nil, err
	}
	for _, e := range records {
		if e.Kind != pack.Chunk {
			continue
		}
		h, body, err := p.ReadRecord(e)
		if err != nil {
			return nil, err
		}
		for _, fr := range h.Frames {
			if n == 0 {
				return frames, nil
			}
			if fr.Codec != seal.Zero {
				frames, n = append(frames, storedFrame{fr, body[fr.Off : fr.Off+fr.Stored]}), n-1
			}
		}
	}
	return frames, nil
}
