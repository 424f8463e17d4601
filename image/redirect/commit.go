package redirect

import (
	"errors"
	"fmt"
)

func (s *Session) flushAndSync() error {
	if err := s.flush(); err != nil {
		return err
	}
	l := &s.log
	l.mu.Lock()
	w, gen, end := l.active, l.active.gen, l.active.end
	l.mu.Unlock()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if err := s.usable(false); err != nil {
		return err
	}
	// When the file has had its turn meanwhile, the turn has synced it.
	if w.gen != gen || w.durable.Load() >= end {
		return nil
	}
	if err := syncData(w.file); err != nil {
		return s.fail(err)
	}
	w.durable.Store(end)
	s.toMark()
	return nil
}

// flush writes what is queued to the log, without a sync.
func (s *Session) flush() error {
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		s.mu.RLock()
		err := s.usableLocked(false)
		n, size := s.plan()
		s.mu.RUnlock()
		if err != nil || n == 0 {
			return err
		}
		w := l.active
		if w.end+size > w.size || w.entries+n > s.opt.maxEntries() && w.entries > 0 {
			if err := s.turn(); err != nil {
				return err
			}
			continue
		}
		s.mu.RLock()
		recs := s.queue[:n:n]
		s.mu.RUnlock()
		if err := s.append(recs); err != nil {
			return err
		}
		s.mu.Lock()
		for _, r := range recs {
			s.queueBytes -= r.bytes()
		}
		s.queue = s.queue[n:]
		if len(s.queue) == 0 {
			s.queue = nil
		}
		s.mu.Unlock()
	}
}

// plan says how many records of the queue make the next batch, and its size in
// the log. mu is held.
func (s *Session) plan() (n int, size int64) {
	limit := min(maxBatch, (s.log.active.size-walStart)/2)
	var payload int64
	for _, r := range s.queue {
		rc := record{kind: r.kind, count: r.count}
		more := int64(rc.payloadBytes(true))
		whole := headBytes(n+1, grainBytes) + payload + more
		if n > 0 && whole > limit || n == s.opt.maxEntries() {
			break
		}
		n, payload, size = n+1, payload+more, whole
	}
	return n, size
}

// enqueue puts a record in the row of those to be logged. mu is held.
func (s *Session) enqueue(r *rec) {
	s.queue = append(s.queue, r)
	s.queueBytes += r.bytes()
	if r.kind == kindMapped || r.kind == kindTarget {
		return
	}
	l := r.d.layer(s.mode.write)
	for i := range r.count {
		g := r.first + uint64(i)
		old := r.d.pending[g]
		r.d.pending[g] = cell{r, i, r.kind == kindData || old.hadData}
		if l.grains.get(g) == stateLoose {
			l.grains.set(g, stateBase) // the record has the whole grain
		}
	}
}

// Commit makes every write that has returned durable, of all disks.
func (s *Session) Commit() error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	err := s.commit()
	for _, d := range s.disks {
		if d.target != nil {
			err = errors.Join(err, d.syncTarget())
		}
	}
	return err
}

func (s *Session) commit() error {
	if err := s.usable(true); err != nil {
		return err
	}
	if err := s.commitLoose(); err != nil {
		return err
	}
	return s.sync()
}

// commitLoose gives the grains that are in data files only their records: first
// the bytes must be durable.
func (s *Session) commitLoose() error {
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	s.mu.Lock()
	runs := s.loose
	s.loose = nil
	write := s.mode.write
	err := s.usableLocked(true)
	s.mu.Unlock()
	if err != nil || len(runs) == 0 {
		return err
	}
	synced := make(map[*Disk]bool)
	for _, r := range runs {
		if !synced[r.d] {
			synced[r.d] = true
			if err := syncData(r.d.dataFile(write)); err != nil {
				return s.failData(write, fmt.Errorf("sync %s: %w", dataName(r.d.index, write), err))
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range runs {
		s.looseBytes -= int64(r.count) * grainBytes
		m := &r.d.layer(write).grains
		for g, end := r.first, r.first+r.count; g < end; g++ {
			first := g
			for g < end && m.get(g) == stateLoose && g-first < 1<<20 {
				m.set(g, stateData)
				g++
			}
			if g > first {
				s.enqueue(&rec{kind: kindMapped, d: r.d, first: first, count: uint32(g - first)})
				g--
			}
		}
	}
	return nil
}

// wake has the keeper look for something to do.
func (s *Session) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}
