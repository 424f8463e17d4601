package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/seal"
)

// The pipeline of one disk:
//
//	plan ──► workers (read, digest, compare, look up, compress, seal)
//	  └────────── in disk order ──────────► collector (one): packs, block map
//
// A worker does everything with a chunk while it is in its processor's cache:
// handing chunks from readers to hashers to compressors made each of them fetch
// it from memory again, a tenth of the time of a whole backup. There are more
// workers than cores, so that some read while others compute.
//
// Every chunk's job holds one of a fixed number of slots from plan to
// collector, so memory is a chunk for each worker and a record for each slot,
// whatever the disk's size. Channels have room for all slots: only taking a
// slot ever waits.

const (
	workersPerCore = 2
	slotsPerWorker = 3
	progressEvery  = 8 << 20 // bytes between two reports
)

// An outcome says what became of a chunk.
type outcome uint8

const (
	outZero      outcome = iota // reads as zeros
	outUnchanged                // the parent has the same chunk there
	outKnown                    // stored already
	outNew                      // rec is to be stored
)

// A job is one chunk on its way through the pipeline, or a hole of several.
type job struct {
	first, count int64 // chunks; count is 1 but for holes
	hole         bool
	slot         *slot
	parent       chunk.ID // what the parent has there
	base         *base    // what a patch would lean on; nil: none

	out   outcome
	id    chunk.ID
	entry *blockmap.Entry
	rec   []byte
	asIs  bool // rec is as another repository has it
	err   error
	ready chan struct{} // has room for one
}

// A slot is the memory of one job's record; it grows to the longest.
type slot struct {
	rec []byte
}

// diskRun backs up one disk. The fields are set before start and not changed.
type diskRun struct {
	store       *store
	rand        io.Reader
	compression seal.Compression
	src         Source
	parent      *parentMap // nil: none
	trust       []Range    // chunks to read, when a change list says so
	listed      bool       // trust decides what is read
	known       func(chunk.ID) (bool, error)
	knownBase   func(chunk.ID) (bool, error) // as what patches are based on
	lost        func(chunk.ID) (bool, error) // stored, and damaged beyond healing
	sink        sink
}

// A sink takes the outcome of each chunk, ascending, from one goroutine.
type sink interface {
	hole(ctx context.Context, first, count int64) error
	chunk(ctx context.Context, j *job) error
}

// run drives the pipeline to its end. The first error stops it.
func (d *diskRun) run(ctx context.Context) error {
	workers := make([]doer, pipelineWorkers())
	for i := range workers {
		enc, err := newEncoder(d.store, d.compression, d.rand)
		if err != nil {
			return err
		}
		workers[i] = &worker{run: d, enc: enc, data: make([]byte, d.store.settings.Geometry.ChunkBytes)}
	}
	return inOrder(ctx, d.plan, workers, d.sink)
}

// pipelineWorkers is how many workers a pipeline has.
func pipelineWorkers() int { return workersPerCore * runtime.GOMAXPROCS(0) }

// A doer does what there is to do about a chunk, in a goroutine of its own.
type doer interface {
	do(ctx context.Context, j *job) error
}

