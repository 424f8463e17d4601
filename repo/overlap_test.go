package repo_test

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/retention"
	"holdfast/repo/vfs"
)

// TestOverlap holds the table of the package comment to what happens: it stops
// what a row names in its middle, begins what a column names, sees whether that
// ends, waits or is refused, lets go, and looks at what is left.
func TestOverlap(t *testing.T) {
	t.Parallel()
	table := overlapTable(t)
	base := overlapWorlds(t)
	names := make(map[string]bool)
	for _, op := range overlapOps {
		names[op.name] = true
	}
	for row := range table {
		if !names[row] {
			t.Errorf("the table has %q, and no test does", row)
		}
	}
	for i, first := range overlapOps {
		for j, second := range overlapOps {
			want, ok := table[first.name][second.name]
			if !ok {
				t.Errorf("the table says nothing of %s beside %s", second.name, first.name)
			}
			other, same, two := strings.Cut(want, "/")
			t.Run(first.name+", "+second.name, func(t *testing.T) {
				t.Parallel()
				newStage(t, base, false).overlap(t, &first, &second, i+j, other)
			})
			if two {
				t.Run(first.name+", "+second.name+" of the same machine", func(t *testing.T) {
					t.Parallel()
					newStage(t, base, true).overlap(t, &first, &second, i+j, same)
				})
			}
		}
	}
}

// overlapTable reads the table: what is under way → what is begun → yes, waits
// or no, or two of these for another machine and for the same.
func overlapTable(t *testing.T) map[string]map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(f.Doc.Text(), "# What may overlap")
	table := make(map[string]map[string]string)
	var columns []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if !strings.HasPrefix(line, "\t") {
			if columns != nil {
				break // what follows explains the words
			}
			continue
		}
		switch {
		case columns == nil:
			columns = words
		case len(words) != len(columns)+1 || table[words[0]] != nil:
			t.Fatalf("no row of the table: %q", line)
		default:
			row := make(map[string]string)
			for i, w := range words[1:] {
				row[columns[i]] = w
			}
			table[words[0]] = row
		}
	}
	if len(table) < 10 || len(table) != len(columns) {
		t.Fatalf("found a table of %d rows and %d columns", len(table), len(columns))
	}
	return table
}

// A stage is a repository on which two operations are to meet. Each of them is
// told its role, 0 for the one under way and 1 for the one that is begun, and has
// machines of its own.
type stage struct {
	*world
	from *world      // another repository, to copy from and to
	o    *repo.Owner // nil where an operation is to own the repository itself

	same    bool // both are about one machine
	damaged bool

	// A second process, with its own eyes on the files.
	side   *vfs.Faulty
	reader *repo.Repository

	stopped chan struct{} // closed when the first has come to its middle
	goOn    chan struct{} // closed to let it go on
	stop    atomic.Bool   // it has still to stop
	retired [2]repotest.Point
}

// An overlapOp is one row and column of the table.
type overlapOp struct {
	name  string
	alone bool         // needs no owner
	ways  []overlapWay // of which the first is stopped in one, and all are begun
}

type overlapWay struct {
	do func(ctx context.Context, s *stage, role int) error

	// at finds the middle among the operations of files; nil where do calls pause.
	at func(op vfs.Op) bool

	later bool // it is only begun, never stopped
}

// pause is called in the middle of operations. It stops the first one, once.
func (s *stage) pause(role int) {
	if role == 0 && s.stop.CompareAndSwap(true, false) {
		close(s.stopped)
		<-s.goOn
	}
}

// creates finds the making of a file with such a temporary or whole name.
func creates(prefix string) func(vfs.Op) bool {
	return func(op vfs.Op) bool { return op.Kind == vfs.OpCreate && strings.HasPrefix(op.Name, prefix) }
}

const segment = "tmp/ledger-"

func (s *stage) machine(kind string, role int) string {
	if s.same {
		role = 0
	}
	return fmt.Sprint(kind, role)
}

// points are those of one of the machines there are from the beginning.
func (s *stage) pointsOf(machine string) (list []repotest.Point) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.points {
		if p.Machine == machine {
			list = append(list, p)
		}
	}
	return list
}

