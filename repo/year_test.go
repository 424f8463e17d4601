package repo_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/retention"
	"holdfast/repo/vfs"
)

// A yearPlan says what of a year is simulated, and how.
type yearPlan struct {
	name     string
	seed     uint64
	machines int
	days     int
	start    string // local day
	sealed   bool
	locked   bool // packs and manifests are immutable for lockDays
	serial   bool // one thing after the other, so that the same seed does the same
}

const (
	yearZone = "Europe/Berlin"
	lockDays = 14
)

// yearJobs are the jobs and their rules. Manual runs are a series of their own.
var yearJobs = []struct {
	name string
	rule retention.Rule
}{
	{"nightly", retention.Rule{Last: 14, Weekly: 4, Monthly: 12, Yearly: 2}},
	{"noon", retention.Rule{Daily: 3, Weekly: 2, Extra: retention.Span{Count: 2, Unit: retention.Day}}},
	{"manual", retention.Rule{Within: retention.Span{Count: 9, Unit: retention.Day}}},
}

// TestYear lets an administrator's year pass over a repository: backups by two
// jobs and by hand, some of which fail, retention, sweeps beside runs, compaction,
// synthetic fulls, scrub and repair of damage, kills and power cuts, a full
// volume, a clock set back, readers and pins, and a second repository. Every
// point that is kept is what was backed up, at any time and at the end, and
// nothing else is left. HOLDFAST_LONG=1 is forty machines and 365 days;
// HOLDFAST_SEED=n does again what seed n did.
func TestYear(t *testing.T) {
	random := rand.Uint64N(1 << 32)
	plans := []yearPlan{
		{name: "plain", seed: 1, machines: 4, days: 42, start: "2026-03-01"},
		{name: "sealed and locked", seed: random, machines: 3, days: 40, start: "2026-10-01", sealed: true, locked: true},
	}
	if long {
		// Nearly all of the memory is the volumes, which stay, so that there is
		// little to collect; until there is not much left.
		percent, limit := debug.SetGCPercent(400), debug.SetMemoryLimit(6<<30)
		t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) })
		plans = []yearPlan{
			{name: "plain", seed: 1, machines: 40, days: 365, start: "2026-07-01"},
			{name: "sealed", seed: 2, machines: 40, days: 365, start: "2026-07-01", sealed: true},
			{name: "locked", seed: 3, machines: 15, days: 200, start: "2026-09-01", locked: true},
			{name: "random", seed: random, machines: 10, days: 150, start: "2026-02-01", sealed: random%2 == 0, locked: random%3 == 0},
		}
	}
	for _, p := range plans {
		for _, p.seed = range seeds(t, p.seed) {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				t.Logf("replay: HOLDFAST_SEED=%d go test -run '%s'", p.seed, t.Name())
				y := newYear(t, p)
				y.pass()
				t.Logf("%v", &y.sum)
			})
		}
	}
}

// TestYearTwice: the same seed makes the same points, decisions and bytes.
func TestYearTwice(t *testing.T) {
	t.Parallel()
	p := yearPlan{seed: 5, machines: 3, days: 24, start: "2026-03-15", serial: true}
	if long {
		p.machines, p.days = 8, 90
	}
	for _, p.seed = range seeds(t, p.seed) {
		var digests [2]string
		for i := range digests {
			y := newYear(t, p)
			y.pass()
			digests[i] = fmt.Sprintf("%x", y.digest.Sum(nil))
			t.Logf("seed %d: %s: %v", p.seed, digests[i][:16], &y.sum)
		}
		if digests[0] != digests[1] {
			t.Errorf("seed %d made two different years", p.seed)
		}
	}
}

