package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
	"holdfast/fs/guest"
	"holdfast/fs/treetest"
)

func sampleAttr() fs.Attr {
	return fs.Attr{ID: fs.ID{Ino: 12}, Type: fs.TypeFile, Perm: 0o4755, Nlink: 3, UID: 1 << 31, GID: 5, Size: 5 << 40, Used: 8192, Major: 8, Minor: 300,
		Atime: fs.Time{Sec: -5, Nsec: 999_999_999}, Mtime: fs.Time{Sec: 1 << 40}, Ctime: fs.Time{Sec: 7}, Btime: fs.Time{Nsec: 1}, Fixed: true}
}

// body is what stands behind the header of a frame.
func body(f frame) *cursor { return &cursor{b: f[headerBytes:]} }

// TestMessages sees that what is written is what is read.
func TestMessages(t *testing.T) {
	a := sampleAttr()
	same := func(name string, want, got any, err error) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v, -want +got\n%s", name, err, d)
		}
	}
	got, err := body(newFrame(0).attr(&a)).attr()
	same("attr", a, got, err)

	entries := []fs.Entry{{Name: "a \xff", ID: fs.ID{Ino: 12}, Type: fs.TypeFile, Cookie: 1, Attr: &a}, {Name: "b", ID: fs.ID{Ino: 9}, Cookie: 1<<63 - 3}}
	f := newFrame(0).u32(2)
	for i := range entries {
		f = f.entry(&entries[i])
	}
	gotEntries, err := body(f).entries(7)
	same("entries", entries, gotEntries, err)

	extents := []fs.Extent{{Off: 100, Len: 5, Kind: fs.Stored, At: 95}, {Off: 105, Len: 1 << 50, Kind: fs.Hole}, {Off: 105 + 1<<50, Len: 1, Kind: fs.Made}}
	gotExtents, err := body(newFrame(0).extents(extents)).extents(100, 100)
	same("extents", extents, gotExtents, err)

	st := fs.StatFS{Type: "ext4", Label: "x", BlockBytes: 4096, Bytes: 9, FreeBytes: 8, Files: 7, FreeFiles: 6, NameBytes: 255}
	gotSt, err := body(newFrame(0).statfs(&st)).statfs()
	same("statfs", st, gotSt, err)

	streams := []fs.Stream{{Name: "Zone", ID: fs.ID{Ino: 1 << 40}, Size: 3}}
	gotStreams, err := body(newFrame(0).streams(streams)).streams()
	same("streams", streams, gotStreams, err)

	layout := guest.Layout{Table: "gpt", SectorBytes: 4096, Notes: []string{"n"}, Volumes: []guest.Volume{
		{Name: "1", Off: 1, Size: 99, Format: "ext4", Label: "l", UUID: "u", PartName: "p", PartType: "t", Why: "w"}}}
	gotLayout, err := body(newFrame(0).layout(&layout)).layout(100)
	same("layout", layout, gotLayout, err)
}

