package repo

import (
	"fmt"
	"slices"
	"time"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/ledger"
)

// commit writes the ledger segment and then the manifest. The packs are durable
// by now.
func (r *run) commit(roots []chunk.ID) error {
	o := r.owner
	o.commit.Lock()
	defer o.commit.Unlock()

	if err := o.recordPacks(); err != nil {
		return err
	}
	o.mu.Lock()
	packs, voids, state := slices.Clone(o.unrecorded), o.voids, o.state
	last := o.lastTime
	leftovers := append(slices.Clone(o.leftovers[r.machineID]), r.id)
	o.mu.Unlock()

	m, parent, err := r.pointToBe(roots, state, last)
	if err != nil {
		return err
	}
	id := string(m.Point)
	file, err := m.encode(r.store.keys, o.rand)
	if err != nil {
		return err
	}
	rec := &ledger.Point{
		ID: id, Sequence: m.Sequence, Machine: m.MachineID, Job: r.store.ledgerJob(m.Job), Slot: m.Slot,
		Parent: string(parent), Full: parent == "", Run: string(r.id), Manifest: sum256(file),
	}
	records := append(slices.Clone(voids), rec)
	at, actor := m.Time, m.Actor
	if r.copied != nil {
		at, actor = o.now(), r.copied.actor
	}
	if o.settings.Sealed {
		actor = "" // it is in the manifest, for those who have a key
	}
	if err := o.appendSegment(packs, records, at, actor); err != nil {
		return err
	}
	o.mu.Lock()
	o.voids = o.voids[len(voids):]
	o.mu.Unlock()
	// From here on the point will exist, if not by us then by the next owner,
	// unless the manifest is lost: then it is closed as void.
	if err := writeTwins(o.fsys, pointPath(m.Point), file); err != nil {
		o.mu.Lock()
		o.voids = append(o.voids, &ledger.Void{Point: id, Segment: m.Segment})
		o.mu.Unlock()
		if uerr := o.unwriteManifest(m.Point); uerr != nil {
			// A copy may come back after a power cut, and then the point is one.
			o.ledgerLost = uerr
		}
		return fmt.Errorf("write manifest: %w", err)
	}
	o.mu.Lock()
	if m.Time.After(o.lastTime) {
		o.lastTime = m.Time
	}
	if r.copied == nil || o.names[m.Name] == "" {
		o.names[m.Name] = m.MachineID
	}
	o.forgetLeftovers(r.machineID)
	o.mu.Unlock()
	if err := removeRuns(o.fsys, leftovers); err != nil {
		o.log.Warn("point is committed; its run's record stays until the repository is opened again", "point", id, "err", err)
	}
	// The index is not needed for the point to be: whoever opens next adds what
	// it lacks.
	if err := o.flushIndex(); err != nil {
		o.log.Warn("point is committed; the index is completed later", "point", id, "err", err)
	}
	r.result.Point = o.committed(m, rec)
	if err := o.writeCheckpoint(checkpointAnyway); err != nil {
		o.log.Warn("point is committed; the next checkpoint is made later", "point", id, "err", err)
	}
	r.result.Head = o.state.Head()
	r.result.Duration = o.now().Sub(r.started)
	return nil
}

// committed makes a new point known to the view, which needn't read its manifest.
func (o *Owner) committed(m *manifest, rec *ledger.Point) Point {
	p := pointOf(m, rec.Full, PointID(rec.Parent))
	o.view.mu.Lock()
	defer o.view.mu.Unlock()
	if ps, ok := o.state.Point(rec.ID); ok {
		p.Signed = ps.Signed
	}
	o.view.known[p.ID] = p.light()
	return p.light()
}

// ledgerJob is how the ledger, which everybody can read, names a job.
func (s *store) ledgerJob(job string) string {
	if s.keys == nil {
		return job
	}
	return s.hasher.Label(job).String()[:32]
}

// unwriteManifest takes back what was written of a manifest, so that a failed
// run leaves no point.
func (o *Owner) unwriteManifest(id PointID) error {
	return removeTwins(o.fsys, pointPath(id))
}

// pointToBe decides what the point will be, and what the ledger names as its
// parent. The caller holds commit.
func (r *run) pointToBe(roots []chunk.ID, state *ledger.State, last time.Time) (m *manifest, parent PointID, err error) {
	if r.copied != nil {
		m, parent = r.copied.pointToBe(r, roots, state)
		return m, parent, nil
	}
	m = r.manifest(roots, state, last)
	if m.Files, err = packFiles(r.opt.Files); err != nil {
		return nil, "", err
	}
	id, err := newID(m.Time, r.owner.rand)
	m.Point = PointID(id)
	if r.parent != nil {
		parent = r.parent.ID
	}
	return m, parent, err
}

