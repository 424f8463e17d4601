package index

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// Own opens the index as its owner, who alone may change it and keeps others
// from owning it at once. It makes the directory if there is none, and removes
// every list and index file in it that does not belong to the list it took. TempDir must exist.
func Own(fsys vfs.FS, dir string, opt Options) (*Index, error) {
	err := fsys.Mkdir(dir)
	if err == nil {
		err = fsys.SyncDir(path.Dir(dir))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	x, err := open(fsys, dir, opt, true)
	if err != nil {
		return nil, err
	}
	if err := x.tidy(x.view); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

// Flush makes durable what was added and removed, and that the index has every
// pack up to the ledger segment head. It writes at most one index file, into
// which it merges older ones of a like size, and one list. Look-ups go on
// meanwhile. After an error everything is in memory as before, and Flush can be
// tried again.
func (x *Index) Flush(head uint64) error {
	x.work.Lock()
	defer x.work.Unlock()
	return x.flush(head)
}

// flushFull flushes if the delta is still full, and covers no more than before.
func (x *Index) flushFull() error {
	x.work.Lock()
	defer x.work.Unlock()
	x.mu.RLock()
	full := x.view != nil && x.delta.n >= x.opt.flushEntries
	x.mu.RUnlock()
	if !full {
		return nil
	}
	return x.flush(x.view.list.head)
}

// flush is Flush for a caller that holds work, so that x.view stays as it is.
func (x *Index) flush(head uint64) error {
	if !x.owner {
		return ErrReadOnly
	}
	x.mu.Lock()
	if x.view == nil {
		x.mu.Unlock()
		return x.closed()
	}
	if len(x.delta.names) > 0 {
		x.frozen = append(x.frozen, x.delta)
		x.delta = newDelta()
	}
	v, frozen := x.view, x.frozen
	x.mu.Unlock()
	if len(frozen) == 0 && !x.dirty && head == v.list.head {
		return nil
	}

	next, err := x.write(v, frozen, head)
	if err != nil {
		return fmt.Errorf("flush index %s: %w", x.dir, err)
	}
	x.mu.Lock()
	x.view, x.frozen, x.dirty = next, nil, false
	x.mu.Unlock()
	return errors.Join(v.release(), x.tidy(next))
}

// write makes the files of the next view and opens it: the file before the list
// that names it.
func (x *Index) write(v *view, frozen []*delta, head uint64) (_ *view, err error) {
	var fresh int
	for _, d := range frozen {
		fresh += d.n
	}
	keep := len(v.files) - tier{floor: x.opt.floorEntries}.merge(v, len(frozen) > 0, uint64(fresh))
	next := list{number: x.nextList, head: head, members: slices.Clone(v.list.members[:keep]), hidden: v.list.hidden}
	var files []*file
	for _, f := range v.files[:keep] {
		files = append(files, f.acquire())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, newView(list{}, files).release())
		}
	}()

	if srcs := newSources(v, v.files[keep:], reversed(frozen)); len(srcs) > 0 {
		m, err := x.writeFile(srcs)
		if err != nil {
			return nil, err
		}
		if m.Bytes > 0 {
			f, err := openFile(x.fsys, x.dir, m, x.cache)
			if err != nil {
				return nil, err
			}
			files, next.members = append(files, f), append(next.members, m)
		}
	}
	if keep < len(v.files) {
		if next.hidden, err = stillHidden(v.list.hidden, v.files[:keep]); err != nil {
			return nil, err
		}
	}
	x.nextList++
	if err := vfs.WriteFile(x.fsys, path.Join(x.dir, naming.List(next.number)), next.encode()); err != nil {
		return nil, err
	}
	return newView(next, files), nil
}

// reversed returns deltas the newest first.
func reversed(oldestFirst []*delta) []*delta {
	list := slices.Clone(oldestFirst)
	slices.Reverse(list)
	return list
}

// newSources returns the sources to merge, the newest first: deltas as they
// are given, then files, which are given oldest first.
func newSources(v *view, files []*file, deltas []*delta) []source {
	var srcs []source
	for _, d := range deltas {
		srcs = append(srcs, newDeltaSource(d))
	}
	for _, f := range slices.Backward(files) {
		srcs = append(srcs, newFileSource(f, v))
	}
	return srcs
}

