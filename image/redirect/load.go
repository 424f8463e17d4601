package redirect

import (
	"cmp"
	"slices"
)

// ends says up to where files are known to be durable, by name.
type ends map[string]int64

// load reads the map and the log and makes the session's state that which they
// say. limit is nil at opening, and the files are read as far as they go; after
// a failed sync no further than they are durable. Nobody else uses the session.
func (s *Session) load(limit ends) error {
	s.queue, s.queueBytes, s.loose, s.looseBytes = nil, 0, nil, 0
	s.log.active, s.log.sealed, s.log.spare = nil, nil, nil
	for _, d := range s.disks {
		d.pending, d.targetName = make(table), ""
		for _, l := range d.layers {
			l.grains = grainMap{}
		}
	}
	if err := s.loadMap(limit); err != nil {
		return err
	}
	if err := s.loadLog(limit); err != nil {
		return err
	}
	s.recount()
	return nil
}

// recount counts what is used, when nothing is queued and nobody writes. mu is
// held, or nobody else knows the session.
func (s *Session) recount() {
	s.used = 0
	for _, d := range s.disks {
		s.used += d.countUsed()
	}
}

func (s *Session) loadMap(limit ends) error {
	m := &s.m
	size := limit[mapName]
	if limit == nil {
		*m = mapLog{fs: s.fs, id: s.id}
		if err := m.open(); err != nil {
			return err
		}
		size = m.cap
	}
	batches := 0
	var err error
	m.end, m.prev, err = m.row(size).scan(func(b *batch) error {
		batches++
		m.applied, m.mode = b.applied, b.mode
		s.setMode(b.mode)
		for i := range b.records {
			if err := s.applyMap(&b.records[i], int64(b.off)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && (batches == 0 || m.end < m.least || limit != nil && m.end != size) {
		err = damaged(mapName, m.end, "ends before its time")
	}
	m.durable = m.end
	return err
}

func (s *Session) setMode(m mode) {
	s.mode = m
	for _, d := range s.disks {
		d.setMode(m)
	}
}

// check gives an error for a record about what the session does not have.
func (s *Session) check(r *record, name string, off int64) error {
	if int(r.disk) >= len(s.disks) {
		return damaged(name, off, "a record about disk %d", r.disk)
	}
	grains := s.disks[r.disk].grainCount()
	if r.kind == kindPage && r.first > grains/pageGrains || r.kind != kindPage && r.kind != kindTarget && (r.first > grains || uint64(r.count) > grains-r.first) {
		return damaged(name, off, "a record beyond the end of disk %d", r.disk)
	}
	return nil
}

// applyMap makes what a record of the map file says.
func (s *Session) applyMap(r *record, off int64) error {
	if err := s.check(r, mapName, off); err != nil {
		return err
	}
	d := s.disks[r.disk]
	if r.kind == kindTarget {
		d.targetName = string(r.payload[:r.count])
		return nil
	}
	at := slices.IndexFunc(d.layers, func(l *layer) bool { return l.id == r.layer })
	if at < 0 {
		return damaged(mapName, off, "a record about layer %d", r.layer)
	}
	switch r.kind {
	case kindPage:
		d.layers[at].grains.setPage(r.first, r.payload)
	case kindData, kindMapped:
		d.setRun(at, r.first, uint64(r.count), stateData)
	case kindZero:
		d.setRun(at, r.first, uint64(r.count), stateZero)
	}
	return nil
}

// setRun gives grains a state in a layer, and none in those above it: what is
// written below is newer, for that happens only when layers are merged.
func (d *Disk) setRun(at int, first, count uint64, st state) {
	d.layers[at].grains.setRun(first, count, st)
	for _, l := range d.layers[at+1:] {
		l.grains.setRun(first, count, stateBase)
	}
}

func (s *Session) loadLog(limit ends) error {
	files := make([]*walFile, 0, 2)
	for i := range 2 {
		w := s.log.files[i]
		if limit == nil {
			var err error
			if w, err = s.openWAL(i); err != nil {
				return err
			}
		} else {
			w.reset(w.gen, len(s.disks))
		}
		files = append(files, w)
	}
	slices.SortFunc(files, func(a, b *walFile) int { return cmp.Compare(a.gen, b.gen) })
	live := files
	for len(live) > 0 && live[0].gen <= s.m.applied {
		live = live[1:]
	}
	for i, w := range live {
		if w.gen != s.m.applied+1+uint64(i) {
			return damaged(w.name, 24, "has generation %d, the map has come to %d: one between them is missing", w.gen, s.m.applied)
		}
		if err := s.replay(w, limit); err != nil {
			return err
		}
	}
	l := &s.log
	switch {
	case len(live) == 2 && live[1].end > walStart:
		l.sealed, l.active = live[0], live[1]
		if l.active.prior != l.sealed.end {
			return damaged(l.sealed.name, l.sealed.end, "ends here and should go on to %d", l.active.prior)
		}
	case len(live) == 2:
		l.active, l.spare = live[0], live[1]
	case len(live) == 1:
		l.active, l.spare = live[0], files[0] // stale: recycleStale
	default:
		l.active, l.spare = files[0], files[1]
	}
	return nil
}

// replay reads a log file into its tables.
func (s *Session) replay(w *walFile, limit ends) error {
	size := w.size
	if limit != nil {
		size = limit[w.name]
	}
	first := true
	end, last, err := w.row(size).scan(func(b *batch) error {
		if first {
			w.mode, w.prior, first = b.mode, int64(b.prior), false
			s.setMode(b.mode)
		} else if b.mode.write != w.mode.write {
			return damaged(w.name, int64(b.off), "goes on in another layer")
		}
		w.told = b.tells()
		at := int64(b.off) + headBytes(len(b.records), grainBytes)
		for i := range b.records {
			r := &b.records[i]
			if err := s.check(r, w.name, int64(b.off)); err != nil {
				return err
			}
			s.applyLog(w, r, at)
			at += int64(r.payloadBytes(true))
		}
		return nil
	})
	if err == nil && limit != nil && end != size {
		err = damaged(w.name, end, "ends before its time")
	}
	w.end, w.prev = end, last
	w.durable.Store(end)
	return err
}

// applyLog notes what a record of the log says; its bytes are at off.
func (s *Session) applyLog(w *walFile, r *record, off int64) {
	d := s.disks[r.disk]
	switch r.kind {
	case kindTarget:
		d.targetName = string(r.payload[:r.count])
	case kindMapped:
		d.layer(w.mode.write).grains.setRun(r.first, uint64(r.count), stateData)
	case kindData, kindZero:
	default:
		return
	}
	w.add(&rec{kind: r.kind, d: d, first: r.first, count: r.count, w: w, off: off, name: []byte(d.targetName)}, false)
}

// countUsed counts the grains that take space.
func (d *Disk) countUsed() int64 {
	var n int64
	for _, l := range d.layers {
		n += l.grains.count[stateData]
	}
	top := d.layer(d.s.mode.write)
	counted := make(map[uint64]bool) // by the other file
	for _, w := range d.s.log.byGen() {
		for g, c := range w.tables[d.index] {
			if c.hadData && !counted[g] && top.grains.get(g) != stateData {
				counted[g] = true
				n++
			}
		}
	}
	return n
}

// recycleStale makes log files that the map has already the spare one, or both.
func (s *Session) recycleStale() error {
	l := &s.log
	if l.active.gen <= s.m.applied {
		if err := s.recycle(l.active, s.m.applied+1); err != nil {
			return err
		}
	}
	if l.spare != nil && l.spare.gen <= l.active.gen {
		return s.recycle(l.spare, l.active.gen+1)
	}
	return nil
}

// recycle makes w an empty log file of another generation.
func (s *Session) recycle(w *walFile, gen uint64) error {
	s.log.syncMu.Lock()
	defer s.log.syncMu.Unlock()
	if _, err := w.file.WriteAt(fileHeader{walMagic, s.id, gen, uint64(w.size)}.encode(), 0); err != nil {
		return err
	}
	if err := syncData(w.file); err != nil {
		return err
	}
	w.reset(gen, len(s.disks))
	return nil
}
