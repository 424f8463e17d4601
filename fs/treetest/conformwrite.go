package treetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"holdfast/fs"
)

// WriteOptions say what ConformWrite may count on.
type WriteOptions struct {
	// Dir is an empty directory to work in; zero: the root.
	Dir fs.ID

	// Seed for all that is chosen at random.
	Seed uint64

	// Steps is how many random changes are made; 0: 400.
	Steps int

	// Files is how many names a large directory gets; 0: 1,500.
	Files int

	// Reopen ends the tree in good order and opens it again: what was durable
	// is there, with the same IDs, cookies and attributes. Without it that is
	// not checked.
	Reopen func() (fs.WriteTree, error)

	// Crash does the same by a power cut, which takes what is not durable.
	Crash func() (fs.WriteTree, error)

	// RoomBytes is more than the tree can take. ConformWrite writes until
	// fs.ErrNoSpace or fs.ErrQuota comes; 0: it doesn't try.
	RoomBytes int64

	// NoNodes says that Mknod gives fs.ErrUnsupported.
	NoNodes bool
}

// ConformWrite checks that a tree keeps the contract of fs.WriteTree, and in
// the end that of fs.Tree: method by method, against a model with random
// changes, and from several goroutines at once. Nobody else may change the tree
// meanwhile. It returns the tree as it is open then.
func ConformWrite(tb testing.TB, t fs.WriteTree, opt WriteOptions) fs.WriteTree {
	tb.Helper()
	opt.Steps, opt.Files = cmp.Or(opt.Steps, 400), cmp.Or(opt.Files, 1500)
	w := &writing{tb: tb, t: t, opt: opt, ctx: tb.Context(), r: rand.New(rand.NewPCG(opt.Seed, 3)), top: opt.Dir}
	if w.top == (fs.ID{}) {
		w.top = t.Root()
	}
	steps := []struct {
		name string
		do   func()
	}{
		{"bad names", w.badNames}, {"wrong inodes", w.wrongInodes}, {"create", w.create}, {"exclusive", w.exclusive},
		{"make", w.make}, {"attributes", w.attributes}, {"size", w.sizes}, {"guard", w.guard},
		{"write", w.write}, {"holes", w.holes}, {"commit", w.commit}, {"link", w.link}, {"remove", w.remove}, {"rename", w.rename},
		{"rename of directories", w.renameDirs}, {"cookies", w.cookies}, {"notes", w.notes}, {"cancelled", w.cancelled},
		{"model", w.model}, {"at once", w.atOnce}, {"full", w.full},
	}
	for _, s := range steps {
		if w.step = s.name; w.errors < maxErrors {
			w.dir = w.mkdir(w.top, "step "+s.name)
			s.do()
		}
	}
	if w.errors > 0 {
		tb.Logf("ConformWrite ran with seed %d", opt.Seed)
		return w.t
	}
	Conform(tb, w.t, Options{Seed: opt.Seed})
	return w.t
}

// writing is one run.
type writing struct {
	tb     testing.TB
	t      fs.WriteTree
	opt    WriteOptions
	ctx    context.Context
	r      *rand.Rand
	top    fs.ID
	dir    fs.ID // of this step
	step   string
	errors int
}

func (w *writing) errorf(format string, args ...any) {
	w.tb.Helper()
	if w.errors++; w.errors <= maxErrors {
		w.tb.Errorf(w.step+": "+format, args...)
	}
}

// must ends the run where going on makes no sense.
func (w *writing) must(err error, what string, args ...any) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatalf("%s: %s: %v (seed %d)", w.step, fmt.Sprintf(what, args...), err, w.opt.Seed)
	}
}

func (w *writing) wants(err, want error, what string, args ...any) {
	w.tb.Helper()
	if !errors.Is(err, want) {
		w.errorf("%s: error %v, want %v", fmt.Sprintf(what, args...), err, want)
	}
}

func (w *writing) attr(id fs.ID) fs.Attr {
	w.tb.Helper()
	a, err := w.t.Attr(w.ctx, id)
	w.must(err, "Attr of %v", id)
	return a
}

func (w *writing) mkdir(dir fs.ID, name string) fs.ID {
	w.tb.Helper()
	c, err := w.t.Mkdir(w.ctx, dir, name, fs.SetAttr{}, nil)
	w.must(err, "Mkdir %q", name)
	return c.Object.ID
}