// writeFile merges sources into a new file. If nothing is left of them there
// is no file, and the member has no bytes.
func (x *Index) writeFile(srcs []source) (member, error) {
	number := x.nextFile
	x.nextFile++
	name := path.Join(x.dir, naming.File(number))
	f, tmp, err := vfs.CreateTemp(x.fsys, name)
	if err != nil {
		return member{}, err
	}
	m, err := mergeInto(f, number, srcs)
	err = errors.Join(err, f.Close())
	if err != nil || m.Bytes == 0 {
		return member{}, errors.Join(err, x.fsys.Remove(tmp))
	}
	return m, vfs.Place(x.fsys, tmp, name)
}

// mergeInto writes the file's bytes and syncs them.
func mergeInto(f vfs.File, number uint64, srcs []source) (member, error) {
	w, err := newWriter(f, number)
	if err != nil {
		return member{}, err
	}
	places, err := mergeNames(srcs, w.name)
	if err != nil || w.head.packs == 0 {
		return member{}, err
	}
	m, err := newMerger(srcs, places)
	if err != nil {
		return member{}, err
	}
	for {
		e, _, _, err := m.next()
		if err == io.EOF {
			return w.finish()
		}
		if err != nil {
			return member{}, err
		}
		if err := w.entry(e); err != nil {
			return member{}, err
		}
	}
}

// stillHidden returns those packs of which one of the files has entries that do
// not count.
func stillHidden(packs []hidden, files []*file) ([]hidden, error) {
	var left []hidden
	for _, h := range packs {
		for _, f := range files {
			has, err := f.hasPack(h.name)
			if err != nil {
				return nil, err
			}
			if has && f.head.number <= h.number {
				left = append(left, h)
				break
			}
		}
	}
	return left, nil
}

// tidy removes every list and index file of the directory that is not of the
// view: lists first, so that no list names a file that is gone. Other files in
// the directory are others' business.
func (x *Index) tidy(v *view) error {
	infos, err := x.fsys.ReadDir(x.dir)
	if err != nil {
		return err
	}
	mine := map[string]bool{naming.List(v.list.number): true}
	for _, m := range v.list.members {
		mine[naming.File(m.Number)] = true
	}
	slices.SortStableFunc(infos, func(a, b vfs.Info) int {
		return cmp.Compare(listFirst(a.Name), listFirst(b.Name))
	})
	for _, info := range infos {
		if !info.Dir && !mine[info.Name] && ours(info.Name) {
			err = errors.Join(err, x.fsys.Remove(path.Join(x.dir, info.Name)))
		}
	}
	return err
}

// ours reports whether a name is that of a list or of an index file.
func ours(name string) bool {
	_, list := naming.ListNumber(name)
	_, file := naming.FileNumber(name)
	return list || file
}

func listFirst(name string) int {
	if _, ok := naming.ListNumber(name); ok {
		return 0
	}
	return 1
}

// Remove hides all entries of the packs at once. The next Flush makes that
// durable, later merges drop the entries. A pack of the same name can be added
// again.
func (x *Index) Remove(names ...pack.Name) error {
	x.work.Lock()
	defer x.work.Unlock()
	if !x.owner {
		return ErrReadOnly
	}
	v, err := x.snapshot()
	if err != nil {
		return err
	}
	set := make(map[pack.Name]bool, len(names))
	marks := make(map[pack.Name]uint64, len(v.hidden))
	for _, h := range v.list.hidden {
		marks[h.name] = h.number
	}
	for _, name := range names {
		set[name] = true
		// A table that cannot be read may have the pack.
		if has, err := v.hasPack(name); has || err != nil {
			marks[name] = v.files[len(v.files)-1].head.number
			x.dirty = true
		}
	}
	x.mu.Lock()
	x.delta = x.delta.without(set)
	frozen := make([]*delta, len(x.frozen))
	for i, d := range x.frozen {
		frozen[i] = d.without(set)
	}
	x.frozen = frozen
	x.view = v.hiding(marks)
	x.mu.Unlock()
	return errors.Join(v.release(), v.release()) // ours, and the one x.view had
}

// Reset forgets everything, so that the index can be built again from the
// packs. The owner's next Flush makes that durable; a reader's Refresh brings
// the files back.
func (x *Index) Reset() error {
	x.work.Lock()
	defer x.work.Unlock()
	x.mu.Lock()
	v := x.view
	if v == nil {
		x.mu.Unlock()
		return x.closed()
	}
	x.view = newView(list{number: v.list.number}, nil)
	x.delta, x.frozen = newDelta(), nil
	x.mu.Unlock()
	x.dirty = true
	return v.release()
}