// inOrder has the workers do the jobs that plan emits, and hands them to the sink
// in that order. The first error stops it.
func inOrder(ctx context.Context, plan func(ctx context.Context, emit func(*job) error) error, workers []doer, to sink) error {
	n := slotsPerWorker * len(workers)
	free := make(chan *slot, n)
	for range n {
		free <- new(slot)
	}
	order, todo := make(chan *job, 2*n), make(chan *job, n)

	g, ctx := errgroup.WithContext(ctx)
	emit := func(j *job) error {
		j.ready = make(chan struct{}, 1)
		if j.hole {
			j.ready <- struct{}{}
		} else {
			select {
			case j.slot = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case order <- j:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !j.hole {
			todo <- j
		}
		return nil
	}
	g.Go(func() error {
		defer close(order)
		defer close(todo)
		return plan(ctx, emit)
	})
	for _, w := range workers {
		g.Go(func() error {
			for j := range todo {
				j.err = w.do(ctx, j)
				j.ready <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error { return collect(ctx, free, order, to) })
	return g.Wait()
}

// plan makes the jobs, in disk order.
func (d *diskRun) plan(ctx context.Context, emit func(*job) error) error {
	look := func(j *job) error {
		if !j.hole {
			if err := d.parent.lookup(ctx, j); err != nil {
				return err
			}
		}
		return emit(j)
	}
	if !d.listed {
		return d.planAll(look)
	}
	for _, r := range d.trust {
		for n := r.Off; n < r.Off+r.Len; n++ {
			if err := look(&job{first: n, count: 1}); err != nil {
				return err
			}
		}
	}
	return nil
}

// planAll makes jobs for the whole disk, holes by what the source knows.
func (d *diskRun) planAll(emit func(*job) error) error {
	geo := d.store.settings.Geometry
	size, step := d.src.Size(), int64(geo.ChunkBytes)
	total := geo.Chunks(size)
	for next := int64(0); next < total; {
		start, end, err := d.src.NextData(next * step)
		if errors.Is(err, io.EOF) {
			return emit(&job{hole: true, first: next, count: total - next})
		}
		if err == nil && (start < next*step || end <= start || end > size) {
			err = fmt.Errorf("%w: data from %d to %d asked for at %d", ErrFormat, start, end, next*step)
		}
		if err != nil {
			return fmt.Errorf("find data of the source: %w", err)
		}
		first, last := start/step, (end+step-1)/step
		if first > next {
			if err := emit(&job{hole: true, first: next, count: first - next}); err != nil {
				return err
			}
		}
		for n := first; n < last; n++ {
			if err := emit(&job{first: n, count: 1}); err != nil {
				return err
			}
		}
		next = last
	}
	return nil
}

// A worker is the memory of one goroutine of the pipeline.
type worker struct {
	run  *diskRun
	enc  *encoder
	data []byte // a chunk
}

// do reads a chunk, decides what becomes of it, and makes its record if it is
// new.
func (w *worker) do(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.read(j.first); err != nil {
		return err
	}
	if chunk.IsZero(w.data) {
		j.out = outZero
		return nil
	}
	j.id = w.enc.digest(w.data)
	if j.id == j.parent {
		lost, err := w.run.lost(j.id)
		if err != nil {
			return err
		}
		if !lost {
			j.out = outUnchanged
			return nil
		}
	}
	known, err := w.run.known(j.id)
	if err != nil {
		return err
	}
	if known {
		j.out = outKnown
		return nil
	}
	// A patch needs its base whole. What the parent's leaf says of it may be old:
	// the copy that is left may be a patch itself.
	if j.base != nil {
		if known, err = w.run.knownBase(j.base.id); err != nil {
			return err
		}
		if !known {
			j.base = nil
		}
	}
	j.out = outNew
	j.rec, j.entry, err = w.enc.record(j.slot.rec, w.data, j.id, j.base)
	if err == nil {
		j.slot.rec = j.rec
	}
	return err
}

// read fills w.data with chunk n, zeros behind the disk's end.
func (w *worker) read(n int64) error {
	src, off := w.run.src, n*int64(len(w.data))
	rest := min(int64(len(w.data)), src.Size()-off)
	clear(w.data[rest:])
	return readFull(src, w.data[:rest], off)
}

// collect hands the jobs to the sink in disk order and frees their slots.
func collect(ctx context.Context, free chan<- *slot, order <-chan *job, to sink) error {
	for j := range order {
		<-j.ready
		if j.err != nil {
			return j.err
		}
		var err error
		if j.hole {
			err = to.hole(ctx, j.first, j.count)
		} else {
			err = to.chunk(ctx, j)
			free <- j.slot
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A parentMap answers what the parent's disk has where. One goroutine uses it.
type parentMap struct {
	cursor *blockmap.Cursor
	chunks int64
}

// lookup fills in what a job needs to know of the parent.
func (p *parentMap) lookup(ctx context.Context, j *job) error {
	if p == nil || j.first >= p.chunks {
		return nil
	}
	id, e, err := p.cursor.At(ctx, j.first)
	if err != nil {
		return fmt.Errorf("read the parent's map: %w", err)
	}
	j.parent = id
	if e != nil && !id.IsNull() {
		b := baseOf(id, e)
		j.base = &b
	}
	return nil
}
