package treetest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"holdfast/fs"
)

// entity is an inode of the model.
type entity struct {
	id      fs.ID
	typ     fs.Type
	content []byte
	names   map[string]*entity // of a directory
	parent  *entity
	links   uint32 // of what is no directory
}

// model makes random changes to the tree and to maps, and compares them.
func (w *writing) model() {
	top := &entity{id: w.dir, typ: fs.TypeDir, names: map[string]*entity{}}
	before := w.errors
	for i := range w.opt.Steps {
		w.modelStep(top)
		switch {
		case i%100 == 50:
			w.compareAll(top)
		case i%100 == 75 && w.reopen(w.opt.Reopen, "Reopen"), i%100 == 99 && w.reopen(w.opt.Crash, "Crash"):
			w.compareAll(top)
		}
		if w.errors > before {
			w.tb.Logf("after %d changes", i+1)
			return
		}
	}
	w.compareAll(top)
}

// directories lists an entity and all directories below, always in one order.
func (e *entity) directories() (list []*entity) {
	list = append(list, e)
	for _, name := range slices.Sorted(maps.Keys(e.names)) {
		if c := e.names[name]; c.typ == fs.TypeDir {
			list = append(list, c.directories()...)
		}
	}
	return list
}

func (e *entity) within(top *entity) bool {
	for ; e != nil; e = e.parent {
		if e == top {
			return true
		}
	}
	return false
}

// modelStep makes one change, which may well be one that can't be.
func (w *writing) modelStep(top *entity) {
	dirs := top.directories()
	d, to := dirs[w.r.IntN(len(dirs))], dirs[w.r.IntN(len(dirs))]
	name, toName := fmt.Sprintf("n%d", w.r.IntN(12)), fmt.Sprintf("n%d", w.r.IntN(12))
	have, target := d.names[name], to.names[toName]
	switch op := w.r.IntN(20); {
	case op < 5:
		c, err := w.t.Create(w.ctx, d.id, name, fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{}, nil)
		if w.agree(err, have == nil, "Create") {
			d.names[name] = &entity{id: c.Object.ID, typ: fs.TypeFile, links: 1}
		}
	case op < 7:
		c, err := w.t.Mkdir(w.ctx, d.id, name, fs.SetAttr{}, nil)
		if w.agree(err, have == nil, "Mkdir") {
			d.names[name] = &entity{id: c.Object.ID, typ: fs.TypeDir, names: map[string]*entity{}, parent: d}
		}
	case op == 7:
		c, err := w.t.Symlink(w.ctx, d.id, name, "to "+name, fs.SetAttr{}, nil)
		if w.agree(err, have == nil, "Symlink") {
			d.names[name] = &entity{id: c.Object.ID, typ: fs.TypeSymlink, content: []byte("to " + name), links: 1}
		}
	case op < 10 && have != nil:
		_, err := w.t.Link(w.ctx, have.id, to.id, toName, nil)
		if w.agree(err, have.typ != fs.TypeDir && target == nil, "Link") {
			to.names[toName] = have
			have.links++
		}
	case op < 12:
		_, err := w.t.Remove(w.ctx, d.id, name, nil)
		if w.agree(err, have != nil && have.typ != fs.TypeDir, "Remove") {
			have.links--
			delete(d.names, name)
		}
	case op == 12:
		_, err := w.t.Rmdir(w.ctx, d.id, name, nil)
		if w.agree(err, have != nil && have.typ == fs.TypeDir && len(have.names) == 0, "Rmdir") {
			delete(d.names, name)
		}
	case op < 16:
		w.modelRename(d, to, name, toName)
	case have != nil && have.typ == fs.TypeFile:
		w.modelWrite(have)
	}
}

// agree says whether the model makes the change too.
func (w *writing) agree(err error, can bool, what string) bool {
	w.tb.Helper()
	if (err == nil) != can {
		w.errorf("%s: %v, the model says %v", what, err, can)
	}
	return err == nil
}

func (w *writing) modelRename(d, to *entity, name, toName string) {
	have, target := d.names[name], to.names[toName]
	can := have != nil && (have.typ != fs.TypeDir || !to.within(have))
	if can && target != nil && target != have {
		can = (target.typ == fs.TypeDir) == (have.typ == fs.TypeDir) && len(target.names) == 0
	}
	_, err := w.t.Rename(w.ctx, d.id, name, to.id, toName, nil)
	if !w.agree(err, can, "Rename") || target == have {
		return
	}
	if target != nil {
		target.links--
	}
	delete(d.names, name)
	to.names[toName] = have
	if have.typ == fs.TypeDir {
		have.parent = to
	}
}

// modelWrite writes to a file so that it is durable, or cuts it.
func (w *writing) modelWrite(e *entity) {
	if w.r.IntN(5) == 0 {
		size := w.r.Int64N(150_000)
		_, err := w.t.SetAttr(w.ctx, e.id, fs.SetAttr{Set: fs.SetSize, Size: size})
		w.must(err, "SetAttr")
		if size > int64(len(e.content)) {
			e.content = append(e.content, make([]byte, size-int64(len(e.content)))...)
		}
		e.content = e.content[:size]
		return
	}
	off, p := w.r.Int64N(int64(len(e.content))+2000), noise(w.r.Uint64(), w.r.IntN(60_000)+1)
	sync := w.r.IntN(2) == 0
	_, err := w.t.WriteAt(w.ctx, e.id, p, off, sync)
	if err == nil && !sync {
		_, err = w.t.Commit(w.ctx, e.id, off, int64(len(p)))
	}
	w.must(err, "WriteAt")
	if end := off + int64(len(p)); end > int64(len(e.content)) {
		e.content = append(e.content, make([]byte, end-int64(len(e.content)))...)
	}
	copy(e.content[off:], p)
}

