package datastore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"holdfast/fs"
)

// SessionSpec is a session to be made: a directory and what is in it at first.
type SessionSpec struct {
	Name  string     // of the directory, in the root
	Files []File     // small ones, stored here
	Disks []DiskFile // big ones, which Attach brings

	// QuotaBytes is what the session's files, disks not counted, may take
	// together; 0: all that is free.
	QuotaBytes int64

	// UID and GID own the directory and all in it.
	UID, GID uint32
}

// File is a small file of a new session, at most 64 MiB.
type File struct {
	Name string
	Data []byte
	Perm uint16 // 0: 0644
}

// DiskFile is a disk of a new session. Name is both the file's first name and,
// for as long as the session is there, by what Attach knows the disk.
type DiskFile struct {
	Name string
	Size int64  // bytes
	Perm uint16 // 0: 0600
}

// Session describes a session of a store.
type Session struct {
	Number uint32
	Name   string
	Disks  []SessionDisk

	// Err is why the session is offline: fs.ErrDamaged and what is wrong with
	// its journal. Its disks are not known then.
	Err error
}

// SessionDisk is a disk of a session.
type SessionDisk struct {
	Name     string // as in the SessionSpec
	Size     int64
	Path     string // its name now, from the session's directory on; "" if all its names were removed
	Attached bool
}

// maxSpecFile is how long a file of a SessionSpec is at most.
const maxSpecFile = 64 << 20

// AddSession makes a session, durably, and returns its number, 1 to 2^24 - 1.
// fs.ErrExist when the root has that name; fs.ErrInvalid for a SessionSpec that
// can't be; fs.ErrNoSpace. The number of one that could not be made isn't used
// again.
func (s *Store) AddSession(spec SessionSpec) (number uint32, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	t, err := s.addSession(spec)
	if err != nil {
		return 0, fmt.Errorf("add session %q to the datastore: %w", spec.Name, spaceError(err))
	}
	return t.number, nil
}

func (s *Store) addSession(spec SessionSpec) (*tree, error) {
	if err := s.root.enter(context.Background()); err != nil {
		return nil, err
	}
	defer s.root.leave()
	if err := spec.check(); err != nil {
		return nil, err
	}
	number, err := s.takeNumber(spec.Name)
	if err != nil {
		return nil, err
	}
	t := newTree(s, number, sessionDir(number))
	err = t.build(spec)
	if err == nil {
		s.mu.Lock()
		s.trees[number] = t // known before it has a name
		s.mu.Unlock()
		err = s.nameSession(number, spec.Name)
	}
	if err != nil {
		s.mu.Lock()
		delete(s.trees, number)
		s.mu.Unlock()
		return nil, errors.Join(err, t.end(fs.ErrStale), removeDir(s.fs, t.dir))
	}
	return t, nil
}

// check says what is wrong with a spec.
func (spec *SessionSpec) check() error {
	if err := badName(spec.Name); err != nil {
		return err
	}
	if len(spec.Disks) > maxDisks {
		return fmt.Errorf("%d disks: %w", len(spec.Disks), fs.ErrInvalid)
	}
	names := make(map[string]bool)
	one := func(name string) error {
		if names[name] {
			return fmt.Errorf("%q twice: %w", name, fs.ErrInvalid)
		}
		names[name] = true
		return badName(name)
	}
	for _, d := range spec.Disks {
		if err := one(d.Name); err != nil {
			return err
		}
		if d.Size < 0 {
			return fmt.Errorf("disk %q of %d bytes: %w", d.Name, d.Size, fs.ErrInvalid)
		}
	}
	for _, f := range spec.Files {
		if err := one(f.Name); err != nil {
			return err
		}
		if len(f.Data) > maxSpecFile {
			return fmt.Errorf("file %q of %d bytes: %w", f.Name, len(f.Data), fs.ErrTooLarge)
		}
	}
	return nil
}

// takeNumber gives a number to a session to be, durably.
func (s *Store) takeNumber(name string) (number uint32, err error) {
	err = s.root.change(nameGrowth(name, 0), func(x *tx) error {
		if _, ok := x.st.nodes[rootIno].byName[name]; ok {
			return fmt.Errorf("%q: %w", name, fs.ErrExist)
		}
		if x.st.session >= maxSession {
			return fmt.Errorf("all numbers of sessions are used up: %w", fs.ErrNoSpace)
		}
		number = x.st.session + 1
		x.put(countersRec{session: number})
		return nil
	})
	return number, err
}

