package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

// empty is a source of zeros, which is backed up without storing anything.
type empty int64

func (e empty) ReadAt(p []byte, off int64) (int, error)      { clear(p); return len(p), nil }
func (e empty) Size() int64                                  { return int64(e) }
func (e empty) NextData(int64) (start, end int64, err error) { return 0, 0, io.EOF }

// A long is a repository with many points, made without reading any source.
type long struct {
	tb         testing.TB
	mem, state *vfs.Mem
	opt        Options
	now        time.Time
	runs       int
}

func newLong(tb testing.TB, sealed bool) *long {
	l := &long{tb: tb, mem: vfs.NewMem(), state: vfs.NewMem(), now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)}
	clock := func() time.Time { l.now = l.now.Add(time.Second); return l.now }
	random := rand.NewChaCha8([32]byte{1})
	create := CreateOptions{State: l.state, Now: clock, Rand: random, WorkFactor: 4, ReserveBytes: -1}
	l.opt = Options{State: l.state, Now: clock, Rand: random}
	if sealed {
		create.Passphrase = []byte("long")
		l.opt.Passphrase = create.Passphrase
	}
	if _, err := Create(tb.Context(), l.mem, create); err != nil {
		tb.Fatal(err)
	}
	return l
}

// own opens the repository as its owner for do.
func (l *long) own(do func(o *Owner)) {
	l.tb.Helper()
	o, err := Own(l.tb.Context(), l.mem, l.opt, 0)
	if err != nil {
		l.tb.Fatal(err)
	}
	do(o)
	if err := o.Close(); err != nil {
		l.tb.Fatal(err)
	}
}

// commit makes n points of some machines by what commits them, and no more.
func (l *long) commit(o *Owner, n, machines int) {
	l.tb.Helper()
	for range n {
		name := fmt.Sprintf("machine-%02d", l.runs%machines)
		l.runs++
		id, err := newID(l.now, l.opt.Rand)
		if err != nil {
			l.tb.Fatal(err)
		}
		r := &run{
			owner: o, store: o.store, rand: o.rand, log: o.log, id: RunID(id), machineID: "id of " + name, host: "vault", started: l.now,
			opt: &BackupOptions{Machine: name, Job: "nightly", Slot: l.now.Format(time.RFC3339), Actor: "root", Consistency: "crash", Disks: []SourceDisk{
				{Name: "root", Source: empty(40 << 30), Format: "vmdk", Path: "/vm/" + name + "/root.vmdk"},
				{Name: "data", Source: empty(400 << 30), Format: "vmdk", Path: "/vm/" + name + "/data.vmdk"},
			}},
			data: new(packWriter), meta: new(packWriter), nodes: new(nodeWriter),
		}
		r.result.Disks = []DiskRun{{Counters: Counters{ReadBytes: 1 << 30, NewBytes: 12345678, Chunks: int64(l.runs)}}}
		roots := []chunk.ID{{byte(l.runs), byte(l.runs >> 8), 1}, {byte(l.runs), byte(l.runs >> 8), 2}}
		if err := r.commit(roots); err != nil {
			l.tb.Fatal(err)
		}
	}
}

// points opens the repository anew and lists.
func (l *long) points() []Point {
	l.tb.Helper()
	r, err := Open(l.tb.Context(), l.mem, l.opt)
	if err != nil {
		l.tb.Fatal(err)
	}
	points, err := r.Points(l.tb.Context())
	if err = errors.Join(err, r.Close()); err != nil {
		l.tb.Fatal(err)
	}
	return points
}

func (l *long) checkpoints() []uint64 {
	l.tb.Helper()
	list, err := listCheckpoints(l.mem)
	if err != nil {
		l.tb.Fatal(err)
	}
	return list
}

func (l *long) remove(names ...string) {
	l.tb.Helper()
	for _, n := range names {
		if err := l.mem.Remove(n); err != nil {
			l.tb.Fatal(err)
		}
	}
}

var everything = vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll}

var samePoints = cmp.Options{cmp.AllowUnexported(Point{}, DiskInfo{}), cmpopts.EquateEmpty()}

