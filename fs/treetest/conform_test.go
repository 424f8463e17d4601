package treetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/fs"
)

// recorder is a test that notes what it is told and fails nobody else.
type recorder struct {
	testing.TB
	mu   sync.Mutex
	said []string
	bad  bool
}

func (r *recorder) Helper()                        {}
func (r *recorder) Logf(format string, a ...any)   { r.note(false, format, a...) }
func (r *recorder) Errorf(format string, a ...any) { r.note(true, format, a...) }

func (r *recorder) Fatalf(format string, a ...any) {
	r.note(true, format, a...)
	panic(stopped{})
}

// stopped is what a recorder's Fatalf panics with.
type stopped struct{}

func (r *recorder) note(bad bool, format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, a...))
	r.bad = r.bad || bad
}

// record runs fn with a test of its own and returns what was said.
func record(t *testing.T, fn func(testing.TB)) (failed bool, said string) {
	r := &recorder{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != (stopped{}) {
				panic(p)
			}
		}()
		fn(r)
	}()
	return r.bad, strings.Join(r.said, "\n")
}

// sample is a tree with something of everything.
func sample() *Tree {
	data := bytes.Repeat([]byte("holdfast "), 5000)
	sparse := append(make([]byte, 3*blockBytes), data...)
	sparse = append(sparse, make([]byte, 10*blockBytes+5)...)
	files := Files{
		"empty":                 {},
		"small":                 {Data: []byte("a few bytes")},
		"dir/plain":             {Data: data},
		"dir/sparse":            {Data: sparse, Attr: fs.Attr{Size: 1 << 20}},
		"dir/other name":        {Link: "dir/plain"},
		"dir/link":              {Target: "../small"},
		"dir/sub/deeper/here":   {Data: data[:4097], Xattrs: map[string]string{"user.a": "1", "security.b": "\x00\xff"}},
		"dir/sub/streamed":      {Data: data[:10], Streams: map[string][]byte{"Zone": []byte("x"), "large": data}},
		"odd \xff name\nof two": {Data: data[:1]},
		"fifo":                  {Attr: fs.Attr{Type: fs.TypeFIFO}},
		"null":                  {Attr: fs.Attr{Type: fs.TypeCharDevice, Major: 1, Minor: 3}},
		"huge":                  {Data: data, Attr: fs.Attr{Size: 5 << 30}},
		"hollow":                {Attr: fs.Attr{Size: 100_000}},
	}
	for i := range 600 {
		files[fmt.Sprintf("big/entry-%d", i)] = File{}
	}
	return NewTree(files, "a note")
}

func TestConformPasses(t *testing.T) {
	tree := sample()
	Conform(t, tree, Options{Device: tree.Device(), Reopen: func() (fs.Tree, error) { return sample(), nil }})
}

// mutant is the sample with one thing wrong.
type mutant struct {
	*Tree
	attr    func(fs.ID, fs.Attr) fs.Attr
	lookup  func(name string, a fs.Attr, err error) (fs.Attr, error)
	readDir func(m *mutant, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error
	readAt  func(m *mutant, id fs.ID, p []byte, off int64) (int, error)
	extents func(list []fs.Extent, off int64, err error) ([]fs.Extent, error)
	link    func(string, error) (string, error)
	xattr   func(name string, v []byte, err error) ([]byte, error)
	names   func([]string) []string
	streams func([]fs.Stream) []fs.Stream
	statfs  func(fs.StatFS) fs.StatFS
	notes   []string
}

func (m *mutant) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	a, err := m.Tree.Attr(ctx, id)
	if m.attr != nil && err == nil {
		a = m.attr(id, a)
	}
	return a, err
}

func (m *mutant) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	a, err := m.Tree.Lookup(ctx, dir, name)
	if m.lookup != nil {
		return m.lookup(name, a, err)
	}
	return a, err
}

func (m *mutant) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	if m.readDir != nil {
		return m.readDir(m, dir, cookie, fn)
	}
	return m.Tree.ReadDir(ctx, dir, cookie, fn)
}

func (m *mutant) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	if m.readAt != nil {
		return m.readAt(m, id, p, off)
	}
	return m.Tree.ReadAt(ctx, id, p, off)
}

