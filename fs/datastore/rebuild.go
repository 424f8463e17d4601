package datastore

import (
	"crypto/rand"
	"errors"
	"fmt"
	iofs "io/fs"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

// damagedDir is where Rebuild puts what was the root.
const damagedDir = "root.damaged"

// Rebuild makes the root's tree anew out of the sessions, for when Open says
// that it is damaged. Every session keeps its number, its handles and the name
// that it was made with. Files of the root itself are lost; what is left of its
// journal goes to root.damaged, once. io/fs.ErrExist when the root is in order.
func Rebuild(fsys vfs.FS, opt Options) error {
	l, err := fsys.Lock(lockName, vfs.Exclusive)
	if errors.Is(err, vfs.ErrLocked) {
		err = fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err == nil {
		err = errors.Join(rebuild(fsys, opt.withDefaults()), l.Unlock())
	}
	if err != nil {
		return fmt.Errorf("rebuild the root of the datastore: %w", spaceError(err))
	}
	return nil
}

func rebuild(fsys vfs.FS, opt Options) error {
	switch j, _, err := openJournal(fsys, rootDir, 0); {
	case err == nil:
		return errors.Join(&iofs.PathError{Op: "rebuild", Path: rootDir, Err: iofs.ErrExist}, j.close())
	case !errors.Is(err, errJournal) && !errors.Is(err, iofs.ErrNotExist):
		return err
	}
	if err := removeDir(fsys, newDir); err != nil {
		return err
	}
	st, id, err := rootOf(fsys, opt)
	if err != nil {
		return err
	}
	if err := makeRoot(fsys, id, st); err != nil {
		return err
	}
	if _, err := fsys.Stat(rootDir); err == nil {
		if err := moveAway(fsys); err != nil {
			return err
		}
	}
	return placeRoot(fsys)
}

// moveAway gives what was the root another name.
func moveAway(fsys vfs.FS) error {
	if _, err := fsys.Stat(damagedDir); err == nil {
		return removeDir(fsys, rootDir) // one is enough to look at
	}
	return fsys.Rename(rootDir, damagedDir)
}

// rootOf makes the state of a root with all sessions that there are. Its own
// numbers go on where none can have been given: there were less than 256 files a
// second.
func rootOf(fsys vfs.FS, opt Options) (*state, [16]byte, error) {
	st := newRoot(opt)
	now := opt.Now()
	given := uint64(max(now.Unix(), 1)) << 8 & maxIno
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	numbers, err := sessionDirs(fsys)
	if err != nil {
		return nil, id, err
	}
	list := []record{countersRec{ino: given, cookie: given}}
	names := make(map[string]bool)
	for i, number := range numbers {
		name := sessionDir(number)
		if j, of, err := openJournal(fsys, sessionDir(number), number); err == nil {
			id = j.id
			if !names[of.tree.name] && badName(of.tree.name) == nil {
				name = of.tree.name
			}
			if err := j.close(); err != nil {
				return nil, id, err
			}
		} else if !errors.Is(err, errJournal) && !errors.Is(err, iofs.ErrNotExist) {
			return nil, id, err
		}
		names[name] = true
		list = append(list, entryRec{dir: rootIno, cookie: given + uint64(i) + 1, child: uint64(number), session: true, name: name})
		// Those that were removed may have had greater numbers.
		list = append(list, countersRec{session: min(number+1<<12, maxSession)})
	}
	root := st.nodes[rootIno].inode
	root.nlink += uint32(len(numbers))
	for _, r := range append(list, &root) {
		if err := st.apply(r); err != nil {
			return nil, id, err
		}
	}
	return st, id, nil
}

// sessionDirs lists the numbers of which there is a directory.
func sessionDirs(fsys vfs.FS) (numbers []uint32, err error) {
	list, err := fsys.ReadDir(".")
	for _, e := range list {
		var number uint32
		if n, _ := fmt.Sscanf(e.Name, "s%06x", &number); n == 1 && e.Dir && number > 0 && e.Name == sessionDir(number) {
			numbers = append(numbers, number)
		}
	}
	return numbers, err
}

// newRoot is the state of an empty root.
func newRoot(opt Options) *state {
	st := newState()
	now := fs.TimeOf(opt.Now())
	root := &inode{ino: rootIno, typ: fs.TypeDir, perm: 0o755, nlink: 2, parent: rootIno, atime: now, mtime: now, ctime: now, btime: now}
	if err := st.apply(root); err != nil {
		panic(err) // it is right
	}
	return st
}

// makeRoot makes the journal of a root that has not got its name yet.
func makeRoot(fsys vfs.FS, id [16]byte, st *state) error {
	if err := removeDir(fsys, newDir); err != nil {
		return err
	}
	if err := fsys.Mkdir(newDir); err != nil {
		return err
	}
	j, err := createJournal(fsys, newDir, id, 0, st.snapshot(nil))
	if err == nil {
		err = j.close()
	}
	return err
}

// placeRoot gives a root its name, from where on the store is there.
func placeRoot(fsys vfs.FS) error {
	if err := fsys.Rename(newDir, rootDir); err != nil {
		return err
	}
	return fsys.SyncDir(".")
}
