package fat

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"holdfast/fs"
)

const (
	maxDirBytes    = 8 << 20 // of one directory; systems stop at 2 MiB
	maxDirClusters = 1 << 18 // of all together that are kept track of, in some 100 bytes each
	maxDepth       = 1024
	cachedDirBytes = 24 << 20
)

// dirs knows the directories that were looked at, and so which clusters hold
// slots: an inode is named by the place of its slot, and a place in a file's
// data must not pass for one. A place that is not known makes us look at all
// directories once, since the name may come from a time before a restart.
// Safe for concurrent use.
type dirs struct {
	f    *FS
	root *dir

	survey sync.Mutex // held while looking at all directories; before mu
	all    bool       // done; guarded by survey

	mu     sync.Mutex // guards the following
	byIno  map[uint64]*dir
	places map[uint32]place // by cluster
	loaded map[uint64]*list.Element
	used   *list.List // of *folder, the latest first
	bytes  int
}

// dir is a directory that was met.
type dir struct {
	ino    uint64
	first  uint32 // cluster; 0: the fixed root
	parent *dir   // the root's is itself
}

// place says that a cluster is number nth of a directory.
type place struct {
	d   *dir
	nth uint32
}

func newDirs(f *FS) *dirs {
	root := &dir{ino: rootIno, first: f.g.rootCluster}
	root.parent = root
	return &dirs{
		f: f, root: root, byIno: map[uint64]*dir{rootIno: root}, places: map[uint32]place{},
		loaded: map[uint64]*list.Element{}, used: list.New(),
	}
}

// slot returns the slot that an ID other than the root's stands for.
func (ds *dirs) slot(ctx context.Context, id fs.ID) ([]byte, error) {
	fo, i, err := ds.find(ctx, id)
	if err != nil {
		return nil, err
	}
	return fo.slot(i), nil
}

// find returns the directory that has an inode, and the number of its slot.
func (ds *dirs) find(ctx context.Context, id fs.ID) (*folder, int, error) {
	stale := fmt.Errorf("inode %d: %w", id.Ino, fs.ErrStale)
	if id.FS != 0 || id.Ino <= rootIno || id.Ino > uint64(ds.f.size)/slotBytes {
		return nil, 0, stale
	}
	off := int64(id.Ino) * slotBytes
	d, nth, err := ds.owner(ctx, off)
	if err != nil {
		return nil, 0, err
	}
	if d == nil {
		return nil, 0, stale
	}
	fo, err := ds.load(ctx, d)
	if err != nil {
		return nil, 0, err
	}
	i := int(nth)
	if i >= fo.slots() || !fo.shown(i) {
		return nil, 0, stale
	}
	return fo, i, nil
}

// owner finds the directory that has a slot at byte off of the device, and the
// number of that slot; nil when no directory does.
func (ds *dirs) owner(ctx context.Context, off int64) (*dir, int64, error) {
	g := ds.f.g
	if off < g.rootOff {
		return nil, 0, nil
	}
	if off < g.dataOff {
		return ds.root, (off - g.rootOff) / slotBytes, nil
	}
	k := (off - g.dataOff) >> g.shift()
	if k >= int64(g.clusters) {
		return nil, 0, nil
	}
	p, ok := ds.place(uint32(k) + 2)
	if !ok {
		if err := ds.surveyAll(ctx); err != nil {
			return nil, 0, err
		}
		if p, ok = ds.place(uint32(k) + 2); !ok {
			return nil, 0, nil
		}
	}
	in := (off - g.dataOff) & (g.clusterBytes - 1)
	return p.d, (int64(p.nth)<<g.shift() + in) / slotBytes, nil
}

func (ds *dirs) place(c uint32) (place, bool) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	p, ok := ds.places[c]
	return p, ok
}

// folder returns the content of the directory id.
func (ds *dirs) folder(ctx context.Context, id fs.ID) (*folder, error) {
	ds.mu.Lock()
	d := ds.byIno[id.Ino]
	ds.mu.Unlock()
	if d == nil || id.FS != 0 {
		fo, i, err := ds.find(ctx, id)
		if err != nil {
			return nil, err
		}
		if d, err = ds.child(fo, i); err != nil {
			return nil, err
		}
	}
	fo, err := ds.load(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("directory %d: %w", id.Ino, err)
	}
	return fo, nil
}

// child enters the directory whose slot is number i of fo.
func (ds *dirs) child(fo *folder, i int) (*dir, error) {
	slot := fo.slot(i)
	if slot[11]&attrDir == 0 {
		return nil, fs.ErrNotDir
	}
	ino := fo.ino(i)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if d := ds.byIno[ino]; d != nil {
		return d, nil
	}
	if len(ds.byIno) > maxDirClusters {
		return nil, errTooMany
	}
	d := &dir{ino: ino, first: ds.f.g.cluster(slot), parent: fo.d}
	ds.byIno[ino] = d
	return d, nil
}

var errTooMany = fmt.Errorf("directories in more than %d clusters: %w", maxDirClusters, fs.ErrUnsupported)

// load returns the content of d, from memory if it is there.
func (ds *dirs) load(ctx context.Context, d *dir) (*folder, error) {
	ds.mu.Lock()
	if e := ds.loaded[d.ino]; e != nil {
		ds.used.MoveToFront(e)
		ds.mu.Unlock()
		return e.Value.(*folder), nil
	}
	ds.mu.Unlock()
	fo, err := ds.read(ctx, d)
	if err != nil {
		return nil, err
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if e := ds.loaded[d.ino]; e != nil { // another was faster
		return e.Value.(*folder), nil
	}
	ds.loaded[d.ino] = ds.used.PushFront(fo)
	for ds.bytes += fo.cost(); ds.bytes > cachedDirBytes && ds.used.Len() > 1; {
		old := ds.used.Remove(ds.used.Back()).(*folder)
		delete(ds.loaded, old.d.ino)
		ds.bytes -= old.cost()
	}
	return fo, nil
}

// claim says that cluster c is number nth of d.
func (ds *dirs) claim(d *dir, c, nth uint32) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	p, ok := ds.places[c]
	switch {
	case !ok && len(ds.places) >= maxDirClusters:
		return errTooMany
	case !ok:
		ds.places[c] = place{d, nth}
	case p.d != d:
		return fmt.Errorf("cluster %d belongs to directory %d too: %w", c, p.d.ino, fs.ErrDamaged)
	case p.nth != nth:
		return fmt.Errorf("its chain leads back to cluster %d: %w", c, fs.ErrDamaged)
	}
	return nil
}

// surveyAll looks at all directories, so that each of their clusters is known.
// Those that can't be read hold nothing that has a name.
func (ds *dirs) surveyAll(ctx context.Context) error {
	ds.survey.Lock()
	defer ds.survey.Unlock()
	if ds.all {
		return nil
	}
	type frame struct {
		d    *dir
		next int
	}
	for stack := []frame{{ds.root, 0}}; len(stack) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		top := &stack[len(stack)-1]
		fo, err := ds.load(ctx, top.d)
		if err != nil {
			if !errors.Is(err, fs.ErrDamaged) {
				return err
			}
			stack = stack[:len(stack)-1]
			continue
		}
		i := fo.nextDir(top.next)
		if i < 0 || len(stack) > maxDepth {
			stack = stack[:len(stack)-1]
			continue
		}
		top.next = i + 1
		d, err := ds.child(fo, i)
		if err != nil {
			return err
		}
		stack = append(stack, frame{d, 0})
	}
	ds.all = true
	return nil
}