func (m *mutant) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	list, err := m.Tree.Extents(ctx, id, off, n)
	if m.extents != nil {
		return m.extents(list, off, err)
	}
	return list, err
}

func (m *mutant) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	s, err := m.Tree.ReadLink(ctx, id)
	if m.link != nil {
		return m.link(s, err)
	}
	return s, err
}

func (m *mutant) Xattr(ctx context.Context, id fs.ID, name string) ([]byte, error) {
	v, err := m.Tree.Xattr(ctx, id, name)
	if m.xattr != nil {
		return m.xattr(name, v, err)
	}
	return v, err
}

func (m *mutant) Xattrs(ctx context.Context, id fs.ID) ([]string, error) {
	list, err := m.Tree.Xattrs(ctx, id)
	if m.names != nil {
		list = m.names(list)
	}
	return list, err
}

func (m *mutant) Streams(ctx context.Context, id fs.ID) ([]fs.Stream, error) {
	list, err := m.Tree.Streams(ctx, id)
	if m.streams != nil {
		list = m.streams(list)
	}
	return list, err
}

func (m *mutant) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	s, err := m.Tree.StatFS(ctx, id)
	if m.statfs != nil {
		s = m.statfs(s)
	}
	return s, err
}

func (m *mutant) Notes() []string { return m.notes }

// changeEntries is a ReadDir that changes each line; i counts those of a call.
func changeEntries(change func(i int, e *fs.Entry)) func(*mutant, fs.ID, uint64, func(fs.Entry) bool) error {
	return func(m *mutant, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
		i := -1
		return m.Tree.ReadDir(context.Background(), dir, cookie, func(e fs.Entry) bool {
			i++
			change(i, &e)
			return fn(e)
		})
	}
}

// changeExtents is an Extents that changes each extent of an answer.
func changeExtents(change func(e *fs.Extent)) func([]fs.Extent, int64, error) ([]fs.Extent, error) {
	return func(list []fs.Extent, _ int64, err error) ([]fs.Extent, error) {
		for i := range list {
			change(&list[i])
		}
		return list, err
	}
}