// nameSession puts a session into the root, from where on it is there.
func (s *Store) nameSession(number uint32, name string) error {
	return s.root.change(nameGrowth(name, 0), func(x *tx) error {
		d := x.st.nodes[rootIno]
		if _, ok := d.byName[name]; ok {
			return fmt.Errorf("%q: %w", name, fs.ErrExist)
		}
		x.put(entryRec{dir: rootIno, cookie: x.st.cookie + 1, child: uint64(number), session: true, name: name})
		x.stamp(d, 1)
		return nil
	})
}

// build makes the tree's directory, its files and its journal, durably.
func (t *tree) build(spec SessionSpec) error {
	if err := removeDir(t.s.fs, t.dir); err != nil {
		return err
	}
	if err := t.s.fs.Mkdir(t.dir); err != nil {
		return err
	}
	st, err := t.furnish(spec)
	if err != nil {
		return err
	}
	j, err := createJournal(t.s.fs, t.dir, t.s.id, t.number, st.snapshot(nil))
	if err != nil {
		return err
	}
	t.start(j, st)
	return t.s.fs.SyncDir(".")
}

// furnish makes the state of a new session, and the files of large ones.
func (t *tree) furnish(spec SessionSpec) (*state, error) {
	st := newState()
	now := t.s.clock.tick(t.s.opt.Now)
	t.st = st
	x := &tx{t: t, st: st, now: now}
	x.put(treeRec{spec.Name, spec.QuotaBytes})
	owner := fs.SetAttr{Set: fs.SetUID | fs.SetGID, UID: spec.UID, GID: spec.GID}
	root := x.newInode(inode{typ: fs.TypeDir, perm: 0o755, parent: rootIno}, owner)
	for i, d := range spec.Disks {
		x.put(diskRec{uint32(i), d.Name, d.Size})
		n := x.newInode(inode{typ: fs.TypeFile, keep: keepDisk, disk: uint32(i), size: d.Size, perm: cmp.Or(d.Perm&0o7777, 0o600)}, owner)
		x.enter(root, d.Name, n)
	}
	for _, f := range spec.Files {
		i := inode{typ: fs.TypeFile, keep: keepInline, size: int64(len(f.Data)), perm: cmp.Or(f.Perm&0o7777, 0o644)}
		if i.size > inlineBytes {
			i.keep = keepLarge
		}
		n := x.newInode(i, owner)
		if i.keep == keepInline {
			x.put(bytesRec{n.ino, 0, f.Data})
		} else {
			if err := t.makeLarge(&largeFile{t: t, id: t.id(n.ino)}, f.Data); err != nil {
				return nil, err
			}
			x.put(unitsRec{n.ino, 0, uint64(align(i.size, unitBytes) / unitBytes)})
		}
		x.enter(root, f.Name, n)
	}
	if q := spec.QuotaBytes; q > 0 && st.used > q {
		return nil, fmt.Errorf("files of %d bytes, %d are granted: %w", st.used, q, fs.ErrQuota)
	}
	return st, nil
}

// session returns the tree of a session.
func (s *Store) session(number uint32) (*tree, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.trees[number]
	if t == nil || number == 0 {
		return nil, fmt.Errorf("session %d: %w", number, ErrNoSession)
	}
	return t, nil
}

