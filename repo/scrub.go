package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// ScrubOptions say what a scrub reads, and how fast. The zero value reads every
// stored byte as fast as two cores can.
type ScrubOptions struct {
	// Deep decodes every record of a pack whose bytes are right, and compares
	// its digests, which needs the key of a sealed repository, and then follows
	// every restore point down to its chunks.
	Deep bool

	// OlderThan leaves out packs that were verified less long ago.
	OlderThan time.Duration

	// Sample is the share of the bytes to read, above 0 and below 1: of the
	// packs that were verified longest ago, so that one such scrub after the
	// other reads everything. 0 is everything.
	Sample float64

	// Restart begins from the start. Without it a scrub of everything goes on
	// where the last one was stopped.
	Restart bool

	BytesPerSecond int64   // at most; 0: no limit
	Share          float64 // of the time, that reading may take; 0: all

	// Progress is called now and then, by several goroutines, one at a time.
	Progress func(ScrubProgress) `json:"-"`
}

// ScrubProgress says how far a scrub is.
type ScrubProgress struct {
	DoneBytes  int64 // of packs
	TotalBytes int64 // to be read
	Damaged    int   // packs found so far
}

// ScrubReport is what a scrub found.
type ScrubReport struct {
	Began     time.Time
	Continued time.Time // the scrub this one went on with began then; the zero time: none
	Duration  time.Duration

	Packs, Bytes         int64 // that there are
	ReadPacks, ReadBytes int64 // that were read, damaged ones too
	Records              int64 // that were decoded

	Damage  []DamagedPack
	Files   []DamagedFile // other files
	Orphans []string      // files in packs/ that nothing names
	Lost    []Lost        // what of the restore points can't be had, as far as could be told

	// Remembered says that what was verified, and what is damaged, is known to
	// later scrubs and to runs. A reader can't see to that.
	Remembered bool
	Verified   Verified // as of now
}

// Clean reports whether everything that was read is as it was written.
func (r *ScrubReport) Clean() bool {
	return len(r.Damage) == 0 && len(r.Files) == 0 && len(r.Lost) == 0
}

// DamagedPack is a pack that is not as it was written.
type DamagedPack struct {
	Path       string
	Bytes      int64 // as it was written
	Fault      PackFault
	BadBlocks  int  // of 4 KiB, as far as that is known
	Healable   bool // parity gives it back as it was
	Lost       int  // records that can't be had from it
	Unfinished bool // it is of a run that has not committed
}

// scrubber is one scrub under way.
type scrubber struct {
	*Repository
	opt    ScrubOptions
	budget budget
	report *ScrubReport
	inv    *inventory
	keep   *verified // what was verified when
	own    *Owner    // nil: nothing can be remembered

	began time.Time // of the scrub, or of the one it goes on with

	mu     sync.Mutex // guards all below, keep too
	found  []foundPack
	read   map[pack.Name]bool
	done   ScrubProgress
	steps  int64 // bytes since keep was made durable
	lastAt time.Time
}

// What was verified is made durable this often.
const (
	stepBytes = 1 << 30
	stepTime  = 10 * time.Second
)

// Scrub reads what is stored and compares it with the digests that the ledger
// records, which needs no key, and names what is not as it was written.
// Cancelled, it returns what it has found together with ctx's error. It may run
// beside everything else.
func (r *Repository) Scrub(ctx context.Context, opt ScrubOptions) (*ScrubReport, error) {
	return r.scrub(ctx, opt, nil)
}

// Scrub is Repository.Scrub, and remembers: which pack was verified when, and
// what is damaged. One at a time: *BusyError while another is under way. Closing
// the owner ends it with ErrClosed; the next scrub goes on there.
func (o *Owner) Scrub(ctx context.Context, opt ScrubOptions) (*ScrubReport, error) {
	if !o.scrubbing.TryLock() {
		return nil, &BusyError{Holder{PID: os.Getpid(), Doing: "scrub", Since: o.now()}}
	}
	defer o.scrubbing.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o.stopScrub.Store(&cancel)
	defer o.stopScrub.Store(nil)
	rep, err := o.scrub(ctx, opt, o)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrClosed) {
		err = fmt.Errorf("scrub: %w", cause)
	}
	return rep, err
}

// endScrub stops a scrub under way, since the owner is to be closed, and lets no
// other begin.
func (o *Owner) endScrub() {
	if stop := o.stopScrub.Load(); stop != nil {
		(*stop)(ErrClosed)
	}
	o.scrubbing.Lock()
}

func (r *Repository) scrub(ctx context.Context, opt ScrubOptions, own *Owner) (*ScrubReport, error) {
	s := &scrubber{
		Repository: r, opt: opt, own: own, report: new(ScrubReport), read: make(map[pack.Name]bool),
		budget: budget{bytesPerSecond: opt.BytesPerSecond, share: opt.Share},
	}
	start := time.Now()
	err := s.run(ctx)
	s.report.Duration = time.Since(start)
	if err != nil {
		return s.report, fmt.Errorf("scrub: %w", err)
	}
	return s.report, nil
}

func (s *scrubber) run(ctx context.Context) (err error) {
	if s.opt.Deep && s.store.keyless() {
		return fmt.Errorf("decode records: %w", ErrNeedKey)
	}
	s.began = s.now().UTC()
	s.report.Began = s.began
	if s.inv, err = s.inventory(ctx); err != nil {
		return err
	}
	if s.keep, err = readVerified(s.fsys, s.log); err != nil {
		return err
	}
	todo := s.choose()
	if s.report.Files, err = s.scrubFiles(ctx); err != nil {
		return err
	}
	if s.report.Orphans, err = s.orphans(ctx, s.inv); err != nil {
		return err
	}
	s.lastAt = time.Now()
	perr := s.readPacks(ctx, todo)
	// What was found by then is worth keeping, whatever ended the reading.
	after := context.WithoutCancel(ctx)
	return errors.Join(perr, s.conclude(after, perr == nil))
}

