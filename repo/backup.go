package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/ledger"
	"holdfast/repo/seal"
)

// BackupOptions say what to back up and as what.
type BackupOptions struct {
	Machine   string // name; obeys CheckName
	MachineID string // stable identity; empty: the one known under this name, else a new one
	Adopt     bool   // let a machine of another identity take over the name

	Job   string // empty means "manual"
	Slot  string // schedule slot; empty: an extra
	Actor string

	Disks []SourceDisk

	Full           bool // trust neither the parent's map nor a change list
	RequireChanged bool // fail where a change list can't be used, instead of reading all

	Compression seal.Compression // empty: the repository's
	Consistency string           // what quiescing reached; empty means "crash"
	Extensions  map[string]json.RawMessage

	// Files are what the machine has beside its disks, as its configuration: at
	// most MaxMachineFiles with MaxMachineFileBytes in all.
	Files []MachineFile

	// Parent is the point to compare with and to share nodes with, any
	// machine's, in place of the machine's latest. Change lists start from it.
	// ErrNotFound when it is not there.
	Parent PointID

	// Progress is called now and then from one goroutine; it must not wait.
	Progress func(Progress)
}

// SourceDisk is one disk of a backup.
type SourceDisk struct {
	Name    string // obeys CheckName; no two the same
	Source  Source
	Format  string   // of the source, for the record
	Path    string   // where it was read, for the record
	Changes *Changes // nil: read all, and compare
}

// Progress says how far a run is.
type Progress struct {
	Disk      string
	DoneBytes int64 // of TotalBytes, holes and what is not read included
	ReadBytes int64
	NewBytes  int64
	Total     int64 // of all disks
}

// A Run is what a backup did.
type Run struct {
	Point    Point
	Duration time.Duration
	Disks    []DiskRun
	Head     ledger.Head // of the ledger, with the point: to compare a later ledger with
	Warnings []string    // what the user asked for and did not get, and why
}

// DiskRun is what a backup did with one disk.
type DiskRun struct {
	Name     string
	Mode     ReadMode
	Reason   string // why this mode
	Counters Counters
}

// ReadMode says how a disk was read.
type ReadMode string

const (
	ReadFull    ReadMode = "full"    // everything, compared with nothing
	ReadCompare ReadMode = "compare" // everything, compared with the parent
	ReadChanged ReadMode = "changed" // what a change list named
)

// backupDisk backs up one disk and returns its root. A parent whose block map
// is damaged is done without: what it would have told is read.
func (r *run) backupDisk(ctx context.Context, n int, d SourceDisk) (chunk.ID, error) {
	dr := &r.result.Disks[n]
	if size := d.Source.Size(); size < 0 {
		return chunk.Null, fmt.Errorf("%w: size %d", ErrShortSource, size)
	}
	parent, done := r.parentDisk(d.Name), r.progress.DoneBytes
	plan, err := r.planDisk(ctx, d, parent)
	if err == nil {
		var root chunk.ID
		if root, err = r.readDisk(ctx, dr, d, parent, plan); err == nil {
			return root, nil
		}
	}
	var damage *blockmap.NodeError
	if ctx.Err() != nil || !errors.As(err, &damage) || damage.Op != "read" {
		return chunk.Null, err
	}
	why := fmt.Sprintf("the block map of point %s is damaged: %v", parent.point, damage)
	if r.opt.RequireChanged && d.Changes != nil {
		return chunk.Null, fmt.Errorf("%w: disk %s: %s", ErrChanges, d.Name, why)
	}
	r.log.Error("parent can't be used", "machine", r.opt.Machine, "disk", d.Name, "err", damage)
	dr.Counters, r.progress.DoneBytes = Counters{}, done
	return r.readDisk(ctx, dr, d, nil, diskPlan{mode: ReadFull, reason: why, warn: "everything was read: " + why})
}

// readDisk runs the pipeline for one disk as planned.
func (r *run) readDisk(ctx context.Context, dr *DiskRun, d SourceDisk, parent *parentDisk, plan diskPlan) (chunk.ID, error) {
	dr.Mode, dr.Reason = plan.mode, plan.reason
	dr.Counters.SampledBytes += plan.sampled
	if plan.warn != "" {
		r.result.Warnings = append(r.result.Warnings, fmt.Sprintf("disk %s: %s", d.Name, plan.warn))
	}
	geo, size := r.store.settings.Geometry, d.Source.Size()
	var old blockmap.Tree
	if plan.mode != ReadFull {
		old = parent.tree(geo)
	}
	sink := &diskSink{
		run: r, disk: d.Name, counters: &dr.Counters, size: size,
		editor: blockmap.NewEditor(r.nodes, r.store.layout(), old, geo.Chunks(size)),
	}
	p := &diskRun{
		store: r.store, rand: r.rand, compression: r.opt.Compression, src: d.Source,
		known: r.isKnown, knownBase: r.isKnownBase, lost: r.store.isLost, sink: sink, trust: plan.read, listed: plan.mode == ReadChanged,
	}
	if plan.mode != ReadFull {
		p.parent = &parentMap{cursor: blockmap.NewCursor(r.nodes, old), chunks: old.Chunks}
	}
	if err := p.run(ctx); err != nil {
		return chunk.Null, err
	}
	if plan.mode == ReadChanged {
		dr.Counters.SharedBytes = size - dr.Counters.ReadBytes
	}
	return sink.editor.Finish(ctx)
}

