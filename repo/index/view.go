package index

import (
	"errors"
	"slices"
	"sync/atomic"

	"holdfast/repo/pack"
)

// view is what one list says, with its files open. It is immutable; whoever
// uses it holds a reference, so that the files stay open while another view
// takes its place.
type view struct {
	list   list
	hidden map[pack.Name]uint64 // list.hidden as a map
	files  []*file              // in the order of list.members
	refs   atomic.Int32
}

// newView takes over a reference to each file.
func newView(l list, files []*file) *view {
	v := &view{list: l, files: files}
	if len(l.hidden) > 0 {
		v.hidden = make(map[pack.Name]uint64, len(l.hidden))
		for _, h := range l.hidden {
			v.hidden[h.name] = h.number
		}
	}
	v.refs.Store(1)
	return v
}

func (v *view) acquire() *view {
	v.refs.Add(1)
	return v
}

func (v *view) release() error {
	if v.refs.Add(-1) > 0 {
		return nil
	}
	var err error
	for _, f := range v.files {
		err = errors.Join(err, f.release())
	}
	return err
}

// shows reports whether the entries that f has of a pack are visible.
func (v *view) shows(f *file, name pack.Name) bool {
	until, ok := v.hidden[name]
	return !ok || f.head.number > until
}

// hiding returns a view of the same files that hides other packs, each up to
// a file's number.
func (v *view) hiding(marks map[pack.Name]uint64) *view {
	l := v.list
	l.hidden = nil
	for name, number := range marks {
		l.hidden = append(l.hidden, hidden{name, number})
	}
	slices.SortFunc(l.hidden, func(a, b hidden) int { return slices.Compare(a.name[:], b.name[:]) })
	files := make([]*file, len(v.files))
	for i, f := range v.files {
		files[i] = f.acquire()
	}
	return newView(l, files)
}

// find appends the places sought in all files, the newest file first. Damage in
// one does not keep it from the others.
func (v *view) find(q query, hits []found, age int) ([]found, error) {
	var errs error
	for _, f := range slices.Backward(v.files) {
		var err error
		hits, err = f.find(q, hits, age, v)
		errs = errors.Join(errs, err)
		age++
	}
	return hits, errs
}

func (v *view) hasPack(name pack.Name) (bool, error) {
	for _, f := range slices.Backward(v.files) {
		if !v.shows(f, name) {
			continue
		}
		if has, err := f.hasPack(name); has || err != nil {
			return has, err
		}
	}
	return false, nil
}

// known returns those packs of names that the files have.
func (v *view) known(names []pack.Name) (map[pack.Name]bool, error) {
	set := make(map[pack.Name]bool)
	for _, name := range names {
		has, err := v.hasPack(name)
		if err != nil {
			return nil, err
		}
		if has {
			set[name] = true
		}
	}
	return set, nil
}