// TestCheckpoint holds what is listed by a checkpoint to what is listed by the
// ledger and the manifests, and sees when one is made.
func TestCheckpoint(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed %t", sealed), func(t *testing.T) {
			l := newLong(t, sealed)
			l.own(func(o *Owner) { l.commit(o, checkpointAtClose-2, 3) })
			if got := l.checkpoints(); len(got) > 0 {
				t.Errorf("a small repository has checkpoints %d", got)
			}
			l.own(func(o *Owner) { l.commit(o, 1, 3) })
			if got := l.checkpoints(); !slices.Equal(got, []uint64{checkpointAtClose}) {
				t.Fatalf("checkpoints %d", got)
			}
			l.own(func(o *Owner) { l.commit(o, 10, 3) })
			l.own(func(o *Owner) {
				l.commit(o, checkpointAnyway, 4)
				if got, want := l.checkpoints(), []uint64{checkpointAtClose + checkpointAnyway}; !slices.Equal(got, want) {
					t.Errorf("while the owner goes on: checkpoints %d, want %d", got, want)
				}
			})
			got := l.points()
			if len(got) != l.runs {
				t.Fatalf("%d points, want %d", len(got), l.runs)
			}
			if text, err := vfs.ReadFile(l.mem, checkpointPath(l.checkpoints()[0]), 1<<30); err != nil || bytes.Contains(text, []byte("vault")) == sealed {
				t.Errorf("names are in clear: %t, %v", !sealed, err)
			}
			l.remove(checkpointPath(l.checkpoints()[0]))
			if diff := cmp.Diff(l.points(), got, samePoints); diff != "" {
				t.Errorf("by checkpoint (+) and without (-):\n%s", diff)
			}
			// The next to open has none to begin with, and makes one.
			l.own(func(o *Owner) {
				if n := o.state.LastSequence("id of machine-01"); n == 0 || o.checkpoint != 0 {
					t.Errorf("sequence %d, checkpoint of %d", n, o.checkpoint)
				}
			})
			if len(l.checkpoints()) != 1 {
				t.Errorf("checkpoints %d", l.checkpoints())
			}
		})
	}
}

