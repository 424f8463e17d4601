package datastore

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/image/redirect"
	"holdfast/repo/vfs"
)

const mib = 1 << 20

// zeroBase is a disk of zeros but for its first bytes.
type zeroBase struct{ size int64 }

func (b zeroBase) Size() int64 { return b.size }

func (b zeroBase) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), b.size-off)))
	clear(p[:n])
	if off == 0 {
		copy(p[:n], "base")
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (b zeroBase) NextData(off int64) (start, end int64, err error) {
	if off < 4096 {
		return off, 4096, nil
	}
	return 0, 0, io.EOF
}

// newRedirect makes a redirect session of one disk.
func newRedirect(t testing.TB, fsys vfs.FS) (*redirect.Session, Disk) {
	t.Helper()
	specs := []redirect.DiskSpec{{Name: "flat", Base: zeroBase{mib}, Identity: redirect.Identity{Size: mib}}}
	r, err := redirect.Create(fsys, specs, redirect.Options{WALBytes: mib, ReserveBytes: mib})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, Redirected(r, r.Disks()[0])
}

func (b *bench) add(spec SessionSpec) uint32 {
	b.t.Helper()
	n, err := b.s.AddSession(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) lookup(dir fs.ID, name string) fs.Attr {
	b.t.Helper()
	a, err := b.s.Lookup(ctx, dir, name)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

func wants(t testing.TB, err, want error, what string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func vmSpec(name string) SessionSpec {
	return SessionSpec{
		Name: name, UID: 3, GID: 4,
		Files: []File{{Name: "vm.vmx", Data: []byte("config"), Perm: 0o755}, {Name: "vm.nvram", Data: bytes.Repeat([]byte("n"), 300_000)}},
		Disks: []DiskFile{{Name: "vm-flat.vmdk", Size: mib}},
	}
}

func TestSessions(t *testing.T) {
	b := newBench(t, Options{})
	one, two := b.add(vmSpec("one")), b.add(vmSpec("two"))
	if one != 1 || two != 2 {
		t.Errorf("sessions %d and %d", one, two)
	}
	a := b.lookup(b.s.Root(), "one")
	if a.ID != SessionRoot(one) || a.ID.Ino != 1<<40|1 || !a.IsDir() || a.UID != 3 || a.GID != 4 {
		t.Errorf("a session's directory: %+v", a)
	}
	if root := b.lookup(SessionRoot(one), ".."); root.ID != b.s.Root() || root.Nlink != 4 {
		t.Errorf(`".." of a session: %+v`, root)
	}
	vmx, nvram := b.lookup(SessionRoot(one), "vm.vmx"), b.lookup(SessionRoot(one), "vm.nvram")
	p := make([]byte, 300_000)
	if n, err := b.s.ReadAt(ctx, vmx.ID, p, 0); string(p[:n]) != "config" || err != io.EOF || vmx.Perm != 0o755 || vmx.UID != 3 {
		t.Errorf("vm.vmx: %q, %v, %+v", p[:n], err, vmx)
	}
	if n, err := b.s.ReadAt(ctx, nvram.ID, p, 0); !bytes.Equal(p[:n], bytes.Repeat([]byte("n"), 300_000)) || err != nil || nvram.Used != 5*unitBytes {
		t.Errorf("vm.nvram: %d bytes, %v, %+v", n, err, nvram)
	}
	wants(t, second(b.s.Remove(ctx, b.s.Root(), "one", nil)), fs.ErrIsDir, "Remove of a session")
	wants(t, second(b.s.Rmdir(ctx, b.s.Root(), "one", nil)), fs.ErrPermission, "Rmdir of a session")
	wants(t, second(b.s.Rename(ctx, b.s.Root(), "one", b.s.Root(), "other", nil)), fs.ErrPermission, "Rename of a session")
	wants(t, second(b.s.Rename(ctx, SessionRoot(one), "vm.vmx", SessionRoot(two), "x", nil)), fs.ErrCrossing, "Rename to another session")
	wants(t, second(b.s.Rename(ctx, SessionRoot(one), "vm.vmx", b.s.Root(), "x", nil)), fs.ErrCrossing, "Rename to the root")
	wants(t, second(b.s.Link(ctx, vmx.ID, SessionRoot(two), "x", nil)), fs.ErrCrossing, "Link in another session")
	wants(t, second(b.s.Create(ctx, b.s.Root(), "one", fs.Creation{}, fs.SetAttr{}, nil)), fs.ErrExist, "Create over a session")
	for _, n := range []uint32{one, two} {
		_, disk := newRedirect(t, vfs.NewMem())
		if err := b.s.Attach(n, map[string]Disk{"vm-flat.vmdk": disk}); err != nil {
			t.Fatal(err)
		}
	}
	treetest.Conform(t, b.s, treetest.Options{})
	if err := b.s.RemoveSession(one); err != nil {
		t.Fatal(err)
	}
	for _, id := range []fs.ID{SessionRoot(one), vmx.ID, nvram.ID} {
		_, err := b.s.Attr(ctx, id)
		wants(t, err, fs.ErrStale, "Attr in a removed session")
	}
	if list, err := b.mem.ReadDir("."); err != nil || len(list) != 3 {
		t.Errorf("after the removal there are %v, %v; want lock, root and s000002", list, err)
	}
	wants(t, b.s.RemoveSession(one), ErrNoSession, "RemoveSession again")
	wants(t, b.s.RemoveSession(0), ErrNoSession, "RemoveSession of the root")
	if _, err := b.crash(vfs.CrashOptions{}); err != nil {
		t.Fatal(err)
	}
	if three := b.add(vmSpec("one")); three != 3 {
		t.Errorf("the next session is %d", three)
	}
	list := b.s.Sessions()
	if len(list) != 2 || list[0].Number != 2 || list[1].Name != "one" || list[1].Disks[0] != (SessionDisk{Name: "vm-flat.vmdk", Size: mib, Path: "vm-flat.vmdk"}) {
		t.Errorf("sessions: %+v", list)
	}
}

func TestBadSpecs(t *testing.T) {
	b := newBench(t, Options{})
	b.add(vmSpec("taken"))
	tests := []struct {
		name string
		spec SessionSpec
		want error
	}{
		{"taken", vmSpec("taken"), fs.ErrExist},
		{"no name", SessionSpec{}, fs.ErrInvalid},
		{"a path", vmSpec("a/b"), fs.ErrInvalid},
		{"long", vmSpec(strings.Repeat("n", 256)), fs.ErrNameTooLong},
		{"two of a name", SessionSpec{Name: "s", Files: []File{{Name: "f"}}, Disks: []DiskFile{{Name: "f"}}}, fs.ErrInvalid},
		{"a name", SessionSpec{Name: "s", Files: []File{{Name: ".."}}}, fs.ErrInvalid},
		{"a size", SessionSpec{Name: "s", Disks: []DiskFile{{Name: "d", Size: -1}}}, fs.ErrInvalid},
		{"a quota", SessionSpec{Name: "s", QuotaBytes: 5000, Files: []File{{Name: "f", Data: make([]byte, 9000)}}}, fs.ErrQuota},
	}
	for _, tt := range tests {
		wants(t, second(b.s.AddSession(tt.spec)), tt.want, tt.name)
	}
	if list := b.s.Sessions(); len(list) != 1 {
		t.Errorf("sessions: %+v", list)
	}
}

func TestDisks(t *testing.T) {
	b := newBench(t, Options{})
	n := b.add(vmSpec("vm"))
	dir := SessionRoot(n)
	flat := b.lookup(dir, "vm-flat.vmdk")
	if flat.Size != mib || flat.Perm != 0o600 {
		t.Errorf("a disk without bytes: %+v", flat)
	}
	p := make([]byte, 4)
	_, err := b.s.ReadAt(ctx, flat.ID, p, 0)
	wants(t, err, fs.ErrRetry, "ReadAt before Attach")
	_, err = b.s.WriteAt(ctx, flat.ID, p, 0, true)
	wants(t, err, fs.ErrRetry, "WriteAt before Attach")
	r, disk := newRedirect(t, vfs.NewMem())
	wants(t, b.s.Attach(n, nil), fs.ErrInvalid, "Attach of nothing")
	wants(t, b.s.Attach(n, map[string]Disk{"vm-flat.vmdk": disk, "more": disk}), fs.ErrInvalid, "Attach of too many")
	wants(t, b.s.Attach(9, nil), ErrNoSession, "Attach to no session")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.s.Attach(n, map[string]Disk{"vm-flat.vmdk": disk}))
	if _, err := b.s.ReadAt(ctx, flat.ID, p, 0); err != nil || string(p) != "base" {
		t.Errorf("ReadAt: %q, %v", p, err)
	}
	w, err := b.s.WriteAt(ctx, flat.ID, []byte("written"), 8192, true)
	if err != nil || !w.Durable || w.Before != fs.VersionOf(&flat) || w.After.Size != mib {
		t.Errorf("WriteAt: %+v, %v", w, err)
	}
	extents, err := b.s.Extents(ctx, flat.ID, 0, 10)
	if err != nil || len(extents) != 4 || extents[0].Kind != fs.Made || extents[1].Kind != fs.Hole || extents[2].Off != 8192 || extents[3].Len != mib-12288 {
		t.Errorf("Extents: %+v, %v", extents, err)
	}
	for _, size := range []int64{0, mib - 1, mib + 1} {
		wants(t, second(b.s.SetAttr(ctx, flat.ID, fs.SetAttr{Set: fs.SetSize, Size: size})), fs.ErrPermission, "another size")
	}
	wants(t, second(b.s.SetAttr(ctx, flat.ID, fs.SetAttr{Set: fs.SetSize, Size: mib})), nil, "the same size")
	wants(t, second(b.s.Create(ctx, dir, "vm-flat.vmdk", fs.Creation{}, fs.SetAttr{Set: fs.SetSize}, nil)), fs.ErrPermission, "O_TRUNC")
	wants(t, second(b.s.WriteAt(ctx, flat.ID, p, mib-1, true)), fs.ErrTooLarge, "a write over the end")
	_, err = b.s.Borrow(ctx, flat.ID, 0, 10)
	wants(t, err, fs.ErrUnsupported, "Borrow of a disk that lends nothing")

	verifier := b.s.Verifier()
	w, err = b.s.WriteAt(ctx, flat.ID, []byte("unsynced"), 0, false)
	if err != nil || w.Durable {
		t.Errorf("unsynced: %+v, %v", w, err)
	}
	if _, err := b.s.Commit(ctx, flat.ID, 0, 0); err != nil || b.s.Verifier() != verifier {
		t.Errorf("Commit: %v, verifier %d after %d", err, b.s.Verifier(), verifier)
	}
	must(b.s.Offline(n, fs.ErrDamaged))
	_, err = b.s.ReadAt(ctx, flat.ID, p, 0)
	wants(t, err, fs.ErrDamaged, "ReadAt when offline")
	if a := b.lookup(dir, "vm-flat.vmdk"); a.Used != w.After.Used {
		t.Errorf("offline it takes %d bytes, %d before", a.Used, w.After.Used)
	}
	_, other := newRedirect(t, vfs.NewMem())
	must(b.s.Attach(n, map[string]Disk{"vm-flat.vmdk": other}))
	if b.s.Verifier() == verifier {
		t.Error("another disk was attached, and the verifier is the same")
	}
	must(b.s.Attach(n, map[string]Disk{"vm-flat.vmdk": disk}))

	sub, err := b.s.Mkdir(ctx, dir, "sub", fs.SetAttr{}, nil)
	must(err)
	must(second(b.s.Rename(ctx, dir, "vm-flat.vmdk", sub.Object.ID, "renamed", nil)))
	if list := b.s.Sessions(); list[0].Disks[0].Path != "sub/renamed" || !list[0].Disks[0].Attached {
		t.Errorf("after a rename: %+v", list[0].Disks)
	}
	must(second(b.s.Remove(ctx, sub.Object.ID, "renamed", nil)))
	_, err = b.s.Attr(ctx, flat.ID)
	wants(t, err, fs.ErrStale, "Attr of a disk without a name")
	if _, err := b.reopen(); err != nil {
		t.Fatal(err)
	}
	must(b.s.Attach(n, map[string]Disk{"vm-flat.vmdk": disk}))
	if list := b.s.Sessions(); list[0].Disks[0].Path != "" {
		t.Errorf("after the removal: %+v", list[0].Disks)
	}
	q := make([]byte, 7)
	if _, err := r.Disks()[0].ReadAt(q, 8192); err != nil || string(q) != "written" {
		t.Errorf("what was written to a removed disk is %q, %v", q, err)
	}
}

// TestDamage flips a bit in the journal of one of three sessions.
func TestDamage(t *testing.T) {
	b := newBench(t, Options{})
	for _, name := range []string{"one", "two", "three"} {
		b.add(vmSpec(name))
	}
	for i := range 20 {
		for n := range uint32(4) {
			if _, err := b.s.Create(ctx, SessionRoot(n), fmt.Sprintf("f%d", i), fs.Creation{}, fs.SetAttr{}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := b.mem.OpenWrite("s000002/journal.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 3684); err != nil || f.Sync() != nil || f.Close() != nil {
		t.Fatal(err)
	}
	b.open()
	list := b.s.Sessions()
	if len(list) != 3 || list[0].Err != nil || list[2].Err != nil || !errors.Is(list[1].Err, fs.ErrDamaged) || list[1].Name != "two" {
		t.Fatalf("sessions: %+v", list)
	}
	var names []string
	if err := b.s.ReadDir(ctx, b.s.Root(), 0, func(e fs.Entry) bool {
		names = append(names, e.Name)
		return true
	}); err != nil || len(names) != 23 {
		t.Errorf("the root has %d names, %v", len(names), err)
	}
	_, err = b.s.Lookup(ctx, b.s.Root(), "two")
	wants(t, err, fs.ErrDamaged, "Lookup of the session")
	for _, n := range []uint32{0, 1, 3} {
		wants(t, second(b.s.Create(ctx, SessionRoot(n), "after", fs.Creation{}, fs.SetAttr{}, nil)), nil, "a change elsewhere")
	}
	wants(t, b.s.Attach(2, nil), fs.ErrDamaged, "Attach")
	if err := b.s.RemoveSession(2); err != nil {
		t.Error(err)
	}
	if n := b.add(vmSpec("two")); n != 4 {
		t.Errorf("the next session is %d", n)
	}
}

// TestRebuild loses the root's journal.
func TestRebuild(t *testing.T) {
	b := newBench(t, Options{})
	wants(t, Rebuild(b.mem, Options{}), ErrBusy, "Rebuild of an open store")
	b.add(vmSpec("one"))
	gone, two := b.add(vmSpec("gone")), b.add(vmSpec("two"))
	wants(t, b.s.RemoveSession(gone), nil, "RemoveSession")
	own, err := b.s.Create(ctx, b.s.Root(), "of the root", fs.Creation{}, fs.SetAttr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	vmx := b.lookup(SessionRoot(two), "vm.vmx")
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	wants(t, Rebuild(b.mem, Options{}), iofs.ErrExist, "Rebuild of a store in order")
	for i := range 2 {
		f, err := b.mem.OpenWrite(fmt.Sprintf("root/journal.%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 5000), 100); err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	_, err = Open(b.mem, Options{})
	wants(t, err, fs.ErrDamaged, "Open without a root")
	for at := 0; ; at++ { // stopped anywhere it can be done again
		disk := vfs.NewFaulty(b.mem.CrashClone(vfs.CrashOptions{Names: vfs.KeepAll, Data: vfs.KeepAll, Sizes: vfs.KeepAll}))
		disk.CrashAt(at)
		err := Rebuild(disk, Options{})
		if err == nil {
			break
		}
		disk.Heal()
		if _, err := Open(disk.Unwrap(), Options{}); err == nil {
			continue // it was done
		}
		wants(t, Create(disk.Unwrap(), Options{}), iofs.ErrExist, "Create beside sessions")
		wants(t, Rebuild(disk.Unwrap(), Options{}), nil, fmt.Sprintf("Rebuild after a stop at %d", at))
	}
	if err := Rebuild(b.mem, Options{}); err != nil {
		t.Fatal(err)
	}
	b.open()
	if list := b.s.Sessions(); len(list) != 2 || list[0].Name != "one" || list[1].Name != "two" || list[1].Number != two || list[1].Err != nil {
		t.Errorf("sessions: %+v", list)
	}
	if a, err := b.s.Attr(ctx, vmx.ID); err != nil || a != vmx {
		t.Errorf("a file of a session: %+v, %v", a, err)
	}
	_, err = b.s.Attr(ctx, own.Object.ID)
	wants(t, err, fs.ErrStale, "a file of the root")
	made, err := b.s.Create(ctx, b.s.Root(), "new", fs.Creation{}, fs.SetAttr{}, nil)
	if err != nil || made.Object.ID.Ino <= own.Object.ID.Ino {
		t.Errorf("a new file of the root: %v, %v", made.Object.ID, err)
	}
	if n := b.add(vmSpec("three")); n <= two {
		t.Errorf("the next session is %d", n)
	}
}

func TestOpenErrors(t *testing.T) {
	mem := vfs.NewMem()
	_, err := Open(mem, Options{})
	wants(t, err, iofs.ErrNotExist, "Open of nothing")
	wants(t, Create(mem, Options{}), nil, "Create")
	wants(t, Create(mem, Options{}), iofs.ErrExist, "Create again")
	s, err := Open(mem, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(mem, Options{})
	wants(t, err, ErrBusy, "Open twice")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = s.Attr(ctx, s.Root())
	wants(t, err, ErrClosed, "Attr after Close")
	f, err := mem.OpenWrite("root/journal.0")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, headerBytes)
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	p[7] = '2'
	le.PutUint32(p[508:], crc32.Checksum(p[:508], castagnoli))
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	_, err = Open(mem, Options{})
	wants(t, err, ErrFormat, "Open of a newer format")
}

// TestFullVolume works with lock files on a volume without a free byte.
func TestFullVolume(t *testing.T) {
	b := newBench(t, Options{})
	n := b.add(vmSpec("vm"))
	b.mem.SetCapacity(b.mem.Used())
	dir := SessionRoot(n)
	nvram := b.lookup(dir, "vm.nvram")
	for i := range 3000 { // enough to turn the journal a few times
		lock := fmt.Sprintf(".lck-%d", i)
		c, err := b.s.Create(ctx, dir, lock, fs.Creation{How: fs.CreateExclusive}, fs.SetAttr{}, nil)
		if err == nil {
			_, err = b.s.WriteAt(ctx, c.Object.ID, []byte("host 1"), 0, true)
		}
		if err == nil {
			_, err = b.s.WriteAt(ctx, nvram.ID, []byte("overwritten"), 100_000, true)
		}
		if err == nil && i%2 == 0 {
			_, err = b.s.Rename(ctx, dir, lock, dir, ".lck", nil)
		} else if err == nil {
			_, err = b.s.Remove(ctx, dir, lock, nil)
		}
		if err != nil {
			t.Fatalf("lock file %d: %v", i, err)
		}
	}
	wants(t, second(b.s.WriteAt(ctx, nvram.ID, make([]byte, unitBytes), 1<<20, false)), fs.ErrNoSpace, "a large write")
	if a := b.lookup(dir, "vm.nvram"); a.Size != 300_000 {
		t.Errorf("after it the file has %d bytes", a.Size)
	}
	wants(t, second(b.s.AddSession(vmSpec("another"))), fs.ErrNoSpace, "AddSession")
	var err error
	for i := 0; err == nil; i++ {
		var c fs.Change
		if c, err = b.s.Create(ctx, dir, fmt.Sprintf("f%d", i), fs.Creation{}, fs.SetAttr{}, nil); err == nil {
			_, err = b.s.WriteAt(ctx, c.Object.ID, make([]byte, 60_000), 0, true)
		}
	}
	wants(t, err, fs.ErrNoSpace, "small files until the journal is full")
	c, err := b.s.Create(ctx, dir, ".lck-last", fs.Creation{}, fs.SetAttr{}, nil)
	if err == nil {
		_, err = b.s.WriteAt(ctx, c.Object.ID, []byte("host 1"), 0, true)
	}
	wants(t, err, nil, "a lock file out of the reserve")
	if _, err := b.reopen(); err != nil {
		t.Fatal(err)
	}
	wants(t, b.s.RemoveSession(n), nil, "RemoveSession")
	wants(t, second(b.s.AddSession(vmSpec("another"))), nil, "AddSession, with space")
}

func TestLimits(t *testing.T) {
	b := newBench(t, Options{QuotaBytes: 200_000, MaxFiles: 20})
	var err error
	made := 0
	for ; err == nil; made++ {
		_, err = b.s.Create(ctx, b.s.Root(), fmt.Sprintf("f%d", made), fs.Creation{}, fs.SetAttr{}, nil)
	}
	wants(t, err, fs.ErrNoSpace, "too many files")
	if made != 20 {
		t.Errorf("%d files, want 19", made-1)
	}
	f := b.lookup(b.s.Root(), "f0")
	wants(t, second(b.s.WriteAt(ctx, f.ID, make([]byte, 200_001), 0, false)), fs.ErrQuota, "more than the quota")
	wants(t, second(b.s.WriteAt(ctx, f.ID, make([]byte, 190_000), 0, false)), nil, "less than the quota")
	wants(t, second(b.s.WriteAt(ctx, b.lookup(b.s.Root(), "f1").ID, make([]byte, 9000), 0, false)), fs.ErrQuota, "a second file")
	st, err := b.s.StatFS(ctx, b.s.Root())
	if err != nil || st.FreeFiles != 0 || st.Files != 20 {
		t.Errorf("StatFS: %+v, %v", st, err)
	}
}

// TestRedirectErrors goes through all errors of a redirect layer.
func TestRedirectErrors(t *testing.T) {
	tests := []struct{ from, want error }{
		{nil, nil}, {io.EOF, io.EOF},
		{redirect.ErrNoSpace, fs.ErrNoSpace}, {redirect.ErrReadOnly, fs.ErrReadOnly}, {redirect.ErrDamaged, fs.ErrDamaged},
		{redirect.ErrClosed, fs.ErrRetry}, {redirect.ErrFailed, redirect.ErrFailed}, {redirect.ErrBusy, redirect.ErrBusy},
		{redirect.ErrMismatch, redirect.ErrMismatch}, {redirect.ErrNoDisk, redirect.ErrNoDisk},
		{fs.ErrRetry, fs.ErrRetry}, {&redirect.DamageError{}, fs.ErrDamaged}, {syscall.EIO, syscall.EIO},
	}
	for _, tt := range tests {
		from := tt.from
		if from != nil && from != io.EOF {
			from = fmt.Errorf("write disk: %w", from)
		}
		got := redirectError(from)
		wants(t, got, tt.want, fmt.Sprint(tt.from))
		wants(t, got, from, fmt.Sprint(tt.from))
	}
}

// held is a file system whose syncs can be held up.
func held(t *testing.T) (b *bench, hold func(), release func()) {
	mem := vfs.NewMem()
	disk := vfs.NewFaulty(mem)
	if err := Create(disk, Options{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(disk, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	var gate sync.RWMutex
	disk.OnOp(func(_ int, op vfs.Op) {
		if op.Kind == vfs.OpSync {
			gate.RLock() // only to wait
			defer gate.RUnlock()
		}
	})
	return &bench{t: t, mem: mem, s: s}, gate.Lock, gate.Unlock
}

// TestNothingSeenBeforeDurable holds a sync up: who looks at what it is to make
// durable waits, who looks elsewhere does not.
func TestNothingSeenBeforeDurable(t *testing.T) {
	b, hold, release := held(t)
	old, err := b.s.Create(ctx, b.s.Root(), "old", fs.Creation{}, fs.SetAttr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	hold()
	var changed, seen sync.WaitGroup
	changed.Go(func() {
		_, err := b.s.Create(ctx, b.s.Root(), "new", fs.Creation{}, fs.SetAttr{}, nil)
		wants(t, err, nil, "Create")
	})
	for b.s.CachedAttr(b.s.Root()) {
		time.Sleep(time.Millisecond)
	}
	saw := make(chan string, 3)
	seen.Go(func() {
		_, err := b.s.Lookup(ctx, b.s.Root(), "new")
		wants(t, err, nil, "Lookup")
		saw <- "Lookup"
	})
	seen.Go(func() {
		_, err := b.s.Attr(ctx, b.s.Root())
		wants(t, err, nil, "Attr")
		saw <- "Attr"
	})
	seen.Go(func() {
		_, err := b.s.Create(ctx, b.s.Root(), "new", fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{}, nil)
		wants(t, err, fs.ErrExist, "guarded Create")
		saw <- "Create"
	})
	if _, err := b.s.Attr(ctx, old.Object.ID); err != nil { // does not wait
		t.Error(err)
	}
	time.Sleep(20 * time.Millisecond)
	select {
	case what := <-saw:
		t.Errorf("%s told of a change that was not durable", what)
	default:
	}
	release()
	changed.Wait()
	seen.Wait()
}

// TestOneSyncForAll has 100 changes wait for one sync: the next one serves all.
func TestOneSyncForAll(t *testing.T) {
	b, hold, release := held(t)
	hold()
	var wait sync.WaitGroup
	for i := range 100 {
		wait.Go(func() {
			_, err := b.s.Create(ctx, b.s.Root(), fmt.Sprint(i), fs.Creation{}, fs.SetAttr{}, nil)
			wants(t, err, nil, "Create")
		})
	}
	for b.s.root.queue.last() < 100 {
		time.Sleep(time.Millisecond)
	}
	before := b.s.root.j.next.seq
	release()
	wait.Wait()
	if n := b.s.root.j.next.seq - before; n > 3 {
		t.Errorf("%d batches for 100 changes", n)
	}
}

// TestManySessions opens 32 sessions, of which one has a directory of 10,000
// names, without their disks.
func TestManySessions(t *testing.T) {
	b := newBench(t, Options{})
	b.opt.MaxFiles = 20_000
	for i := range 32 {
		b.add(vmSpec(fmt.Sprint(i)))
	}
	var wait sync.WaitGroup
	for k := range 20 {
		wait.Go(func() {
			for i := range 500 {
				_, err := b.s.Create(ctx, SessionRoot(7), fmt.Sprintf("file %d %d", k, i), fs.Creation{}, fs.SetAttr{}, nil)
				wants(t, err, nil, "Create")
			}
		})
	}
	wait.Wait()
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b.open()
	t.Logf("opened in %v", time.Since(began))
	n := 0
	if err := b.s.ReadDir(ctx, SessionRoot(7), 0, func(fs.Entry) bool { n++; return true }); err != nil || n != 10_003 {
		t.Errorf("%d names, %v", n, err)
	}
	if size := b.s.trees[7].size.Load(); size > 32*mib {
		t.Errorf("the journal has %d bytes", size)
	}
}

// TestClockGoesBack has the machine's clock an hour earlier at every opening:
// times go on all the same, after power cuts too.
func TestClockGoesBack(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := newBench(t, Options{Now: func() time.Time {
		now = now.Add(time.Millisecond)
		return now
	}})
	c, err := b.s.Create(ctx, b.s.Root(), "f", fs.Creation{}, fs.SetAttr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	last := c.Object
	for i := range 12 {
		w, err := b.s.WriteAt(ctx, last.ID, make([]byte, 100_000), 0, i%2 == 0)
		if err != nil || compareTimes(w.After.Mtime, last.Mtime) <= 0 || compareTimes(w.After.Ctime, last.Ctime) <= 0 {
			t.Fatalf("%+v, %v; after %+v", w.After, err, last)
		}
		now = now.Add(-time.Hour)
		if i%3 == 0 {
			_, err = b.reopen()
		} else {
			_, err = b.crash(vfs.CrashOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		if last, err = b.s.Attr(ctx, last.ID); err != nil || compareTimes(last.Ctime, w.After.Ctime) < 0 || compareTimes(last.Mtime, w.After.Mtime) < 0 {
			t.Fatalf("opened again: %+v, %v; after %+v", last, err, w.After)
		}
		if i%3 == 0 && (last.Ctime != w.After.Ctime || last.Mtime != w.After.Mtime) {
			t.Errorf("closed in good order, times are %v and %v, they were %v and %v", last.Mtime, last.Ctime, w.After.Mtime, w.After.Ctime)
		}
	}
}

// TestHalfGrown opens a journal of which a crash left one file longer, on a
// volume without space for the other.
func TestHalfGrown(t *testing.T) {
	for i := range 2 {
		b := newBench(t, Options{})
		n := b.add(vmSpec("vm"))
		if err := b.s.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := b.mem.OpenWrite(fmt.Sprintf("s000001/journal.%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Preallocate(2 * minJournal); err != nil || f.Sync() != nil || f.Close() != nil {
			t.Fatal(err)
		}
		b.mem.SetCapacity(b.mem.Used())
		b.open()
		if list := b.s.Sessions(); list[0].Err != nil {
			t.Fatal(list[0].Err)
		}
		for k := range 2500 {
			if _, err := b.s.SetAttr(ctx, SessionRoot(n), fs.SetAttr{Set: fs.SetUID, UID: uint32(k)}); err != nil {
				t.Fatal(err)
			}
		}
		b.mem.SetCapacity(1 << 40)
		if _, err := b.reopen(); err != nil {
			t.Fatal(err)
		}
		if size := b.s.trees[n].size.Load(); size != 2*minJournal {
			t.Errorf("with space the journal has %d bytes", size)
		}
	}
}