// A year is one simulation.
type year struct {
	*world
	t     *testing.T
	ctx   context.Context
	plan  yearPlan
	rng   *rand.Rand // of the one goroutine that decides
	fleet *repotest.Fleet
	loc   *time.Location
	first time.Time
	clock atomic.Int64 // Unix nanoseconds
	back  [2]int       // days on which the clock is wrong: from, to
	full  int          // the day of the full volume
	owner *repo.Owner
	other *repo.Repository // another process, that has it open for long
	copy  *world           // a second repository
	rand  yearRand

	today  int
	opened int  // operations that were counted when today began
	busy   int  // operations of a usual day
	hurt   bool // there is damage that was not repaired

	mu       sync.Mutex // guards all below
	kept     []*yearPoint
	retired  map[repo.PointID]*yearPoint
	latest   map[string]*yearPoint // by machine
	coming   map[string]*yearTask  // by machine, what is being backed up
	expiring []repo.PointID        // what a retention under way lets go
	pinned   map[repo.PointID]int  // until that day
	slots    map[yearSeries][]yearSlot
	locks    map[string]int // file → day on which its lock ends
	held     []*yearReader
	digest   hash.Hash
	sum      yearSum
}

// A yearPoint is a point and what is known of it.
type yearPoint struct {
	repotest.Point
	info repo.Point
}

type yearSeries struct{ machine, job string }

// A yearSlot is a slot of a series and the newest point that was made for it.
type yearSlot struct {
	slot  string
	point repo.PointID
}

// yearRand is the source of randomness: in a serial year each thing done has a
// stream of its own, for how much it takes of it may depend on chance.
type yearRand struct {
	mu   sync.Mutex // guards r
	r    *repotest.Rand
	seed uint64
	n    uint64
}

func (r *yearRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Read(p)
}

func (r *yearRand) next() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	r.r = repotest.NewRand(r.seed<<20 + r.n)
}

func newYear(t *testing.T, p yearPlan) *year {
	loc, err := time.LoadLocation(yearZone)
	if err != nil {
		t.Fatal(err)
	}
	first, err := time.ParseInLocation(time.DateOnly, p.start, loc)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(p.seed, 365))
	y := &year{
		world: newWorld(p.sealed, p.seed), t: t, ctx: t.Context(), plan: p, rng: rng, fleet: repotest.NewFleet(rng, p.machines),
		loc: loc, first: first, busy: 20 * p.machines,
		retired: make(map[repo.PointID]*yearPoint), latest: make(map[string]*yearPoint),
		coming: make(map[string]*yearTask), pinned: make(map[repo.PointID]int),
		slots: make(map[yearSeries][]yearSlot), locks: make(map[string]int), digest: sha256.New(),
	}
	y.back[0] = p.days/3 + rng.IntN(p.days/4)
	y.back[1] = y.back[0] + 7
	y.full = p.days/5 + 15 + rng.IntN(3)
	y.rand.seed = p.seed
	y.rand.next()
	y.create.Now, y.create.Rand, y.create.ReserveBytes = y.now, &y.rand, 1<<20
	y.copy = newWorld(p.sealed, p.seed+1)
	y.copy.create.Now = y.now
	y.setClock(0, 12*time.Hour)
	y.must(y.init(y.ctx))
	y.must(y.copy.init(y.ctx))
	return y
}

// must ends the test if something fails that mustn't.
func (y *year) must(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatalf("seed %d, day %d: %v", y.plan.seed, y.today, err)
	}
}

func (y *year) errorf(format string, args ...any) {
	y.t.Helper()
	y.t.Errorf("seed %d, day %d: %s", y.plan.seed, y.today, fmt.Sprintf(format, args...))
}

// now is the store's clock.
func (y *year) now() time.Time { return time.Unix(0, y.clock.Load()) }

// setClock sets the clock to a time of a local day, a week too early on the days
// on which it is wrong.
func (y *year) setClock(day int, at time.Duration) {
	if day >= y.back[0] && day < y.back[1] {
		day -= 7
	}
	d := y.first.AddDate(0, 0, day)
	y.clock.Store(time.Date(d.Year(), d.Month(), d.Day(), 0, 0, 0, 0, y.loc).Add(at).UnixNano())
}

// tick lets a little time pass before something is done.
func (y *year) tick() {
	y.clock.Add(int64(7 * time.Second))
	if y.plan.serial {
		y.rand.next()
	}
}

func (y *year) options() repo.Options {
	opt := y.world.options()
	opt.Now, opt.Rand = y.now, &y.rand
	return opt
}

func (y *year) open() {
	var err error
	y.tick()
	y.owner, err = repo.Own(y.ctx, y.disk, y.options(), 0)
	y.must(err)
}

