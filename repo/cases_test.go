package repo_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// is reports an error that is not the one wanted.
func is(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// owned is a repository with its owner, who is closed with the test, and its
// files accounted for.
func owned(t *testing.T) (*world, *repo.Owner) {
	t.Helper()
	w := newWorld(false, 1)
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	o, err := w.own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if err := repotest.Account(w.disk); err != nil {
			t.Error(err)
		}
		ctx := context.Background() // that of the test has ended
		if err := repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model()); err != nil {
			t.Error(err)
		}
	})
	return w, o
}

func dense(seed uint64, size int64) *repotest.Disk {
	return repotest.New(rand.New(rand.NewPCG(seed, 3)), repotest.Dense, size)
}

func oneDisk(machine string, d *repotest.Disk) repotest.Point {
	return repotest.NewPoint(machine, repotest.NamedDisk{Name: "d", Disk: d})
}

// must backs up.
func (w *world) must(t *testing.T, o *repo.Owner, p repotest.Point, mod func(*repo.BackupOptions)) *repo.Run {
	t.Helper()
	run, err := w.backup(t.Context(), o, p, mod)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// TestSourceFails: no point, and what was stored is reused, in the same process
// and by another.
func TestSourceFails(t *testing.T) {
	w, o := owned(t)
	p := oneDisk("web", dense(1, 2<<20))
	for _, size := range []string{"fails", "is short"} {
		_, err := w.backup(t.Context(), o, p, func(opt *repo.BackupOptions) {
			src := opt.Disks[0].Source.(*repotest.Source)
			if size == "fails" {
				src.FailAt = 1900 << 10
			} else {
				src.EndAt = 1900 << 10
			}
		})
		want := map[string]error{"fails": repotest.ErrSource, "is short": repo.ErrShortSource}[size]
		is(t, "a source that "+size, err, want)
		if points, err := o.Points(t.Context()); err != nil || len(points) != 0 {
			t.Errorf("a source that %s: points %v, %v", size, points, err)
		}
	}
	run := w.must(t, o, p, nil)
	if c := run.Disks[0].Counters; c.KnownBytes < 1792<<10 {
		t.Errorf("of 1792 KiB that were stored %d bytes were reused: %+v", c.KnownBytes, c)
	}
}

// TestFailedRunIsReusedLater is the same with the owner's end between.
func TestFailedRunIsReusedLater(t *testing.T) {
	w := newWorld(true, 1)
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := oneDisk("web", dense(1, 2<<20))
	err := w.with(t.Context(), func(o *repo.Owner) error {
		_, err := w.backup(t.Context(), o, p, func(opt *repo.BackupOptions) {
			opt.Disks[0].Source.(*repotest.Source).FailAt = 1900 << 10
		})
		return err
	})
	is(t, "a source that fails", err, repotest.ErrSource)
	if err := repotest.Account(w.disk); err != nil {
		t.Error(err)
	}
	run, err := w.session(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if c := run.Disks[0].Counters; c.KnownBytes < 1792<<10 {
		t.Errorf("of 1792 KiB that were stored %d bytes were reused: %+v", c.KnownBytes, c)
	}
	if err := repotest.Account(w.disk); err != nil {
		t.Error(err)
	}
}

// TestCancel: a backup that is cancelled reads no more than is under way, makes
// no point, and what it stored is reused.
func TestCancel(t *testing.T) {
	w, o := owned(t)
	p := oneDisk("web", dense(1, 16<<20))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var after atomic.Int64
	_, err := w.backup(ctx, o, p, func(opt *repo.BackupOptions) {
		opt.Disks[0].Source.(*repotest.Source).OnRead = func(off int64) {
			if ctx.Err() != nil {
				after.Add(1)
			}
			if off >= 4<<20 {
				cancel()
			}
		}
	})
	is(t, "cancelled", err, context.Canceled)
	if n := after.Load(); n > 8 {
		t.Errorf("%d reads began after the backup was cancelled", n)
	}
	if points, err := o.Points(t.Context()); err != nil || len(points) != 0 {
		t.Errorf("points after a cancelled backup: %v, %v", points, err)
	}
	if run := w.must(t, o, p, nil); run.Disks[0].Counters.KnownBytes < 1<<20 {
		t.Errorf("reused %+v", run.Disks[0].Counters)
	}
}

// TestTwoOwners: the second learns who the first is, waits as long as it was
// told, and gets its turn.
func TestTwoOwners(t *testing.T) {
	w, _ := owned(t)
	opt := w.options()
	_, err := repo.Own(t.Context(), w.disk, opt, 0)
	var busy *repo.BusyError
	if !errors.As(err, &busy) || busy.Holder.PID != os.Getpid() || busy.Holder.Since.IsZero() {
		t.Errorf("got %v", err)
	}

	w = newWorld(false, 2)
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	opt = w.options()
	opt.Doing = "backup of web"
	first, err := repo.Own(t.Context(), w.disk, opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = repo.Own(t.Context(), w.disk, opt, time.Millisecond)
	if !errors.As(err, &busy) || busy.Holder.Doing != "backup of web" || !strings.Contains(err.Error(), "backup of web") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = repo.Own(ctx, w.disk, opt, time.Hour)
	is(t, "lost interest while waiting", err, context.Canceled)
	second := make(chan error)
	go func() {
		o, err := repo.Own(t.Context(), w.disk, opt, time.Minute)
		if err == nil {
			err = o.Close()
		}
		second <- err
	}()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Errorf("waited for the first to end: %v", err)
	}
}

// TestOneRunPerMachine: others may run at the same time.
func TestOneRunPerMachine(t *testing.T) {
	w, o := owned(t)
	w.must(t, o, oneDisk("web", dense(1, 300<<10)), nil)
	var once sync.Once
	w.must(t, o, oneDisk("web", dense(2, 300<<10)), func(opt *repo.BackupOptions) {
		opt.Disks[0].Source.(*repotest.Source).OnRead = func(int64) {
			once.Do(func() {
				again := repo.BackupOptions{Machine: "web", Disks: oneDisk("web", dense(3, 1000)).Sources()}
				_, err := o.Backup(t.Context(), again)
				var busy *repo.BusyError
				if !errors.As(err, &busy) || !strings.Contains(err.Error(), "backup of web") {
					t.Errorf("a second backup of the machine: %v", err)
				}
				if _, err := w.backup(t.Context(), o, oneDisk("db", dense(3, 1000)), nil); err != nil {
					t.Errorf("a backup of another machine: %v", err)
				}
			})
		}
	})
}

// TestOneFirstRunPerName: two first runs of one name at the same time do not
// make two machines of it.
func TestOneFirstRunPerName(t *testing.T) {
	w, o := owned(t)
	var once sync.Once
	w.must(t, o, oneDisk("web", dense(2, 300<<10)), func(opt *repo.BackupOptions) {
		opt.Disks[0].Source.(*repotest.Source).OnRead = func(int64) {
			once.Do(func() {
				again := repo.BackupOptions{Machine: "web", Disks: oneDisk("web", dense(3, 1000)).Sources()}
				_, err := o.Backup(t.Context(), again)
				var busy *repo.BusyError
				if !errors.As(err, &busy) {
					t.Errorf("a second first backup of the name: %v", err)
				}
			})
		}
	})
}

// TestLease: the owner can tell that a reader in another process has a point.
func TestLease(t *testing.T) {
	w, o := owned(t)
	run := w.must(t, o, oneDisk("web", dense(1, 300<<10)), nil)
	lease := "leases/" + string(run.Point.ID)
	var readers []*repo.Reader
	for range 2 {
		r, err := repo.Open(t.Context(), w.disk, w.options())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close() //nolint:errcheck // only read
		pr, err := r.OpenPoint(run.Point.ID)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, pr)
	}
	for _, pr := range readers {
		_, err := w.disk.Lock(lease, vfs.Exclusive)
		is(t, "lock a lease that is held", err, vfs.ErrLocked)
		if err := pr.Close(); err != nil {
			t.Error(err)
		}
	}
	l, err := w.disk.Lock(lease, vfs.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	_, err = r.OpenPoint(run.Point.ID)
	is(t, "a point that is being removed", err, repo.ErrNotFound)
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}

// TestPins: they stay whoever comes and goes, and go when they are taken away.
func TestPins(t *testing.T) {
	w, o := owned(t)
	run := w.must(t, o, oneDisk("web", dense(1, 1000)), nil)
	id := run.Point.ID
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"recovery-1", "b", "b"} {
		if err := r.Pin(id, name); err != nil {
			t.Errorf("pin %s: %v", name, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	crashed := w.fork(vfs.CrashOptions{})
	for name, of := range map[string]*world{"here": w, "after a power cut": crashed} {
		r, err := repo.Open(t.Context(), of.disk, of.options())
		if err != nil {
			t.Fatal(err)
		}
		if pins, err := r.Pins(id); err != nil || !slices.Equal(pins, []string{"b", "recovery-1"}) {
			t.Errorf("%s: pins %q, %v", name, pins, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	is(t, "pin a point that isn't", o.Pin("aaaaaaaaaaaaaaaaaaaa", "x"), repo.ErrNotFound)
	is(t, "pin under a path", o.Pin(id, "../x"), repo.ErrName)
	is(t, "unpin what isn't pinned", o.Unpin(id, "x"), repo.ErrNotFound)
	for _, name := range []string{"b", "recovery-1"} {
		if err := o.Unpin(id, name); err != nil {
			t.Errorf("unpin %s: %v", name, err)
		}
	}
	if pins, err := o.Pins(id); err != nil || len(pins) != 0 {
		t.Errorf("pins %q, %v", pins, err)
	}
}

// TestClockBack: points keep their order, and say that the clock had gone back.
func TestClockBack(t *testing.T) {
	w, o := owned(t)
	d := dense(1, 300<<10)
	a := w.must(t, o, oneDisk("web", d), nil).Point
	w.ticks.Add(-3600)
	b := w.must(t, o, oneDisk("web", repotest.Scramble(d, 1000)), nil).Point
	c := w.must(t, o, oneDisk("db", d), nil).Point
	w.ticks.Add(2 * 3600)
	e := w.must(t, o, oneDisk("web", d), nil).Point
	if a.ClockBack || !b.ClockBack || !c.ClockBack || e.ClockBack {
		t.Errorf("clock back: %v %v %v %v, want it for the second and third", a.ClockBack, b.ClockBack, c.ClockBack, e.ClockBack)
	}
	points, err := o.Points(t.Context())
	if err != nil || len(points) != 4 {
		t.Fatal(points, err)
	}
	for i, want := range []repo.Point{a, b, c, e} {
		if points[i].ID != want.ID || i > 0 && !points[i].Time.After(points[i-1].Time) {
			t.Errorf("point %d is %s of %v, want %s", i, points[i].ID, points[i].Time, want.ID)
		}
	}
	if p, err := o.Find(t.Context(), "web@latest", time.UTC); err != nil || p.ID != e.ID || p.Sequence != 3 {
		t.Errorf("latest is %s, number %d, %v, want %s", p.ID, p.Sequence, err, e.ID)
	}
	if b.Parent != a.ID || b.Sequence != 2 {
		t.Errorf("the second has parent %q and number %d", b.Parent, b.Sequence)
	}
}

// TestIdentity: a name belongs to one machine until another adopts it.
func TestIdentity(t *testing.T) {
	w, o := owned(t)
	as := func(id string, adopt bool) func(*repo.BackupOptions) {
		return func(opt *repo.BackupOptions) { opt.MachineID, opt.Adopt = id, adopt }
	}
	d := dense(1, 300<<10)
	first := w.must(t, o, oneDisk("web", d), as("uuid-1", false)).Point
	before := w.mem.Dump()
	_, err := w.backup(t.Context(), o, oneDisk("web", d), as("uuid-2", false))
	is(t, "another identity", err, repo.ErrMachine)
	if w.mem.Dump() != before {
		t.Error("a refused backup has changed something")
	}
	if p := w.must(t, o, oneDisk("web", d), nil).Point; p.MachineID != "uuid-1" || p.Parent != first.ID {
		t.Errorf("the same name: machine %s, parent %q", p.MachineID, p.Parent)
	}
	if p := w.must(t, o, oneDisk("web", d), as("uuid-2", true)).Point; p.MachineID != "uuid-2" || !p.Full || p.Sequence != 1 {
		t.Errorf("adopted: %+v", p)
	}
	if p := w.must(t, o, oneDisk("web", d), nil).Point; p.MachineID != "uuid-2" || p.Sequence != 2 {
		t.Errorf("after adoption: %+v", p)
	}
}

// TestRequests: what can't become a point is refused and changes nothing.
func TestRequests(t *testing.T) {
	w, o := owned(t)
	d := dense(1, 1000)
	disk := func(name string) repo.SourceDisk { return repo.SourceDisk{Name: name, Source: repotest.NewSource(d)} }
	before := w.mem.Dump()
	for _, c := range []struct {
		name string
		opt  repo.BackupOptions
	}{
		{"no machine", repo.BackupOptions{Disks: []repo.SourceDisk{disk("d")}}},
		{"machine with a slash", repo.BackupOptions{Machine: "a/b", Disks: []repo.SourceDisk{disk("d")}}},
		{"machine of 300 bytes", repo.BackupOptions{Machine: strings.Repeat("x", 300), Disks: []repo.SourceDisk{disk("d")}}},
		{"machine ..", repo.BackupOptions{Machine: "..", Disks: []repo.SourceDisk{disk("d")}}},
		{"machine with a control character", repo.BackupOptions{Machine: "a\x1bb", Disks: []repo.SourceDisk{disk("d")}}},
		{"job with a line end", repo.BackupOptions{Machine: "m", Job: "a\nb", Disks: []repo.SourceDisk{disk("d")}}},
		{"identity with a slash", repo.BackupOptions{Machine: "m", MachineID: "a/b", Disks: []repo.SourceDisk{disk("d")}}},
		{"no disks", repo.BackupOptions{Machine: "m"}},
		{"disk without a name", repo.BackupOptions{Machine: "m", Disks: []repo.SourceDisk{disk("")}}},
		{"two disks of one name", repo.BackupOptions{Machine: "m", Disks: []repo.SourceDisk{disk("d"), disk("e"), disk("d")}}},
	} {
		_, err := o.Backup(t.Context(), c.opt)
		is(t, c.name, err, repo.ErrName)
	}
	if after := w.mem.Dump(); after != before {
		t.Errorf("refused backups have changed something:\n%s\nwas:\n%s", after, before)
	}
}

// TestPrefix: points of one moment share the first characters of their ids.
func TestPrefix(t *testing.T) {
	w, o := owned(t)
	a := w.must(t, o, oneDisk("web", dense(1, 1000)), nil).Point
	b := w.must(t, o, oneDisk("db", dense(1, 1000)), nil).Point
	var ambiguous *repo.AmbiguousError
	_, err := o.Find(t.Context(), string(a.ID[:4]), time.UTC)
	if !errors.As(err, &ambiguous) || len(ambiguous.Matches) != 2 ||
		!strings.Contains(err.Error(), string(a.ID)) || !strings.Contains(err.Error(), string(b.ID)) {
		t.Errorf("ambiguous: %v", err)
	}
	n := 4
	for a.ID[:n] == b.ID[:n] {
		n++
	}
	for spec, want := range map[string]repo.PointID{
		string(a.ID): a.ID, string(b.ID[:n+1]): b.ID, "web@latest": a.ID, "db@2026-11-22": b.ID, a.MachineID + "@latest": a.ID,
	} {
		if p, err := o.Find(t.Context(), spec, time.UTC); err != nil || p.ID != want {
			t.Errorf("%s: %s, %v, want %s", spec, p.ID, err, want)
		}
	}
	for _, spec := range []string{"", "aa", string(a.ID[:3]), "zzzz", "mail@latest", "web@2026-11-21", string(a.ID) + "a"} {
		_, err := o.Find(t.Context(), spec, time.UTC)
		is(t, "spec "+spec, err, repo.ErrNotFound)
	}
	_, err = o.Find(t.Context(), "web@yesterday", time.UTC)
	is(t, "spec web@yesterday", err, repo.ErrTime)
}

// TestReadOnlyMedium: everything reads, with one warning; nothing can be made.
func TestReadOnlyMedium(t *testing.T) {
	w := base(t, false)
	if _, err := w.session(t.Context(), another(w)); err != nil {
		t.Fatal(err)
	}
	for _, p := range w.points { // leases that are there could be locked
		if err := w.mem.Remove("leases/" + string(p.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	w.mem.SetReadOnly(true)
	var log bytes.Buffer
	opt := w.options()
	opt.Log = slog.New(slog.NewTextHandler(&log, nil))
	repotest.Check(t, w.disk, opt, w.model())
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "without a lease") {
		t.Errorf("%d lines logged, want one:\n%s", n, log.String())
	}
	_, err := w.own(t.Context())
	is(t, "own", err, repo.ErrReadOnly)
	r, err := repo.Open(t.Context(), w.disk, opt)
	if err != nil {
		t.Fatal(err)
	}
	is(t, "pin", r.Pin(w.points[0].ID, "x"), repo.ErrReadOnly)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	w.mem.SetReadOnly(false)

	empty := vfs.NewMem()
	empty.SetReadOnly(true)
	_, err = repo.Create(t.Context(), empty, w.create)
	is(t, "create", err, repo.ErrReadOnly)
}

// TestChangeLists: one that lies is caught and costs a full read; one that
// doesn't fit is not used; and whoever requires lists is refused instead.
func TestChangeLists(t *testing.T) {
	w, o := owned(t)
	d := dense(1, 1<<20)
	withID := func(opt *repo.BackupOptions) { opt.Disks[0].Changes = &repo.Changes{ChangeID: "52-3f/12"} }
	p := w.must(t, o, oneDisk("web", d), withID).Point
	if p.Disks[0].ChangeID != "52-3f/12" {
		t.Errorf("change id %q", p.Disks[0].ChangeID)
	}
	lied := repotest.Scramble(d, 64<<10)
	for _, c := range []struct {
		name string
		list repo.Changes
		want string // why it is not used; empty: it is
	}{
		{"no base", repo.Changes{SizeBytes: 1 << 20}, "names no base"},
		{"another base", repo.Changes{Base: "aaaaaaaaaaaaaaaaaaaa", SizeBytes: 1 << 20}, "starts from"},
		{"another size", repo.Changes{Base: string(p.ID), SizeBytes: 1<<20 + 1}, "1048577 bytes"},
		{"a lie", repo.Changes{Base: string(p.ID), SizeBytes: 1 << 20}, "can't be trusted"},
		{"half a lie", repo.Changes{Base: "52-3f/12", SizeBytes: 1 << 20, Ranges: []repo.Range{{Off: 0, Len: 256 << 10}}}, "can't be trusted"},
	} {
		_, err := w.backup(t.Context(), o, oneDisk("web", lied), func(opt *repo.BackupOptions) {
			opt.Disks[0].Changes, opt.RequireChanged = &c.list, true
		})
		is(t, c.name+", required", err, repo.ErrChanges)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, required: %v, want %q", c.name, err, c.want)
		}
		f := w.fork(keepAll) // each starts from the same point
		run := new(repo.Run)
		err = errors.Join(repotest.Reopen(t.Context(), f.disk, f.options()), f.with(t.Context(), func(o *repo.Owner) (err error) {
			run, err = f.backup(t.Context(), o, oneDisk("web", lied), func(opt *repo.BackupOptions) { opt.Disks[0].Changes = &c.list })
			return err
		}))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if run.Disks[0].Mode != repo.ReadCompare || len(run.Warnings) != 1 || !strings.Contains(run.Warnings[0], c.want) {
			t.Errorf("%s: read as %s, warnings %q, want %q", c.name, run.Disks[0].Mode, run.Warnings, c.want)
		}
		repotest.Check(t, f.disk, f.options(), f.model())
	}
	run := w.must(t, o, oneDisk("web", d), func(opt *repo.BackupOptions) {
		opt.Disks[0].Changes = &repo.Changes{Base: "52-3f/12", SizeBytes: 1 << 20}
	})
	if c := run.Disks[0].Counters; run.Disks[0].Mode != repo.ReadChanged || c.ReadBytes != 0 || c.SharedBytes != 1<<20 || c.SampledBytes == 0 {
		t.Errorf("a list that tells the truth: read as %s, %+v", run.Disks[0].Mode, c)
	}
}

// TestFullTrustsNothing: --full reads all, has no parent, and still stores no
// chunk twice.
func TestFullTrustsNothing(t *testing.T) {
	w, o := owned(t)
	d := dense(1, 1<<20)
	p := w.must(t, o, oneDisk("web", d), nil).Point
	run := w.must(t, o, oneDisk("web", repotest.Scramble(d, 2<<20)), func(opt *repo.BackupOptions) {
		opt.Full = true
		opt.Disks[0].Changes = &repo.Changes{Base: string(p.ID), SizeBytes: 1 << 20}
	})
	c := run.Disks[0].Counters
	if !run.Point.Full || run.Point.Parent != "" || c.ReadBytes != 1<<20 || c.KnownBytes != 768<<10 || c.NewBytes != 256<<10 {
		t.Errorf("full %v, parent %q, %+v", run.Point.Full, run.Point.Parent, c)
	}
}

// TestKeys: only the right passphrase opens a sealed repository.
func TestKeys(t *testing.T) {
	w := base(t, true)
	for _, c := range []struct {
		name, pass string
		want       error
	}{
		{"none", "", repo.ErrNeedKey},
		{"another", "wrong horse", repo.ErrWrongKey},
	} {
		opt := w.options()
		opt.Passphrase = []byte(c.pass)
		_, err := repo.Open(t.Context(), w.disk, opt)
		is(t, "open with passphrase: "+c.name, err, c.want)
		before := w.mem.Dump()
		_, err = repo.Own(t.Context(), w.disk, opt, 0)
		is(t, "own with passphrase: "+c.name, err, c.want)
		if w.mem.Dump() != before {
			t.Errorf("own with passphrase: %s: something has changed", c.name)
		}
	}
	opt := w.options()
	opt.State = vfs.NewMem()
	_, err := repo.Own(t.Context(), w.disk, opt, 0)
	is(t, "own without the signing key", err, repo.ErrNoSigner)
}

// TestOtherSigner: an owner with another signing key than the repository's does
// not get as far as to spoil the ledger.
func TestOtherSigner(t *testing.T) {
	w, other := base(t, false), newWorld(false, 9)
	if err := other.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := func(w *world) string {
		r, err := repo.Open(t.Context(), w.disk, w.options())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close() //nolint:errcheck // only read
		return r.Info().ID
	}
	text, err := vfs.ReadFile(other.state, "signers/"+id(other)+".pem", 4096)
	if err != nil {
		t.Fatal(err)
	}
	opt := w.options()
	state := vfs.NewMem()
	opt.State = state
	for _, dir := range []string{"signers", "tmp"} {
		if err := state.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := vfs.WriteFile(state, "signers/"+id(w)+".pem", text); err != nil {
		t.Fatal(err)
	}
	_, err = repo.Own(t.Context(), w.disk, opt, 0)
	is(t, "own with another signing key", err, repo.ErrNoSigner)
	if _, err := w.session(t.Context(), another(w)); err != nil {
		t.Errorf("with the right key afterwards: %v", err)
	}
}

// TestSealedTellsNothing: no bytes of a disk and no names are in the files of a
// sealed repository.
func TestSealedTellsNothing(t *testing.T) {
	secret := "Annual Report, Draft"
	for _, sealed := range []bool{false, true} {
		w := newWorld(sealed, 1)
		w.create.Compression = "none"
		if err := w.init(t.Context()); err != nil {
			t.Fatal(err)
		}
		d := dense(1, 300<<10)
		d.Write([]byte(secret), 100_000)
		o, err := w.own(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.must(t, o, oneDisk("payroll-server", d), func(opt *repo.BackupOptions) {
			opt.Job, opt.Actor = "quarterly figures", "the auditor"
		})
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		found := make(map[string]bool)
		err = vfs.Walk(w.mem, ".", func(name string, info vfs.Info) error {
			if info.Dir {
				return nil
			}
			text, err := vfs.ReadFile(w.mem, name, 1<<30)
			for _, s := range []string{secret, "payroll-server", "quarterly figures", "the auditor"} {
				found[s] = found[s] || bytes.Contains(text, []byte(s))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for s, f := range found {
			if f == sealed {
				t.Errorf("sealed %v: %q is found: %v", sealed, s, f)
			}
		}
	}
}

// TestNotARepository: what is no repository, or a newer one, is named and left
// as it is.
func TestNotARepository(t *testing.T) {
	w := base(t, false)
	for _, c := range []struct {
		name string
		do   func(m *vfs.Mem) error
		want error
		text string
	}{
		{"nothing", func(m *vfs.Mem) error { return removeAll(m, "format.json", "format.json.twin") }, repo.ErrNotRepository, "format.json"},
		{"a newer format", func(m *vfs.Mem) error {
			return errors.Join(edit(m, "format.json", `"version":1`, `"version":7`), edit(m, "format.json.twin", `"version":1`, `"version":7`))
		}, repo.ErrNewerFormat, "version 7"},
		{"another program's file", func(m *vfs.Mem) error {
			return errors.Join(edit(m, "format.json", "holdfast.", "whatever."), edit(m, "format.json.twin", "holdfast.", "whatever."))
		}, repo.ErrNotRepository, "format.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := w.fork(keepAll)
			if err := c.do(f.mem); err != nil {
				t.Fatal(err)
			}
			before := f.mem.Dump()
			_, err := repo.Open(t.Context(), f.disk, f.options())
			is(t, "open", err, c.want)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("open: %v, want %q in it", err, c.text)
			}
			_, err = f.own(t.Context())
			is(t, "own", err, c.want)
			_, err = repo.Create(t.Context(), f.disk, f.create)
			is(t, "create", err, repo.ErrExists)
			if f.mem.Dump() != before {
				t.Error("something has changed")
			}
		})
	}
	t.Run("settings that are damaged once", func(t *testing.T) {
		f := w.fork(keepAll)
		if err := f.mem.Corrupt("format.json", 60, 4); err != nil {
			t.Fatal(err)
		}
		repotest.Check(t, f.disk, f.options(), f.model())
	})
}

// TestCreateRefuses: a directory that holds anything is left as it is.
func TestCreateRefuses(t *testing.T) {
	for _, name := range []string{"notes.txt", "lock", "photos/"} {
		m := vfs.NewMem()
		var err error
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			err = m.Mkdir(dir)
		} else {
			var f vfs.File
			if f, err = m.Create(name); err == nil {
				err = f.Close()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		before := m.Dump()
		create := newWorld(false, 1).create
		_, err = repo.Create(t.Context(), m, create)
		is(t, "create beside "+name, err, repo.ErrExists)
		if m.Dump() != before {
			t.Errorf("create beside %s: something has changed", name)
		}
	}
}

// TestClosed: whatever is closed says so.
func TestClosed(t *testing.T) {
	w := base(t, false)
	o, err := w.own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	points, err := o.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pr, err := o.OpenPoint(points[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := pr.Disk(points[0].Disks[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(pr.Close(), o.Close()); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	_, err = disk.ReadAt(make([]byte, disk.Size()), 0)
	is(t, "read what is closed", err, repo.ErrClosed)
	_, err = disk.Restore(t.Context(), nil, repo.RestoreOptions{})
	is(t, "restore what is closed", err, repo.ErrClosed)
	if _, err := w.backup(t.Context(), o, another(w), nil); err == nil {
		t.Error("a backup by an owner who is none any more")
	}
	if err := repotest.Account(w.disk); err != nil {
		t.Error(err)
	}
}

func removeAll(m *vfs.Mem, names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, m.Remove(name))
	}
	return errors.Join(errs...)
}

// edit replaces text in a file, by text of the same length.
func edit(m *vfs.Mem, name, from, to string) error {
	text, err := vfs.ReadFile(m, name, 1<<20)
	if err != nil {
		return err
	}
	f, err := m.OpenWrite(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bytes.Replace(text, []byte(from), []byte(to), 1), 0)
	return errors.Join(err, f.Close())
}
