package redirect

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"holdfast/repo/vfs"
)

// keep is the session's keeper: one goroutine that makes checkpoints, writes
// back, marks the log and repairs.
func (s *Session) keep() {
	tick := time.NewTicker(s.opt.often)
	defer tick.Stop()
	var mark markTimer
	for {
		select {
		case <-s.quit:
			return
		case <-s.synced:
			mark.start(s)
			continue
		case <-mark.c:
			mark.ring(s)
			continue
		case <-s.kick:
		case <-tick.C:
			s.warn()
			s.mu.RLock()
			blocked := s.blocked
			s.mu.RUnlock()
			if !blocked {
				continue
			}
		}
		for s.step() {
		}
	}
}

// step does one thing that is due, and tells whether there may be more.
func (s *Session) step() bool {
	s.mu.RLock()
	failure, closed, readOnly := s.failure, s.closed, s.readOnly
	sealed := s.log.sealed
	loose := s.looseBytes
	s.mu.RUnlock()
	switch {
	case closed:
		return false
	case failure != nil:
		s.repair(failure)
		return true
	case readOnly != nil:
		return false
	case sealed != nil:
		err := s.checkpoint(sealed)
		if err != nil && !errors.Is(err, ErrNoSpace) {
			_ = s.fail(err)
		}
		s.setBlocked(err)
		return err == nil || !errors.Is(err, ErrNoSpace)
	case loose >= s.opt.DirtyBytes/2:
		// Without the gate: whoever holds it alone has no loose grains, and may
		// be waiting for us. The records wait for the next flush.
		return s.commitLoose() == nil
	}
	return false
}

// setBlocked notes that a checkpoint found no space, or that it did.
func (s *Session) setBlocked(err error) {
	s.mu.Lock()
	s.blocked = errors.Is(err, ErrNoSpace)
	s.mu.Unlock()
	s.log.mu.Lock()
	s.log.cond.Broadcast()
	s.log.mu.Unlock()
}

// checkpoint brings what a sealed log file has to the data files and the map,
// and makes it the spare one.
func (s *Session) checkpoint(w *walFile) error {
	if err := s.roomInMap(); err != nil {
		return err
	}
	if err := s.copyOut(w, false); err != nil {
		return err
	}
	if err := s.m.append(s.mapRecords(w), w.mode, w.gen); err != nil {
		return err
	}
	s.dataMu.Lock() // a commit between its sync and its records must not see grains change
	s.mu.Lock()
	s.applyTables(w)
	s.log.sealed = nil
	gen := s.log.active.gen + 1
	s.mu.Unlock()
	s.dataMu.Unlock()
	w.users.Lock() // readers that found their bytes here are done
	err := s.recycle(w, gen)
	w.users.Unlock()
	if err != nil {
		return err
	}
	l := &s.log
	l.mu.Lock()
	s.mu.Lock()
	l.spare = w
	w.given++
	s.mu.Unlock()
	l.cond.Broadcast()
	l.mu.Unlock()
	return nil
}

// roomInMap sees to it that the map file takes another checkpoint.
func (s *Session) roomInMap() error {
	room := s.opt.mapRoom()
	if s.m.cap-s.m.end >= room {
		return nil
	}
	return s.withReserve(func() error { return s.m.rewrite(s.disks, s.m.mode, s.m.applied, room) })
}

// withReserve does something, and when the volume is full gives up the reserve
// and does it again.
func (s *Session) withReserve(do func() error) error {
	err := do()
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	if err := s.releaseReserve(); err != nil {
		return err
	}
	return spaceError(do())
}

// sorted returns the grains of a table in order.
func (t table) sorted() []uint64 { return slices.Sorted(maps.Keys(t)) }