// TestHostile gives the parent what a process that was taken over would say.
func TestHostile(t *testing.T) {
	attr := func(change func(*fs.Attr)) frame {
		a := sampleAttr()
		change(&a)
		return newFrame(0).attr(&a)
	}
	entry := func(list ...fs.Entry) frame {
		f := newFrame(0).u32(uint32(len(list)))
		for i := range list {
			f = f.entry(&list[i])
		}
		return f
	}
	ok := fs.Entry{Name: "n", ID: fs.ID{Ino: 5}, Cookie: 5}
	named := func(name string) fs.Entry { e := ok; e.Name = name; return e }
	a := sampleAttr()
	layout := func(v ...guest.Volume) frame {
		return newFrame(0).layout(&guest.Layout{Table: "mbr", SectorBytes: 512, Volumes: v})
	}
	asAttr := func(c *cursor) error { _, err := c.attr(); return err }
	asEntries := func(c *cursor) error { _, err := c.entries(77); return err }
	asExtents := func(c *cursor) error { _, err := c.extents(10, 1000); return err }
	asStreams := func(c *cursor) error { _, err := c.streams(); return err }
	asXattrs := func(c *cursor) error { _, err := c.xattrs(); return err }
	asStatFS := func(c *cursor) error { _, err := c.statfs(); return err }
	asLayout := func(c *cursor) error { _, err := c.layout(1000); return err }
	tests := []struct {
		name string
		f    frame
		take func(*cursor) error
	}{
		{"inode 0", attr(func(a *fs.Attr) { a.ID.Ino = 0 }), asAttr},
		{"another file system", attr(func(a *fs.Attr) { a.ID.FS = 1 }), asAttr},
		{"no type", attr(func(a *fs.Attr) { a.Type = 0 }), asAttr},
		{"type 8", attr(func(a *fs.Attr) { a.Type = 8 }), asAttr},
		{"permissions", attr(func(a *fs.Attr) { a.Perm = 0o10000 }), asAttr},
		{"size", attr(func(a *fs.Attr) { a.Size = -1 }), asAttr},
		{"used", attr(func(a *fs.Attr) { a.Used = -1 }), asAttr},
		{"nanoseconds", attr(func(a *fs.Attr) { a.Ctime.Nsec = 1e9 }), asAttr},
		{"cut attr", attr(func(*fs.Attr) {})[:headerBytes+50], asAttr},
		{"slash", entry(named("a/b")), asEntries},
		{"zero byte", entry(named("a\x00")), asEntries},
		{"no name", entry(named("")), asEntries},
		{"dot", entry(named(".")), asEntries},
		{"two dots", entry(named("..")), asEntries},
		{"long name", entry(named(strings.Repeat("n", maxName+1))), asEntries},
		{"name twice", entry(ok, fs.Entry{Name: "n", ID: ok.ID, Cookie: 6}), asEntries},
		{"cookie twice", entry(ok, fs.Entry{Name: "m", ID: ok.ID, Cookie: 5}), asEntries},
		{"cookie of the question", entry(fs.Entry{Name: "m", ID: ok.ID, Cookie: 77}), asEntries},
		{"cookie with the highest bit", entry(fs.Entry{Name: "m", ID: ok.ID, Cookie: 1 << 63}), asEntries},
		{"cookie 0", entry(fs.Entry{Name: "m", ID: ok.ID}), asEntries},
		{"entry of inode 0", entry(fs.Entry{Name: "m", Cookie: 1}), asEntries},
		{"attr of another", entry(fs.Entry{Name: "m", ID: ok.ID, Cookie: 1, Attr: &a}), asEntries},
		{"more entries than bytes", newFrame(0).u32(1 << 30), asEntries},
		{"extent of nothing", newFrame(0).extents([]fs.Extent{{Len: 0}}), asExtents},
		{"extent that wraps", newFrame(0).extents([]fs.Extent{{Len: 1<<63 - 5}}), asExtents},
		{"extent before the volume", newFrame(0).extents([]fs.Extent{{Len: 5, Kind: fs.Stored, At: -1}}), asExtents},
		{"extent behind the volume", newFrame(0).extents([]fs.Extent{{Len: 5, Kind: fs.Stored, At: 996}}), asExtents},
		{"extent of kind 3", newFrame(0).extents([]fs.Extent{{Len: 5, Kind: 3}}), asExtents},
		{"stream without a name", newFrame(0).streams([]fs.Stream{{ID: ok.ID}}), asStreams},
		{"stream twice", newFrame(0).streams([]fs.Stream{{Name: "a", ID: ok.ID}, {Name: "a", ID: ok.ID}}), asStreams},
		{"attribute with a zero byte", newFrame(0).strs([]string{"user.a\x00"}), asXattrs},
		{"attribute twice", newFrame(0).strs([]string{"user.a", "user.a"}), asXattrs},
		{"attributes and more", newFrame(0).strs(nil).u8(0), asXattrs},
		{"more free than there is", newFrame(0).statfs(&fs.StatFS{Type: "t", BlockBytes: 1, FreeBytes: 1}), asStatFS},
		{"volume behind the disk", layout(guest.Volume{Name: "1", Off: 999, Size: 2}), asLayout},
		{"volume that wraps", layout(guest.Volume{Name: "1", Off: 1<<63 - 1, Size: 1<<63 - 1}), asLayout},
		{"volume before the disk", layout(guest.Volume{Name: "1", Off: -1, Size: 2, Why: "w"}), asLayout},
		{"volume with a slash", layout(guest.Volume{Name: "../1", Size: 2}), asLayout},
		{"volume twice", layout(guest.Volume{Name: "1"}, guest.Volume{Name: "1"}), asLayout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := body(tt.f)
			err := tt.take(c)
			if err == nil {
				err = c.end()
			}
			if !errors.Is(err, fs.ErrDamaged) && !errors.Is(err, errProtocol) {
				t.Errorf("got %v, want %v or %v", err, fs.ErrDamaged, errProtocol)
			}
		})
	}
}

