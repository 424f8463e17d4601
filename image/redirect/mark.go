package redirect

import "time"

// markAfter is how long the log is left alone after a sync before a mark says
// that there was one. A busy session needs none: its next batch says it.
const markAfter = 100 * time.Millisecond

// mark makes the log say that all of it is synced, in a batch without records:
// losing that one loses nothing. It tells whether there is nothing left to say;
// a full log has no room before its checkpoint.
func (s *Session) mark() (said bool, err error) {
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.usable(true); err != nil || !s.untold() {
		return true, err
	}
	if err := s.syncLog(l.active); err != nil {
		return true, err
	}
	if l.active.end+grainBytes > l.active.size {
		if l.spare == nil {
			return false, nil
		}
		if err := s.turn(); err != nil {
			return true, err
		}
	}
	if err := s.append(nil); err != nil {
		return true, err
	}
	return true, s.syncLog(l.active)
}

// untold tells whether bytes of the log were synced and nothing in it says so
// yet. Damage to them would look like a batch that was being written when the
// power went. log.mu is held.
func (s *Session) untold() bool {
	w := s.log.active
	if w.end > walStart {
		return w.told < w.durable.Load()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.log.sealed != nil // whose end the first batch of w is to tell
}

// toMark has the keeper see to a mark.
func (s *Session) toMark() {
	select {
	case s.synced <- struct{}{}:
	default:
	}
}

// A markTimer has the keeper write a mark once the log was left alone. The zero
// value is stopped. Only the keeper uses it.
type markTimer struct {
	c   <-chan time.Time
	gen uint64
	end int64
}

// start begins to wait, unless it waits already.
func (t *markTimer) start(s *Session) {
	if t.c == nil {
		t.c = time.After(s.opt.markAfter)
		t.gen, t.end = s.log.tail()
	}
}

// ring writes the mark, or waits again when the log has grown meanwhile.
func (t *markTimer) ring(s *Session) {
	t.c = nil
	if s.usable(true) != nil {
		return // a repair begins anew
	}
	said := false
	if gen, end := s.log.tail(); gen == t.gen && end == t.end {
		// Of a failure the session knows: it is going to be repaired.
		said, _ = s.mark()
	}
	if !said {
		t.start(s)
	}
}

// tail returns where the log ends.
func (l *wal) tail() (gen uint64, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active.gen, l.active.end
}
