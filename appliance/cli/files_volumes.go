package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/fs"
	"holdfast/fs/guest"
	"holdfast/repo"
)

// volumes are what lies on the disks of one restore point.
type volumes struct {
	reader *repo.Reader
	guests guest.Reader
	list   []*volume
	notes  []string // of disks, for people
	lost   []lostDisk
}

// lostDisk is a disk of which nobody knows what volumes it has.
type lostDisk struct {
	name string
	err  error
}

// volume is one of them.
type volume struct {
	guest.Volume
	disk   string
	dev    *repo.Disk
	tree   fs.Tree // once it is open
	openMe func(context.Context) (fs.Tree, error)
}

// name is what a PATH begins with that leads into the volume.
func (v *volume) name() string { return v.disk + "/" + v.Name }

// open opens the file system.
func (v *volume) open(ctx context.Context) (fs.Tree, error) {
	if v.tree != nil {
		return v.tree, nil
	}
	if v.Why != "" {
		return nil, withHint(fmt.Errorf("volume %s: %s: %w", v.name(), v.Why, fs.ErrUnsupported), `"holdfast repo restore" gives the disk`)
	}
	t, err := v.openMe(ctx)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.name(), err)
	}
	v.tree = t
	return t, nil
}

// inPoint runs fn with the volumes of a restore point, of one of its disks if
// spec names one.
func (a *app) inPoint(ctx context.Context, r *repo.Repository, spec string, fn func(*volumes) error) (err error) {
	point, disk := splitPoint(spec)
	p, err := r.Find(ctx, point, time.Local)
	if err != nil {
		return err
	}
	reader, err := r.OpenPoint(p.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	log, err := a.logger()
	if err != nil {
		return err
	}
	g, err := guests(log)(ctx)
	if err != nil {
		return fmt.Errorf("start the reader of guest file systems: %w", err)
	}
	vs := &volumes{reader: reader, guests: g}
	defer func() { err = errors.Join(err, vs.close()) }()
	if err := vs.look(ctx, disk); err != nil {
		return err
	}
	return fn(vs)
}

func (vs *volumes) close() error {
	var errs []error
	for _, v := range vs.list {
		if v.tree != nil {
			errs = append(errs, v.tree.Close())
		}
	}
	return errors.Join(append(errs, vs.guests.Close())...)
}

// look finds the volumes of all disks, or of the one named.
func (vs *volumes) look(ctx context.Context, only string) error {
	names := []string{only}
	if only == "" {
		names = nil
		for _, d := range vs.reader.Point().Disks {
			names = append(names, d.Name)
		}
	}
	for _, name := range names {
		d, err := vs.reader.Disk(name)
		if err != nil {
			return err
		}
		found, err := vs.guests.Layout(ctx, d)
		if errors.Is(err, fs.ErrDamaged) || errors.Is(err, fs.ErrUnsupported) {
			vs.notes = append(vs.notes, fmt.Sprintf("disk %s: %v", name, err))
			vs.lost = append(vs.lost, lostDisk{name, err})
			continue
		}
		if err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
		for _, n := range found.Notes {
			vs.notes = append(vs.notes, fmt.Sprintf("disk %s: %s", name, n))
		}
		for _, v := range found.Volumes {
			vs.list = append(vs.list, &volume{Volume: v, disk: name, dev: d, openMe: func(ctx context.Context) (fs.Tree, error) {
				return vs.guests.Open(ctx, d, v)
			}})
		}
	}
	return nil
}

// readable lists the volumes that can be read as far as is known.
func (vs *volumes) readable() []*volume {
	return slices.DeleteFunc(slices.Clone(vs.list), func(v *volume) bool { return v.Why != "" })
}

const hintVolumes = `"holdfast files ls DIR POINT" lists the volumes`

// split tells the volume in a PATH from the path in it. Of a disk alone v is
// nil.
func (vs *volumes) split(arg string) (v *volume, path string, err error) {
	if strings.HasPrefix(arg, "/") {
		switch list := vs.readable(); len(list) {
		case 1:
			return list[0], arg, nil
		case 0:
			return nil, "", withHint(fmt.Errorf("%s: no volume of the point can be read: %w", arg, fs.ErrNotFound), hintVolumes)
		default:
			var names []string
			for _, v := range list {
				names = append(names, strings.TrimSuffix(v.name()+arg, "/"))
			}
			return nil, "", withHint(fmt.Errorf("%s: %w: the point has %d volumes that can be read", arg, errAmbiguousPath, len(list)), "say %s", strings.Join(names, " or "))
		}
	}
	// No disk has a slash in its name.
	disk, rest, _ := strings.Cut(arg, "/")
	name, path, _ := strings.Cut(rest, "/")
	known := false
	for _, v := range vs.list {
		if v.disk != disk {
			continue
		}
		known = true
		if v.Name == name {
			return v, "/" + path, nil
		}
	}
	switch {
	case !known:
		err = fmt.Errorf("%s: disk %q: %w", arg, disk, fs.ErrNotFound)
	case name == "":
		return nil, disk, nil
	default:
		err = fmt.Errorf("%s: volume %q of disk %q: %w", arg, name, disk, fs.ErrNotFound)
	}
	if len(vs.readable()) == 1 {
		return nil, "", withHint(err, "a path in the only volume begins with a slash: /%s", arg)
	}
	return nil, "", withHint(err, hintVolumes)
}

// errAmbiguousPath says that a path could be in several volumes.
var errAmbiguousPath = errors.New("which one?")

// found is an object that a PATH led to.
type found struct {
	vol  *volume
	tree fs.Tree
	path string // in the volume, with a slash in front
	attr fs.Attr
	vs   *volumes
}

// shown is how a path in the volume is given back to people, so that it is a
// PATH again.
func (f *found) shown(path string) string {
	path = "/" + strings.Trim(path, "/")
	if len(f.vs.readable()) == 1 {
		return path
	}
	return strings.TrimSuffix(f.vol.name()+path, "/")
}

// find resolves a PATH.
func (vs *volumes) find(ctx context.Context, arg string, follow bool) (*found, error) {
	v, path, err := vs.split(arg)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, withHint(fmt.Errorf("%s is a disk, not a file", arg), hintVolumes)
	}
	t, err := v.open(ctx)
	if err != nil {
		return nil, err
	}
	at, err := fs.Resolve(ctx, t, t.Root(), path, follow)
	if err != nil {
		return nil, withHint(fmt.Errorf("volume %s: %w", v.name(), err), "a name is spelled as the guest has it, capitals too; holdfast files find looks for it")
	}
	return &found{v, t, path, at, vs}, nil
}

// listDir reads a directory in order of its names.
func listDir(ctx context.Context, t fs.Tree, dir fs.ID) ([]fs.Entry, error) {
	var list []fs.Entry
	err := t.ReadDir(ctx, dir, 0, func(e fs.Entry) bool {
		list = append(list, e)
		return true
	})
	slices.SortFunc(list, func(a, b fs.Entry) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}
