package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// lentBackup is a backup that the owner makes of disks that another process
// reads for it: BackupOptions, with where to ask for bytes in place of sources.
// lendwire.go has the protocol.
type lentBackup struct {
	Socket string // a path, below a directory that its user alone may enter

	Machine, MachineID string
	Adopt              bool
	Job, Slot, Actor   string
	Full               bool
	RequireChanged     bool
	Compression        seal.Compression
	Consistency        string
	Extensions         map[string]json.RawMessage
	Files              []MachineFile
	Parent             PointID
	Disks              []lentDisk
}

type lentDisk struct {
	Name, Format, Path string
	SizeBytes          int64
	Changes            *Changes // without ranges, which are asked for
	Ranges             int
}

// PerformBackup makes a restore point as [Owner.Backup] does: it has the owner of
// the repository do it, if there is one in another process of this machine and
// user, to which it lends what the disks hold, and else is the owner itself, for
// which it waits at most wait; then *BusyError.
func PerformBackup(ctx context.Context, fsys vfs.FS, opt Options, wait time.Duration, b BackupOptions) (*Run, error) {
	opt.defaults()
	run := new(Run)
	err := throughOwner(ctx, fsys, wait,
		func() error { return askBackup(ctx, fsys, b, run) },
		func() error {
			o, err := Own(ctx, fsys, opt, 0)
			if err != nil {
				return err
			}
			r, err := o.Backup(ctx, b)
			if err == nil {
				run = r
			}
			return errors.Join(err, o.Close())
		})
	if err != nil {
		return nil, err
	}
	return run, nil
}

// askBackup has the owner make the backup, and answers it meanwhile.
func askBackup(ctx context.Context, fsys vfs.FS, b BackupOptions, run *Run) error {
	if err := checkDisks(&b); err != nil {
		return err
	}
	if _, ok := fsys.(fdHolder); !ok {
		return errNoOwner
	}
	dir, err := os.MkdirTemp("", "holdfast-lend-") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	lender := lend(l, b.Disks)
	defer lender.close()
	return askOwner(ctx, fsys, "backup", lentOf(b, socket), run, func(p json.RawMessage) {
		var progress Progress
		if b.Progress != nil && json.Unmarshal(p, &progress) == nil {
			b.Progress(progress)
		}
	})
}

func lentOf(b BackupOptions, socket string) lentBackup {
	lent := lentBackup{
		Socket: socket, Machine: b.Machine, MachineID: b.MachineID, Adopt: b.Adopt, Job: b.Job, Slot: b.Slot, Actor: b.Actor,
		Full: b.Full, RequireChanged: b.RequireChanged, Compression: b.Compression, Consistency: b.Consistency,
		Extensions: b.Extensions, Files: b.Files, Parent: b.Parent,
	}
	for _, d := range b.Disks {
		ld := lentDisk{Name: d.Name, Format: d.Format, Path: d.Path, SizeBytes: d.Source.Size()}
		if d.Changes != nil {
			c := *d.Changes
			ld.Ranges, c.Ranges = len(c.Ranges), nil
			ld.Changes = &c
		}
		lent.Disks = append(lent.Disks, ld)
	}
	return lent
}

// backupLent is Backup of disks that the process at b.Socket reads.
func (o *Owner) backupLent(ctx context.Context, b lentBackup, progress func(Progress)) (*Run, error) {
	if len(b.Disks) == 0 || len(b.Disks) > maxDisks {
		return nil, fmt.Errorf("%w: a backup of %d disks", errRequest, len(b.Disks))
	}
	from := &borrower{socket: b.Socket}
	defer from.close()
	defer context.AfterFunc(ctx, from.close)()
	opt := BackupOptions{
		Machine: b.Machine, MachineID: b.MachineID, Adopt: b.Adopt, Job: b.Job, Slot: b.Slot, Actor: b.Actor,
		Full: b.Full, RequireChanged: b.RequireChanged, Compression: b.Compression, Consistency: b.Consistency,
		Extensions: b.Extensions, Files: b.Files, Parent: b.Parent, Progress: progress,
	}
	for i, ld := range b.Disks {
		src := &lentSource{from: from, disk: uint16(i), size: ld.SizeBytes}
		d := SourceDisk{Name: ld.Name, Format: ld.Format, Path: ld.Path, Source: src, Changes: ld.Changes}
		if d.Changes != nil {
			ranges, err := src.ranges(ld.Ranges)
			if err != nil {
				return nil, fmt.Errorf("disk %s: ask for the changed ranges: %w", ld.Name, err)
			}
			d.Changes.Ranges = ranges
		}
		opt.Disks = append(opt.Disks, d)
	}
	return o.Backup(ctx, opt)
}