func (w *writing) file(dir fs.ID, name, content string) fs.ID {
	w.tb.Helper()
	c, err := w.t.Create(w.ctx, dir, name, fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{}, nil)
	w.must(err, "Create %q", name)
	if content != "" {
		_, err = w.t.WriteAt(w.ctx, c.Object.ID, []byte(content), 0, true)
		w.must(err, "write to %q", name)
	}
	return c.Object.ID
}

// same checks that two attributes agree, but for what the tree may have at will.
func (w *writing) same(got, want fs.Attr, what string, args ...any) {
	w.tb.Helper()
	if got != want {
		w.errorf("%s: attributes %+v, want %+v", fmt.Sprintf(what, args...), got, want)
	}
}

// unchanged checks that a directory is as it was.
func (w *writing) unchanged(dir fs.ID, before fs.Attr, what string, args ...any) {
	w.tb.Helper()
	w.same(w.attr(dir), before, what+": the directory", args...)
}

// dirChanged checks what a change says of a directory: before says what was,
// and the rest is as Attr has it now.
func (w *writing) dirChanged(c fs.Touched, dir fs.ID, before fs.Attr, what string, args ...any) {
	w.tb.Helper()
	what = fmt.Sprintf(what, args...)
	if c.Before != fs.VersionOf(&before) {
		w.errorf("%s: directory before %+v, want %+v", what, c.Before, fs.VersionOf(&before))
	}
	after := w.attr(dir)
	w.same(c.After, after, "%s: directory after", what)
	if !laterTime(after.Ctime, before.Ctime) || !laterTime(after.Mtime, before.Mtime) {
		w.errorf("%s: the directory's times %v %v did not move on from %v %v", what, after.Mtime, after.Ctime, before.Mtime, before.Ctime)
	}
}

// inodeChanged checks what a change says of an inode.
func (w *writing) inodeChanged(c fs.Touched, id fs.ID, before fs.Attr, what string, args ...any) {
	w.tb.Helper()
	what = fmt.Sprintf(what, args...)
	if c.Before != fs.VersionOf(&before) {
		w.errorf("%s: before %+v, want %+v", what, c.Before, fs.VersionOf(&before))
	}
	after := w.attr(id)
	w.same(c.After, after, "%s: after", what)
	if !laterTime(after.Ctime, before.Ctime) {
		w.errorf("%s: Ctime %v did not move on from %v", what, after.Ctime, before.Ctime)
	}
}

func laterTime(a, b fs.Time) bool { return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec }

// read returns all bytes of a file, by ReadAt and by what Attr says.
func (w *writing) read(id fs.ID) []byte {
	w.tb.Helper()
	a := w.attr(id)
	p := make([]byte, a.Size+1)
	n, err := w.t.ReadAt(w.ctx, id, p, 0)
	if int64(n) != a.Size || err != io.EOF {
		w.errorf("ReadAt of %v: %d bytes, %v; want %d and EOF", id, n, err, a.Size)
	}
	return p[:n]
}

func (w *writing) content(id fs.ID, want string) {
	w.tb.Helper()
	if a := w.attr(id); a.Size != int64(len(want)) {
		w.errorf("%v has %d bytes, want %d", id, a.Size, len(want))
		return
	}
	if got := w.read(id); !bytes.Equal(got, []byte(want)) {
		w.errorf("%v has %q, want %q", id, short(got), short([]byte(want)))
	}
}

func short(p []byte) string {
	if len(p) > 40 {
		return fmt.Sprintf("%s… (%d bytes)", p[:40], len(p))
	}
	return string(p)
}

// names lists a directory.
func (w *writing) names(dir fs.ID) (names []string) {
	w.tb.Helper()
	err := w.t.ReadDir(w.ctx, dir, 0, func(e fs.Entry) bool {
		names = append(names, e.Name)
		return true
	})
	w.must(err, "ReadDir")
	return names
}

