package cli

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// outlivePipes lets long work go on when whoever read its output has gone: for
// a program that was asked to restore, half a listing is no reason to stop.
// Listings die of it, as one expects of "holdfast repo points DIR | head".
func outlivePipes() { signal.Ignore(syscall.SIGPIPE) }

// meter shows how far long work is: a bar with bytes, rate and time left on a
// terminal, one line a minute elsewhere, nothing with --quiet or --json.
type meter struct {
	out   io.Writer
	what  string
	unit  string        // what is counted; empty: bytes
	every time.Duration // between lines
	now   func() time.Time
	bar   *progressbar.ProgressBar // nil where lines are printed

	mu    sync.Mutex // guards the rest
	total int64
	start time.Time
	line  time.Time // of the last line
}

const lineEvery = time.Minute

// unknownTotal is the total of work of which nobody knows how much it is.
const unknownTotal = -1

// progress starts a meter for work of total bytes; nil when nothing is shown.
func (a *app) progress(what string, total int64) *meter { return a.progressOf(what, "", total) }

// progressOf is progress for what is counted in units, for example packs.
func (a *app) progressOf(what, unit string, total int64) *meter {
	if a.quiet || a.json {
		return nil
	}
	m := &meter{out: a.err, what: what, unit: unit, total: total, every: lineEvery, now: time.Now}
	m.start = m.now()
	m.line = m.start
	if f, ok := a.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		bytes := unit == ""
		m.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(f), progressbar.OptionSetDescription(what),
			progressbar.OptionShowBytes(bytes), progressbar.OptionShowTotalBytes(bytes), progressbar.OptionUseIECUnits(true),
			progressbar.OptionShowCount(), progressbar.OptionSetItsString(unit),
			progressbar.OptionSetPredictTime(bytes), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	}
	return m
}

// at says that done of the total is behind us.
func (m *meter) at(done int64) {
	m.show(done, nil)
}

// of says that done is behind us, and what the total is known to be by now.
func (m *meter) of(done, total int64) { m.show(done, &total) }

func (m *meter) show(done int64, total *int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if total != nil && *total != m.total {
		if m.total = *total; m.bar != nil {
			m.bar.ChangeMax64(m.total)
		}
	}
	if m.bar != nil {
		m.bar.Set64(done) //nolint:errcheck // a terminal that went away is no reason to stop
		return
	}
	now := m.now()
	if now.Sub(m.line) < m.every {
		return
	}
	m.line = now
	fmt.Fprintln(m.out, m.text(done, now))
}

// text is one line of progress.
func (m *meter) text(done int64, now time.Time) string {
	switch {
	case m.total < 0 && m.unit != "":
		return fmt.Sprintf("%s: %d %s", m.what, done, m.unit)
	case m.total < 0:
		return fmt.Sprintf("%s: %s, %s/s", m.what, formatSize(done), formatSize(perSecond(done, now.Sub(m.start))))
	case m.unit != "":
		return fmt.Sprintf("%s: %d of %d %s", m.what, done, m.total, m.unit)
	}
	rate := perSecond(done, now.Sub(m.start))
	s := fmt.Sprintf("%s: %s of %s, %s/s", m.what, formatSize(done), formatSize(m.total), formatSize(rate))
	if rate > 0 && done < m.total {
		left := time.Duration(float64(m.total-done) / float64(rate) * float64(time.Second))
		s += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return s
}

// end takes the bar away. What was left unfinished keeps its last state on the
// screen, so that one sees how far it came.
func (m *meter) end(complete bool) {
	if m == nil || m.bar == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if complete {
		m.bar.Finish() //nolint:errcheck // as above
	} else {
		m.bar.Exit() //nolint:errcheck // as above
		fmt.Fprintln(m.out)
	}
}

// bar is a meter that begins with the first report, for work that may have to
// wait before.
type bar struct {
	app        *app
	what, unit string // as of progressOf
	meter      *meter
}

func (b *bar) at(done, total int64) {
	if b.meter == nil {
		b.meter = b.app.progressOf(b.what, b.unit, total)
	}
	b.meter.of(done, total)
}

func (b *bar) end(complete bool) { b.meter.end(complete) }
