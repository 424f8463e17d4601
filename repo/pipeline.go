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
//	plan ──► readers ──► workers (digest, compare, look up, compress, seal)
//	  └────────── in disk order ──────────► collector (one): packs, block map
//
// Every job holds one of a fixed number of slots from plan to collector, so
// memory is slots × two chunks whatever the disk's size. Channels have room for
// all slots: only taking a slot ever waits.

const (
	readers       = 4
	slotsPerCore  = 4
	minSlots      = 8
	progressEvery = 8 << 20 // bytes between two reports
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
	err   error
	ready chan struct{} // has room for one
}

// A slot is the memory of one job.
type slot struct {
	data []byte // a chunk
	rec  []byte // its record; grows to the longest
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
	sink        sink
}

// A sink takes the outcome of each chunk, ascending, from one goroutine.
type sink interface {
	hole(ctx context.Context, first, count int64) error
	chunk(ctx context.Context, j *job) error
}

// run drives the pipeline to its end. The first error stops it.
func (d *diskRun) run(ctx context.Context) error {
	cores := runtime.GOMAXPROCS(0)
	n := max(minSlots, slotsPerCore*cores)
	geo := d.store.settings.Geometry
	free := make(chan *slot, n)
	for range n {
		free <- &slot{data: make([]byte, geo.ChunkBytes)}
	}
	order, toRead, toWork := make(chan *job, 2*n), make(chan *job, n), make(chan *job, n)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(order)
		defer close(toRead)
		return d.plan(ctx, free, order, toRead)
	})
	reading, rctx := errgroup.WithContext(ctx)
	for range readers {
		reading.Go(func() error {
			for j := range toRead {
				j.err = d.read(rctx, j)
				toWork <- j
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(toWork)
		return reading.Wait()
	})
	for range cores {
		enc, err := newEncoder(d.store, d.compression, d.rand)
		if err != nil {
			return errors.Join(err, context.Canceled)
		}
		g.Go(func() error {
			for j := range toWork {
				if j.err == nil {
					j.err = d.work(enc, j)
				}
				j.ready <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error { return d.collect(ctx, free, order) })
	return g.Wait()
}

// plan makes the jobs, in disk order.
func (d *diskRun) plan(ctx context.Context, free <-chan *slot, order, toRead chan<- *job) error {
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
			if err := d.parent.lookup(ctx, j); err != nil {
				return err
			}
		}
		select {
		case order <- j:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !j.hole {
			toRead <- j
		}
		return nil
	}
	if d.listed {
		for _, r := range d.trust {
			for n := r.Off; n < r.Off+r.Len; n++ {
				if err := emit(&job{first: n, count: 1}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return d.planAll(emit)
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

// read fills the job's slot with the chunk, zeros behind the disk's end.
func (d *diskRun) read(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	off := j.first * int64(len(j.slot.data))
	n := min(int64(len(j.slot.data)), d.src.Size()-off)
	clear(j.slot.data[n:])
	return readFull(d.src, j.slot.data[:n], off)
}

// work decides what becomes of a chunk and makes its record if it is new.
func (d *diskRun) work(enc *encoder, j *job) error {
	data := j.slot.data
	if chunk.IsZero(data) {
		j.out = outZero
		return nil
	}
	j.id = enc.digest(data)
	if j.id == j.parent {
		j.out = outUnchanged
		return nil
	}
	known, err := d.known(j.id)
	if err != nil {
		return err
	}
	if known {
		j.out = outKnown
		return nil
	}
	j.out = outNew
	j.rec, j.entry, err = enc.record(j.slot.rec, data, j.id, j.base)
	if err == nil {
		j.slot.rec = j.rec
	}
	return err
}

// collect hands the jobs to the sink in disk order and frees their slots.
func (d *diskRun) collect(ctx context.Context, free chan<- *slot, order <-chan *job) error {
	for j := range order {
		<-j.ready
		if j.err != nil {
			return j.err
		}
		var err error
		if j.hole {
			err = d.sink.hole(ctx, j.first, j.count)
		} else {
			err = d.sink.chunk(ctx, j)
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