// compareAll compares a directory of the model, and all below, with the tree.
func (w *writing) compareAll(e *entity) {
	a := w.attr(e.id)
	if a.Type != e.typ {
		w.errorf("%v is a %v, want a %v", e.id, a.Type, e.typ)
	}
	switch e.typ {
	case fs.TypeFile:
		w.content(e.id, string(e.content))
	case fs.TypeSymlink:
		if got, err := w.t.ReadLink(w.ctx, e.id); err != nil || got != string(e.content) {
			w.errorf("ReadLink: %q, %v", got, err)
		}
	}
	links := e.links
	if e.typ == fs.TypeDir {
		links = 2
		got := w.lines(e.id, 0, 1<<30)
		if len(got) != len(e.names) {
			w.errorf("%v has %d names, want %d", e.id, len(got), len(e.names))
		}
		for _, l := range got {
			c := e.names[l.name]
			if c == nil || c.id != l.id {
				w.errorf("%q is %v, want %+v", l.name, l.id, c)
				continue
			}
			if c.typ == fs.TypeDir {
				links++
			}
			w.compareAll(c)
		}
	}
	if a.Nlink != links {
		w.errorf("%v has %d links, want %d", e.id, a.Nlink, links)
	}
}

// atOnce has several goroutines race for names, write to one file, and move
// directories to and fro, while others read.
func (w *writing) atOnce() {
	const workers, rounds = 8, 25
	var mu sync.Mutex
	won := map[string]int{}
	shared := w.file(w.dir, "shared", "")
	race := w.mkdir(w.dir, "race")
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() { w.readAlong(race, shared, done) })
	}
	for k := range workers {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(w.opt.Seed, uint64(k)))
			own, err := w.t.Mkdir(w.ctx, w.dir, fmt.Sprintf("own %d", k), fs.SetAttr{}, nil)
			if err != nil {
				w.tb.Errorf("Mkdir: %v", err)
				return
			}
			for i := range rounds {
				name := fmt.Sprintf("lock %d", i)
				c, err := w.t.Create(w.ctx, race, name, fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{}, nil)
				if err == nil {
					mu.Lock()
					won[name]++
					mu.Unlock()
				}
				p := bytes.Repeat([]byte{byte(k + 1)}, 1000)
				if _, err := w.t.WriteAt(w.ctx, shared, p, int64(i*workers+k)*1000, r.IntN(2) == 0); err != nil {
					w.tb.Errorf("WriteAt: %v", err)
				}
				d, err := w.t.Mkdir(w.ctx, race, fmt.Sprintf("d %d %d", k, i), fs.SetAttr{}, nil)
				if err == nil {
					_, err = w.t.Rename(w.ctx, race, fmt.Sprintf("d %d %d", k, i), own.Object.ID, fmt.Sprintf("d %d", i), nil)
				}
				if err == nil && i%2 == 0 {
					_, err = w.t.Rmdir(w.ctx, own.Object.ID, fmt.Sprintf("d %d", i), nil)
				}
				if err != nil {
					w.tb.Errorf("a directory of its own: %v; %v", err, d.Object.ID)
				}
				_ = c
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	for name, n := range won {
		if n != 1 {
			w.errorf("%q was made by %d of those who raced for it", name, n)
		}
	}
	if len(won) != rounds || len(w.names(race)) != rounds {
		w.errorf("%d names were made and %d are there, want %d", len(won), len(w.names(race)), rounds)
	}
	got := w.read(shared)
	for i := range workers * rounds {
		if len(got) < (i+1)*1000 || !bytes.Equal(got[i*1000:(i+1)*1000], bytes.Repeat([]byte{byte(i%workers + 1)}, 1000)) {
			w.errorf("piece %d of the shared file is not what was written", i)
			break
		}
	}
	if a := w.attr(race); a.Nlink != 2 {
		w.errorf("%d links after all directories left", a.Nlink)
	}
	for k := range workers {
		if a, err := w.t.Lookup(w.ctx, w.dir, fmt.Sprintf("own %d", k)); err != nil || a.Nlink != 2+rounds/2 {
			w.errorf("a worker's own directory: %d links, %v", a.Nlink, err)
		}
	}
}

// readAlong reads what others change: times never go back, no name is there
// twice, a size never is less than before.
func (w *writing) readAlong(dir, file fs.ID, done <-chan struct{}) {
	var last, lastDir fs.Attr
	for {
		select {
		case <-done:
			return
		default:
		}
		a, err := w.t.Attr(w.ctx, file)
		d, derr := w.t.Attr(w.ctx, dir)
		if err != nil || derr != nil || laterTime(last.Ctime, a.Ctime) || laterTime(lastDir.Ctime, d.Ctime) || a.Size < last.Size {
			w.tb.Errorf("at once: %+v (%v) after %+v, %+v (%v) after %+v", a, err, last, d, derr, lastDir)
			return
		}
		last, lastDir = a, d
		met := map[string]bool{}
		err = w.t.ReadDir(w.ctx, dir, 0, func(e fs.Entry) bool {
			if met[e.Name] {
				w.tb.Errorf("at once: %q twice in a directory", e.Name)
			}
			met[e.Name] = true
			return true
		})
		if err != nil {
			w.tb.Errorf("at once: ReadDir: %v", err)
			return
		}
	}
}
