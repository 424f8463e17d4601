package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
)

// RestoreOptions say how a disk is written.
type RestoreOptions struct {
	// WriteZeros writes the zeros of holes too, for targets that may hold
	// something else; otherwise they are left out.
	WriteZeros bool

	Workers int // goroutines that read and decode; 0: one per core

	// Progress is called now and then, from one goroutine at a time, with the
	// bytes done of the disk's size, holes included.
	Progress func(done, total int64)
}

// RestoreResult says what a restore did, in bytes.
type RestoreResult struct {
	WrittenBytes int64 // handed to the target
	HoleBytes    int64 // zeros left out
	StoredBytes  int64 // read from packs
}

// Restore writes the disk to dst, which it treats as being of the disk's size.
// Chunks are read in the order of packs within stretches of a quarter of a
// gigabyte and written wherever they belong, several at once. Every byte is
// verified before it is written.
func (d *Disk) Restore(ctx context.Context, dst io.WriterAt, opt RestoreOptions) (RestoreResult, error) {
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	r := &restorer{disk: d, dst: dst, opt: opt, todo: make(chan restoreJob, 2*opt.Workers)}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(r.todo)
		return r.plan(ctx)
	})
	for range opt.Workers {
		g.Go(func() error { return r.work(ctx) })
	}
	err := g.Wait()
	res := RestoreResult{WrittenBytes: r.written.Load(), StoredBytes: r.stored.Load()}
	res.HoleBytes = d.Size() - res.WrittenBytes
	if err != nil {
		return res, err
	}
	if opt.Progress != nil {
		opt.Progress(d.Size(), d.Size())
	}
	return res, nil
}

type restorer struct {
	disk    *Disk
	dst     io.WriterAt
	opt     RestoreOptions
	todo    chan restoreJob
	written atomic.Int64
	stored  atomic.Int64

	mu       sync.Mutex // guards the two below, and calls of Progress
	done     int64
	reported int64
}

// restoreJob is one chunk, or with a null id a hole of several.
type restoreJob struct {
	first, count int64
	id           chunk.ID
	entry        *blockmap.Entry
	pack         pack.Name
	off          uint32
}

// plan makes the jobs leaf by leaf.
func (r *restorer) plan(ctx context.Context) error {
	d := r.disk
	next := int64(0) // first chunk not planned
	err := blockmap.Walk(ctx, d.store, d.tree, blockmap.Visitor{Leaf: func(at blockmap.Place, l *blockmap.Leaf) error {
		l, err := blockmap.Resolve(ctx, d.store, l)
		if err != nil {
			return err
		}
		if err := r.hole(ctx, next, at.First); err != nil {
			return err
		}
		next = min(at.First+blockmap.Fanout, d.tree.Chunks)
		return r.leaf(ctx, at.First, l)
	}})
	if err != nil {
		first, count, size := next, int64(blockmap.Fanout), int64(d.store.settings.Geometry.ChunkBytes)
		if ne := (*blockmap.NodeError)(nil); errors.As(err, &ne) {
			first, count = ne.First, ne.Chunks
		}
		return d.corrupt(ctx, first*size, int(min(count, d.tree.Chunks)*size), err)
	}
	return r.hole(ctx, next, d.tree.Chunks)
}

// leaf plans the chunks of one leaf in the order of packs.
func (r *restorer) leaf(ctx context.Context, first int64, l *blockmap.Leaf) error {
	var jobs []restoreJob
	for i, id := range l.Node.Children {
		n := first + int64(i)
		if id.IsNull() {
			if n < r.disk.tree.Chunks {
				if err := r.hole(ctx, n, n+1); err != nil {
					return err
				}
			}
			continue
		}
		j := restoreJob{first: n, count: 1, id: id}
		if e := new(blockmap.Entry); l.Entry(i, e) {
			j.entry = e
		}
		// A chunk that can't be found sorts first and fails when it is read.
		if locs, err := r.disk.store.lookup(id); err == nil && len(locs) > 0 {
			j.pack, j.off = locs[0].Pack, locs[0].Off
		}
		jobs = append(jobs, j)
	}
	slices.SortStableFunc(jobs, func(a, b restoreJob) int {
		return cmp.Or(slices.Compare(a.pack[:], b.pack[:]), cmp.Compare(a.off, b.off))
	})
	for _, j := range jobs {
		if err := r.send(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

// hole plans chunks from first to end, which are zeros.
func (r *restorer) hole(ctx context.Context, first, end int64) error {
	if first >= end {
		return nil
	}
	return r.send(ctx, restoreJob{first: first, count: end - first})
}

func (r *restorer) send(ctx context.Context, j restoreJob) error {
	select {
	case r.todo <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *restorer) work(ctx context.Context) error {
	geo := r.disk.store.settings.Geometry
	w := restoreWorker{r: r, data: make([]byte, geo.ChunkBytes), dst: make([][]byte, geo.Frames())}
	for j := range r.todo {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if j.id.IsNull() {
			err = w.hole(ctx, j)
		} else {
			err = w.chunk(ctx, j)
		}
		if err != nil {
			return err
		}
		r.progress(w.span(j))
	}
	return nil
}

func (r *restorer) progress(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += n
	if r.opt.Progress != nil && r.done-r.reported >= progressEvery {
		r.reported = r.done
		r.opt.Progress(r.done, r.disk.Size())
	}
}

// restoreWorker is the memory of one goroutine.
type restoreWorker struct {
	r    *restorer
	data []byte
	dst  [][]byte // frames of data to read
}

func (w *restoreWorker) span(j restoreJob) int64 {
	size := int64(len(w.data))
	return max(0, min((j.first+j.count)*size, w.r.disk.Size())-j.first*size)
}

func (w *restoreWorker) hole(ctx context.Context, j restoreJob) error {
	if !w.r.opt.WriteZeros {
		return nil
	}
	clear(w.data)
	off := j.first * int64(len(w.data))
	for rest := w.span(j); rest > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(rest, int64(len(w.data)))
		if err := w.write(w.data[:n], off); err != nil {
			return err
		}
		rest, off = rest-n, off+n
	}
	return nil
}

// chunk reads a chunk and writes it, in stretches around its frames of zeros.
func (w *restoreWorker) chunk(ctx context.Context, j restoreJob) error {
	d := w.r.disk
	frame := d.store.settings.Geometry.FrameBytes
	off := j.first * int64(len(w.data))
	for i := range w.dst {
		w.dst[i] = w.data[i*frame : (i+1)*frame]
	}
	stored, err := d.store.readChunk(ctx, j.id, j.entry, w.dst)
	if err != nil {
		return d.corrupt(ctx, off, int(w.span(j)), err)
	}
	w.r.stored.Add(stored)
	n := int(w.span(j))
	for from := 0; from < n; {
		if w.zero(from / frame) {
			from += frame
			continue
		}
		to := from + frame
		for to < n && !w.zero(to/frame) {
			to += frame
		}
		to = min(to, n)
		if err := w.write(w.data[from:to], off+int64(from)); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// zero reports whether a frame may be left out. Where zeros must be written it
// never may.
func (w *restoreWorker) zero(frame int) bool {
	return !w.r.opt.WriteZeros && chunk.IsZero(w.dst[frame])
}

func (w *restoreWorker) write(p []byte, off int64) error {
	if _, err := w.r.dst.WriteAt(p, off); err != nil {
		return fmt.Errorf("write target at %d: %w", off, err)
	}
	w.r.written.Add(int64(len(p)))
	return nil
}
