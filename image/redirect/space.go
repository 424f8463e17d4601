package redirect

import (
	"errors"
	"io/fs"
	"time"
)

// reserveWhole takes the reserve's space again, and tells whether it is there.
func (s *Session) reserveWhole() bool {
	f, err := s.fs.OpenWrite(reserveName)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.fs.Create(reserveName)
	}
	if err != nil {
		return false
	}
	err = f.Preallocate(s.opt.ReserveBytes)
	if err != nil {
		err = errors.Join(err, f.Truncate(0)) // it may have taken some
	}
	return errors.Join(err, f.Close()) == nil
}

// releaseReserve gives the reserve's space back. New grains are refused until
// it is whole again.
func (s *Session) releaseReserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved = false
	s.opt.Log.Warn("the volume of a redirect session is full: its reserve is in use")
	f, err := s.fs.OpenWrite(reserveName)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(0), f.Sync(), f.Close())
}

// Stats of a session.
type Stats struct {
	DirtyBytes int64         // written and not durable
	LogBytes   int64         // in the log and not checkpointed
	UsedBytes  int64         // in data files
	FreeBytes  int64         // of the volume, beside the reserve; no more than the quota leaves
	QuotaBytes int64         // 0: none
	Layers     int           // 1, or more while sealed or after a failed data file
	Full       bool          // the reserve is in use
	ReadOnly   bool          // after a second failed sync
	TimeLeft   time.Duration // until quota or volume is used up, at the pace of the last minutes; 0: not known
}

// Stats describes the session as it is.
func (s *Session) Stats() (Stats, error) {
	r, err := s.look()
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Stats{
		DirtyBytes: s.dirtyLocked(), UsedBytes: s.used * grainBytes, FreeBytes: r.volume - r.taken,
		QuotaBytes: s.opt.QuotaBytes, Layers: len(s.mode.layers), Full: !s.reserved, ReadOnly: s.readOnly != nil,
	}
	for _, w := range s.log.byGen() {
		st.LogBytes += w.end - walStart
	}
	st.TimeLeft = s.byVolume.left(st.FreeBytes)
	if r.quota > 0 {
		left := max(0, r.quota-r.used)
		st.FreeBytes = min(st.FreeBytes, left)
		if d := s.byQuota.left(left); d > 0 && (d < st.TimeLeft || st.TimeLeft == 0) {
			st.TimeLeft = d
		}
	}
	return st, err
}