func (s *stage) wentAway(ids ...repo.PointID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.points = slices.DeleteFunc(s.points, func(p repotest.Point) bool { return slices.Contains(ids, p.ID) })
}

var overlapOps = []overlapOp{
	{name: "run", ways: []overlapWay{{do: func(ctx context.Context, s *stage, role int) error {
		// What an expired point held is new again, and partly gone by then.
		disk := s.from.points[0].Disks[0].Disk.Clone()
		disk.Write([]byte("of the run"), 300<<10)
		p := repotest.NewPoint(s.machine("new", role), repotest.NamedDisk{Name: "d", Disk: disk})
		_, err := s.backup(ctx, s.o, p, func(opt *repo.BackupOptions) {
			opt.Disks[0].Source.(*repotest.Source).OnRead = func(off int64) {
				if off > 0 {
					s.pause(role)
				}
			}
		})
		return err
	}}}},
	{name: "copy", ways: []overlapWay{{at: creates("tmp/packs-"), do: func(ctx context.Context, s *stage, role int) error {
		src, err := repo.Open(ctx, s.from.disk, s.from.options())
		if err != nil {
			return err
		}
		var ids []repo.PointID
		for _, p := range s.from.points {
			if p.Machine == s.machine("new", role) {
				ids = append(ids, p.ID)
			}
		}
		rep, err := s.o.Copy(ctx, src, ids, repo.CopyOptions{Adopt: true})
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range s.from.points {
			if slices.ContainsFunc(rep.Copied, func(c repo.Point) bool { return c.ID == p.ID }) {
				s.points = append(s.points, p)
			}
		}
		return errors.Join(err, src.Close())
	}}}},
	{name: "sweep", ways: []overlapWay{{do: func(ctx context.Context, s *stage, role int) error {
		_, err := s.o.Sweep(ctx, repo.SweepOptions{Progress: func(repo.SweepProgress) { s.pause(role) }})
		return err
	}}}},
	{name: "compact", ways: []overlapWay{
		{do: func(ctx context.Context, s *stage, role int) error {
			_, err := s.o.Compact(ctx, repo.CompactOptions{AnyDead: true, Progress: func(repo.CompactProgress) { s.pause(role) }})
			return err
		}},
		{do: func(ctx context.Context, s *stage, role int) error {
			_, err := s.o.Synthesize(ctx, s.pointsOf(fmt.Sprint("old", role))[0].ID, repo.SynthesizeOptions{
				Progress: func(repo.SynthesizeProgress) { s.pause(role) },
			})
			return err
		}},
		{do: func(ctx context.Context, s *stage, role int) error {
			if role == 0 {
				if err := s.lockPacks(true); err != nil {
					return err
				}
			}
			_, err := s.o.Evacuate(ctx, repo.CompactOptions{LiveShare: 1, Progress: func(repo.CompactProgress) { s.pause(role) }})
			return err
		}},
	}},
	{name: "scrub", ways: []overlapWay{{do: func(ctx context.Context, s *stage, role int) error {
		_, err := s.o.Scrub(ctx, repo.ScrubOptions{Deep: true, Progress: func(repo.ScrubProgress) { s.pause(role) }})
		return err
	}}}},
	{name: "repair", ways: []overlapWay{{at: creates("tmp/packs-"), do: func(ctx context.Context, s *stage, _ int) error {
		_, err := s.o.Repair(ctx, repo.RepairOptions{})
		return err
	}}}},
	{name: "reindex", ways: []overlapWay{{at: readsPack, do: func(ctx context.Context, s *stage, _ int) error {
		_, err := s.o.Reindex(ctx)
		return err
	}}}},
	{name: "expire", ways: []overlapWay{
		{at: creates(segment), do: func(ctx context.Context, s *stage, role int) error {
			id := s.pointsOf(fmt.Sprint("old", role))[0].ID
			_, err := s.o.Expire(ctx, id, "test")
			if err == nil {
				s.wentAway(id)
			}
			return err
		}},
		{at: creates(segment), do: func(ctx context.Context, s *stage, role int) error {
			res, err := s.o.Retain(ctx, repo.RetainOptions{Machine: fmt.Sprint("kept", role), Rule: retention.Rule{Daily: 1}})
			s.wentAway(res.Expired...)
			return err
		}},
		{at: creates(segment), do: func(ctx context.Context, s *stage, role int) error {
			_, err := s.o.Recall(ctx, s.retired[role].ID)
			if err == nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.keep(s.retired[role])
			}
			return err
		}},
		{later: true, do: func(ctx context.Context, s *stage, _ int) error {
			runs, err := s.reader.UnfinishedRuns(ctx)
			if err != nil {
				return err
			}
			n, err := s.o.AbandonRuns(runs[0].MachineID)
			if err == nil && n != 1 {
				err = fmt.Errorf("%d runs were given up, want 1 of %+v", n, runs)
			}
			return err
		}},
	}},
	{name: "keys", ways: []overlapWay{
		{at: creates("tmp/keys-"), do: func(ctx context.Context, s *stage, role int) error {
			_, err := s.o.AddKey(ctx, repo.KeyOptions{Passphrase: fmt.Appendf(nil, "key %d", role), WorkFactor: 4})
			return err
		}},
		{at: creates(segment), do: func(ctx context.Context, s *stage, role int) error {
			return s.o.RemoveKey(ctx, []string{"key-2", "key-3"}[role])
		}},
	}},
	{name: "read", ways: []overlapWay{{do: func(ctx context.Context, s *stage, role int) error {
		return s.read(ctx, s.o.Repository, role)
	}}}},
	{name: "pin", alone: true, ways: []overlapWay{{at: creates("leases/pin-"), do: func(_ context.Context, s *stage, role int) error {
		id := s.pointsOf(fmt.Sprint("pinned", role))[0].ID
		return errors.Join(s.reader.Pin(id, "test"), s.reader.Unpin(id, "test"))
	}}}},
	{name: "reader", alone: true, ways: []overlapWay{
		{do: func(ctx context.Context, s *stage, role int) error { return s.read(ctx, s.reader, role) }},
		{later: true, do: func(ctx context.Context, s *stage, _ int) error {
			_, err := s.reader.Scrub(ctx, repo.ScrubOptions{})
			return err
		}},
	}},
	{name: "source", alone: true, ways: []overlapWay{{do: func(ctx context.Context, s *stage, role int) error {
		to := s.from.fork(keepAll)
		return to.with(ctx, func(dst *repo.Owner) error {
			_, err := dst.Copy(ctx, s.reader, []repo.PointID{s.pointsOf(fmt.Sprint("old", 1-role))[0].ID}, repo.CopyOptions{
				Adopt: true, Progress: func(repo.CopyProgress) { s.pause(role) },
			})
			return err
		})
	}}}},
	{name: "list", alone: true, ways: []overlapWay{{at: readsPack, do: func(ctx context.Context, s *stage, role int) error {
		r, err := repo.Open(ctx, s.side, s.options())
		if err != nil {
			return err
		}
		_, perr := r.Points(ctx)
		_, serr := r.Stats(ctx, repo.StatsOptions{Machines: role == 0, Points: role == 0})
		_, verr := repo.VerifyLedger(ctx, s.side, repo.VerifyOptions{})
		_, kerr := repo.ListKeys(ctx, s.side)
		return errors.Join(perr, serr, verr, kerr, s.diff(ctx, r), r.Close())
	}}}},
	{name: "Own", alone: true, ways: []overlapWay{{
		at: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && op.Name == "lock" },
		do: func(ctx context.Context, s *stage, _ int) error {
			o, err := repo.Own(ctx, s.side, s.options(), 0)
			if err != nil {
				return err
			}
			return o.Close()
		},
	}}},
}

