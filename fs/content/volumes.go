package content

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"holdfast/fs"
	"holdfast/fs/guest"
	"holdfast/repo"
)

// layout is what was found on a disk.
type layout struct {
	guest.Layout
	slots []int // of the volumes
	err   error // why nothing could be found
}

// state is what became of a volume that was tried.
type state struct {
	volume guest.Volume
	slot   int
	root   uint64   // the inode of its top directory; 0: it can't be read
	why    string   // not
	notes  []string // of its file system
}

// device is a disk as its readers see it.
type device struct{ d *repo.Disk }

func (v device) Size() int64 { return v.d.Size() }

func (v device) ReadAt(p []byte, off int64) (int, error) {
	n, err := v.d.ReadAt(p, off)
	return n, fsError(err)
}

// passing says whether the same may go better another time, so that nothing is
// to be concluded from err. Only what says something of the disk is a reason to
// call it unreadable: others keep that for ever.
func passing(err error) bool {
	ofDisk := errors.Is(err, fs.ErrDamaged) || errors.Is(err, fs.ErrUnsupported) || errors.Is(err, fs.ErrInvalid)
	return !ofDisk || cancelled(err) || errors.Is(err, fs.ErrRetry) || errors.Is(err, fs.ErrStale)
}

func (t *Tree) openReader(ctx context.Context, _ string) (guest.Reader, error) {
	r, err := t.opt.Guests(ctx)
	if err != nil {
		return nil, fmt.Errorf("start the reader of guest file systems: %w", err)
	}
	return r, nil
}

func (t *Tree) closeReader(r guest.Reader) {
	if err := r.Close(); err != nil {
		t.opt.Log.Warn("reader of guest file systems did not end well", "err", err)
	}
}

// readerOf returns what reads the files of a point's machine.
func (t *Tree) readerOf(ctx context.Context, op *openPoint) (guest.Reader, func(), error) {
	return t.readers.acquire(ctx, op.reader.Point().Machine)
}

// layoutOf finds the volumes of a disk. A disk on which none can be found has a
// layout that says why.
func (t *Tree) layoutOf(ctx context.Context, op *openPoint, disk int) (*layout, error) {
	return op.disks[disk].layout.get(func() (*layout, error) {
		r, release, err := t.readerOf(ctx, op)
		if err != nil {
			return nil, err
		}
		defer release()
		d, err := op.disk(disk)
		if err != nil {
			return nil, fsError(err)
		}
		found, err := r.Layout(ctx, device{d})
		if err != nil && passing(err) {
			return nil, err
		}
		lay := &layout{Layout: found, err: err}
		var names []string
		for _, v := range found.Volumes {
			names = append(names, v.Name)
		}
		lay.slots = slots(names)
		return lay, nil
	})
}

// volumeKey names a volume of a point.
type volumeKey struct {
	point      repo.PointID
	disk, slot int
}

// openVolume is a volume whose file system is being read.
type openVolume struct {
	tree    fs.Tree
	root    uint64
	release func() // what it holds
}

func (t *Tree) openVolume(ctx context.Context, k volumeKey) (_ *openVolume, err error) {
	op, releasePoint, err := t.points.acquire(ctx, k.point)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			releasePoint()
		}
	}()
	lay, err := t.layoutOf(ctx, op, k.disk)
	if err != nil {
		return nil, err
	}
	r, releaseReader, err := t.readerOf(ctx, op)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			releaseReader()
		}
	}()
	d, err := op.disk(k.disk)
	if err != nil {
		return nil, fsError(err)
	}
	for i, slot := range lay.slots {
		if slot != k.slot {
			continue
		}
		tree, err := r.Open(ctx, device{d}, lay.Volumes[i])
		if err != nil {
			return nil, err
		}
		return &openVolume{tree, tree.Root().Ino, func() { releaseReader(); releasePoint() }}, nil
	}
	return nil, fmt.Errorf("volume %d of disk %s: %w", k.slot, d.Info().Name, fs.ErrStale)
}

func (t *Tree) closeVolume(v *openVolume) {
	if err := v.tree.Close(); err != nil {
		t.opt.Log.Warn("guest file system did not close well", "err", err)
	}
	v.release()
}