// Attach gives a session its disks, by the names in its SessionSpec; all of
// them. Disks attached before are replaced, as after a restart of what is below.
// fs.ErrInvalid if one is missing, too many or of another size; ErrNoSession.
func (s *Store) Attach(number uint32, disks map[string]Disk) error {
	t, err := s.session(number)
	if err != nil {
		return err
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	if t.gone != nil {
		return t.gone
	}
	t.mu.RLock()
	specs := slices.Clone(t.st.disks)
	t.mu.RUnlock()
	for _, d := range specs {
		switch have := disks[d.name]; {
		case have == nil:
			return fmt.Errorf("session %d needs disk %q: %w", number, d.name, fs.ErrInvalid)
		case have.Size() != d.size:
			return fmt.Errorf("disk %q of session %d has %d bytes, not %d: %w", d.name, number, have.Size(), d.size, fs.ErrInvalid)
		}
	}
	if len(disks) > len(specs) {
		return fmt.Errorf("session %d has %d disks, not %d: %w", number, len(specs), len(disks), fs.ErrInvalid)
	}
	for i, d := range specs {
		t.slots[i].set(disks[d.name], nil, func() {
			if t.unstable.Load() {
				s.newEpoch()
			}
		})
	}
	return nil
}

// Offline takes the disks of a session away again and waits until none of them
// is in use, but for what they have lent: from now on reads and writes of them
// give err, or fs.ErrRetry if that is nil. Names and small files go on working.
func (s *Store) Offline(number uint32, err error) error {
	t, terr := s.session(number)
	if terr != nil {
		return terr
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	if t.gone != nil {
		return nil // they are
	}
	t.mu.RLock()
	readOnly := t.readOnly
	t.mu.RUnlock()
	if readOnly == nil {
		terr = t.unmark() // with what the disks take now
	}
	for _, slot := range t.slots {
		slot.set(nil, err, nil)
	}
	return terr
}

// RemoveSession removes a session, durably: its directory, its small files and
// its journal. Its disks are taken away as by Offline and otherwise left to who
// attached them. Handles are stale from now on. ErrNoSession.
func (s *Store) RemoveSession(number uint32) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	t, err := s.session(number)
	if err != nil {
		return err
	}
	if err := s.root.enter(context.Background()); err != nil {
		return err
	}
	defer s.root.leave()
	if err := s.unname(number); err != nil {
		return fmt.Errorf("remove session %d of the datastore: %w", number, err)
	}
	s.mu.Lock()
	delete(s.trees, number)
	s.mu.Unlock()
	err = t.end(fmt.Errorf("session %d was removed: %w", number, fs.ErrStale))
	err = errors.Join(err, removeDir(s.fs, t.dir), s.fs.SyncDir("."))
	if err != nil {
		// It is gone all the same; what is left goes when the store is opened.
		s.opt.Log.Warn("files of a removed session are left", "session", number, "err", err)
	}
	return nil
}

// unname takes a session's name out of the root, from where on it is no more.
func (s *Store) unname(number uint32) error {
	return s.root.change(growth{small: true}, func(x *tx) error {
		d := x.st.nodes[rootIno]
		for _, e := range d.entries {
			if e.session && e.child == uint64(number) {
				x.put(goneRec{rootIno, e.cookie})
				x.stamp(d, ^uint32(0))
				return nil
			}
		}
		return ErrNoSession
	})
}

// Sessions lists the sessions, in the order of their numbers.
func (s *Store) Sessions() []Session {
	var list []Session
	s.root.mu.RLock()
	for _, e := range s.root.st.nodes[rootIno].entries {
		if e.session {
			list = append(list, Session{Number: uint32(e.child), Name: e.name})
		}
	}
	s.root.mu.RUnlock()
	slices.SortFunc(list, func(a, b Session) int { return cmp.Compare(a.Number, b.Number) })
	for i := range list {
		t, err := s.session(list[i].Number)
		if err == nil {
			list[i].Disks, err = t.listDisks()
		}
		list[i].Err = err
	}
	return list
}

// listDisks describes the disks of a session.
func (t *tree) listDisks() ([]SessionDisk, error) {
	t.gate.RLock()
	defer t.gate.RUnlock()
	if t.gone != nil {
		return nil, t.gone
	}
	list := make([]SessionDisk, len(t.slots))
	for i, slot := range t.slots {
		list[i].Attached = slot.attached()
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i, d := range t.st.disks {
		list[i].Name, list[i].Size = d.name, d.size
	}
	for _, dir := range t.st.nodes {
		for _, e := range dir.entries {
			n := t.st.nodes[e.child]
			if n.keep != keepDisk {
				continue
			}
			// Of several names always the same one.
			if p := t.path(dir, e.name); list[n.disk].Path == "" || p < list[n.disk].Path {
				list[n.disk].Path = p
			}
		}
	}
	return list, nil
}

// path is the name of an entry from the session's directory on. mu is held.
func (t *tree) path(dir *node, name string) string {
	elems := []string{name}
	for dir.ino != rootIno {
		up := t.st.nodes[dir.parent]
		for _, e := range up.entries {
			if e.child == dir.ino {
				elems = append(elems, e.name)
			}
		}
		dir = up
	}
	slices.Reverse(elems)
	return strings.Join(elems, "/")
}
