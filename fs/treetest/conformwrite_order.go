package treetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"holdfast/fs"
)

// line is what a client remembers of a directory.
type line struct {
	name   string
	id     fs.ID
	cookie uint64
}

// lines reads a directory on from a cookie, at most n entries.
func (w *writing) lines(dir fs.ID, cookie uint64, n int) (list []line) {
	w.tb.Helper()
	err := w.t.ReadDir(w.ctx, dir, cookie, func(e fs.Entry) bool {
		list = append(list, line{e.Name, e.ID, e.Cookie})
		return len(list) < n
	})
	w.must(err, "ReadDir from %d", cookie)
	return list
}

// cookies reads a large directory in parts while names come and go: what was
// there all the time is met once, at the place where it was before.
func (w *writing) cookies() {
	n := w.opt.Files
	for i := range n {
		w.file(w.dir, fmt.Sprintf("kept %d", i), "")
	}
	all := w.lines(w.dir, 0, 1<<30)
	if len(all) != n {
		w.errorf("%d names, want %d", len(all), n)
	}
	places := map[string]line{}
	for _, l := range all {
		places[l.name] = l
	}
	met := map[string]int{}
	var cookie uint64
	for round := 0; ; round++ {
		part := w.lines(w.dir, cookie, n/15+1)
		for _, l := range part {
			met[l.name]++
			if old, ok := places[l.name]; ok && old != l {
				w.errorf("%q was %+v and is %+v", l.name, old, l)
			}
			cookie = l.cookie
		}
		if len(part) == 0 {
			break
		}
		switch round % 4 {
		case 0:
			w.file(w.dir, fmt.Sprintf("new %d", round), "")
		case 1:
			// Where it stands is taken away: it goes on behind.
			last := part[len(part)-1]
			_, err := w.t.Remove(w.ctx, w.dir, last.name, nil)
			w.must(err, "Remove")
			delete(places, last.name)
		case 2:
			_, err := w.t.Rename(w.ctx, w.dir, part[0].name, w.dir, fmt.Sprintf("renamed %d", round), nil)
			w.must(err, "Rename")
			delete(places, part[0].name)
		case 3:
			w.reopen(w.opt.Reopen, "Reopen")
		}
	}
	for name := range places {
		if met[name] != 1 {
			w.errorf("%q was met %d times", name, met[name])
		}
	}
	now := w.lines(w.dir, 0, 1<<30)
	w.reopen(w.opt.Crash, "Crash")
	if after := w.lines(w.dir, 0, 1<<30); !slices.Equal(now, after) {
		w.errorf("names, IDs or cookies are others after a power cut")
	}
}

// notes looks at what is asked to be remembered, and is remembered.
func (w *writing) notes() {
	called := 0
	var told fs.Change
	note := func(text string) fs.Note {
		return func(c fs.Change) []byte {
			called++
			told = c
			return []byte(text)
		}
	}
	var want []string
	id := w.file(w.dir, "f", "x")
	dir := w.mkdir(w.dir, "d")
	changes := []struct {
		name string
		do   func(fs.Note) (fs.Change, error)
	}{
		{"create", func(n fs.Note) (fs.Change, error) {
			return w.t.Create(w.ctx, w.dir, "c", fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{Set: fs.SetSize, Size: 200_000}, n)
		}},
		{"create again", func(n fs.Note) (fs.Change, error) {
			return w.t.Create(w.ctx, w.dir, "c", fs.Creation{}, fs.SetAttr{Set: fs.SetSize}, n)
		}},
		{"mkdir", func(n fs.Note) (fs.Change, error) { return w.t.Mkdir(w.ctx, dir, "m", fs.SetAttr{}, n) }},
		{"symlink", func(n fs.Note) (fs.Change, error) { return w.t.Symlink(w.ctx, dir, "s", "t", fs.SetAttr{}, n) }},
		{"link", func(n fs.Note) (fs.Change, error) { return w.t.Link(w.ctx, id, dir, "l", n) }},
		{"rename", func(n fs.Note) (fs.Change, error) { return w.t.Rename(w.ctx, w.dir, "f", dir, "f2", n) }},
		{"remove", func(n fs.Note) (fs.Change, error) { return w.t.Remove(w.ctx, dir, "l", n) }},
		{"rmdir", func(n fs.Note) (fs.Change, error) { return w.t.Rmdir(w.ctx, dir, "m", n) }},
	}
	for _, c := range changes {
		called = 0
		got, err := c.do(note(c.name))
		w.must(err, "%s", c.name)
		if called != 1 || told != got {
			w.errorf("%s: the note was called %d times, with %+v; returned is %+v", c.name, called, told, got)
		}
		want = append(want, c.name)
	}
	called = 0
	for _, err := range []error{
		second(w.t.Create(w.ctx, w.dir, "d", fs.Creation{}, fs.SetAttr{}, note("no"))), second(w.t.Mkdir(w.ctx, w.dir, "d", fs.SetAttr{}, note("no"))),
		second(w.t.Remove(w.ctx, w.dir, "none", note("no"))), second(w.t.Rename(w.ctx, w.dir, "d", dir, "n", note("no"))),
	} {
		if err == nil {
			w.errorf("a change that can't be was no error")
		}
	}
	if called != 0 {
		w.errorf("the note of a change that can't be was called")
	}
	long := strings.Repeat("n", fs.MaxNoteBytes)
	_, err := w.t.Mkdir(w.ctx, dir, "m", fs.SetAttr{}, note(long))
	w.must(err, "Mkdir with a long note")
	want = append(want, long)
	if _, ok := w.t.(fs.RecordTree); !ok || !w.reopen(w.opt.Crash, "Crash") {
		return
	}
	var got []string
	err = w.t.(fs.RecordTree).RecordedNotes(w.ctx, func(n []byte) {
		got = append(got, string(n))
	})
	w.must(err, "RecordedNotes")
	if !bytes.HasSuffix([]byte(strings.Join(got, "\n")), []byte(strings.Join(want, "\n"))) {
		w.errorf("notes after a power cut are %q, want %q in the end", got[max(0, len(got)-len(want)):], want)
	}
}

func second[T any](_ T, err error) error { return err }