// TestCheckpointSaves counts what is opened: by a checkpoint neither segments nor
// manifests are read, and of a point that is opened just one manifest.
func TestCheckpointSaves(t *testing.T) {
	l := newLong(t, true)
	l.own(func(o *Owner) { l.commit(o, checkpointAtClose, 3) })
	l.own(func(o *Owner) { l.commit(o, 2, 3) })
	f := vfs.NewFaulty(l.mem)
	f.CountReads()
	opened := func(dir string) (n int) {
		for _, op := range f.Ops() {
			if op.Kind == vfs.OpOpen && strings.HasPrefix(op.Name, dir) {
				n++
			}
		}
		return n
	}
	r, err := Open(t.Context(), f, l.opt)
	if err != nil {
		t.Fatal(err)
	}
	if points, err := r.Points(t.Context()); err != nil || len(points) != l.runs {
		t.Fatalf("%d points, %v", len(points), err)
	}
	// The segment of the checkpoint, and the two after it; their two manifests.
	// A name that is not there is tried, too.
	if s, m := opened("ledger/"), opened("points/"); s > 3+2 || m > 2 {
		t.Errorf("%d segments and %d manifests were opened:\n%s", s, m, vfs.Trace(f.Ops()))
	}
	before := opened("points/")
	p, err := r.Find(t.Context(), "machine-01@latest", nil)
	if err != nil {
		t.Fatal(err)
	}
	pr, err := r.OpenPoint(p.ID)
	if err != nil {
		t.Fatal(err)
	}
	if n := opened("points/") - before; n != 1 {
		t.Errorf("to find and open a point %d manifests were read", n)
	}
	if err := errors.Join(pr.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointComesBack: a power cut brings an older checkpoint back, whose
// removal was not durable. The next owner takes it away.
func TestCheckpointComesBack(t *testing.T) {
	l := newLong(t, false)
	l.own(func(o *Owner) { l.commit(o, checkpointAtClose, 3) })
	first := l.checkpoints()
	l.own(func(o *Owner) { l.commit(o, checkpointAtClose, 3) })
	newest := l.checkpoints()
	if len(first) != 1 || len(newest) != 1 || first[0] == newest[0] {
		t.Fatalf("checkpoints %v, then %v", first, newest)
	}
	l.mem = l.mem.CrashClone(vfs.CrashOptions{})
	if got := l.checkpoints(); len(got) != 2 {
		t.Fatalf("after the power cut there are checkpoints %v", got)
	}
	l.own(func(*Owner) {})
	if got := l.checkpoints(); !slices.Equal(got, newest) {
		t.Errorf("checkpoints %v, want %v", got, newest)
	}
}

// TestCheckpointDamage has checkpoints that must not be believed.
func TestCheckpointDamage(t *testing.T) {
	l := newLong(t, false)
	l.own(func(o *Owner) { l.commit(o, checkpointAtClose, 3) })
	name := checkpointPath(l.checkpoints()[0])
	good, err := vfs.ReadFile(l.mem, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	other := newLong(t, false)
	other.opt.Now, other.opt.Rand = l.opt.Now, rand.NewChaCha8([32]byte{2})
	other.own(func(o *Owner) { other.commit(o, checkpointAtClose, 3) })
	foreign, err := vfs.ReadFile(other.mem, checkpointPath(other.checkpoints()[0]), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	sum := func(p []byte) []byte { s := sum256(p[:len(p)-32]); return append(p[:len(p)-32], s[:]...) }
	at := func(i int, v byte) []byte { p := bytes.Clone(good); p[i] = v; return p }
	for what, p := range map[string][]byte{
		"empty": nil, "short": good[:100], "a bit": at(500, good[500]^1), "zeros": make([]byte, len(good)),
		"newer": sum(at(4, 9)), "sealed": sum(at(6, 1)), "length": sum(at(checkpointHead-8, 1)), "number": sum(at(8, 7)),
		"signature": sum(at(len(good)-40, good[len(good)-40]^1)), "tail": append(bytes.Clone(good), 0), "foreign": foreign,
	} {
		t.Run(what, func(t *testing.T) {
			l := &long{tb: t, mem: l.mem.CrashClone(everything), state: l.state, opt: l.opt, runs: l.runs}
			l.remove(name)
			if err := vfs.WriteFile(l.mem, name, p); err != nil {
				t.Fatal(err)
			}
			r, err := Open(t.Context(), l.mem, l.opt)
			if err != nil {
				t.Fatal(err)
			}
			if c := r.loadCheckpoint(); c != nil {
				t.Error("it is believed")
			}
			if points, err := r.Points(t.Context()); err != nil || len(points) != l.runs {
				t.Errorf("%d points, %v", len(points), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			l.own(func(o *Owner) { l.commit(o, 1, 3) })
			if got := l.checkpoints(); len(got) != 1 || got[0] == 1+checkpointAtClose {
				t.Errorf("checkpoints %d afterwards", got)
			}
		})
	}
	t.Run("ledger rolled back", func(t *testing.T) {
		l := &long{tb: t, mem: l.mem.CrashClone(everything), state: l.state, opt: l.opt, runs: l.runs}
		l.remove(segmentPath(uint64(l.runs+1)), segmentPath(uint64(l.runs+1))+twinSuffix)
		if points := l.points(); len(points) != l.runs-1 {
			t.Errorf("%d points, want %d", len(points), l.runs-1)
		}
	})
	t.Run("rolled back itself", func(t *testing.T) {
		l := &long{tb: t, mem: l.mem.CrashClone(everything), state: l.state, opt: l.opt, runs: l.runs}
		l.own(func(o *Owner) { l.commit(o, checkpointAtClose, 3) })
		l.remove(checkpointPath(l.checkpoints()[0]))
		if err := vfs.WriteFile(l.mem, name, good); err != nil {
			t.Fatal(err)
		}
		if points := l.points(); len(points) != l.runs {
			t.Errorf("%d points, want %d", len(points), l.runs)
		}
	})
}

// FuzzCheckpoint reads anything as a checkpoint's file, and as its text.
func FuzzCheckpoint(f *testing.F) {
	l := newLong(f, false)
	var signers = func() (r *Repository) {
		l.own(func(o *Owner) { l.commit(o, checkpointAtClose, 3); r = o.Repository })
		return r
	}().signers
	good, err := vfs.ReadFile(l.mem, checkpointPath(l.checkpoints()[0]), 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"number":1,"repository":"a","machines":[{"machine":"m","last":3}]}` + "\n" + `{"state":{"point":"a"},"manifest":{"counters":[1,2]}}` + "\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if c, err := decodeCheckpoint(p, nil, signers); err == nil && c.state == nil {
			t.Error("a checkpoint of nothing")
		}
		sealed := slices.Concat(p, make([]byte, 32)) // with a good sum the next checks are met
		s := sum256(p)
		copy(sealed[len(p):], s[:])
		if _, err := decodeCheckpoint(sealed, nil, signers); err == nil && !bytes.Equal(sealed, good) {
			t.Error("an unsigned checkpoint is believed")
		}
		_, _, _ = parseCheckpoint(p, signers)
	})
}

// BenchmarkPoints opens a repository of 100 machines and 10,000 points and lists
// them.
func BenchmarkPoints(b *testing.B) {
	for _, sealed := range []bool{false, true} {
		l := newLong(b, sealed)
		l.own(func(o *Owner) { l.commit(o, 10_000, 100) })
		dir, err := vfs.OS(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		if err := copyTree(dir, l.mem); err != nil {
			b.Fatal(err)
		}
		for _, fsys := range []vfs.FS{l.mem, dir} {
			b.Run(fmt.Sprintf("%T, sealed %t", fsys, sealed), func(b *testing.B) {
				began := cpuTime(b)
				defer func() { b.ReportMetric(float64((cpuTime(b)-began).Milliseconds())/float64(b.N), "cpu-ms/op") }()
				for b.Loop() {
					r, err := Open(b.Context(), fsys, l.opt)
					if err != nil {
						b.Fatal(err)
					}
					points, err := r.Points(b.Context())
					if err != nil || len(points) != 10_000 {
						b.Fatalf("%d points, %v", len(points), err)
					}
					if err := r.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// cpuTime is what this process has used so far, which says more than the clock on a
// busy machine.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func copyTree(to, from vfs.FS) error {
	return vfs.Walk(from, ".", func(name string, info vfs.Info) error {
		if name == "." {
			return nil
		}
		if info.Dir {
			return to.Mkdir(name)
		}
		p, err := vfs.ReadFile(from, name, 1<<30)
		if err != nil {
			return err
		}
		f, err := to.Create(name)
		if err != nil {
			return err
		}
		_, err = f.Write(p)
		return errors.Join(err, f.Close())
	})
}

// TestCheckpointCrash cuts the power at each step of an owner's end, when a
// checkpoint takes the place of another.
func TestCheckpointCrash(t *testing.T) {
	l := newLong(t, true)
	l.own(func(o *Owner) { l.commit(o, checkpointAtClose, 3) })
	f := vfs.NewFaulty(l.mem)
	o, err := Own(t.Context(), f, l.opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.commit(o, checkpointAtClose, 3)
	var stops []*vfs.Mem
	ways := vfs.Crashes(1, 2)
	f.OnOp(func(i int, _ vfs.Op) { stops = append(stops, l.mem.CrashClone(ways[i%len(ways)])) })
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	stops = append(stops, l.mem)
	if len(stops) < 8 {
		t.Fatalf("stopped %d times", len(stops))
	}
	for i, mem := range stops {
		s := &long{tb: t, mem: mem, state: l.state, opt: l.opt, runs: l.runs}
		if points := s.points(); len(points) != l.runs {
			t.Errorf("stop %d: %d points, want %d", i, len(points), l.runs)
		}
		if i%3 > 0 {
			continue
		}
		s.own(func(o *Owner) { s.commit(o, checkpointAtClose, 3) })
		if got := s.checkpoints(); len(got) != 1 {
			t.Errorf("stop %d: checkpoints %d afterwards", i, got)
		}
		if points := s.points(); len(points) != s.runs {
			t.Errorf("stop %d: %d points, want %d", i, len(points), s.runs)
		}
	}
}
