package redirect

import (
	"errors"
	"fmt"
	"slices"
)

// fail notes that bytes which were to become durable are lost. Everything gives
// an error until the keeper has repaired the session.
func (s *Session) fail(err error) error {
	s.mu.Lock()
	if s.failure == nil && s.readOnly == nil {
		s.failure = err
	}
	s.mu.Unlock()
	s.wake()
	return fmt.Errorf("%w: %w", ErrFailed, err)
}

// failData is fail for a data file, which is not written again.
func (s *Session) failData(lay uint32, err error) error {
	s.mu.Lock()
	s.failedData[lay] = true
	s.mu.Unlock()
	return s.fail(err)
}

// repair brings the session back to its last durable state. After the first
// failure it goes on in new files, after the second it is read-only. When that
// state can't be read, nothing can, until the session is opened again.
func (s *Session) repair(cause error) {
	s.log.mu.Lock()
	s.log.cond.Broadcast() // who waits for a spare holds the gate
	s.log.mu.Unlock()
	s.gate.Lock()
	defer s.gate.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
	s.opt.Log.Error("redirect session lost its unsynced bytes", "err", cause, "failures", s.failures)
	for _, d := range s.disks {
		if d.migration != nil {
			d.migration.stop(fmt.Errorf("%w: %w", ErrFailed, cause))
		}
	}
	limit := ends{mapName: s.m.durable}
	for _, w := range s.log.files {
		limit[w.name] = w.durable.Load()
	}
	// A file whose sync failed is not asked again through the same descriptor,
	// and load may let go of layers and find them again.
	for _, d := range s.disks {
		for _, l := range d.layers {
			if err := l.file.Close(); err != nil {
				s.opt.Log.Warn("close a data file", "err", err)
			}
			l.file = nil
		}
	}
	err := s.load(limit)
	if err == nil {
		err = s.openLayers()
	}
	if err != nil {
		s.lost = err
		if s.log.active == nil {
			s.log.active = s.log.files[0] // nobody reads or writes it any more
		}
	}
	if err == nil && s.failures == 1 {
		err = s.startOver()
	}
	if err != nil || s.failures > 1 {
		s.readOnly = errors.Join(cause, err)
		s.opt.Log.Error("redirect session is read-only", "err", s.readOnly)
	}
	s.failure, s.blocked = nil, false
	s.newVerifier()
	s.log.cond.Broadcast()
}

// startOver brings what the log has to the data files, of a new layer if one of
// the present layer failed, and begins a new map and a new log. mu is held, and
// the gate.
func (s *Session) startOver() error {
	m := s.mode
	m.sealed = 0 // what was sealed may have lost its end
	if s.failedData[m.write] {
		next := m.layers[len(m.layers)-1] + 1
		if len(m.layers) == maxLayers || m.write != m.layers[len(m.layers)-1] {
			return errors.New("no room for another layer")
		}
		if err := s.makeLayer(next); err != nil {
			return err
		}
		m.layers, m.write = append(slices.Clone(m.layers), next), next
		s.setMode(m)
		if err := s.openLayers(); err != nil {
			return err
		}
	}
	gen := s.m.applied
	s.mu.Unlock() // what follows takes it where it must; the gate keeps everyone out
	defer s.mu.Lock()
	for _, w := range s.log.byGen() {
		gen = max(gen, w.gen)
		w.mode = m
		if err := s.copyOut(w, true); err != nil {
			return err
		}
		s.mu.Lock()
		s.applyTables(w)
		s.mu.Unlock()
	}
	for _, w := range s.log.files {
		gen = max(gen, w.gen)
	}
	if err := s.withReserve(func() error { return s.m.rewrite(s.disks, m, gen, s.opt.mapRoom()) }); err != nil {
		return err
	}
	s.mu.Lock()
	for _, w := range s.log.files {
		w.reset(w.gen, len(s.disks)) // the maps have it all
	}
	s.mu.Unlock()
	for i, w := range s.log.files {
		h := fileHeader{walMagic, s.id, gen + 1 + uint64(i), uint64(w.size)}
		if err := s.withReserve(func() error { return makeWAL(s.fs, i, h) }); err != nil {
			return err
		}
		if err := s.fs.SyncDir("."); err != nil {
			return err
		}
		if err := w.file.Close(); err != nil {
			s.opt.Log.Warn("close a failed log", "err", err)
		}
		if _, err := s.openWAL(i); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.active, s.log.sealed, s.log.spare = s.log.files[0], nil, s.log.files[1]
	return nil
}

// makeLayer makes the data files of a layer.
func (s *Session) makeLayer(id uint32) error {
	for _, d := range s.disks {
		if err := makeData(s.fs, d.index, id, d.size); err != nil {
			return err
		}
	}
	return s.fs.SyncDir(".")
}
