package refcount

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"holdfast/repo/vfs"
)

// Commit makes durable what was added, and the payload with it: both or
// neither. It writes at most one file, into which it merges older ones of a
// like size, and one list. It keeps payload, which the caller must not change.
//
// After an error the table is as before, and Commit can be tried again or
// Rollback called; but on disk the new state may be there. If that is certain
// and only old files could not be removed, the table is committed in spite of
// the error; Payload tells.
func (t *Table) Commit(payload []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(); err != nil {
		return err
	}
	if !t.owner {
		return ErrReadOnly
	}
	if len(payload) > MaxPayloadBytes {
		return fmt.Errorf("%w: %d bytes", ErrPayload, len(payload))
	}
	if t.untidy {
		if err := t.tidy(); err != nil {
			return err
		}
	}
	if len(t.delta) == 0 && len(t.spills) == 0 && !t.reset && t.saved.number > 0 && bytes.Equal(payload, t.saved.payload) {
		return nil
	}
	if payload == nil {
		payload = []byte{}
	}
	t.untidy = true
	next, files, err := t.write(payload)
	if err != nil {
		return fmt.Errorf("commit reference counts %s: %w", t.dir, err)
	}
	err = errors.Join(t.forget(), release(t.files))
	t.saved, t.files, t.reset = next, files, false
	return errors.Join(err, t.tidy())
}

// write makes the files of the next list and then the list, and opens the
// files.
func (t *Table) write(payload []byte) (next list, files []*file, err error) {
	fresh := uint64(len(t.delta))
	for _, f := range t.spills {
		fresh += f.head.rows
	}
	base := t.base()
	keep := len(base)
	if fresh > 0 {
		keep -= pick(rowsOf(base), fresh, t.opt.floorRows)
	}
	next = list{number: t.nextList, payload: payload}
	for _, f := range base[:keep] {
		files = append(files, f.acquire())
		next.members = append(next.members, f.member())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, release(files))
		}
	}()
	if fresh > 0 {
		f, err := t.writeFile(base[keep:], keep == 0)
		if err != nil {
			return list{}, nil, err
		}
		if f != nil {
			files, next.members = append(files, f), append(next.members, f.member())
		}
	}
	t.nextList++
	return next, files, vfs.WriteFile(t.fsys, path.Join(t.dir, naming.List(next.number)), next.encode())
}

// writeFile merges the uncommitted changes and files into a new file, and opens
// it; nil if nothing is left of them. A row that changes nothing is left out. If
// all files are merged, the sums are the counts.
func (t *Table) writeFile(files []*file, all bool) (*file, error) {
	number := t.nextFile
	t.nextFile++
	name := path.Join(t.dir, naming.File(number))
	out, tmp, err := vfs.CreateTemp(t.fsys, name)
	if err != nil {
		return nil, err
	}
	rows, err := mergeInto(out, number, func(k key, sum int64) (bool, error) {
		if all {
			return sum != 0, t.checkCount(k, sum)
		}
		return sum != 0, nil
	}, sorted(t.delta), t.spills, files)
	if err == nil && rows > 0 {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err != nil || rows == 0 {
		return nil, errors.Join(err, t.fsys.Remove(tmp))
	}
	if err := vfs.Place(t.fsys, tmp, name); err != nil {
		return nil, err
	}
	r, err := t.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	f, err := newFile(r, name, t.cache)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return f, nil
}

// mergeInto writes the sums that want asks for, and returns how many they are.
func mergeInto(out vfs.File, number uint64, want func(key, int64) (bool, error), delta *rowSource, files ...[]*file) (uint64, error) {
	w, err := newWriter(out, number)
	if err != nil {
		return 0, err
	}
	m, err := newMerger(delta, files...)
	if err != nil {
		return 0, err
	}
	err = m.each(func(k key, sum int64) error {
		if ok, err := want(k, sum); !ok || err != nil {
			return err
		}
		r, err := newRow(k, sum)
		if err != nil {
			return err
		}
		return w.row(r)
	})
	if err != nil || w.head.rows == 0 {
		return 0, err
	}
	return w.head.rows, w.finish()
}

// spill moves the delta to a temporary file, with which it merges older ones of
// a like size. It stays under its temporary name, is not synced, and is removed
// once nobody needs it. Rows that change nothing stay: they were touched.
func (t *Table) spill() error {
	out, tmp, err := vfs.CreateTemp(t.fsys, path.Join(t.dir, "spill"))
	if err != nil {
		return err
	}
	drop := func() error { return errors.Join(out.Close(), t.fsys.Remove(tmp)) }
	keep := len(t.spills) - pick(rowsOf(t.spills), uint64(len(t.delta)), t.opt.floorRows)
	merged := t.spills[keep:]
	_, err = mergeInto(out, 1, func(key, int64) (bool, error) { return true, nil }, sorted(t.delta), merged)
	if err != nil {
		return errors.Join(err, drop())
	}
	f, err := newFile(out, tmp, t.cache)
	if err != nil {
		return errors.Join(err, drop())
	}
	f.drop, f.spill = drop, true
	t.spills = append(slices.Clone(t.spills[:keep]), f)
	clear(t.delta)
	return release(merged)
}

// tidy removes what this package wrote to the directory and saved does not
// name: lists first, so that no list names a file that is gone.
func (t *Table) tidy() error {
	infos, err := t.fsys.ReadDir(t.dir)
	if err != nil {
		return err
	}
	var gone []vfs.Info
	for _, info := range infos {
		if n, ok := naming.ListNumber(info.Name); ok && n != t.saved.number {
			gone = append(gone, info)
		}
		n, ok := naming.FileNumber(info.Name)
		named := func(m member) bool { return m.Number == n }
		if ok && !slices.ContainsFunc(t.saved.members, named) {
			gone = append(gone, info)
		}
	}
	slices.SortStableFunc(gone, func(a, b vfs.Info) int {
		return -cmp.Compare(listRank(a.Name), listRank(b.Name))
	})
	for _, info := range gone {
		if rerr := t.fsys.Remove(path.Join(t.dir, info.Name)); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	t.untidy = err != nil
	return err
}

func listRank(name string) int {
	if _, ok := naming.ListNumber(name); ok {
		return 1
	}
	return 0
}