// lockPacks makes every pack immutable, or takes that back.
func (s *stage) lockPacks(on bool) error {
	return vfs.Walk(s.mem, "packs", func(name string, info vfs.Info) error {
		if info.Dir {
			return nil
		}
		return s.mem.SetLocked(name, on)
	})
}

func readsPack(op vfs.Op) bool {
	return op.Kind == vfs.OpRead && strings.HasPrefix(op.Name, "packs/")
}

// read restores the point that the other one may let expire.
func (s *stage) read(ctx context.Context, r *repo.Repository, role int) (err error) {
	want := s.pointsOf(fmt.Sprint("old", 1-role))[0]
	p, err := r.OpenPoint(want.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	d, err := p.Disk("d")
	if err != nil {
		return err
	}
	s.pause(role)
	return repotest.CompareRead(ctx, d, want.Disks[0].Disk, rand.New(rand.NewPCG(1, 1)))
}

// diff compares two points that stay.
func (s *stage) diff(ctx context.Context, r *repo.Repository) error {
	var disks []*repo.Disk
	for _, machine := range []string{"pinned0", "pinned1"} {
		open, err := r.OpenPoint(s.pointsOf(machine)[0].ID)
		if err != nil {
			return err
		}
		defer open.Close() //nolint:errcheck // only read
		d, err := open.Disk("d")
		if err != nil {
			return err
		}
		disks = append(disks, d)
	}
	return r.Diff(ctx, disks[0], disks[1], func(int64, int64) error { return nil })
}

// overlapBase is what every stage begins with.
type overlapBase struct {
	w, from *world
	retired [2]repotest.Point
}

// overlapWorlds makes a sealed repository with points for either role, work for
// a sweep and a compaction, and damage; and another one to copy from.
func overlapWorlds(t *testing.T) *overlapBase {
	t.Helper()
	b := &overlapBase{w: newWorld(true, 1), from: newWorld(true, 2)}
	ctx := t.Context()
	for _, w := range []*world{b.w, b.from} {
		if err := w.init(ctx); err != nil {
			t.Fatal(err)
		}
	}
	shared := dense(1, 600<<10)
	err := b.w.with(ctx, func(o *repo.Owner) error {
		var ids []repo.PointID
		add := func(machine string, disk *repotest.Disk) repo.PointID {
			return b.w.must(t, o, oneDisk(machine, disk), nil).Point.ID
		}
		for _, pass := range []string{"spare 0", "spare 1"} {
			if _, err := o.AddKey(ctx, repo.KeyOptions{Passphrase: []byte(pass), WorkFactor: 4}); err != nil {
				return err
			}
		}
		ids = append(ids, add("worn", shared))
		half := shared.Clone() // whose first chunk is another, so that packs are half dead
		fresh := make([]byte, 256<<10)
		rand.NewChaCha8([32]byte{1}).Read(fresh) //nolint:errcheck // never fails
		half.Write(fresh, 0)
		add("worn", half)
		for role := range 2 {
			for i, kind := range []string{"old", "kept", "pinned", "retired"} {
				disk := dense(uint64(10+4*role+i), 100<<10)
				id := add(fmt.Sprint(kind, role), disk)
				switch kind {
				case "retired":
					b.retired[role] = b.w.latest("retired" + fmt.Sprint(role))
					ids = append(ids, id)
				case "kept":
					disk = disk.Clone()
					disk.Write([]byte("later"), 0)
					add(fmt.Sprint(kind, role), disk)
				}
			}
		}
		_, err := b.w.backup(ctx, o, oneDisk("failed", dense(30, 600<<10)), func(opt *repo.BackupOptions) {
			opt.Disks[0].Source.(*repotest.Source).FailAt = 500 << 10
		})
		if !errors.Is(err, repotest.ErrSource) {
			return fmt.Errorf("the run was to fail: %w", err)
		}
		if err := b.w.lock(true, b.retired[0].ID, b.retired[1].ID); err != nil {
			return err
		}
		if _, err := o.Sweep(ctx, repo.SweepOptions{}); err != nil { // so that the counts are there
			return err
		}
		b.w.expire(t, o, ids...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = b.from.with(ctx, func(o *repo.Owner) error {
		for role := range 2 {
			disk := shared.Clone()
			disk.Write([]byte("of the source"), 500<<10)
			b.from.must(t, o, oneDisk(fmt.Sprint("new", role), disk), nil)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newStage(t *testing.T, b *overlapBase, same bool) *stage {
	t.Helper()
	s := &stage{
		world: b.w.fork(keepAll), from: b.from.fork(keepAll), same: same, retired: b.retired,
		stopped: make(chan struct{}), goOn: make(chan struct{}),
	}
	for _, p := range b.retired { // a clone has no locks
		if err := s.mem.SetLocked("points/"+string(p.ID), true); err != nil {
			t.Fatal(err)
		}
		if err := s.mem.SetLocked("points/"+string(p.ID)+".twin", true); err != nil {
			t.Fatal(err)
		}
	}
	s.side = vfs.NewFaulty(s.mem)
	s.side.CountReads()
	s.disk.CountReads()
	return s
}

// patience is how long something is given to end, and how long it must not have
// ended to be said to wait.
const (
	patience = 20 * time.Second
	waits    = 25 * time.Millisecond
)

// overlap stops one operation in its middle, begins the other, and tells whether
// that one ended as the table wants.
func (s *stage) overlap(t *testing.T, first, second *overlapOp, pick int, want string) {
	ctx := t.Context()
	owned := !first.alone || !second.alone && first.name != "Own"
	if first.name == "repair" || second.name == "repair" {
		s.damage(t)
		s.damaged = true
	}
	if owned {
		var err error
		if s.o, err = s.own(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.reader, err = repo.Open(ctx, s.side, s.options()); err != nil {
		t.Fatal(err)
	}
	ways := slices.DeleteFunc(slices.Clone(first.ways), func(w overlapWay) bool { return w.later })
	way := ways[pick%len(ways)]
	for _, disk := range []*vfs.Faulty{s.disk, s.side} {
		if way.at != nil {
			disk.OnOp(func(_ int, op vfs.Op) {
				if way.at(op) {
					s.pause(0)
				}
			})
		}
	}
	s.stop.Store(true)
	firstDone := begin(func() error { return way.do(ctx, s, 0) })
	select {
	case <-s.stopped:
	case err := <-firstDone:
		t.Fatalf("%s ended without coming to its middle: %v", first.name, err)
	}
	var results []<-chan error
	for _, way := range second.ways {
		do := way.do
		if first.name == "Own" && !second.alone {
			do = overlapOps[len(overlapOps)-1].ways[0].do // whoever owns first has to
		}
		results = append(results, begin(func() error { return do(ctx, s, 1) }))
	}
	var last []<-chan error // that are still to end
	for i, done := range results {
		got, err := outcome(done, want)
		if got != want {
			t.Errorf("way %d of %s: %s, %v, want %s", i, second.name, got, err, want)
		}
		if got == "waits" {
			last = append(last, done)
		}
	}
	close(s.goOn)
	for _, done := range append(last, firstDone) {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("does not end")
		}
	}
	s.check(t)
}

func begin(do func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return done
}

// outcome says what became of something that was begun, given what it should.
func outcome(done <-chan error, want string) (string, error) {
	long := patience
	if want == "waits" {
		long = waits
	}
	select {
	case err := <-done:
		var busy *repo.BusyError
		switch {
		case errors.As(err, &busy):
			return "no", nil
		case err != nil:
			return "error", err
		}
		return "yes", nil
	case <-time.After(long):
		return "waits", nil
	}
}

// damage spoils a pack, which its parity can heal.
func (s *stage) damage(t *testing.T) {
	t.Helper()
	var once sync.Once
	err := vfs.Walk(s.mem, "packs/data", func(name string, info vfs.Info) (err error) {
		if !info.Dir {
			once.Do(func() { err = s.mem.Corrupt(name, 5000, 0xff) })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// check ends the stage and looks at what is left.
func (s *stage) check(t *testing.T) {
	t.Helper()
	s.disk.OnOp(nil)
	s.side.OnOp(nil)
	ctx := t.Context()
	errs := []error{s.reader.Close()}
	if s.o != nil {
		errs = append(errs, s.o.Close())
	}
	if s.damaged {
		errs = append(errs, s.lockPacks(false), s.with(ctx, func(o *repo.Owner) error {
			rep, err := o.Repair(ctx, repo.RepairOptions{})
			if err == nil && !rep.Whole() {
				err = fmt.Errorf("not whole after a repair: %+v", rep)
			}
			return err
		}))
	}
	errs = append(errs, whole(s.mem), repotest.OpenAndCompare(ctx, s.disk, s.options(), s.model()), repotest.Account(s.mem))
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}
