package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/ledger"
)

// CopyOptions say how points are copied.
type CopyOptions struct {
	Adopt bool   // let a machine have the name of another one that is known here
	Actor string // who asked, for the ledger

	// Progress is called now and then from one goroutine; it must not wait.
	Progress func(CopyProgress)
}

// CopyProgress says how far a copy is.
type CopyProgress struct {
	Machine    string
	Point      PointID // being copied
	Points     int     // done, of all to be copied
	Of         int
	DoneBytes  int64 // of the disks of all points to be copied, what is shared included
	TotalBytes int64
}

// A CopyReport says what a copy did. All but the numbers of points, records and
// chunks are bytes.
type CopyReport struct {
	Copied   []Point       // as they are here, in the order in which they were made
	Present  int           // were here already
	Recalled []Point       // had expired here and were there still; nothing was copied
	Gone     []PointID     // expired in the source meanwhile
	Damaged  []PointDamage // not copied: the source has lost something of them
	Records  int64         // records of chunks stored as the source has them
	Encoded  int64         // chunks that were compressed anew
	Read     int64         // from the source's packs, by whoever had it open in this process
	Stored   int64         // records written, of chunks and nodes
	Packs    int64         // whole pack files, with parity
	Duration time.Duration
	Warnings []string // what is otherwise than in the source, and why
}

// PointDamage is a point that can't be copied.
type PointDamage struct {
	Point Point // in the source
	Err   error // a *CorruptError
}

// Copy brings restore points from another repository, which is only read, and may
// be written by its owner meanwhile. A copy has the id, machine, time, names and
// content of its point; its number too, unless another point here had that. A
// point that is here is passed over; one that is retired here is recalled.
//
// Points are copied machine by machine, oldest first, and each is committed by
// itself. Where both repositories name chunks alike, that is if both are plain
// and of one geometry, or have the same keys, records are taken over as they are;
// else what changed from point to point is read, and stored as by a backup. Only
// what is missing is read and stored. What an interrupted copy has stored is
// found by the next one; what a scrub has found to be lost here is brought again.
//
// Everything is verified before it is stored. A point of which the source has
// lost something is not copied, the others are; the error is then a
// *CorruptError that names point, disk and range.
//
// The report says what was done, also with an error. *BusyError: a machine's
// backup, or another copy of it, is under way. ErrMachine: a machine's name is
// that of another one here.
func (o *Owner) Copy(ctx context.Context, src *Repository, ids []PointID, opt CopyOptions) (CopyReport, error) {
	c := &copier{dst: o, src: src, opt: opt, alike: alike(o.store, src.store)}
	err := c.find(ctx, ids)
	if err == nil {
		err = c.copyAll(ctx)
	}
	if err != nil {
		err = fmt.Errorf("copy from repository %s: %w", src.settings.ID, readOnly(err))
	}
	return c.report, err
}

// alike reports whether two repositories give the same content the same ids, and
// can read each other's records.
func alike(a, b *store) bool {
	const text = "holdfast copy"
	return a.settings.Geometry == b.settings.Geometry && a.settings.Sealed == b.settings.Sealed &&
		a.hasher.Label(text) == b.hasher.Label(text)
}

// A copier is one Copy.
type copier struct {
	dst   *Owner
	src   *Repository
	opt   CopyOptions
	alike bool

	todo   []Point            // to be copied, in this order
	here   map[string][]Point // machine id → points here, by time
	there  map[PointID]bool   // points of the source
	asIs   int64              // chunks of the run under way, stored as they are
	report CopyReport
	done   CopyProgress
}

// find decides which points are to be copied.
func (c *copier) find(ctx context.Context, ids []PointID) error {
	there, err := c.src.Points(ctx)
	if err != nil {
		return err
	}
	here, err := c.dst.Points(ctx)
	if err != nil {
		return err
	}
	c.here, c.there = make(map[string][]Point), make(map[PointID]bool)
	have := make(map[PointID]bool)
	for _, p := range here {
		c.here[p.MachineID] = append(c.here[p.MachineID], p)
		have[p.ID] = true
	}
	wanted := make(map[PointID]bool)
	for _, id := range ids {
		wanted[id] = true
	}
	for _, p := range there {
		c.there[p.ID] = true
		switch {
		case !wanted[p.ID]:
			continue
		case have[p.ID]:
			c.report.Present++
		default:
			c.todo = append(c.todo, p)
			c.done.TotalBytes += p.SizeBytes()
		}
	}
	for _, id := range ids {
		if !c.there[id] {
			return fmt.Errorf("point %s: %w", id, ErrNotFound)
		}
	}
	slices.SortStableFunc(c.todo, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.MachineID, b.MachineID), cmp.Compare(a.Sequence, b.Sequence))
	})
	c.done.Of = len(c.todo)
	return nil
}

