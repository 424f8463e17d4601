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
	TimeLeft   time.Duration // until the space is used up at the pace since opening; 0: not known
}

// Stats describes the session as it is.
func (s *Session) Stats() (Stats, error) {
	free, err := s.fs.Free()
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Stats{
		DirtyBytes: s.dirtyLocked(), UsedBytes: s.used * grainBytes, FreeBytes: int64(min(free, 1<<62)),
		QuotaBytes: s.opt.QuotaBytes, Layers: len(s.mode.layers), Full: !s.reserved, ReadOnly: s.readOnly != nil,
	}
	for _, w := range s.log.byGen() {
		st.LogBytes += w.end - walStart
	}
	if q := s.opt.QuotaBytes; q > 0 {
		st.FreeBytes = min(st.FreeBytes, max(0, q-st.UsedBytes))
	}
	if n := s.grains.Load() * grainBytes; n > 0 {
		st.TimeLeft = timeLeft(st.FreeBytes, n, s.opt.Now().Sub(s.opened))
	}
	return st, err
}

// timeLeft is how long free bytes last when n were taken in the time passed.
func timeLeft(free, n int64, passed time.Duration) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	left := float64(free) / float64(n) * float64(passed)
	if left > float64(most) {
		return most
	}
	return time.Duration(left)
}
