package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"holdfast/repo/ledger"
	"holdfast/repo/vfs"
)

// repairFiles gives every file but packs the bytes it should have.
func (r *repairer) repairFiles(ctx context.Context) error {
	faults, err := r.checkFiles(ctx, r.inv, r.Owner, r.opt.From)
	if err != nil {
		return err
	}
	reindexed := false
	for _, f := range faults {
		switch {
		case f.good != nil:
			err = putBack(r.fsys, f.Path, f.good)
		case f.HealedBy == byReindex && !reindexed:
			_, err = r.reindex(ctx)
			reindexed = err == nil
		case f.HealedBy == byReindex:
		case f.HealedBy == byScrub, f.HealedBy == byClose:
			err = r.fsys.Remove(f.Path) // it is made again
		case f.HealedBy == bySweep:
			err = r.dropRefs()
		case f.HealedBy == byOwner && path.Dir(f.Path) != runsDir:
			err = r.flushIndex()
		default:
			r.report.Left = append(r.report.Left, f.DamagedFile)
			continue
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			r.unvoid(f.Path)
			r.report.Files = append(r.report.Files, RepairedFile{f.Path, f.Problem, f.HealedBy})
			continue
		}
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EIO) {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		f.Problem += fmt.Sprintf("; can't be replaced: %v", err)
		r.report.Left = append(r.report.Left, f.DamagedFile)
	}
	return nil
}

// dropRefs has the next sweep count anew.
func (r *repairer) dropRefs() error {
	c, err := r.ownRefs()
	if err != nil {
		return err
	}
	return errors.Join(c.reset(), c.commit(ledger.Head{}), c.table.Close())
}

// unvoid keeps a point that has its manifest again from being closed as void.
func (r *repairer) unvoid(name string) {
	id := strings.TrimSuffix(strings.TrimPrefix(name, pointsDir+"/"), twinSuffix)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.voids = slices.DeleteFunc(r.voids, func(rec ledger.Record) bool {
		v, ok := rec.(*ledger.Void)
		return ok && v.Point == id
	})
}

// putBack makes data the file of that name, in place of the damaged one if there
// is one. There is at every moment one or the other.
func putBack(fsys vfs.FS, name string, data []byte) error {
	f, tmp, err := vfs.CreateTemp(fsys, name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	return fsys.SyncDir(path.Dir(name))
}