// copyAll copies what is to be copied. Damage of a point keeps no other from
// being copied, anything else does.
func (c *copier) copyAll(ctx context.Context) error {
	started, read := c.dst.now(), c.src.store.fetched.Load()
	defer func() {
		c.report.Duration = c.dst.now().Sub(started)
		c.report.Read = c.src.store.fetched.Load() - read
	}()
	for _, p := range c.todo {
		c.done.Machine, c.done.Point = p.Machine, p.ID
		c.progress(0)
		err := c.copyPoint(ctx, p)
		var damage *CorruptError
		switch {
		case err == nil:
		case errors.Is(err, errPresent):
			c.report.Present++
		case errors.Is(err, errGone):
			c.report.Gone = append(c.report.Gone, p.ID)
		case errors.As(err, &damage) && ctx.Err() == nil:
			c.report.Damaged = append(c.report.Damaged, PointDamage{p, damage})
		default:
			return fmt.Errorf("point %s of %s: %w", p.ID, p.Machine, err)
		}
		c.done.Points++
		c.done.DoneBytes += p.SizeBytes()
	}
	switch n := len(c.report.Damaged); {
	case n == 1:
		return c.report.Damaged[0].Err
	case n > 1:
		return fmt.Errorf("%d points: the first: %w", n, c.report.Damaged[0].Err)
	}
	return nil
}

func (c *copier) progress(n int64) {
	if c.opt.Progress != nil {
		p := c.done
		p.DoneBytes += n
		c.opt.Progress(p)
	}
}

// errGone says that a point expired in the source after it was listed, errPresent
// that another copy has brought it meanwhile, and errRetired that its copy here
// expired and is there still.
var (
	errPresent = errors.New("point is here")
	errGone    = errors.New("point is gone from the source")
	errRetired = errors.New("point is retired here")
)

// copyPoint makes one point, or recalls it.
func (c *copier) copyPoint(ctx context.Context, p Point) error {
	err := c.makePoint(ctx, p)
	if !errors.Is(err, errRetired) {
		return err
	}
	_, err = c.dst.Recall(ctx, p.ID)
	if errors.Is(err, ErrNotFound) {
		return c.makePoint(ctx, p) // its lock has ended meanwhile
	}
	if err == nil {
		c.report.Recalled = append(c.report.Recalled, p)
	}
	return err
}