// lentSource is a Source in another process.
type lentSource struct {
	from *borrower
	disk uint16
	size int64
}

func (s *lentSource) Size() int64 { return s.size }

func (s *lentSource) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+maxLentRead)]
		n, err := s.from.read(s.disk, part, off+int64(done))
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

func (s *lentSource) NextData(off int64) (start, end int64, err error) {
	pairs, err := s.from.pairs(lendNext, s.disk, off, 1)
	if err == nil && (len(pairs) != 1 || pairs[0].Off < off || pairs[0].Len <= 0 || pairs[0].Len > s.size-pairs[0].Off) {
		err = fmt.Errorf("%w: data at %d", errLend, off)
	}
	if err != nil {
		return 0, 0, err
	}
	return pairs[0].Off, pairs[0].Off + pairs[0].Len, nil
}

// ranges asks for the changed ranges of the disk, n of them.
func (s *lentSource) ranges(n int) ([]Range, error) {
	var all []Range
	for len(all) < n {
		part, err := s.from.pairs(lendRanges, s.disk, int64(len(all)), min(n-len(all), maxLentRanges))
		if err == nil && len(part) == 0 {
			err = fmt.Errorf("%w: %d ranges of %d", errLend, len(all), n)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	for _, r := range all {
		if r.Off < 0 || r.Len < 0 || r.Len > s.size-r.Off {
			return nil, fmt.Errorf("%w: range of %d bytes at %d", errLend, r.Len, r.Off)
		}
	}
	return all, nil
}

// lender answers an owner that reads disks of this process.
type lender struct {
	l     net.Listener
	disks []SourceDisk
	conns sync.WaitGroup

	mu   sync.Mutex // guards open and closed
	open map[net.Conn]bool
	gone bool
}

func lend(l net.Listener, disks []SourceDisk) *lender {
	x := &lender{l: l, disks: disks, open: make(map[net.Conn]bool)}
	x.conns.Go(x.accept)
	return x
}

func (x *lender) accept() {
	for {
		c, err := x.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause) // out of descriptors, say
			continue
		}
		x.mu.Lock()
		if x.gone {
			_ = c.Close()
		} else {
			x.open[c] = true
			x.conns.Go(func() { x.serve(c) })
		}
		x.mu.Unlock()
	}
}

func (x *lender) serve(c net.Conn) {
	defer func() {
		_ = c.Close()
		x.mu.Lock()
		delete(x.open, c)
		x.mu.Unlock()
	}()
	var buf []byte
	for {
		var req lendRequest
		if err := req.readFrom(c); err != nil {
			return
		}
		buf = x.answer(buf[:0], req)
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// answer appends the answer to a request.
func (x *lender) answer(buf []byte, req lendRequest) []byte {
	if int(req.disk) >= len(x.disks) || req.off < 0 {
		return appendLent(buf, lentError, []byte("no such disk or place"))
	}
	d := x.disks[req.disk]
	switch {
	case req.op == lendRead && req.n <= maxLentRead:
		p := make([]byte, req.n)
		n, err := d.Source.ReadAt(p, req.off)
		if n < len(p) && !errors.Is(err, io.EOF) {
			return appendLent(buf, lentError, []byte(fmt.Sprint(err)))
		}
		return appendLent(buf, lentBytes, p[:n])
	case req.op == lendNext:
		start, end, err := d.Source.NextData(req.off)
		switch {
		case errors.Is(err, io.EOF):
			return appendLent(buf, lentEnd, nil)
		case err != nil:
			return appendLent(buf, lentError, []byte(err.Error()))
		}
		return appendLent(buf, lentPairs, appendPair(nil, Range{start, end - start}))
	case req.op == lendRanges && req.n <= maxLentRanges && d.Changes != nil:
		var p []byte
		ranges := d.Changes.Ranges
		for _, r := range ranges[min(req.off, int64(len(ranges))):min(req.off+int64(req.n), int64(len(ranges)))] {
			p = appendPair(p, r)
		}
		return appendLent(buf, lentPairs, p)
	}
	return appendLent(buf, lentError, []byte("not a request"))
}

func (x *lender) close() {
	_ = x.l.Close()
	x.mu.Lock()
	x.gone = true
	for c := range x.open {
		_ = c.Close()
	}
	x.mu.Unlock()
	x.conns.Wait()
}
