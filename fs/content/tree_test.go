package content_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
	"holdfast/fs/content"
	"holdfast/fs/guest"
	"holdfast/fs/treetest"
	"holdfast/repo/repotest"
)

// paths lists everything below the top, links with their targets.
func paths(t *testing.T, tree fs.Tree) []string {
	t.Helper()
	var list []string
	err := fs.Walk(background, tree, tree.Root(), func(path string, a fs.Attr, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		switch {
		case path == ".":
			return nil
		case a.IsDir():
			path += "/"
		case a.Type == fs.TypeSymlink:
			target, err := tree.ReadLink(background, a.ID)
			if err != nil {
				return err
			}
			path += " -> " + target
		}
		list = append(list, path)
		return nil
	})
	must(t, err)
	slices.Sort(list)
	return list
}

func resolve(t *testing.T, tree fs.Tree, path string) fs.Attr {
	t.Helper()
	a, err := fs.Resolve(background, tree, tree.Root(), path, true)
	must(t, err)
	return a
}

func read(t *testing.T, tree fs.Tree, path string) []byte {
	t.Helper()
	b, err := io.ReadAll(fs.File(background, tree, resolve(t, tree, path)))
	must(t, err)
	return b
}

func bytesOf(t *testing.T, d *repotest.Disk) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	small := repotest.NewDisk(512)
	w.backup(0, "web1", repotest.NamedDisk{Name: "root.qcow2", Disk: small}, repotest.NamedDisk{Name: "a", Disk: small}, repotest.NamedDisk{Name: "a-flat", Disk: small})
	w.backup(86400, "web1", repotest.NamedDisk{Name: `quo"te`, Disk: small})
	w.backup(86400, "web1", repotest.NamedDisk{Name: "x.raw", Disk: small}, repotest.NamedDisk{Name: "x.vmdk", Disk: small})
	w.backup(5, "50%2F half", repotest.NamedDisk{Name: "none", Disk: repotest.NewDisk(0)})
	later := "web1/2026-11-23T03-00-00.001Z"
	// The clock never goes back: the last machine's only point comes right
	// behind the one before.
	want := []string{
		"50%252F half/",
		"50%252F half/2026-11-23T03-00-00.002Z/",
		"50%252F half/2026-11-23T03-00-00.002Z/disks/",
		"50%252F half/2026-11-23T03-00-00.002Z/disks/none.raw",
		"50%252F half/2026-11-23T03-00-00.002Z/machine.json",
		"50%252F half/latest -> 2026-11-23T03-00-00.002Z",
		"web1/",
		"web1/2026-11-22T03-00-00.000Z/",
		"web1/2026-11-22T03-00-00.000Z/disks/",
		"web1/2026-11-22T03-00-00.000Z/machine.json",
		"web1/2026-11-23T03-00-00.000Z/",
		"web1/2026-11-23T03-00-00.000Z/disks/",
		"web1/2026-11-23T03-00-00.000Z/machine.json",
		later + "/", later + "/disks/", later + "/machine.json",
		"web1/latest -> " + strings.TrimPrefix(later, "web1/"),
	}
	slices.Sort(want)
	disks := map[string][]string{
		"web1/2026-11-22T03-00-00.000Z": {"root", "a", "a-flat~" + "*"},
		"web1/2026-11-23T03-00-00.000Z": {`quo%22te`},
		later:                           {"x.raw", "x.vmdk"},
	}
	got := paths(t, w.tree(content.Options{}))
	for dir, names := range disks {
		for _, name := range names {
			for _, suffix := range []string{".raw", ".vmdk", "-flat.vmdk"} {
				full := dir + "/disks/" + name + suffix
				i := slices.IndexFunc(got, func(p string) bool {
					head, tail, wild := strings.Cut(full, "*")
					return p == full || wild && strings.HasPrefix(p, head) && strings.HasSuffix(p, tail) && len(p) == len(head)+len(tail)+4
				})
				if i < 0 {
					t.Errorf("%s is missing", full)
					continue
				}
				got = slices.Delete(got, i, i+1)
			}
		}
	}
	got = slices.DeleteFunc(got, func(p string) bool { return otherView(p) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// otherView says whether a path is a disk in a form that the test does not look
// at.
func otherView(path string) bool {
	return strings.HasSuffix(path, "-stream.vmdk") || strings.HasSuffix(path, ".vhdx") || strings.HasSuffix(path, ".qcow2")
}

func TestDisks(t *testing.T) {
	w := newWorld(t)
	odd := dense(1, 3<<20+100)
	odd.Trim(1<<20, 1<<20)
	sparse := repotest.NewDisk(1 << 30)
	sparse.Write([]byte("here"), 700<<20)
	w.backup(0, "m", repotest.NamedDisk{Name: "odd", Disk: odd}, repotest.NamedDisk{Name: "sparse", Disk: sparse})
	tree := w.tree(content.Options{})
	dir := "m/latest/disks/"
	if got := read(t, tree, dir+"odd.raw"); !bytes.Equal(got, bytesOf(t, odd)) {
		t.Error("odd.raw has other bytes than the disk")
	}
	flat := read(t, tree, dir+"odd-flat.vmdk")
	if want := append(bytesOf(t, odd), make([]byte, 412)...); !bytes.Equal(flat, want) {
		t.Error("odd-flat.vmdk is not the disk up to a whole sector")
	}
	if text := string(read(t, tree, dir+"odd.vmdk")); !strings.Contains(text, `RW 6145 FLAT "odd-flat.vmdk" 0`) {
		t.Errorf("odd.vmdk says\n%s", text)
	}
	want := []fs.Extent{{Off: 0, Len: 700 << 20, Kind: fs.Hole}, {Off: 700 << 20, Len: 256 << 10, Kind: fs.Made}, {Off: 700<<20 + 256<<10, Len: 1<<30 - 700<<20 - 256<<10, Kind: fs.Hole}}
	id := resolve(t, tree, dir+"sparse.raw").ID
	got, err := tree.Extents(background, id, 0, 10)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := tree.Extents(background, id, 1<<30, 1); err != io.EOF {
		t.Errorf("extents at the end: %v", err)
	}
	if one, err := tree.Extents(background, id, 5, 1); err != nil || len(one) != 1 || one[0].Off != 5 {
		t.Errorf("one extent: %v, %v", one, err)
	}
	p := make([]byte, 10)
	if n, err := tree.ReadAt(background, id, p, 1<<30-4); n != 4 || err != io.EOF {
		t.Errorf("read over the end: %d, %v", n, err)
	}
	if _, err := tree.ReadAt(background, id, p, -1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("read before the beginning: %v", err)
	}
}

// TestAgain opens the tree anew, after other points came, and finds the same
// inodes.
func TestAgain(t *testing.T) {
	w := newWorld(t)
	disk := repotest.NamedDisk{Name: "d", Disk: dense(2, 300<<10)}
	w.backup(10, "m", disk)
	w.backup(20, "m", disk)
	direct := content.Options{Guests: direct}
	was := make(map[string]fs.Attr)
	first := w.tree(direct)
	must(t, fs.Walk(background, first, first.Root(), func(path string, a fs.Attr, err error) error {
		was[path] = a
		return err
	}))
	w.backup(5, "a", disk)
	w.backup(30, "m", disk)
	second := w.tree(direct)
	ids := make(map[fs.ID]string)
	must(t, fs.Walk(background, second, second.Root(), func(path string, a fs.Attr, err error) error {
		if other, dup := ids[a.ID]; dup {
			t.Errorf("%s and %s are both %v", path, other, a.ID)
		}
		ids[a.ID] = path
		if old, ok := was[path]; ok && a.ID != old.ID {
			t.Errorf("%s was %v and is %v", path, old.ID, a.ID)
		}
		return err
	}))
	third := w.tree(direct) // that knows nothing yet
	for path, a := range was {
		got, err := third.Attr(background, a.ID)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if a.Fixed && got != a {
			t.Errorf("%s: %v", path, cmp.Diff(a, got))
		}
	}
}

func TestComeAndGo(t *testing.T) {
	w := newWorld(t)
	disk := dense(3, 1<<20)
	one := w.backup(0, "m", repotest.NamedDisk{Name: "d", Disk: disk})
	tree := w.tree(content.Options{Refresh: time.Nanosecond, Idle: 400 * time.Millisecond})
	first := resolve(t, tree, "m/2026-11-22T03-00-00.000Z/disks/d.raw")
	if a := resolve(t, tree, "m"); a.Fixed {
		t.Error("the directory of a machine is said never to change")
	}
	if !first.Fixed {
		t.Error("a disk is said to change")
	}
	w.backup(60, "m", repotest.NamedDisk{Name: "d", Disk: disk})
	want := []string{"2026-11-22T03-00-00.000Z", "2026-11-22T03-01-00.000Z", "latest"}
	if got := names(t, tree, "m"); !slices.Equal(got, want) {
		t.Errorf("after a backup: %q", got)
	}
	if target, err := tree.ReadLink(background, must1(tree.Lookup(background, resolve(t, tree, "m").ID, "latest"))(t).ID); err != nil || target != "2026-11-22T03-01-00.000Z" {
		t.Errorf("latest leads to %q, %v", target, err)
	}

	// Expired, but somebody is reading.
	p := make([]byte, 1<<20)
	must1(tree.ReadAt(background, first.ID, p[:10], 0))(t)
	w.expire(one.ID)
	if got := names(t, tree, "m"); !slices.Equal(got, want[1:]) {
		t.Errorf("after an expiry: %q", got)
	}
	if _, err := fs.Resolve(background, tree, tree.Root(), "m/2026-11-22T03-00-00.000Z", true); !errors.Is(err, fs.ErrNotFound) {
		t.Errorf("expired point: %v", err)
	}
	swept := must1(w.owner.Sweep(background, repoSweep))(t)
	if len(swept.Held) != 1 || !swept.Held[0].Read {
		t.Errorf("a sweep holds %+v, want the point that is being read", swept.Held)
	}
	must1(tree.ReadAt(background, first.ID, p, 0))(t)
	if !bytes.Equal(p, bytesOf(t, disk)) {
		t.Error("other bytes after the expiry")
	}

	// And then no more.
	deadline := time.Now().Add(10 * time.Second)
	for {
		swept := must1(w.owner.Sweep(background, repoSweep))(t)
		if len(swept.Held) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still held: %+v", swept.Held)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := tree.ReadAt(background, first.ID, p, 0); !errors.Is(err, fs.ErrStale) {
		t.Errorf("read of a point that is gone: %v", err)
	}
	if _, err := tree.Attr(background, first.ID); !errors.Is(err, fs.ErrStale) {
		t.Errorf("attributes of a point that is gone: %v", err)
	}
}

// TestMany holds more points than may stay open.
func TestMany(t *testing.T) {
	w := newWorld(t)
	var disks []*repotest.Disk
	for i := range 6 {
		disks = append(disks, dense(uint64(i), 100<<10))
		w.backup(int64(i), "m", repotest.NamedDisk{Name: "d", Disk: disks[i]})
	}
	tree := w.tree(content.Options{Points: 2})
	for range 3 {
		for i, d := range disks {
			if got := read(t, tree, fmt.Sprintf("m/2026-11-22T03-00-%02d.000Z/disks/d.raw", i)); !bytes.Equal(got, bytesOf(t, d)) {
				t.Errorf("point %d has other bytes", i)
			}
		}
	}
	held := 0
	for i := range disks {
		id := must1(w.owner.Points(background))(t)[0].ID
		w.expire(id)
		held = len(must1(w.owner.Sweep(background, repoSweep))(t).Held)
		_ = i
	}
	if held != 2 {
		t.Errorf("%d points are held, want 2", held)
	}
}

func TestStale(t *testing.T) {
	w := newWorld(t)
	w.backup(0, "m", repotest.NamedDisk{Name: "d", Disk: dense(1, 4096)})
	tree := w.tree(content.Options{Guests: direct})
	point := resolve(t, tree, "m/latest").ID
	for _, id := range []fs.ID{
		{}, {FS: 0, Ino: 2}, {FS: 1 << 20, Ino: 1}, {FS: point.FS, Ino: 0}, {FS: point.FS, Ino: 77}, {FS: point.FS, Ino: 1 << 60},
		{FS: point.FS, Ino: 2<<16 | 1}, {FS: point.FS, Ino: 1<<16 | 0xff}, {FS: point.FS | 1<<12, Ino: 1}, {FS: point.FS | 5, Ino: 1},
		{FS: point.FS | 200<<12 | 5, Ino: 1}, {FS: resolve(t, tree, "m").ID.FS, Ino: 3}, {FS: resolve(t, tree, "m").ID.FS | 1, Ino: 1},
		{FS: point.FS, Ino: 1<<16 | 2}, {FS: point.FS, Ino: 1<<16 | 0x1fff},
	} {
		if a, err := tree.Attr(background, id); !errors.Is(err, fs.ErrStale) {
			t.Errorf("%x:%x is %+v, %v", id.FS, id.Ino, a, err)
		}
	}
}

// TestPaging reads a directory from every one of its cookies while points come
// and go.
func TestPaging(t *testing.T) {
	w := newWorld(t)
	disk := repotest.NamedDisk{Name: "d", Disk: dense(1, 4096)}
	for i := range 5 {
		w.backup(int64(i/2), "m", disk) // two at the same second
	}
	tree := w.tree(content.Options{Refresh: time.Nanosecond})
	dir := resolve(t, tree, "m").ID
	var all []fs.Entry
	must(t, tree.ReadDir(background, dir, 0, func(e fs.Entry) bool {
		all = append(all, e)
		return true
	}))
	if len(all) != 6 {
		t.Fatalf("%d entries, want 6", len(all))
	}
	w.expire(must1(w.owner.Points(background))(t)[1].ID)
	w.backup(100, "m", disk)
	for i, e := range all {
		var rest []string
		must(t, tree.ReadDir(background, dir, e.Cookie, func(e fs.Entry) bool {
			rest = append(rest, e.Name)
			return true
		}))
		var want []string
		for j, other := range all[i+1:] {
			if i+1+j != 2 { // the one that has expired
				want = append(want, other.Name)
			}
		}
		want = append(want, "2026-11-22T03-01-40.000Z")
		if !slices.Equal(rest, want) {
			t.Errorf("behind %s: %q, want %q", e.Name, rest, want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	w.backup(0, "m", repotest.NamedDisk{Name: "d.vmdk", Disk: dense(1, 3<<20)})
	tree := w.tree(content.Options{Guests: direct})
	layout := must1(guest.Direct{}.Layout(background, dense(1, 3<<20)))(t)
	got := string(read(t, tree, "m/latest/files/d.vmdk/whole.unreadable.txt"))
	if why := layout.Volumes[0].Why; why == "" || !strings.HasPrefix(got, why+"\n") || !strings.Contains(got, "3145728 bytes") {
		t.Errorf("the note says\n%s", got)
	}
}

// TestConform holds the whole tree to the contract, disks in all forms included.
func TestConform(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		sparse := repotest.New(rand.New(rand.NewPCG(uint64(i), 1)), repotest.Sparse, 8<<20)
		w.backup(int64(i), "m", repotest.NamedDisk{Name: "a", Disk: dense(uint64(i), 700<<10+13)}, repotest.NamedDisk{Name: "b.qcow2", Disk: sparse})
	}
	w.backup(7, "n", repotest.NamedDisk{Name: "a", Disk: dense(9, 100<<10)})
	open := func() (fs.Tree, error) { return content.New(w.reader(), content.Options{Guests: direct}), nil }
	treetest.Conform(t, w.tree(content.Options{Guests: direct}), treetest.Options{Reopen: open})
}