func (c *copier) makePoint(ctx context.Context, p Point) (err error) {
	reader, err := c.src.OpenPoint(p.ID)
	if errors.Is(err, ErrNotFound) {
		return errGone
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	r, err := c.begin(reader)
	if err != nil {
		return err
	}
	defer c.dst.end(r)
	if err := c.execute(ctx, r, reader); err != nil {
		r.abandon()
		return err
	}
	c.committed(r)
	return nil
}

// begin begins the run that makes a point.
func (c *copier) begin(reader *Reader) (*run, error) {
	p := reader.Point()
	of := &copied{point: p, from: p.CopiedFrom, actor: c.opt.Actor}
	if of.from == "" {
		of.from = c.src.settings.ID
	}
	if err := of.check(); err != nil {
		return nil, err
	}
	opt := &BackupOptions{
		Machine: p.Machine, MachineID: p.MachineID, Adopt: c.opt.Adopt, Compression: c.dst.settings.Compression,
		Progress: func(p Progress) { c.progress(p.DoneBytes) },
	}
	for i, d := range p.Disks {
		opt.Disks = append(opt.Disks, SourceDisk{Name: d.Name, Source: reader.disk(i), Format: d.Format, Path: d.Source})
	}
	r, err := c.dst.newRun(opt)
	if err != nil {
		return nil, err
	}
	r.copied, c.asIs = of, 0
	if err = c.admit(p); err == nil {
		err = r.prepare()
	}
	if err != nil {
		c.dst.end(r)
		return nil, err
	}
	return r, nil
}

// admit refuses a point that is here, or that the ledger holds to be. Its machine is claimed,
// so nobody else makes it one meanwhile.
func (c *copier) admit(p Point) error {
	o := c.dst
	o.mu.Lock()
	defer o.mu.Unlock()
	void := slices.ContainsFunc(o.voids, func(r ledger.Record) bool {
		v, ok := r.(*ledger.Void)
		return ok && v.Point == string(p.ID)
	})
	if void {
		return nil // the segment that records the copy says so first
	}
	ps, known := o.state.Point(string(p.ID))
	switch {
	case known && ps.Live():
		if _, err := o.described(&ps); err == nil {
			return errPresent
		}
		return fmt.Errorf("%w: it should be here, but its manifest can't be read; once it has expired here, it can be copied again", ErrExists)
	case hasManifest(o.fsys, p.ID):
		return errRetired
	}
	return nil
}

// execute copies every disk and commits.
func (c *copier) execute(ctx context.Context, r *run, reader *Reader) (err error) {
	prev, err := c.findBase(r, reader.Point())
	if err != nil {
		return err
	}
	if prev != nil {
		defer func() { err = errors.Join(err, prev.Close()) }()
	}
	roots := make([]chunk.ID, len(reader.point.Disks))
	done := int64(0)
	for i := range roots {
		d := reader.disk(i)
		if roots[i], err = c.copyDisk(ctx, r, i, d, prev); err != nil {
			return fmt.Errorf("disk %s: %w", d.info.Name, err)
		}
		done += d.Size()
		r.progress.DoneBytes = done
	}
	return r.finish(ctx, roots)
}

// findBase opens the point here that a copy of p is compared with: the newest of
// those that are not newer, or else the oldest, and has the run keep it. Where
// chunks are named otherwise it must be one that the source has too, which is
// returned.
func (c *copier) findBase(r *run, p Point) (there *Reader, err error) {
	list := slices.Clone(c.here[p.MachineID])
	older := 0
	for older < len(list) && !list[older].Time.After(p.Time) {
		older++
	}
	slices.Reverse(list[:older])
	for _, q := range list {
		if !c.alike && !c.there[q.ID] {
			continue
		}
		here, err := c.dst.openLeased(q.ID)
		if errors.Is(err, ErrNotFound) {
			continue // expired meanwhile
		}
		if err != nil {
			return nil, err
		}
		if !c.alike {
			if there, err = c.src.OpenPoint(q.ID); err != nil {
				if err = errors.Join(notFoundIsNil(err), here.Close()); err != nil {
					return nil, err
				}
				continue
			}
		}
		r.reader, r.parent = here, &q
		return there, nil
	}
	return nil, nil
}

func notFoundIsNil(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// copyDisk copies one disk and returns its root here. If the block map of the
// point here that it is compared with is damaged, it does without.
func (c *copier) copyDisk(ctx context.Context, r *run, i int, d *Disk, prev *Reader) (chunk.ID, error) {
	how := c.recordsOf
	if !c.alike {
		how = c.contentOf
	}
	parent, done := r.parentDisk(d.info.Name), r.progress.DoneBytes
	if c.alike && c.dst.store.damage.Load() != nil {
		parent = nil // something may be lost of what the two share: every chunk is asked for
	}
	root, err := how(ctx, r, i, d, parent, prev)
	var damage *blockmap.NodeError
	var lost *CorruptError
	if err == nil || parent == nil || ctx.Err() != nil || errors.As(err, &lost) || !errors.As(err, &damage) || damage.Op != "read" {
		return root, err
	}
	c.dst.log.Error("point here can't be compared with", "point", parent.point, "disk", d.info.Name, "err", damage)
	r.result.Disks[i].Counters, r.progress.DoneBytes = Counters{}, done
	return how(ctx, r, i, d, nil, nil)
}

// committed adds what a run did to the report.
func (c *copier) committed(r *run) {
	p, of := r.result.Point, &r.copied.point
	c.here[p.MachineID] = append(c.here[p.MachineID], p)
	slices.SortStableFunc(c.here[p.MachineID], comparePoints)
	rep, n := &c.report, r.total()
	rep.Copied = append(rep.Copied, p)
	rep.Records += c.asIs
	rep.Encoded += n.Chunks + n.Patches - c.asIs
	for _, w := range []*packWriter{r.data, r.meta} {
		rep.Stored += w.bytes
		rep.Packs += w.packs
	}
	if p.Sequence != of.Sequence {
		rep.Warnings = append(rep.Warnings, fmt.Sprintf("point %s of %s has number %d here, not %d, which another point had", p.ID, p.Machine, p.Sequence, of.Sequence))
	}
}
