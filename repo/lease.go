package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"holdfast/repo/vfs"
)

// Readers in other processes are known to the owner by what they keep in
// leases/, the only place they write: a shared lock on leases/POINT while they
// read, which dies with them, and a pin, a file that stays until somebody
// takes it away. The owner drops a point in this order: manifest away, synced;
// exclusive lock on the lease; then free what only the point held. A reader
// takes its lock first and looks for the manifest afterwards, so one of the
// two always sees the other.

const pinPrefix = "pin-"

// takeLease locks the point's lease. A point that isn't there gets none, for
// nobody would take the file away again. On a medium that can't be written there
// is no lease and none is needed. On a full one there may be no room for it, and
// that is no reason to refuse: whoever reads without may find the point gone, and
// never wrong bytes. In both cases it returns nil and warned is true.
func takeLease(fsys vfs.FS, id PointID) (l vfs.Unlocker, warned bool, err error) {
	if !hasManifest(fsys, id) {
		return nil, false, fmt.Errorf("point %s: %w", id, ErrNotFound)
	}
	l, err = fsys.Lock(leasePath(id), vfs.Shared)
	switch {
	case err == nil:
		return l, false, nil
	case errors.Is(err, vfs.ErrLocked):
		return nil, false, fmt.Errorf("point %s is being removed: %w", id, ErrNotFound)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission),
		errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return nil, true, nil
	}
	return nil, false, fmt.Errorf("lease point %s: %w", id, err)
}

// hasManifest reports whether either copy of a point's manifest may be there.
func hasManifest(fsys vfs.FS, id PointID) bool {
	_, err := fsys.Stat(pointPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = fsys.Stat(pointPath(id) + twinSuffix)
	}
	return isID(string(id)) && !errors.Is(err, fs.ErrNotExist)
}

// Pin keeps a point from being freed, whatever retention says, until Unpin with
// the same name, across restarts of whoever pinned it. Pinning again under the
// same name changes nothing. The name obeys
// CheckName and has at most 200 bytes.
func (r *Repository) Pin(id PointID, name string) error {
	if err := checkPin(name); err != nil {
		return err
	}
	lease, _, err := takeLease(r.fsys, id)
	if err != nil {
		return err
	}
	if lease != nil {
		defer lease.Unlock() //nolint:errcheck // a lock we hold is given up in any case
	}
	if !hasManifest(r.fsys, id) { // it may have gone before we had the lease
		return fmt.Errorf("pin point %s: %w", id, ErrNotFound)
	}
	err = writePin(r.fsys, pinPath(id, name), []byte(name+"\n"))
	if err != nil {
		return fmt.Errorf("pin point %s: %w", id, readOnly(err))
	}
	return r.checkPinned(id, name)
}

// checkPinned takes a new pin away again if the point has expired meanwhile.
// Whoever lets it expire says so in the ledger and looks for pins after that,
// so one of the two sees the other.
func (r *Repository) checkPinned(id PointID, name string) error {
	if err := r.look(context.Background()); err != nil {
		return fmt.Errorf("pin point %s: %w", id, err)
	}
	r.view.mu.Lock()
	ps, known, _ := r.view.point(id)
	r.view.mu.Unlock()
	if !known || ps.Expired == 0 {
		return nil
	}
	return errors.Join(fmt.Errorf("pin point %s: %w", id, ErrExpired), r.Unpin(id, name))
}

// maxPinBytes leaves room for the point's id in a file's name.
const maxPinBytes = 200

func checkPin(name string) error {
	if len(name) > maxPinBytes {
		return fmt.Errorf("%w: pin %.64q has %d bytes, more than %d", ErrName, name, len(name), maxPinBytes)
	}
	return CheckName("pin", name)
}

// Unpin takes a pin away.
func (r *Repository) Unpin(id PointID, name string) error {
	if err := checkPin(name); err != nil {
		return err
	}
	err := r.fsys.Remove(pinPath(id, name))
	if err == nil {
		err = r.fsys.SyncDir(leasesDir)
	}
	if err != nil {
		return fmt.Errorf("unpin point %s: %w", id, readOnly(notFound(err)))
	}
	return nil
}

// Pins lists the names under which a point is pinned.
func (r *Repository) Pins(id PointID) ([]string, error) {
	pins, err := r.pins()
	return pins[id], err
}

// Pinned lists the names under which points are pinned, those of all points.
func (r *Repository) Pinned() (map[PointID][]string, error) { return r.pins() }

func pinPath(id PointID, name string) string {
	return leasesDir + "/" + pinPrefix + string(id) + "-" + name
}

// writePin makes a durable file, unless there is one, without tmp/, which belongs to the owner: a
// reader may write in leases/ alone. A torn pin pins all the same, its content
// is for people.
func writePin(fsys vfs.FS, name string, text []byte) error {
	f, err := fsys.Create(name)
	if errors.Is(err, fs.ErrExist) {
		return fsys.SyncDir(leasesDir) // whoever made it may have failed at that
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fsys.SyncDir(leasesDir)
}

// notFound and readOnly give the errors of the system the names callers test for.
func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

func readOnly(err error) error {
	if errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}
