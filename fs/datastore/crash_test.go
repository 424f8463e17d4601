package datastore

import (
	"bytes"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

// long says that there is time for everything.
var long = os.Getenv("HOLDFAST_LONG") != ""

func steps(n int) int {
	if long {
		return 10 * n
	}
	return n
}

// fact is what a client knows of a name.
type fact struct {
	attr    fs.Attr
	cookie  uint64
	content string
}

// dump writes down all that a store says, by path.
func dump(s *Store) (map[string]fact, error) {
	list := make(map[string]fact)
	a, err := s.Attr(ctx, s.Root())
	if err != nil {
		return nil, err
	}
	list["/"] = fact{attr: a}
	return list, dumpDir(s, s.Root(), "", list)
}

func dumpDir(s *Store, dir fs.ID, path string, list map[string]fact) error {
	var entries []fs.Entry
	err := s.ReadDir(ctx, dir, 0, func(e fs.Entry) bool {
		entries = append(entries, e)
		return true
	})
	for _, e := range entries {
		if err != nil {
			break
		}
		f := fact{cookie: e.Cookie}
		if f.attr, err = s.Attr(ctx, e.ID); err != nil {
			break
		}
		where := path + "/" + e.Name
		switch f.attr.Type {
		case fs.TypeDir:
			err = dumpDir(s, e.ID, where, list)
		case fs.TypeSymlink:
			f.content, err = s.ReadLink(ctx, e.ID)
		case fs.TypeFile:
			p := make([]byte, f.attr.Size)
			if _, err = s.ReadAt(ctx, e.ID, p, 0); errors.Is(err, fs.ErrRetry) || len(p) == 0 {
				err = nil // a disk, which nobody attached
			}
			f.content = string(p)
		}
		list[where] = f
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// differ says in what a store after a crash is another than it was. Times of
// large files may be later. The file loose was written to: its size and bytes may
// be those of old as well as those of want.
func differ(got, want, old map[string]fact, loose fs.ID) error {
	if len(got) != len(want) {
		return fmt.Errorf("names %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for path, w := range want {
		g, ok := got[path]
		if !ok {
			return fmt.Errorf("%s is missing", path)
		}
		floor := w.attr
		if g.attr.ID == loose {
			if g.attr.Size != w.attr.Size && g.attr.Size != old[path].attr.Size {
				return fmt.Errorf("%s: %d bytes are neither the old nor the new size", path, g.attr.Size)
			}
			if err := between(g.content, w.content, old[path].content); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			floor = old[path].attr
			g.content, g.attr.Size, g.attr.Used = w.content, w.attr.Size, w.attr.Used
		}
		if g.attr.ID == loose || g.attr.Used > 0 && g.attr.Used%unitBytes == 0 {
			if compareTimes(g.attr.Ctime, floor.Ctime) < 0 || compareTimes(g.attr.Mtime, floor.Mtime) < 0 {
				return fmt.Errorf("%s: times went back: %+v, want %+v", path, g.attr, floor)
			}
			g.attr.Ctime, g.attr.Mtime = w.attr.Ctime, w.attr.Mtime
		}
		if g != w {
			g.content, w.content = brief(g.content), brief(w.content)
			return fmt.Errorf("%s: %+v, want %+v", path, g, w)
		}
	}
	return nil
}

func brief(s string) string { return fmt.Sprintf("%.20q (%d bytes)", s, len(s)) }

// between says which byte is neither of one nor of the other content.
func between(got, a, b string) error {
	at := func(s string, i int) byte {
		if i < len(s) {
			return s[i]
		}
		return 0
	}
	for i := range len(got) {
		if g := got[i]; g != at(a, i) && g != at(b, i) {
			return fmt.Errorf("byte %d is neither old nor new", i)
		}
	}
	return nil
}

// none is no ID.
var none fs.ID

// world is a store on a file system that can be cut off at every operation.
type world struct {
	mem  *vfs.Mem
	disk *vfs.Faulty
	opt  Options
	s    *Store
	rng  *rand.Rand

	acked map[string]fact // before the change under way
	loose fs.ID           // what it writes to
	ids   map[fs.ID]bool  // ever seen

	mu    sync.Mutex // guards stops: the store works in several goroutines
	stops []*stop
	fresh []*stop // of the change under way
}

// stop is a moment at which the power went.
type stop struct {
	index         int
	op            vfs.Op
	how           vfs.CrashOptions
	mem           *vfs.Mem
	before, after map[string]fact
	loose         fs.ID
	what          string
	ids           map[fs.ID]bool
	made          bool
}

func newWorld(seed uint64) *world {
	mem := vfs.NewMem()
	return &world{mem: mem, disk: vfs.NewFaulty(mem), rng: rand.New(rand.NewPCG(seed, 5)), ids: make(map[fs.ID]bool)}
}

// watch takes a clone before each operation of which the number can be divided,
// in one way after another.
func (w *world) watch(ways []vfs.CrashOptions, every int) {
	w.disk.OnOp(func(i int, op vfs.Op) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if i%every != 0 {
			return
		}
		how := ways[i/every%len(ways)]
		st := &stop{index: i, op: op, how: how, mem: w.mem.CrashClone(how), before: w.acked, loose: w.loose, ids: maps.Clone(w.ids), made: w.s != nil}
		w.stops = append(w.stops, st)
		w.fresh = append(w.fresh, st)
	})
}

// do makes one change, after which all stops in it know how it ended.
func (w *world) do(what string, loose fs.ID, change func() error) error {
	w.mu.Lock()
	w.loose, w.fresh = loose, nil
	w.mu.Unlock()
	if err := change(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	after, err := dump(w.s)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, st := range w.fresh {
		st.after, st.what = after, what
	}
	for _, f := range after {
		w.ids[f.attr.ID] = true
	}
	w.acked = after
	return nil
}

// recover opens the store as the power cut left it.
func (st *stop) recover(opt Options) error {
	s, err := Open(st.mem, opt)
	if errors.Is(err, iofs.ErrNotExist) && !st.made {
		if err := Create(st.mem, opt); err != nil {
			return err
		}
		if s, err = Open(st.mem, opt); err != nil {
			return err
		}
		return s.Close()
	}
	if err != nil {
		return err
	}
	got, err := dump(s)
	if err == nil && st.before != nil {
		err = differ(got, st.before, st.after, st.loose)
		if errAfter := differ(got, st.after, st.before, st.loose); err != nil && errAfter != nil {
			err = fmt.Errorf("as before: %w; as after: %w", err, errAfter)
		} else {
			err = nil
		}
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	if err := st.goOn(s); err != nil {
		return errors.Join(err, s.Close())
	}
	got, err = dump(s)
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	// Closed in good order, nothing is another afterwards, times neither.
	if s, err = Open(st.mem.CrashClone(vfs.CrashOptions{}), opt); err != nil {
		return fmt.Errorf("open once more: %w", err)
	}
	again, err := dump(s)
	if err == nil && !maps.Equal(got, again) {
		err = fmt.Errorf("opened once more: %w", differ(again, got, got, none))
	}
	return errors.Join(err, s.Close())
}

// goOn changes the store after a crash; numbers are not given again.
func (st *stop) goOn(s *Store) error {
	dirs := []fs.ID{s.Root()}
	for _, x := range s.Sessions() {
		if x.Err != nil {
			return x.Err
		}
		dirs = append(dirs, SessionRoot(x.Number))
	}
	number, err := s.AddSession(SessionSpec{Name: "after the crash", Files: []File{{Name: "f", Data: []byte("x")}}})
	if err != nil {
		return err
	}
	if st.ids[SessionRoot(number)] {
		return fmt.Errorf("session %d is given again", number)
	}
	for _, dir := range dirs {
		c, err := s.Create(ctx, dir, "made after the crash", fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{}, nil)
		if err != nil {
			return err
		}
		if st.ids[c.Object.ID] {
			return fmt.Errorf("ID %v is given again", c.Object.ID)
		}
		if _, err := s.WriteAt(ctx, c.Object.ID, bytes.Repeat([]byte("y"), 100_000), 0, true); err != nil {
			return err
		}
	}
	return nil
}

// work makes random changes.
func (w *world) work(n int) error {
	for range n {
		if err := w.change(); err != nil {
			return err
		}
	}
	return nil
}

// pick returns the path of something of that type, "" if there is none.
func (w *world) pick(pass func(path string, f fact) bool) string {
	var list []string
	for path, f := range w.acked {
		if pass(path, f) {
			list = append(list, path)
		}
	}
	if len(list) == 0 {
		return ""
	}
	slices.Sort(list)
	return list[w.rng.IntN(len(list))]
}

func (w *world) change() error {
	isDir := func(_ string, f fact) bool { return f.attr.IsDir() }
	isFile := func(path string, f fact) bool { return f.attr.Type == fs.TypeFile && f.attr.Perm != 0o600 }
	dirPath := w.pick(isDir)
	dir := w.acked[dirPath].attr.ID
	name := fmt.Sprintf("n%d", w.rng.IntN(1000))
	path := w.pick(isFile)
	id := w.acked[path].attr.ID
	note := func(fs.Change) []byte { return []byte("noted " + name) }
	set := fs.SetAttr{Set: fs.SetUID, UID: w.rng.Uint32N(9)}
	switch op := w.rng.IntN(24); {
	case op < 4:
		how := fs.Creation{How: fs.CreateHow(w.rng.IntN(3)), Verifier: [8]byte{byte(op)}}
		return w.do("create "+name, none, func() error { return second(w.s.Create(ctx, dir, name, how, set, note)) })
	case op == 4:
		return w.do("mkdir "+name, none, func() error { return second(w.s.Mkdir(ctx, dir, name, set, note)) })
	case op == 5:
		return w.do("symlink "+name, none, func() error { return second(w.s.Symlink(ctx, dir, name, "t", set, note)) })
	case op < 8 && path != "":
		sameTree := func(_ string, f fact) bool { return f.attr.IsDir() && f.attr.ID.Ino>>inoBits == id.Ino>>inoBits }
		to := w.acked[w.pick(sameTree)].attr.ID
		if op == 6 {
			return w.do("link "+path, none, func() error { return second(w.s.Link(ctx, id, to, name, note)) })
		}
		up, base := w.parent(path)
		return w.do("rename "+path, none, func() error { return second(w.s.Rename(ctx, up, base, to, name, note)) })
	case op < 11 && path != "":
		up, base := w.parent(path)
		return w.do("remove "+path, none, func() error { return second(w.s.Remove(ctx, up, base, note)) })
	case op < 16 && path != "":
		return w.write(path, id, 5000)
	case op < 19 && path != "":
		return w.write(path, id, 150_000)
	case op < 21 && path != "":
		size := w.rng.Int64N(200_000)
		return w.do(fmt.Sprintf("cut %s to %d", path, size), id, func() error {
			return second(w.s.SetAttr(ctx, id, fs.SetAttr{Set: fs.SetSize, Size: size}))
		})
	case op == 21:
		return w.session(name)
	case op == 22:
		return w.do("open again", none, func() error {
			err := w.s.Close()
			if err == nil {
				w.s, err = Open(w.disk, w.opt)
			}
			return err
		})
	}
	return nil
}

func second[T any](_ T, err error) error { return err }

// parent is the directory that a path's last name is in.
func (w *world) parent(path string) (fs.ID, string) {
	i := len(path) - 1
	for path[i] != '/' {
		i--
	}
	return w.acked[path[:max(i, 1)]].attr.ID, path[i+1:]
}

func (w *world) write(path string, id fs.ID, most int) error {
	off, p := w.rng.Int64N(w.acked[path].attr.Size+3000), make([]byte, 1+w.rng.IntN(most))
	for i := range p {
		p[i] = byte(w.rng.Uint32())
	}
	sync := w.rng.IntN(2) == 0
	return w.do(fmt.Sprintf("write %d bytes at %d of %s (%d)", len(p), off, path, w.acked[path].attr.Size), id, func() error {
		_, err := w.s.WriteAt(ctx, id, p, off, sync)
		if err == nil && !sync {
			_, err = w.s.Commit(ctx, id, off, int64(len(p)))
		}
		return err
	})
}

// session adds one, or removes one.
func (w *world) session(name string) error {
	if list := w.s.Sessions(); len(list) > 2 {
		return w.do("remove a session", none, func() error { return w.s.RemoveSession(list[w.rng.IntN(3)].Number) })
	}
	spec := SessionSpec{
		Name:  "vm-" + name,
		Files: []File{{Name: "vm.vmx", Data: []byte("config")}, {Name: "vm.nvram", Data: bytes.Repeat([]byte("n"), 70_000)}},
		Disks: []DiskFile{{Name: "vm-flat.vmdk", Size: 1 << 20}},
	}
	return w.do("add a session", none, func() error { return second(w.s.AddSession(spec)) })
}

// TestPowerLoss cuts the power at file operations of making a store, working
// with it and closing it.
func TestPowerLoss(t *testing.T) {
	every, changes := 3, 80
	if long {
		every, changes = 1, 200
	}
	for seed := range uint64(steps(2)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(seed)
			w.watch(vfs.Crashes(seed, seed+10, seed+21), every)
			if err := Create(w.disk, w.opt); err != nil {
				t.Fatal(err)
			}
			var err error
			if w.s, err = Open(w.disk, w.opt); err != nil {
				t.Fatal(err)
			}
			if err := w.do("add a session", none, func() error { return w.session("first") }); err != nil {
				t.Fatal(err)
			}
			if err := w.work(changes); err != nil {
				t.Fatal(err)
			}
			if err := w.do("close", none, func() error { return nil }); err != nil {
				t.Fatal(err)
			}
			if err := w.s.Close(); err != nil {
				t.Fatal(err)
			}
			w.disk.OnOp(nil)
			for _, st := range w.stops {
				if st.after == nil {
					st.after = w.acked // while closing
				}
				if err := st.recover(w.opt); err != nil {
					t.Errorf("power cut at operation %d, %v, of %q, %v: %v", st.index, st.op, st.what, st.how, err)
					if !long {
						return
					}
				}
			}
			t.Logf("%d crashes at %d operations", len(w.stops), w.disk.Count())
		})
	}
}