// choose decides which packs are read, in which order.
func (s *scrubber) choose() []storedPack {
	todo := slices.Clone(s.inv.packs)
	for i := range todo {
		s.report.Packs++
		s.report.Bytes += todo[i].Bytes
	}
	fresh := time.Time{} // verified since then is fresh enough
	switch begun := s.keep.begun(); {
	case s.opt.Sample > 0 && s.opt.Sample < 1:
		return s.sample(todo)
	case s.opt.OlderThan > 0:
		fresh = s.began.Add(-s.opt.OlderThan)
	case !s.opt.Restart && !begun.IsZero() && !begun.After(s.began):
		s.report.Continued, s.began = begun.UTC(), begun
		fresh = begun
	}
	if !fresh.IsZero() {
		todo = slices.DeleteFunc(todo, func(p storedPack) bool {
			row := s.keep.get(p.Name)
			return int64(row.at) >= fresh.Unix() && (!s.opt.Deep || row.how == verifiedRecords) && s.knownDamage(p.Name) == nil
		})
	}
	return todo
}

func (s *scrubber) knownDamage(name pack.Name) *knownBad {
	if d := s.store.damage.Load(); d != nil {
		return d.pack(name)
	}
	return nil
}

// sample keeps the packs that were verified longest ago, and a chance order
// among equals.
func (s *scrubber) sample(todo []storedPack) []storedPack {
	rand.Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	slices.SortStableFunc(todo, func(a, b storedPack) int {
		return cmp.Compare(s.keep.get(a.Name).at, s.keep.get(b.Name).at)
	})
	want := int64(math.Ceil(float64(s.report.Bytes) * s.opt.Sample))
	for i := range todo {
		if want <= 0 {
			return todo[:i]
		}
		want -= todo[i].Bytes
	}
	return todo
}

// unlimitedReaders is how many packs are read at once when nobody else is to be
// spared: one core hashes 1.6 GB/s, which is less than many disks read.
const unlimitedReaders = 2

// readPacks verifies packs in the order of the disk.
func (s *scrubber) readPacks(ctx context.Context, todo []storedPack) error {
	for i := range todo {
		s.done.TotalBytes += todo[i].Bytes
	}
	if err := s.diskOrder(ctx, todo); err != nil {
		return err
	}
	readers := min(unlimitedReaders, runtime.GOMAXPROCS(0))
	if s.budget.limited() {
		readers = 1
	}
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range readers {
		g.Go(func() error {
			w := newPackReader(s)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(todo) {
					return nil
				}
				if err := w.verify(ctx, &todo[i]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// diskOrder sorts packs by where they begin on the disk, those that don't tell
// by name behind them.
func (s *scrubber) diskOrder(ctx context.Context, todo []storedPack) error {
	type place struct {
		at uint64
		p  storedPack
	}
	places := make([]place, len(todo))
	for i, p := range todo {
		if err := ctx.Err(); err != nil {
			return err
		}
		places[i] = place{math.MaxUint64, p}
		f, err := s.fsys.Open(p.Name.Path(p.Kind))
		if err != nil {
			continue // said when it is to be read
		}
		if at, ok := vfs.FirstByte(f); ok {
			places[i].at = at
		}
		_ = f.Close() // nothing was written
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.at, b.at), slices.Compare(a.p.Name[:], b.p.Name[:]))
	})
	for i := range places {
		todo[i] = places[i].p
	}
	return nil
}

// advance reports n more bytes of packs.
func (s *scrubber) advance(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done.DoneBytes += n
	s.done.Damaged = len(s.found)
	if s.opt.Progress != nil {
		s.opt.Progress(s.done)
	}
}

// note takes what came of a pack; bad is nil when it is as written.
func (s *scrubber) note(p *storedPack, read int64, how verifiedHow, bad *foundPack) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.ReadPacks++
	s.report.ReadBytes += read
	s.read[p.Name] = true
	if bad != nil {
		s.found = append(s.found, *bad)
		s.keep.forget(p.Name)
		return nil
	}
	s.keep.add(p.Name, s.now(), how)
	s.steps += read
	if s.own == nil || s.steps < stepBytes && time.Since(s.lastAt) < stepTime {
		return nil
	}
	s.steps, s.lastAt = 0, time.Now()
	return s.keep.flush(s.began)
}

// conclude says what the damage means, and makes durable what is known.
func (s *scrubber) conclude(ctx context.Context, complete bool) error {
	d, err := s.settle(ctx)
	if err != nil {
		return err
	}
	s.report.Verified = s.keep.sum(s.inv.packs)
	if s.own == nil {
		s.store.damage.Store(nonempty(d))
	} else {
		begun := s.began
		all := s.opt.Sample == 0 && s.opt.OlderThan == 0
		switch {
		case complete && all:
			begun = time.Time{}
		case !all:
			begun = s.keep.begun() // as it was
		}
		if err := errors.Join(s.store.saveDamage(d), s.remember(begun, complete)); err != nil {
			return err
		}
		s.report.Remembered = true
		s.report.Verified.Begun = begun
	}
	return s.tellLost(ctx, d, complete)
}

func (s *scrubber) remember(begun time.Time, complete bool) error {
	if !complete {
		return s.keep.flush(begun)
	}
	there := s.inv.names()
	return s.keep.finish(begun, func(n pack.Name) bool { return there[n] })
}

func nonempty(d *damageList) *damageList {
	if len(d.packs) == 0 {
		return nil
	}
	return d
}
