package child

import (
	"fmt"
	"time"

	"holdfast/fs"
)

// watch is the state of the watchdog of one process. It looks at what the calls
// under way have cost: processor time, of which each gets an equal share, and
// time in which no disk was busy for the process, who then has nothing to wait
// for but itself.
type watch struct {
	k          *conn
	cpu        func() (time.Duration, error) // that the process has used
	cpuLimit   time.Duration
	waitLimit  time.Duration
	totalLimit time.Duration

	last    time.Time
	lastCPU time.Duration
}

// maxTotal is how long a call may take, whatever the disk does.
const maxTotal = 15 * time.Minute

// look charges the calls under way for the time since the last look. An error
// says which one took too much; the process is then to be killed.
func (w *watch) look(now time.Time) error {
	used, err := w.cpu()
	if err != nil {
		return nil // it is gone, as others will notice
	}
	passed, burnt := now.Sub(w.last), used-w.lastCPU
	w.last, w.lastCPU = now, used
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	busy := w.k.reading.Load() > 0
	for _, c := range w.k.calls {
		c.cpu += burnt / time.Duration(len(w.k.calls))
		if !busy {
			c.waiting += min(passed, now.Sub(c.began))
		}
		why := ""
		switch {
		case c.cpu > w.cpuLimit:
			why = fmt.Sprintf("took more than %v of processor time", w.cpuLimit)
		case c.waiting > w.waitLimit:
			why = fmt.Sprintf("took more than %v without reading", w.waitLimit)
		case now.Sub(c.began) > w.totalLimit:
			why = fmt.Sprintf("took more than %v", w.totalLimit)
		default:
			continue
		}
		c.guilty = fmt.Errorf("%v: %s: %w", c.kind, why, fs.ErrDamaged)
		return fmt.Errorf("killed: to %v %s", c.kind, why)
	}
	return nil
}
