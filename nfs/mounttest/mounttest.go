// Package mounttest tests a directory that a kernel has mounted, with the calls
// of the system that programs make: what is written is there, in files, in
// memory that maps them and past all caches; names come and go; files that are
// open live on.
//
// Its groups are in the spirit of the connectathon suite's basic, general and
// special tests and of fsx, but written anew. They hold on a local file system,
// where the package's own test runs them, and so can be run on anything. The
// test binary takes flags for that: in a machine of its own, on a mount.
package mounttest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Options are what the groups are told.
type Options struct {
	Dir  string // an empty directory of the file system
	Seed uint64

	Ops   int // of the verifier, 0: 500
	Files int // of the large directory, 0: 300
	Loops int // of what is done again and again, 0: 20

	// Align is of what places and lengths are multiples where caches are
	// passed by, 0: 4096.
	Align int

	// Middle, if not nil, is called in the middle of each group, once, while files
	// are open and changes are under way. What is tested may then be disturbed.
	Middle func(group string)
}

// Group is tests of a kind.
type Group struct {
	Name string
	run  func(e *env)
}

// Groups are all there are.
func Groups() []Group {
	return []Group{
		{"basic", (*env).basic},
		{"general", (*env).general},
		{"special", (*env).special},
		{"open", (*env).open},
		{"many", (*env).many},
		{"fsx", (*env).fsx},
	}
}

// Run does the tests of a group below a directory of its own, which it
// removes. It returns how long the longest step took, and which that was.
func (g Group) Run(t *testing.T, opt Options) (longest time.Duration, step string) {
	e := &env{TB: t, opt: opt, group: g.Name, rnd: rand.New(rand.NewPCG(opt.Seed, 1)), last: time.Now()}
	e.opt.Ops, e.opt.Files = or(opt.Ops, 500), or(opt.Files, 300)
	e.opt.Loops, e.opt.Align = or(opt.Loops, 20), or(opt.Align, 4096)
	e.dir = filepath.Join(opt.Dir, g.Name)
	e.ok(os.Mkdir(e.dir, 0o755))
	g.run(e)
	if e.opt.Middle != nil && !e.disturbed {
		t.Errorf("group %s has no middle", g.Name)
	}
	for _, f := range e.opened {
		_ = f.Close() // most are closed already
	}
	e.step("remove all")
	e.ok(os.RemoveAll(e.dir))
	e.gone("")
	e.step("end")
	return e.longest, e.during
}

func or(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// env is one run of a group. Its methods fail the test.
type env struct {
	testing.TB
	opt   Options
	group string
	dir   string
	rnd   *rand.Rand

	opened        []*os.File // closed before the directory is removed
	disturbed     bool
	last          time.Time
	longest       time.Duration
	doing, during string // the step now, and the one that took longest
}

// step begins a step and notes how long the one before took.
func (e *env) step(format string, args ...any) {
	now := time.Now()
	if d := now.Sub(e.last); d > e.longest {
		e.longest, e.during = d, e.doing
	}
	e.last, e.doing = now, fmt.Sprintf(format, args...)
}

// middle is the middle of a group.
func (e *env) middle() {
	if e.opt.Middle != nil && !e.disturbed {
		e.opt.Middle(e.group)
	}
	e.disturbed = true
}

func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("%s: %s: %v", e.group, e.doing, err)
	}
}

// fails checks that an error is what is wanted.
func (e *env) fails(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: %s: %v, want %v", e.group, e.doing, err, want)
	}
}

func (e *env) that(holds bool, format string, args ...any) {
	e.Helper()
	if !holds {
		e.Errorf("%s: %s: %s", e.group, e.doing, fmt.Sprintf(format, args...))
	}
}

func (e *env) path(name string) string { return filepath.Join(e.dir, name) }

// stat describes what has a name, links not followed.
func (e *env) stat(name string) fs.FileInfo {
	e.Helper()
	info, err := os.Lstat(e.path(name))
	e.ok(err)
	return info
}

// gone checks that a name is not there.
func (e *env) gone(name string) {
	e.Helper()
	_, err := os.Lstat(e.path(name))
	e.fails(err, fs.ErrNotExist)
}

func (e *env) write(name string, content []byte) {
	e.Helper()
	e.ok(os.WriteFile(e.path(name), content, 0o644))
}

func (e *env) holds(name string, want []byte) {
	e.Helper()
	got, err := os.ReadFile(e.path(name))
	e.ok(err)
	e.same(name, got, want)
}

// same compares bytes, and says where they begin to differ.
func (e *env) same(name string, got, want []byte) {
	e.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	e.Fatalf("%s: %s: %s has %d bytes, want %d; they differ from byte %d", e.group, e.doing, name, len(got), len(want), at)
}

// create opens a new file to read and write.
func (e *env) create(name string) *os.File {
	e.Helper()
	f, err := os.OpenFile(e.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	e.ok(err)
	e.opened = append(e.opened, f)
	return f
}

// bytes returns n bytes that are not like others.
func (e *env) bytes(n int) []byte {
	p := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := e.rnd.Uint64()
		for k := i; k < min(i+8, n); k++ {
			p[k] = byte(v >> (8 * (k - i)))
		}
	}
	return p
}

// names lists a directory, without what a client keeps of removed files.
func (e *env) names(dir string) []string {
	e.Helper()
	list, err := os.ReadDir(e.path(dir))
	e.ok(err)
	var names []string
	for _, d := range list {
		if len(d.Name()) < 4 || d.Name()[:4] != ".nfs" {
			names = append(names, d.Name())
		}
	}
	return names
}