func TestErrorsCross(t *testing.T) {
	for _, s := range sentinels {
		err := body(newFrame(0).fault(fmt.Errorf("inode 5: %w", s))).fault(nil)
		if !errors.Is(err, s) || err.Error() != "inode 5: "+s.Error() {
			t.Errorf("%v became %v", s, err)
		}
		for _, other := range sentinels {
			if other != s && errors.Is(err, other) {
				t.Errorf("%v became %v too", s, other)
			}
		}
		if err := body(newFrame(0).fault(s)).fault(nil); err != s {
			t.Errorf("bare %v became %v", s, err)
		}
	}
	two := fmt.Errorf("%w, %w", fs.ErrDamaged, fs.ErrNotDir)
	if err := body(newFrame(0).fault(two)).fault(nil); !errors.Is(err, fs.ErrDamaged) || !errors.Is(err, fs.ErrNotDir) {
		t.Errorf("two sentinels became %v", err)
	}
	if err := body(newFrame(0).fault(nil)).fault(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	if err := body(newFrame(0).fault(errors.New("\x1b[31mred\nline"))).fault(nil); !errors.Is(err, fs.ErrDamaged) || err.Error() != `\u001b[31mred\u000aline` {
		t.Errorf("an error of no kind became %q", err)
	}
}

// frames is what a process might send, as seeds.
func frames() [][]byte {
	a := sampleAttr()
	return [][]byte{
		newFrame(0).fault(nil).attr(&a).bytes(kindAnswer, 1),
		newFrame(0).fault(fs.ErrNotFound).bytes(kindAnswer, 2),
		newFrame(0).fault(nil).flag(true).u32(1).entry(&fs.Entry{Name: "n", ID: a.ID, Cookie: 4, Attr: &a}).bytes(kindAnswer, 3),
		newFrame(0).fault(nil).flag(true).extents([]fs.Extent{{Len: 10}}).bytes(kindAnswer, 4),
		newFrame(0).u32(1).i64(100).u32(200).bytes(kindRead, 9),
		append(newFrame(0).u32(1).i64(0).u32(1<<20).bytes(kindRead, 10), newFrame(0).bytes(kindHello, 0)...),
		{0xff, 0xff, 0xff, 0xff, 17, 0, 0, 0, 0, 0, 0, 0, 0},
	}
}

// FuzzMessages takes any bytes for any message: never more is believed than
// package fs allows.
func FuzzMessages(f *testing.F) {
	for _, b := range frames() {
		f.Add(b[headerBytes:], int64(0), int64(1<<20))
		f.Add(b[min(len(b), headerBytes+14):], int64(50), int64(1000))
	}
	f.Fuzz(func(t *testing.T, b []byte, off, size int64) {
		off, size = max(off, 0), max(size, 0)
		if a, err := (&cursor{b: b}).attr(); err == nil && (a.Size < 0 || a.ID.Ino == 0) {
			t.Errorf("%+v", a)
		}
		if list, err := (&cursor{b: b}).entries(uint64(off)); err == nil {
			for _, e := range list {
				if !isName(e.Name) || e.Cookie == uint64(off) {
					t.Errorf("%+v", e)
				}
			}
		}
		if list, err := (&cursor{b: b}).extents(off, size); err == nil {
			for _, e := range list {
				if e.Off != off || e.Len <= 0 || e.Kind == fs.Stored && (e.At < 0 || e.At+e.Len > size || e.At+e.Len < 0) {
					t.Errorf("%+v from %d of %d", e, off, size)
				}
				off += e.Len
			}
		}
		if l, err := (&cursor{b: b}).layout(size); err == nil {
			for _, v := range l.Volumes {
				if v.Why == "" && !onDisk(v, size) {
					t.Errorf("%+v of %d", v, size)
				}
			}
		}
		(&cursor{b: b}).statfs()
		(&cursor{b: b}).streams()
		(&cursor{b: b}).xattrs()
		c := &cursor{b: b}
		if err := c.fault(nil); err != nil && len(err.Error()) > 8*maxText {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

// FuzzConn lets a process say anything to a parent that waits for answers.
func FuzzConn(f *testing.F) {
	all := []byte{}
	for _, b := range frames() {
		f.Add(b)
		all = append(all, b...)
	}
	f.Add(all)
	disk := memDisk(bytes.Repeat([]byte{7}, 1<<20))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		k := newConn(ours)
		k.attach(1, disk)
		answers := make(chan error)
		for i := range 4 {
			go func() {
				_, err := k.call(t.Context(), kindAttr, newFrame(0).u32(1), uint64(i))
				answers <- err
			}()
		}
		go io.Copy(io.Discard, theirs)
		for { // all four are asked
			k.mu.Lock()
			n := len(k.calls)
			k.mu.Unlock()
			if n == 4 {
				break
			}
			time.Sleep(time.Microsecond)
		}
		go func() {
			theirs.Write(b)
			theirs.Close()
		}()
		k.end(k.receive())
		for range 4 {
			<-answers
		}
	})
}

// tinyReader has a small tree on every volume.
type tinyReader struct{ guest.Direct }

func (tinyReader) Open(_ context.Context, d guest.Disk, v guest.Volume) (fs.Tree, error) {
	if _, err := d.ReadAt(make([]byte, 10), v.Off); err != nil {
		return nil, err
	}
	return treetest.NewTree(treetest.Files{"a/b": {Data: make([]byte, 9000)}, "l": {Target: "a"}}), nil
}

// FuzzServe lets a parent say anything to the process.
func FuzzServe(f *testing.F) {
	v := guest.Volume{Name: "1", Size: 1000}
	opened := newFrame(0).u32(1).i64(1000).volume(&v).bytes(kindOpen, 1)
	for k := kindLayout; k <= kindBlock; k++ {
		f.Add(append(bytes.Clone(opened), newFrame(0).u32(1).u64(2).u64(0).u32(10).bytes(k, 2)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		s := newServer(theirs, tinyReader{})
		done := make(chan struct{})
		go func() { // what it reads is there
			defer close(done)
			for {
				k, number, body, err := readFrame(ours)
				if err != nil {
					return
				}
				if c := (&cursor{b: body}); k == kindRead {
					c.u32()
					c.i64()
					f := newFrame(0).fault(nil)
					go ours.Write(append(f, make(frame, min(c.u32(), maxRead))...).bytes(kindBlock, number))
				}
			}
		}()
		go func() {
			ours.Write(b)
			time.Sleep(100 * time.Microsecond)
			ours.Close()
		}()
		s.serve(t.Context())
		theirs.Close()
		<-done
	})
}