// isKnown is asked by the workers, several at once.
func (r *run) isKnown(id chunk.ID) (bool, error) {
	if _, ok := r.data.has(id); ok {
		return true, nil
	}
	return r.known(id)
}

// isKnownBase is isKnown for what a patch is to be based on.
func (r *run) isKnownBase(id chunk.ID) (bool, error) {
	if e, _ := r.data.has(id); e != nil && !e.Patch {
		return true, nil
	}
	return r.knownBase(id)
}

// A diskSink stores what the pipeline found and edits the disk's map.
type diskSink struct {
	run      *run
	disk     string
	size     int64
	editor   *blockmap.Editor
	counters *Counters
	reported int64
}

func (s *diskSink) hole(ctx context.Context, first, count int64) error {
	n := s.span(first, count)
	s.counters.HoleBytes += n
	s.progress(n)
	return s.editor.Clear(ctx, first, first+count)
}

func (s *diskSink) chunk(ctx context.Context, j *job) error {
	n := s.span(j.first, 1)
	s.counters.ReadBytes += n
	var err error
	switch j.out {
	case outZero:
		s.counters.ZeroBytes += n
		err = s.editor.Clear(ctx, j.first, j.first+1)
	case outUnchanged:
		s.counters.UnchangedBytes += n
	case outKnown:
		s.counters.KnownBytes += n
		entry, _ := s.run.data.has(j.id)
		err = s.editor.Set(ctx, j.first, j.id, entry)
	case outNew:
		err = s.store(ctx, j, n)
	}
	if err != nil {
		return err
	}
	s.progress(n)
	return nil
}

// store appends a new chunk's record, unless the same chunk came by while this
// one was on its way here.
func (s *diskSink) store(ctx context.Context, j *job, n int64) error {
	known, err := s.run.isKnown(j.id)
	if err != nil {
		return err
	}
	if known {
		s.counters.KnownBytes += n
		entry, _ := s.run.data.has(j.id)
		return s.editor.Set(ctx, j.first, j.id, entry)
	}
	if err := s.run.data.add(j.id, j.rec, j.entry); err != nil {
		return err
	}
	s.counters.NewBytes += n
	if j.entry.Patch {
		s.counters.Patches++
	} else {
		s.counters.Chunks++
	}
	return s.editor.Set(ctx, j.first, j.id, j.entry)
}

// span is the number of bytes that chunks take on the disk.
func (s *diskSink) span(first, count int64) int64 {
	size := int64(s.run.store.settings.Geometry.ChunkBytes)
	return max(0, min(s.size, (first+count)*size)-first*size)
}

func (s *diskSink) progress(n int64) {
	p := &s.run.progress
	p.Disk = s.disk
	p.DoneBytes += n
	s.reported += n
	if s.run.opt.Progress == nil || s.reported < progressEvery {
		return
	}
	s.reported = 0
	total := s.run.total()
	p.ReadBytes, p.NewBytes = total.ReadBytes, total.NewBytes
	s.run.opt.Progress(*p)
}

// diskPlan is the decision how to read one disk.
type diskPlan struct {
	mode    ReadMode
	reason  string
	warn    string
	read    []Range // chunks, in mode ReadChanged
	sampled int64
}

// planDisk decides how a disk is read. What can't be used of a change list
// makes it be read in full, with a warning, or is an error if the caller says
// so.
func (r *run) planDisk(ctx context.Context, d SourceDisk, parent *parentDisk) (diskPlan, error) {
	switch {
	case r.opt.Full:
		return diskPlan{mode: ReadFull, reason: "a full was asked for"}, nil
	case d.Changes == nil && parent == nil:
		return diskPlan{mode: ReadFull, reason: "first backup of this disk"}, nil
	case d.Changes == nil:
		return diskPlan{mode: ReadCompare, reason: "no change list"}, nil
	}
	why := r.refuseChanges(d, parent)
	if why == "" {
		plan := diskPlan{mode: ReadChanged, reason: "change list"}
		plan.read = r.chunksToRead(d, parent)
		lost, err := r.lostChunks(ctx, d, parent)
		if err != nil {
			return plan, err
		}
		plan.read = mergeRanges(append(plan.read, lost...))
		lie, sampled, err := r.sample(ctx, d, parent, plan.read)
		if err != nil {
			return plan, err
		}
		plan.sampled = sampled
		if lie < 0 {
			return plan, nil
		}
		why = fmt.Sprintf("the list says byte %d did not change, but it did: the source of change lists can't be trusted", lie)
		r.log.Error("change list is wrong", "machine", r.opt.Machine, "disk", d.Name, "offset", lie)
	}
	if r.opt.RequireChanged {
		return diskPlan{}, fmt.Errorf("%w: disk %s: %s", ErrChanges, d.Name, why)
	}
	plan := diskPlan{mode: ReadCompare, reason: why, warn: "everything was read: " + why}
	if parent == nil {
		plan.mode = ReadFull
	}
	return plan, nil
}