// manifest says everything but the point's id.
func (r *run) manifest(roots []chunk.ID, state *ledger.State, last time.Time) *manifest {
	m := new(manifest)
	m.MachineID, m.Name = r.machineID, r.opt.Machine
	m.Sequence = state.LastSequence(r.machineID) + 1
	m.Segment = state.Head().Number + 1
	m.Epoch, m.Run = r.owner.epoch, r.id
	m.Time = r.owner.now().UTC().Truncate(time.Millisecond)
	if !m.Time.After(last) {
		m.ClockBack = m.Time.Before(last.Truncate(time.Millisecond))
		m.Time = last.Add(time.Millisecond)
	}
	m.Job, m.Slot, m.Actor, m.Host = r.opt.Job, r.opt.Slot, r.opt.Actor, r.host
	m.Consistency, m.Extensions = r.opt.Consistency, r.opt.Extensions
	for i, d := range r.opt.Disks {
		size := d.Source.Size()
		m.Roots = append(m.Roots, manifestRoot{
			Root: roots[i], SizeBytes: size, Levels: blockmap.Levels(size, r.store.settings.Geometry),
		})
		md := manifestDisk{Name: d.Name, Format: d.Format, Source: d.Path}
		if d.Changes != nil {
			md.ChangeID = d.Changes.ChangeID
		}
		m.Disks = append(m.Disks, md)
	}
	m.Counters = r.total()
	for _, w := range []*packWriter{r.data, r.meta} {
		m.Counters.StoredBytes += w.bytes
		m.Counters.PackBytes += w.packs
		m.Counters.ParityBytes += w.parity
	}
	m.Counters.Nodes = r.nodes.nodes
	return m
}

// record writes a segment that holds the given records, and whatever packs and
// records were waiting for one.
func (o *Owner) record(records ...ledger.Record) error {
	o.commit.Lock()
	defer o.commit.Unlock()
	return o.recordNow(records...)
}

// recordNow is record for those who hold commit.
func (o *Owner) recordNow(records ...ledger.Record) error {
	if err := o.recordPacks(); err != nil {
		return err
	}
	o.mu.Lock()
	packs, voids := slices.Clone(o.unrecorded), slices.Clone(o.voids)
	o.mu.Unlock()
	if len(packs)+len(voids)+len(records) == 0 {
		return nil
	}
	if err := o.appendSegment(packs, append(slices.Clone(voids), records...), o.now(), ""); err != nil {
		return err
	}
	o.mu.Lock()
	o.voids = o.voids[len(voids):]
	o.mu.Unlock()
	return nil
}

// recordPacks writes segments of packs alone while there are too many for one.
func (o *Owner) recordPacks() error {
	for {
		o.mu.Lock()
		if len(o.unrecorded) <= ledger.MaxPacks {
			o.mu.Unlock()
			return nil
		}
		packs, voids := slices.Clone(o.unrecorded[:ledger.MaxPacks]), slices.Clone(o.voids)
		o.mu.Unlock()
		if err := o.appendSegment(packs, voids, o.now(), ""); err != nil {
			return err
		}
		o.mu.Lock()
		o.voids = o.voids[len(voids):]
		o.mu.Unlock()
	}
}

// appendSegment makes the next segment durable: packs first, then records. The
// caller holds commit. When it fails the segment's name may be taken, so this
// owner writes no other.
func (o *Owner) appendSegment(packs []ledger.Pack, records []ledger.Record, now time.Time, actor string) error {
	if o.ledgerLost != nil {
		return fmt.Errorf("write ledger: an earlier segment failed, open the repository again: %w", o.ledgerLost)
	}
	body := ledger.Body{Time: now.UTC(), Epoch: o.epoch, Actor: actor, Records: records, Packs: packs}
	prev := o.state.Head()
	text, head, err := ledger.Append(&prev, body, o.signer)
	if err != nil {
		return err
	}
	seg, err := ledger.ParseSegment(text)
	if err != nil {
		return err
	}
	if err := writeTwins(o.fsys, segmentPath(head.Number), text); err != nil {
		o.ledgerLost = err
		if isFull(err) {
			// One copy may be there. With none the name is free again, for when
			// there is room.
			o.ledgerLost = removeTwins(o.fsys, segmentPath(head.Number))
		}
		return fmt.Errorf("write ledger segment %d: %w", head.Number, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.guard.recorded(packs)
	o.unrecorded = slices.Delete(o.unrecorded, 0, len(packs))
	o.view.mu.Lock()
	defer o.view.mu.Unlock()
	if err := o.state.Add(seg); err != nil {
		o.ledgerLost = err
		return err
	}
	return nil
}
