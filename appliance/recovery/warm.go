package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

const (
	traceWindow = 5 * time.Minute  // for how long a recovery is recorded
	warmAtOnce  = 8                // frames that are being fetched
	warmEnd     = 10 * time.Minute // what nobody has asked for by then is not wanted
)

// mayWarm decides whether another frame may be fetched that nobody waits for:
// when no reader waits for one, and as long as such frames take no more than a
// quarter of the cache, those on their way included.
func mayWarm(s repo.FrameStats, frameBytes int64) bool {
	return s.Waiting == 0 && s.WarmBytes+frameBytes <= s.BudgetBytes/4
}

// traces are the boot traces of all machines, a file each in a directory of the
// state. They are hints: what can't be read or written is as if it were not.
type traces struct {
	fs  vfs.FS
	log *slog.Logger
	now func() time.Time
}

const tracesDir = "traces"

// tracePath names the file of a disk's trace. Names of machines and disks can be
// anything, so the file's is a digest.
func tracePath(machine, disk string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", len(machine), machine, disk))
	return tracesDir + "/" + hex.EncodeToString(sum[:16])
}

// load returns the trace of a machine's disk, nil if there is none.
func (t *traces) load(machine, disk string) trace {
	p, err := readSmall(t.fs, tracePath(machine, disk), maxTraceBytes)
	var found trace
	if err == nil {
		found, err = decodeTrace(p)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.log.Warn("a boot trace is no use", "machine", machine, "disk", disk, "err", err)
	}
	return found
}

// save keeps the trace of a machine's disk.
func (t *traces) save(machine, disk string, tr trace) error {
	if err := t.fs.Mkdir(tracesDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	name := tracePath(machine, disk)
	tmp := name + ".tmp"
	if err := t.fs.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := t.fs.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(tr.encode())
	if err = errors.Join(err, f.Close()); err == nil {
		err = t.fs.Rename(tmp, name) // not synced: a torn file is no trace
	}
	return err
}

// readSmall reads a file of at most limit bytes.
func readSmall(fsys vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", name, size, limit)
	}
	p := make([]byte, size)
	_, err = f.ReadAt(p, 0)
	return p, err
}

// A boot is the first minutes of a recovery: the blocks that the last one asked
// for are fetched before they are asked for, and those of this one are recorded.
type boot struct {
	traces  *traces
	frames  *repo.FrameCache
	machine string
	disks   []*bootDisk
}

type bootDisk struct {
	name string
	disk *repo.Disk
	rec  *recorder
}

// boot begins one.
func (t *traces) boot(machine string, frames *repo.FrameCache) *boot {
	return &boot{traces: t, frames: frames, machine: machine}
}

// watch runs a boot until the session is detached or the manager closed.
func (m *Manager) watch(s *session, b *boot) {
	ctx, cancel := context.WithCancel(m.ctx)
	ended := make(chan struct{})
	s.mu.Lock()
	s.unwatch = func() {
		cancel()
		<-ended
	}
	s.mu.Unlock()
	m.work.Go(func() {
		defer close(ended)
		defer cancel()
		b.run(ctx)
	})
}

// base makes the base of a disk of the machine. nil only makes it.
func (b *boot) base(d *repo.Disk) *base {
	if b == nil {
		return newBase(d, nil)
	}
	rec := newRecorder(b.traces.now, traceWindow)
	b.disks = append(b.disks, &bootDisk{d.Info().Name, d, rec})
	return newBase(d, rec)
}

// run fetches and records until both are done or ctx ends, and then keeps what
// was recorded. It is for after the publish has answered.
func (b *boot) run(ctx context.Context) {
	before := make([]trace, len(b.disks))
	for i, d := range b.disks {
		before[i] = b.traces.load(b.machine, d.name)
	}
	warmed, cancel := context.WithTimeout(ctx, warmEnd)
	b.warm(warmed, before)
	cancel()
	end := time.NewTimer(max(0, b.left()))
	defer end.Stop()
	select {
	case <-ctx.Done():
	case <-end.C:
	}
	for i, d := range b.disks {
		whole := !b.traces.now().Before(d.rec.end)
		t := d.rec.stop()
		if !betterTrace(before[i], t, whole) {
			continue
		}
		if err := b.traces.save(b.machine, d.name, t); err != nil {
			b.traces.log.Warn("a boot trace is not kept", "machine", b.machine, "disk", d.name, "err", err)
		}
	}
}

// left is how long the recording goes on.
func (b *boot) left() (left time.Duration) {
	for _, d := range b.disks {
		left = max(left, d.rec.end.Sub(b.traces.now()))
	}
	return left
}

// warm fetches what the traces name, as mayWarm lets it.
func (b *boot) warm(ctx context.Context, list []trace) {
	todo := make(chan warmBlock)
	var wg sync.WaitGroup
	for range warmAtOnce {
		wg.Go(func() {
			for w := range todo {
				b.fetch(ctx, w)
			}
		})
	}
	defer wg.Wait()
	defer close(todo)
	for _, w := range interleave(list) {
		select {
		case todo <- w:
		case <-ctx.Done():
			return
		}
	}
}

// fetch brings a block into the cache when it may, unless it was asked for in the
// meantime.
func (b *boot) fetch(ctx context.Context, w warmBlock) {
	d := b.disks[w.disk]
	for !d.rec.has(w.block) {
		changed := b.frames.Changed()
		ok, err := d.disk.Warm(ctx, w.block*traceBlockBytes, mayWarm)
		if ok || err != nil {
			return // whoever needs it meets the error again
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// warmBlock is a block of a disk.
type warmBlock struct {
	disk  int
	block int64
}

// interleave makes one order of those of several disks, as if all had been asked
// for during the same time.
func interleave(list []trace) []warmBlock {
	total, longest := 0, 0
	for _, t := range list {
		total, longest = total+len(t), max(longest, len(t))
	}
	all, next := make([]warmBlock, 0, total), make([]int, len(list))
	for step := 1; step <= longest; step++ {
		for i, t := range list {
			for ; next[i]*longest < step*len(t); next[i]++ {
				all = append(all, warmBlock{i, t[next[i]]})
			}
		}
	}
	return all
}