// copyOut writes the records of w to the data files and syncs them.
func (s *Session) copyOut(w *walFile, repairing bool) error {
	most := 1
	for _, t := range w.tables {
		most = max(most, len(t))
	}
	buf := make([]byte, 0, min(maxChunk, most*grainBytes))
	var touched []vfs.File
	for i, t := range w.tables {
		d := s.disks[i]
		file := d.dataFile(w.mode.write)
		start := uint64(0) // of buf
		flush := func() error {
			if len(buf) == 0 {
				return nil
			}
			err := s.withReserve(func() error {
				_, err := file.WriteAt(buf, int64(start)*grainBytes)
				return err
			})
			buf = buf[:0]
			return err
		}
		any := false
		for _, g := range t.sorted() {
			c := t[g]
			any = any || c.r.kind == kindData
			if c.r.kind != kindData || c.r.inData {
				continue
			}
			if len(buf) == cap(buf) || g != start+uint64(len(buf)/grainBytes) {
				if err := flush(); err != nil {
					return err
				}
				start = g
			}
			n := len(buf)
			buf = buf[:n+grainBytes]
			if m, err := w.file.ReadAt(buf[n:], c.r.off+int64(c.i)*grainBytes); m < grainBytes {
				return fmt.Errorf("read %s at %d: %w", w.name, c.r.off, err)
			}
		}
		if err := flush(); err != nil {
			return err
		}
		if any {
			touched = append(touched, file)
		}
	}
	s.dataMu.Lock() // one sync of a file at a time
	defer s.dataMu.Unlock()
	// After another one failed this sync may say that all is well.
	if err := s.usable(false); err != nil && !repairing {
		return err
	}
	for _, f := range touched {
		if err := syncData(f); err != nil {
			return s.failData(w.mode.write, fmt.Errorf("sync a data file of layer %d: %w", w.mode.write, err))
		}
	}
	return nil
}

// mapRecords returns what the map is to learn from w.
func (s *Session) mapRecords(w *walFile) []record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	lay := w.mode.write
	var out []record
	for _, r := range w.mapped {
		out = append(out, record{kind: kindData, disk: r.d.index, layer: lay, first: r.first, count: uint32(r.count)})
	}
	for i, t := range w.tables {
		d := s.disks[i]
		var run record
		news := false // in run
		end := func() {
			if news {
				out = append(out, run)
			}
			news = false
		}
		for _, g := range t.sorted() {
			// Runs stay whole, with what the map has already: their parts might
			// be more than mapRoom.
			if k := t[g].r.kind; run.kind != k || run.first+uint64(run.count) != g {
				end()
				run = record{kind: k, disk: d.index, layer: lay, first: g}
			}
			run.count++
			news = news || !d.hasState(lay, g, run.kind.state())
		}
		end()
	}
	for _, r := range w.targets {
		out = append(out, record{kind: kindTarget, disk: r.d.index, count: uint32(len(r.name)), payload: r.name})
	}
	return out
}

func (k kind) state() state {
	if k == kindZero {
		return stateZero
	}
	return stateData
}

// hasState tells whether the map needs no record to say that a grain has a
// state in a layer and none above it.
func (d *Disk) hasState(lay uint32, g uint64, st state) bool {
	for _, l := range d.layers {
		switch {
		case l.id == lay && l.grains.get(g) != st:
			return false
		case l.id > lay && l.grains.get(g) != stateBase:
			return false
		}
	}
	return true
}

// applyTables brings the map in memory to where w leads. mu is held.
func (s *Session) applyTables(w *walFile) {
	for i, t := range w.tables {
		d := s.disks[i]
		at := slices.IndexFunc(d.layers, func(l *layer) bool { return l.id == w.mode.write })
		l := d.layers[at]
		for g, c := range t {
			if c.r.kind == kindZero && (c.hadData || l.grains.get(g) == stateData) {
				s.used--
			}
			d.setRun(at, g, 1, c.r.kind.state())
		}
	}
}

// drain makes a checkpoint of everything that is in the log.
func (s *Session) drain() error {
	if err := s.flush(); err != nil {
		return err
	}
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.active
	if w.end == walStart { // what there is lies in the other one
		if w = l.files[0]; w == l.active {
			w = l.files[1]
		}
		if l.spare == w {
			return nil
		}
	}
	// Not until there is a spare file: writers may take each one.
	for given := w.given; w.given == given; {
		next := s.wait
		if l.active == w {
			next = s.turn
		}
		if err := next(); err != nil {
			return err
		}
	}
	return nil
}

// Checkpoint brings everything that was written to the data files and the map.
// It is never needed; a session that was just brought there opens faster.
func (s *Session) Checkpoint() error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.commit(); err != nil {
		return err
	}
	return s.drain()
}

// byGen returns the log files that have records, the older one first.
func (l *wal) byGen() []*walFile {
	var files []*walFile
	for _, w := range []*walFile{l.sealed, l.active} {
		if w != nil {
			files = append(files, w)
		}
	}
	slices.SortFunc(files, func(a, b *walFile) int { return cmp.Compare(a.gen, b.gen) })
	return files
}