// pass lets the days pass.
func (y *year) pass() {
	y.open()
	for y.today = range y.plan.days {
		y.day()
		if y.t.Failed() {
			y.t.FailNow()
		}
	}
	y.end()
}

// day is one day. What is interrupted by a kill is done again.
func (y *year) day() {
	y.setClock(y.today, 9*time.Hour)
	y.fleet.Day()
	y.morning()
	y.setClock(y.today, 12*time.Hour)
	tasks := y.tasks()
	y.arm()
	y.step("backups", func() error { return y.backups(tasks) })
	if y.today == y.full {
		y.fullVolume()
	}
	y.setClock(y.today, 23*time.Hour)
	y.step("retain", y.retain)
	if y.plan.serial {
		y.step("sweep", y.sweep)
	}
	switch weekday := y.today % 7; {
	case weekday == 2:
		y.step("compact", func() error { return y.compact(repo.CompactOptions{}) })
		if y.plan.locked {
			y.step("evacuate", y.evacuate)
		}
	case weekday == 3:
		y.damage()
	case weekday == 5:
		y.repair()
	case y.today%30 == 27:
		y.step("synthesize", y.synthesize)
	}
	y.disarm()
	y.lockNew()
	y.spot()
	if y.today%7 == 5 && (!long || y.today%28 == 5) { // the ledger grows
		y.inventory()
	}
	if y.today%30 == 28 {
		y.everything()
		y.t.Logf("day %d: %d points, %d MiB: %v", y.today, len(y.kept), y.mem.Used()>>20, &y.sum)
	}
	if y.today%10 == 8 {
		y.syncCopy(y.today%30 == 28)
	}
}

// step does something that may be killed in the middle, and then again.
func (y *year) step(what string, do func() error) {
	y.t.Helper()
	y.tick()
	err := do()
	if y.dead() {
		y.revive()
		y.tick()
		err = do()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	y.must(err)
}

// point returns a kept point by its id.
func (y *year) point(id repo.PointID) *yearPoint {
	if i := slices.IndexFunc(y.kept, func(p *yearPoint) bool { return p.ID == id }); i >= 0 {
		return y.kept[i]
	}
	return nil
}

// made notes a point that has come to be. The caller holds mu.
func (y *year) made(task *yearTask, info repo.Point) {
	p := &yearPoint{task.point.WithID(info.ID), info}
	y.kept = append(y.kept, p)
	y.latest[p.Machine] = p
	task.done = true
	task.machine.Settle()
	s := yearSeries{p.Machine, info.Job}
	if n := len(y.slots[s]); n > 0 && y.slots[s][n-1].slot == info.Slot && info.Slot != "" {
		y.slots[s][n-1].point = p.ID
	} else if info.Slot != "" || info.Job == "manual" {
		y.slots[s] = append(y.slots[s], yearSlot{info.Slot, p.ID})
	}
	y.sum.points++
	y.sum.logical += info.SizeBytes()
	fmt.Fprintln(y.digest, "point", p.ID, info.Sequence, p.Machine, info.Job, info.Slot, info.Time)
	for _, d := range info.Disks {
		fmt.Fprintln(y.digest, d.Name, d.SizeBytes, d.Root)
	}
}

// arm plans a kill for today, or not.
func (y *year) arm() {
	y.opened = y.disk.Count()
	if y.today < 3 || y.today == y.full || y.rng.IntN(6) != 0 {
		return
	}
	if !y.plan.serial {
		y.disk.CrashAt(y.opened + y.rng.IntN(y.busy))
		return
	}
	// Only operations whose number is the same whatever overlaps within a run.
	left := y.rng.IntN(6 * y.plan.machines)
	y.disk.OnOp(func(i int, op vfs.Op) {
		if op.Kind != vfs.OpRename || !commits(op.To) {
			return
		}
		if left--; left == 0 {
			y.disk.CrashAt(i + 1)
		}
	})
}

func (y *year) disarm() {
	y.disk.OnOp(nil)
	if y.dead() { // by what came after the last step
		y.revive()
	}
	y.disk.Heal()
	y.busy = max(y.busy/2, y.disk.Count()-y.opened)
}

// dead tells whether the process was killed.
func (y *year) dead() bool {
	_, err := y.disk.Stat(".")
	return errors.Is(err, vfs.ErrCrashed)
}