// states tries all volumes of a disk.
func (t *Tree) states(ctx context.Context, p *point, disk int) (*layout, []state, error) {
	op, release, err := t.open(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	lay, err := t.layoutOf(ctx, op, disk)
	if err != nil {
		return nil, nil, err
	}
	list, err := op.disks[disk].states.get(func() ([]state, error) {
		var list []state
		for i, v := range lay.Volumes {
			s, err := t.try(ctx, v, volumeKey{p.ID, disk, lay.slots[i]})
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
		return list, nil
	})
	return lay, list, err
}

// try opens a volume to see whether it can be read.
func (t *Tree) try(ctx context.Context, v guest.Volume, k volumeKey) (state, error) {
	s := state{volume: v, slot: k.slot, why: v.Why}
	switch {
	case s.why != "":
		return s, nil
	case k.slot == 0:
		s.why = "one of too many volumes"
		return s, nil
	}
	open, release, err := t.volumes.acquire(ctx, k)
	if err != nil {
		if passing(err) {
			return s, err
		}
		s.why = err.Error()
		return s, nil
	}
	defer release()
	s.root = open.root
	if noted, ok := open.tree.(fs.NotedTree); ok {
		s.notes = noted.Notes()
	}
	return s, nil
}

// volumesDir is files/<disk>.
type volumesDir struct {
	isDir
	t    *Tree
	p    *point
	disk int
}

func (d *volumesDir) attr(context.Context) (fs.Attr, error) {
	return dirAttr(d.p.id(diskIno(d.disk, inoVolumes)), d.p.time(), true), nil
}

func (d *volumesDir) children(ctx context.Context) ([]child, error) {
	lay, states, err := d.t.states(ctx, d.p, d.disk)
	if err != nil {
		return nil, err
	}
	var list []child
	if len(notesOf(lay, states)) > 0 {
		list = append(list, child{"NOTES.txt", d.p.id(diskIno(d.disk, inoNotes)), fs.TypeFile})
	}
	for _, s := range states {
		name := shorten(escape(s.volume.Name, ""))
		switch {
		case s.slot == 0: // told of in the notes
		case s.root != 0:
			list = append(list, child{name, fs.ID{FS: fsOf(d.p.key, d.disk, s.slot), Ino: s.root}, fs.TypeDir})
		default:
			list = append(list, child{name + ".unreadable.txt", d.p.id(diskIno(d.disk, inoUnreadable+uint64(s.slot))), fs.TypeFile})
		}
	}
	return list, nil
}

func (d *volumesDir) lookup(ctx context.Context, name string) (fs.Attr, error) {
	if name == ".." {
		return d.t.Attr(ctx, d.p.id(inoFiles))
	}
	list, err := d.children(ctx)
	if err != nil {
		return fs.Attr{}, err
	}
	return lookupChild(ctx, d.t, list, name)
}

func (d *volumesDir) readDir(ctx context.Context, cookie uint64, fn func(fs.Entry) bool) error {
	list, err := d.children(ctx)
	if err != nil {
		return err
	}
	return readChildren(list, cookie, fn)
}

// note is the text of NOTES.txt, or of the file in place of a volume that can't
// be read.
func (t *Tree) note(ctx context.Context, p *point, disk int, ino uint64) ([]byte, error) {
	lay, states, err := t.states(ctx, p, disk)
	if err != nil {
		return nil, err
	}
	if ino == inoNotes {
		if notes := notesOf(lay, states); len(notes) > 0 {
			return []byte(strings.Join(notes, "\n") + "\n"), nil
		}
	}
	for _, s := range states {
		if s.slot != 0 && s.root == 0 && ino == inoUnreadable+uint64(s.slot) {
			return []byte(unreadable(s)), nil
		}
	}
	return nil, fmt.Errorf("note %x: %w", ino, fs.ErrStale)
}

// notesOf is all there is to say of a disk, a line each.
func notesOf(lay *layout, states []state) []string {
	var list []string
	if lay.err != nil {
		list = append(list, fmt.Sprintf("disk: no volumes found: %v", lay.err))
	}
	for _, n := range lay.Notes {
		list = append(list, "disk: "+n)
	}
	for _, s := range states {
		if s.slot == 0 {
			list = append(list, fmt.Sprintf("volume %s: %s", s.volume.Name, s.why))
		}
		for _, n := range s.notes {
			list = append(list, fmt.Sprintf("volume %s: %s", s.volume.Name, n))
		}
	}
	return list
}

func unreadable(s state) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", s.why)
	v := s.volume
	for _, line := range []struct{ what, is string }{
		{"volume", v.Name}, {"format", v.Format}, {"label", v.Label}, {"uuid", v.UUID}, {"partition", v.PartName}, {"type", v.PartType},
	} {
		if line.is != "" {
			fmt.Fprintf(&b, "%-10s %s\n", line.what, line.is)
		}
	}
	fmt.Fprintf(&b, "%-10s %d bytes\n%-10s %d bytes\n", "offset", v.Off, "size", v.Size)
	return b.String()
}
