package repo_test

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/retention"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// expires is the oracle of retention: which points of one series the rule lets
// go. It is written from what the rule promises, by sets of names of days.
func (y *year) expires(series []*yearPoint, rule *retention.Rule, now time.Time) map[repo.PointID]bool {
	newest := slices.Clone(series) // first
	slices.SortFunc(newest, func(a, b *yearPoint) int { return cmp.Compare(b.info.Sequence, a.info.Sequence) })
	scheduled := slices.ContainsFunc(newest, func(p *yearPoint) bool { return p.info.Slot != "" })
	keep := make(map[repo.PointID]bool)
	local := func(p *yearPoint) time.Time { return p.info.Time.In(y.loc) }
	byHand := func(p *yearPoint) bool { return scheduled && p.info.Slot == "" }

	bySlot := make(map[string]*yearPoint) // the newest of each
	var inTurn []*yearPoint
	for _, p := range newest {
		slot := p.info.Slot
		if !scheduled {
			slot = string(p.ID)
		}
		if !byHand(p) && bySlot[slot] == nil {
			bySlot[slot] = p
			inTurn = append(inTurn, p)
		}
	}
	for i, p := range inTurn {
		if i < rule.Last || i == 0 {
			keep[p.ID] = true
		}
	}
	keep[newest[0].ID] = true
	for _, level := range []struct {
		n  int
		of func(time.Time) string
	}{
		{rule.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{rule.Weekly, func(t time.Time) string { return t.AddDate(0, 0, -(int(t.Weekday())+6)%7).Format(time.DateOnly) }},
		{rule.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{rule.Yearly, func(t time.Time) string { return t.Format("2006") }},
	} {
		if level.n > 0 {
			keepPeriods(keep, newest, byHand, level.n, func(p *yearPoint) string { return level.of(local(p)) })
		}
	}
	youngest := time.Time{}
	for _, p := range slices.Backward(newest) {
		if local(p).After(youngest) {
			youngest = local(p)
		}
		if rule.Within.Count > 0 && now.Before(youngest.AddDate(0, 0, rule.Within.Count)) {
			keep[p.ID] = true
		}
		if len(y.pinned) > 0 && y.pinned[p.ID] > 0 {
			keep[p.ID] = true
		}
	}
	extra := cmp.Or(rule.Extra.Count, 7)
	for _, p := range newest {
		again := !byHand(p) && scheduled && bySlot[p.info.Slot] != p && keep[bySlot[p.info.Slot].ID]
		if (byHand(p) || again) && now.Before(local(p).AddDate(0, 0, extra)) {
			keep[p.ID] = true
		}
	}
	gone := make(map[repo.PointID]bool)
	for _, p := range series {
		if !keep[p.ID] {
			gone[p.ID] = true
		}
	}
	return gone
}

// keepPeriods keeps the newest scheduled point of each of the n newest periods,
// and the newest made by hand of periods without one, as far back as those go.
func keepPeriods(keep map[repo.PointID]bool, newest []*yearPoint, byHand func(*yearPoint) bool, n int, of func(*yearPoint) string) {
	marks, hands := make(map[string]bool), make(map[string]bool)
	var last *yearPoint // that marks a period, when there are n
	for _, p := range newest {
		if !byHand(p) && !marks[of(p)] {
			if marks[of(p)] = true; len(marks) <= n {
				keep[p.ID] = true
			}
			if len(marks) == n {
				last = p
			}
		}
	}
	for _, p := range newest {
		if !byHand(p) || hands[of(p)] {
			continue
		}
		hands[of(p)] = true
		if len(hands) <= n && !marks[of(p)] && (last == nil || p.info.Sequence > last.info.Sequence) {
			keep[p.ID] = true
		}
	}
}

// model is the kept points in the order that Compare wants.
func (y *year) model() []repotest.Point {
	list := slices.Clone(y.kept)
	slices.SortFunc(list, func(a, b *yearPoint) int {
		return cmp.Or(strings.Compare(a.Machine, b.Machine), cmp.Compare(a.info.Sequence, b.info.Sequence))
	})
	points := make([]repotest.Point, len(list))
	for i, p := range list {
		points[i] = p.Point
	}
	return points
}

func (y *year) asModel() *repotest.Model {
	m := new(repotest.Model)
	for _, p := range y.model() {
		m.Add(p)
	}
	return m
}

// A yearReader is a process that reads a point for days.
type yearReader struct {
	repo   *repo.Repository
	reader *repo.Reader
	point  *yearPoint
	until  int
}

func (r *yearReader) close() error { return errors.Join(r.reader.Close(), r.repo.Close()) }

// readSome has others read: whoever has a point open reads in it, expired or
// not, and somebody opens another.
func (y *year) readSome() {
	rng := rand.New(rand.NewPCG(y.plan.seed, uint64(y.today)))
	for _, r := range y.held {
		y.must(y.readIn(r.reader, r.point, rng))
	}
	y.held = slices.DeleteFunc(y.held, func(r *yearReader) bool {
		if r.until > y.today {
			return false
		}
		y.must(repotest.CompareReader(y.ctx, r.reader, r.point.Point)) // a last time, all of it
		y.must(r.close())
		return true
	})
	if len(y.kept) == 0 || y.rng.IntN(4) != 0 {
		return
	}
	p := y.kept[y.rng.IntN(len(y.kept))]
	r, err := repo.Open(y.ctx, y.mem, y.options())
	y.must(err)
	reader, err := r.OpenPoint(p.ID)
	y.must(err)
	y.held = append(y.held, &yearReader{r, reader, p, y.today + 1 + y.rng.IntN(12)})
	y.sum.leases++
}

func (y *year) closeReaders() {
	for _, r := range y.held {
		y.must(r.close())
	}
	y.held = nil
	if y.other != nil {
		y.must(y.other.Close())
		y.other = nil
	}
}

// spot reads here and there, as the owner, and as somebody who opened the
// repository days ago, and asks for the latest point of a machine.
func (y *year) spot() {
	if len(y.kept) == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(y.plan.seed, uint64(y.today)))
	if y.other == nil {
		var err error
		y.other, err = repo.Open(y.ctx, y.mem, y.options())
		y.must(err)
	}
	for range 4 {
		p := y.kept[rng.IntN(len(y.kept))]
		for _, r := range []*repo.Repository{y.owner.Repository, y.other} {
			reader, err := r.OpenPoint(p.ID)
			y.must(err)
			y.must(y.readIn(reader, p, rng))
			y.must(reader.Close())
		}
	}
	for id, p := range y.retired {
		if y.locks["points/"+string(id)] <= y.today {
			delete(y.retired, id) // it may have gone with the last sweep
			continue
		}
		reader, err := y.other.OpenPoint(id)
		y.must(err)
		y.must(y.readIn(reader, p, rng))
		y.must(reader.Close())
		break
	}
	name := y.fleet.Machines[rng.IntN(len(y.fleet.Machines))].Name
	if want := y.latest[name]; want != nil {
		got, err := y.other.Find(y.ctx, name+"@latest", y.loc)
		if err != nil || got.ID != want.ID {
			y.errorf("latest of %s is %s, %v, want %s", name, got.ID, err, want.ID)
		}
	}
}

func (y *year) readIn(reader *repo.Reader, p *yearPoint, rng *rand.Rand) error {
	d := p.Disks[rng.IntN(len(p.Disks))]
	disk, err := reader.Disk(d.Name)
	for range 3 {
		if err == nil {
			err = repotest.CompareRead(y.ctx, disk, d.Disk, rng)
		}
	}
	if err != nil {
		return fmt.Errorf("point %s of %s, disk %s: %w", p.ID, p.Machine, d.Name, err)
	}
	return nil
}

// account closes the owner and looks at every file.
func (y *year) account() {
	y.must(y.owner.Close())
	y.must(repotest.Account(y.mem))
	y.must(whole(y.mem))
}

// inventory is account, and opens the repository again.
func (y *year) inventory() {
	y.account()
	y.mount()
	y.opened = 0
	y.open()
	if y.other != nil {
		y.must(y.other.Close())
		y.other = nil
	}
}

// everything compares every point with what was backed up.
func (y *year) everything() {
	y.must(repotest.Compare(y.ctx, y.owner.Repository, y.model()))
	y.sum.compared += int64(len(y.kept))
}

// lastSlots counts in its own way: of every series the points of the newest slots
// that there ever were are kept.
func (y *year) lastSlots() {
	for s, slots := range y.slots {
		for _, job := range yearJobs {
			if job.name != s.job || job.rule.Last == 0 {
				continue
			}
			for _, slot := range slots[max(0, len(slots)-job.rule.Last):] {
				if y.point(slot.point) == nil {
					y.errorf("point %s of %s, slot %s, is not kept", slot.point, s.machine, slot.slot)
				}
			}
			if n := len(slots); n < job.rule.Last && n < y.plan.days/2 {
				y.errorf("%s of %s had %d slots in %d days", s.job, s.machine, n, y.plan.days)
			}
		}
	}
}