// refuseChanges says why a change list can't be used, or nothing.
func (r *run) refuseChanges(d SourceDisk, parent *parentDisk) string {
	c := d.Changes
	switch {
	case parent == nil:
		return "the disk has no earlier point to start from"
	case c.Base == "":
		return "the change list names no base"
	case c.Base != string(parent.point) && (c.Base != parent.info.ChangeID || parent.info.ChangeID == ""):
		return fmt.Sprintf("the change list starts from %q, the latest point is %s", c.Base, parent.point)
	case c.SizeBytes != d.Source.Size():
		return fmt.Sprintf("the change list is of a disk of %d bytes, the source has %d", c.SizeBytes, d.Source.Size())
	}
	return ""
}

// chunksToRead widens the changed ranges to chunks, and adds what a resize
// makes stale: the chunks that hold the old and the new end, and all beyond
// the old end.
func (r *run) chunksToRead(d SourceDisk, parent *parentDisk) []Range {
	chunkBytes := int64(r.store.settings.Geometry.ChunkBytes)
	size, old := d.Source.Size(), parent.info.SizeBytes
	ranges := append([]Range(nil), d.Changes.Ranges...)
	if size != old {
		for _, end := range []int64{size, old} {
			if end > 0 {
				ranges = append(ranges, Range{(end - 1) / chunkBytes * chunkBytes, chunkBytes})
			}
		}
		if size > old {
			ranges = append(ranges, Range{old, size - old})
		}
	}
	return widen(ranges, chunkBytes, r.store.settings.Geometry.Chunks(size))
}

// sampleChunks is how many chunks that a list calls unchanged are read to see.
const sampleChunks = 16

// sample hashes some chunks outside read and compares them with the parent. It
// returns the offset of one that differs, or -1.
func (r *run) sample(ctx context.Context, d SourceDisk, parent *parentDisk, read []Range) (lie, sampled int64, err error) {
	geo := r.store.settings.Geometry
	total := geo.Chunks(d.Source.Size())
	enc, err := newEncoder(r.store, seal.None, r.rand)
	if err != nil {
		return -1, 0, err
	}
	cursor := blockmap.NewCursor(r.nodes, parent.tree(geo))
	data := make([]byte, geo.ChunkBytes)
	for _, n := range r.pick(total, sampleChunks) {
		if inRanges(read, n) {
			continue
		}
		want, _, err := cursor.At(ctx, n)
		if err != nil {
			return -1, sampled, err
		}
		off := n * int64(geo.ChunkBytes)
		part := data[:min(int64(geo.ChunkBytes), d.Source.Size()-off)]
		clear(data[len(part):])
		if err := readFull(d.Source, part, off); err != nil {
			return -1, sampled, err
		}
		sampled += int64(len(part))
		got := chunk.Null
		if !chunk.IsZero(data) {
			got = enc.digest(data)
		}
		if got != want {
			return off, sampled, nil
		}
	}
	return -1, sampled, nil
}

func inRanges(rs []Range, n int64) bool {
	for _, r := range rs {
		if n >= r.Off && n < r.Off+r.Len {
			return true
		}
	}
	return false
}

// checkDisks refuses a request that can't become a point.
func checkDisks(opt *BackupOptions) error {
	if err := CheckName("machine", opt.Machine); err != nil {
		return err
	}
	if len(opt.Disks) == 0 || len(opt.Disks) > maxDisks {
		return fmt.Errorf("%w: %d disks, want 1 to %d", ErrName, len(opt.Disks), maxDisks)
	}
	var errs []error
	seen := make(map[string]bool)
	for _, d := range opt.Disks {
		errs = append(errs, CheckName("disk", d.Name))
		if seen[d.Name] {
			errs = append(errs, fmt.Errorf("%w: two disks are called %q; name one with NAME=PATH", ErrName, d.Name))
		}
		seen[d.Name] = true
	}
	return errors.Join(append(errs, checkFiles(opt.Files))...)
}