// TestConformFails gives Conform a tree for each thing that can be wrong.
func TestConformFails(t *testing.T) {
	var calls atomic.Int64
	tests := []struct {
		name string
		m    mutant
		says string // part of what Conform must say
	}{
		{"another ID in Attr", mutant{attr: func(_ fs.ID, a fs.Attr) fs.Attr { a.ID.Ino++; return a }}, "has the ID"},
		{"unknown type", mutant{attr: func(_ fs.ID, a fs.Attr) fs.Attr {
			if a.Type == fs.TypeFIFO {
				a.Type = 0
			}
			return a
		}}, "unknown"},
		{"nanoseconds", mutant{attr: func(_ fs.ID, a fs.Attr) fs.Attr { a.Mtime.Nsec = 1e9; return a }}, "nanoseconds"},
		{"no links", mutant{attr: func(_ fs.ID, a fs.Attr) fs.Attr { a.Nlink = 0; return a }}, "no links"},
		{"too few links", mutant{attr: func(_ fs.ID, a fs.Attr) fs.Attr { a.Nlink = 1; return a }}, "2 names"},
		{"perm", mutant{attr: func(_ fs.ID, a fs.Attr) fs.Attr { a.Perm |= 0o10000; return a }}, "perm"},
		{"negative size", mutant{attr: func(_ fs.ID, a fs.Attr) fs.Attr { a.Size = -1; return a }}, "size -1"},
		{"Lookup disagrees", mutant{lookup: func(_ string, a fs.Attr, err error) (fs.Attr, error) { a.Mtime.Sec++; return a, err }}, "Attr says"},
		{"Lookup finds all", mutant{lookup: func(string, fs.Attr, error) (fs.Attr, error) { return fs.Attr{}, nil }}, "Lookup"},
		{"Lookup of an absent name is stale", mutant{lookup: func(_ string, a fs.Attr, err error) (fs.Attr, error) {
			if errors.Is(err, fs.ErrNotFound) {
				err = fs.ErrStale
			}
			return a, err
		}}, "absent name"},
		{"parent", mutant{lookup: func(name string, a fs.Attr, err error) (fs.Attr, error) {
			if name == ".." {
				a.ID.Ino = rootIno
			}
			return a, err
		}}, `Lookup("..")`},
		{"dot", mutant{readDir: changeEntries(func(i int, e *fs.Entry) {
			if i == 3 {
				e.Name = "."
			}
		})}, `name "."`},
		{"slash in a name", mutant{readDir: changeEntries(func(i int, e *fs.Entry) { e.Name = "a/b" })}, `name "a/b"`},
		{"a name twice", mutant{readDir: changeEntries(func(i int, e *fs.Entry) { e.Name = "same" })}, "twice"},
		{"cookie 0", mutant{readDir: changeEntries(func(i int, e *fs.Entry) { e.Cookie = 0 })}, "cookie 0"},
		{"cookies with the highest bit", mutant{readDir: changeEntries(func(i int, e *fs.Entry) { e.Cookie |= 1 << 63 })}, "further than Linux"},
		{"cookies of another order", mutant{readDir: changeEntries(func(i int, e *fs.Entry) { e.Cookie ^= 1 })}, "ReadDir"},
		{"cookies that count a call", mutant{readDir: changeEntries(func(i int, e *fs.Entry) { e.Cookie = uint64(i) + 1 })}, "behind"},
		{"goes on after false", mutant{readDir: func(m *mutant, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
			return m.Tree.ReadDir(context.Background(), dir, cookie, func(e fs.Entry) bool { fn(e); return true })
		}}, "when stopped at the first"},
		{"type in the entry", mutant{readDir: changeEntries(func(i int, e *fs.Entry) { e.Type = fs.TypeSocket })}, "is a socket"},
		{"Attr in the entry", mutant{readDir: changeEntries(func(i int, e *fs.Entry) {
			if e.Attr != nil {
				a := *e.Attr
				a.Size++
				e.Attr = &a
			}
		})}, "has the Attr"},
		{"dangling entry", mutant{readDir: changeEntries(func(i int, e *fs.Entry) { e.ID.Ino += 1 << 40 })}, "no such inode"},
		{"short read", mutant{readAt: func(m *mutant, id fs.ID, p []byte, off int64) (int, error) {
			return m.Tree.ReadAt(context.Background(), id, p[:min(len(p), 4096)], off)
		}}, "short read"},
		{"EOF too early", mutant{readAt: func(m *mutant, id fs.ID, p []byte, off int64) (int, error) {
			if n, err := m.Tree.ReadAt(context.Background(), id, p, off); err != nil {
				return n, err
			}
			return len(p), io.EOF
		}}, "EOF"},
		{"EOF never", mutant{readAt: func(m *mutant, id fs.ID, p []byte, off int64) (int, error) {
			n, err := m.Tree.ReadAt(context.Background(), id, p, off)
			if err == io.EOF {
				err = nil
			}
			return n, err
		}}, "want"},
		{"bytes by the block", mutant{readAt: func(m *mutant, id fs.ID, p []byte, off int64) (int, error) {
			return m.Tree.ReadAt(context.Background(), id, p, off&^7)
		}}, "ReadAt"},
		{"bytes left over", mutant{readAt: func(m *mutant, id fs.ID, p []byte, off int64) (int, error) {
			old := bytes.Clone(p)
			n, err := m.Tree.ReadAt(context.Background(), id, p, off)
			for i := range p[:n] {
				if p[i] == 0 {
					p[i] = old[i]
				}
			}
			return n, err
		}}, "not as in a longer read"},
		{"zeros in a hole are not", mutant{readAt: func(m *mutant, id fs.ID, p []byte, off int64) (int, error) {
			n, err := m.Tree.ReadAt(context.Background(), id, p, off)
			for i := range p[:n] {
				if p[i] == 0 {
					p[i] = 1
				}
			}
			return n, err
		}}, "reads as other than zeros"},
		{"reads a directory", mutant{readAt: func(m *mutant, id fs.ID, p []byte, off int64) (int, error) {
			n, err := m.Tree.ReadAt(context.Background(), id, p, off)
			if errors.Is(err, fs.ErrIsDir) {
				err = io.EOF
			}
			return n, err
		}}, "is a directory"},
		{"another's bytes at times", mutant{readAt: func(m *mutant, id fs.ID, p []byte, off int64) (int, error) {
			n, err := m.Tree.ReadAt(context.Background(), id, p, off)
			if calls.Add(1)%50 == 0 && n > 0 {
				p[n/2] ^= 1
			}
			return n, err
		}}, "ReadAt"},
		{"gap between extents", mutant{extents: changeExtents(func(e *fs.Extent) { e.Len-- })}, "Extents"},
		{"extent past the end", mutant{extents: changeExtents(func(e *fs.Extent) { e.Len = 1 << 50 })}, "of a file of"},
		{"extent begins earlier", mutant{extents: changeExtents(func(e *fs.Extent) { e.Off &^= 4095 })}, "begins elsewhere"},
		{"extent elsewhere on the device", mutant{extents: changeExtents(func(e *fs.Extent) { e.At += blockBytes })}, "the device"},
		{"extent not moved with the offset", mutant{extents: changeExtents(func(e *fs.Extent) { e.At &^= 4095 })}, "from its beginning"},
		{"data called a hole", mutant{extents: changeExtents(func(e *fs.Extent) { e.Kind = fs.Hole })}, "reads as other than zeros"},
		{"no EOF of extents", mutant{extents: func(list []fs.Extent, _ int64, err error) ([]fs.Extent, error) {
			if err == io.EOF {
				err = nil
			}
			return list, err
		}}, "want EOF"},
		{"link cut", mutant{link: func(s string, err error) (string, error) { return strings.TrimSuffix(s, "l"), err }}, "ReadLink"},
		{"link of a file", mutant{link: func(s string, err error) (string, error) { return s, nil }}, "ReadLink"},
		{"absent attribute is empty", mutant{xattr: func(_ string, v []byte, err error) ([]byte, error) { return v, nil }}, "absent Xattr"},
		{"listed attribute can't be read", mutant{xattr: func(string, []byte, error) ([]byte, error) { return nil, fs.ErrNoXattr }}, "no such attribute"},
		{"attribute without a namespace", mutant{names: func(list []string) []string { return append(list, "comment") }}, "namespace"},
		{"stream of another size", mutant{streams: func(list []fs.Stream) []fs.Stream {
			for i := range list {
				list[i].Size++
			}
			return list
		}}, "stream"},
		{"stream is the file", mutant{streams: func(list []fs.Stream) []fs.Stream {
			for i := range list {
				list[i].ID = fs.ID{Ino: rootIno}
			}
			return list
		}}, "ID of another"},
		{"more free than there is", mutant{statfs: func(s fs.StatFS) fs.StatFS { s.FreeBytes = s.Bytes + 1; return s }}, "StatFS"},
		{"empty note", mutant{notes: []string{""}}, "empty note"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.m
			m.Tree = sample()
			failed, said := record(t, func(tb testing.TB) { Conform(tb, &m, Options{Device: m.Device()}) })
			if !failed || !strings.Contains(said, tt.says) {
				t.Errorf("failed %v; want it, saying %q; said:\n%s", failed, tt.says, said)
			}
		})
	}
}

// TestConformFailsReopened has a tree whose second opening is another.
func TestConformFailsReopened(t *testing.T) {
	failed, said := record(t, func(tb testing.TB) {
		Conform(tb, sample(), Options{Reopen: func() (fs.Tree, error) { return NewTree(Files{"a": {}}), nil }})
	})
	if !failed || !strings.Contains(said, "opened again") {
		t.Errorf("failed %v, said:\n%s", failed, said)
	}
}

// TestConformPassesOver has a file that can't be read, and says so.
func TestConformPassesOver(t *testing.T) {
	tree := NewTree(Files{"broken": {Data: make([]byte, 5000), Err: fs.ErrDamaged}})
	Conform(t, tree, Options{Unreadable: true})
	if failed, _ := record(t, func(tb testing.TB) { Conform(tb, tree, Options{}) }); !failed {
		t.Error("a file that can't be read passed without being let")
	}
}
