package redirect

import (
	"log/slog"
	"math"
	"time"
)

// SpaceWarning says that what a session may use is used up to a level, or that
// it is below that again.
type SpaceWarning struct {
	Quota      bool          // of the session's quota; otherwise of the volume
	Percent    int           // the level: 70, 85 or 95; 0: below all of them
	UsedBytes  int64         // by the session's data files; of the volume, by everybody
	TotalBytes int64         // the quota; the size of the volume
	TimeLeft   time.Duration // until it is used up, at the pace of the last minutes; 0: not known
}

const (
	// warnBack is how many points below a level the use must fall until that
	// counts as below.
	warnBack = 5

	// paceMemory is the time after which what was used weighs a third.
	paceMemory = 10 * time.Minute

	longest = 100 * 365 * 24 * time.Hour
)

var warnLevels = [...]int{0, 70, 85, 95}

// gauge watches the use of some space: its level and its pace.
type gauge struct {
	level         int // index of warnLevels
	at            time.Time
	used          int64
	taken, passed float64 // bytes and seconds, of which the older count less
}

// look notes how much is used.
func (g *gauge) look(now time.Time, used int64) {
	if g.at.IsZero() {
		g.at, g.used = now, used
	}
	seconds := max(0, now.Sub(g.at).Seconds())
	fade := math.Exp(-seconds / paceMemory.Seconds())
	g.taken = g.taken*fade + float64(used-g.used)
	g.passed = g.passed*fade + seconds
	g.at, g.used = now, used
}

// left is how long free bytes last at the pace seen; 0: not known.
func (g *gauge) left(free int64) time.Duration {
	if g.taken <= 0 || g.passed <= 0 {
		return 0
	}
	left := float64(free) / g.taken * g.passed * float64(time.Second)
	return time.Duration(min(left, float64(longest)))
}

// moved brings the level to where the use is, and tells whether it was another.
func (g *gauge) moved(total int64) bool {
	percent, before := 100*float64(g.used)/float64(total), g.level
	for g.level+1 < len(warnLevels) && percent >= float64(warnLevels[g.level+1]) {
		g.level++
	}
	for g.level > 0 && percent < float64(warnLevels[g.level]-warnBack) {
		g.level--
	}
	return g.level != before
}

// room is what a session may use as it is now.
type room struct {
	used, quota   int64 // of the quota; quota 0: there is none
	taken, volume int64 // of the volume
}

// look measures the session's space and notes it.
func (s *Session) look() (room, error) {
	free, err := s.fs.Free()
	if err != nil {
		return room{}, err
	}
	volume, err := volumeBytes(s.fs)
	if err != nil {
		return room{}, err
	}
	now := s.opt.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := room{used: s.used * grainBytes, quota: s.opt.QuotaBytes, volume: volume}
	left := int64(min(free, math.MaxInt64/2))
	if r.volume == 0 { // not known: what it has for us
		r.volume = left + r.used + s.opt.WALBytes + s.opt.ReserveBytes
	}
	r.taken = max(0, r.volume-left)
	s.byQuota.look(now, r.used)
	s.byVolume.look(now, r.taken)
	return r, nil
}

// warn measures the space and tells of every level that was crossed. Only Open
// and the keeper call it.
func (s *Session) warn() {
	r, err := s.look()
	if err != nil {
		return // whoever writes will hear of it
	}
	s.mu.Lock()
	var list []SpaceWarning
	if r.quota > 0 && s.byQuota.moved(r.quota) {
		list = append(list, SpaceWarning{true, warnLevels[s.byQuota.level], r.used, r.quota, s.byQuota.left(r.quota - r.used)})
	}
	if s.byVolume.moved(r.volume) {
		list = append(list, SpaceWarning{false, warnLevels[s.byVolume.level], r.taken, r.volume, s.byVolume.left(r.volume - r.taken)})
	}
	s.mu.Unlock()
	for _, w := range list {
		w.log(s.opt.Log)
		if s.opt.Warn != nil {
			s.opt.Warn(w)
		}
	}
}

func (w SpaceWarning) log(l *slog.Logger) {
	of := "volume"
	if w.Quota {
		of = "quota"
	}
	if w.Percent == 0 {
		l.Info("a redirect session has space again", "of", of, "used", w.UsedBytes, "total", w.TotalBytes)
		return
	}
	l.Warn("space for redirected writes runs out", "of", of, "percent", w.Percent, "used", w.UsedBytes, "total", w.TotalBytes, "left", w.TimeLeft)
}