// changes are all that give or take a name, for what they have in common.
func (w *writing) changes() map[string]func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
	file := w.file(w.dir, "a file", "")
	return map[string]func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error{
		"Create": func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
			_, err := t.Create(ctx, dir, name, fs.Creation{}, fs.SetAttr{}, nil)
			return err
		},
		"Mkdir": func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
			_, err := t.Mkdir(ctx, dir, name, fs.SetAttr{}, nil)
			return err
		},
		"Symlink": func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
			_, err := t.Symlink(ctx, dir, name, "target", fs.SetAttr{}, nil)
			return err
		},
		"Link": func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
			_, err := t.Link(ctx, file, dir, name, nil)
			return err
		},
		"Remove": func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
			_, err := t.Remove(ctx, dir, name, nil)
			return err
		},
		"Rmdir": func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
			_, err := t.Rmdir(ctx, dir, name, nil)
			return err
		},
		"Rename from": func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
			_, err := t.Rename(ctx, dir, name, w.dir, "elsewhere", nil)
			return err
		},
		"Rename to": func(t fs.WriteTree, ctx context.Context, dir fs.ID, name string) error {
			_, err := t.Rename(ctx, w.dir, "a file", dir, name, nil)
			return err
		},
	}
}

func (w *writing) badNames() {
	long := strings.Repeat("n", 256)
	changes := w.changes()
	before := w.attr(w.dir)
	for what, do := range changes {
		for _, name := range []string{"", ".", "..", "a/b", "/", "nul\x00"} {
			w.wants(do(w.t, w.ctx, w.dir, name), fs.ErrInvalid, "%s of %q", what, name)
		}
		w.wants(do(w.t, w.ctx, w.dir, long), fs.ErrNameTooLong, "%s of 256 bytes", what)
	}
	w.unchanged(w.dir, before, "bad names")
	for _, name := range []string{long[:255], "sp ace", "new\nline", "\xff\xfe", "...", "ä"} {
		id := w.file(w.dir, name, "")
		if a, err := w.t.Lookup(w.ctx, w.dir, name); err != nil || a.ID != id {
			w.errorf("Lookup of %q: %v, %v", name, a.ID, err)
		}
	}
}

func (w *writing) wrongInodes() {
	changes := w.changes()
	file := w.file(w.dir, "no directory", "x")
	gone := w.mkdir(w.dir, "gone")
	_, err := w.t.Rmdir(w.ctx, w.dir, "gone", nil)
	w.must(err, "Rmdir")
	for what, do := range changes {
		w.wants(do(w.t, w.ctx, file, "n"), fs.ErrNotDir, "%s in a file", what)
		w.wants(do(w.t, w.ctx, gone, "n"), fs.ErrStale, "%s in a directory that is gone", what)
		w.wants(do(w.t, w.ctx, fs.ID{FS: 1 << 40, Ino: 7}, "n"), fs.ErrStale, "%s in an ID that is none", what)
	}
	link, err := w.t.Symlink(w.ctx, w.dir, "link", "t", fs.SetAttr{}, nil)
	w.must(err, "Symlink")
	p := make([]byte, 1)
	for _, c := range []struct {
		what string
		id   fs.ID
		want error
	}{{"a directory", w.dir, fs.ErrIsDir}, {"a link", link.Object.ID, fs.ErrInvalid}, {"what is gone", gone, fs.ErrStale}} {
		_, err = w.t.WriteAt(w.ctx, c.id, p, 0, true)
		w.wants(err, c.want, "WriteAt of %s", c.what)
		_, err = w.t.Commit(w.ctx, c.id, 0, 0)
		w.wants(err, c.want, "Commit of %s", c.what)
		_, err = w.t.ReadAt(w.ctx, c.id, p, 0)
		w.wants(err, c.want, "ReadAt of %s", c.what)
		_, err = w.t.SetAttr(w.ctx, c.id, fs.SetAttr{Set: fs.SetSize, Size: 1})
		w.wants(err, c.want, "SetAttr of the size of %s", c.what)
	}
	_, err = w.t.Link(w.ctx, gone, w.dir, "n", nil)
	w.wants(err, fs.ErrStale, "Link to what is gone")
}

func (w *writing) cancelled() {
	ctx, cancel := context.WithCancel(w.ctx)
	changes := w.changes()
	id := w.file(w.dir, "kept", "as it was")
	before := w.attr(w.dir)
	cancel()
	for what, do := range changes {
		w.wants(do(w.t, ctx, w.dir, "kept"), context.Canceled, "%s", what)
	}
	_, err := w.t.WriteAt(ctx, id, []byte("x"), 0, true)
	w.wants(err, context.Canceled, "WriteAt")
	_, err = w.t.SetAttr(ctx, id, fs.SetAttr{Set: fs.SetPerm})
	w.wants(err, context.Canceled, "SetAttr")
	w.unchanged(w.dir, before, "cancelled changes")
	w.content(id, "as it was")
}
