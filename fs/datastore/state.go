package datastore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"holdfast/fs"
)

// state is all that a journal says about a tree, in memory. It changes by
// records alone: those of the journal when it is read, and afterwards those
// that are on their way there.
type state struct {
	tree    treeRec
	nodes   map[uint64]*node
	ino     uint64  // the last one given
	cookie  uint64  // the last one given
	session uint32  // the last one given; in the root
	clock   fs.Time // the latest given, but to marked inodes
	until   fs.Time // the latest that may be given to marked inodes
	disks   []diskRec
	notes   []noteRec
	noted   int   // bytes of notes
	used    int64 // what the files take, disks not counted
	live    int64 // no snapshot is longer than this
}

// node is an inode with what belongs to it.
type node struct {
	inode
	entries []dirent          // of a directory, by cookie
	byName  map[string]uint64 // cookies
	data    []byte            // of keepInline; what is missing up to size is zeros
	units   unitMap           // of keepLarge

	soft *soft  // what the journal does not say yet
	lsn  uint64 // of the last change
}

// dirent is a line of a directory.
type dirent struct {
	name    string
	cookie  uint64
	child   uint64 // an inode, or a session
	session bool
}

// Bounds of what is remembered of notes.
const (
	maxNotes     = 512
	maxNotesLive = 128 << 10
)

// errState says that a record does not fit those before it.
var errState = errors.New("contradicts what is before it")

func contradicts(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errState, fmt.Sprintf(format, args...))
}

func newState() *state { return &state{nodes: make(map[uint64]*node)} }

// What a snapshot needs for one of these beside names, targets and bytes, at most.
const (
	nodeCost  = 192
	entryCost = 40
	pageCost  = 540
)

// cost is what a node needs in a snapshot at most, entries not counted, and what
// it takes of the quota.
func (n *node) cost() (live, used int64) {
	live = nodeCost + int64(len(n.target)+len(n.data)+len(n.units.pages)*pageCost)
	return live, n.usedBytes()
}

func (n *node) usedBytes() int64 {
	switch n.keep {
	case keepInline:
		return align(int64(len(n.data)), blockBytes)
	case keepLarge:
		return n.units.count * unitBytes
	}
	return 0
}

// blockBytes is the unit in which small files are counted.
const blockBytes = 4096

func align(n, to int64) int64 { return (n + to - 1) / to * to }

// apply makes a record so. One that can't be gives errState, and no change.
func (st *state) apply(r record) error {
	switch r := r.(type) {
	case treeRec:
		st.tree = r
	case countersRec:
		st.ino, st.cookie, st.session = max(st.ino, r.ino), max(st.cookie, r.cookie), max(st.session, r.session)
		st.clock, st.until = later(st.clock, r.clock), later(st.until, r.until)
	case diskRec:
		if int(r.index) != len(st.disks) {
			return contradicts("disk %d after %d disks", r.index, len(st.disks))
		}
		st.disks = append(st.disks, r)
		st.live += entryCost + int64(len(r.name))
	case *inode:
		return st.applyInode(r)
	case entryRec:
		return st.enter(r)
	case goneRec:
		return st.leave(r)
	case forgetRec:
		return st.forget(r.ino)
	case bytesRec:
		return st.write(r)
	case unitsRec:
		n, err := st.large(r.ino, r.first, r.count)
		if err != nil {
			return err
		}
		st.change(n, func() { n.units.add(r.first, r.count) })
	case pageRec:
		return st.applyPage(r)
	case noteRec:
		st.note(r)
	}
	return nil
}

func later(a, b fs.Time) fs.Time {
	if compareTimes(a, b) < 0 {
		return b
	}
	return a
}

func compareTimes(a, b fs.Time) int {
	return cmp.Or(cmp.Compare(a.Sec, b.Sec), cmp.Compare(a.Nsec, b.Nsec))
}

// change counts what a change of a node costs.
func (st *state) change(n *node, do func()) {
	live, used := n.cost()
	do()
	live1, used1 := n.cost()
	st.live += live1 - live
	st.used += used1 - used
}

func (st *state) applyInode(r *inode) error {
	n := st.nodes[r.ino]
	if err := checkInode(r, n); err != nil {
		return err
	}
	if r.keep == keepDisk && (int(r.disk) >= len(st.disks) || st.disks[r.disk].size != r.size) {
		return contradicts("inode %d is a disk that is none", r.ino)
	}
	if n == nil {
		n = &node{}
		if r.typ == fs.TypeDir {
			n.byName = make(map[string]uint64)
		}
		st.nodes[r.ino] = n
		st.ino = max(st.ino, r.ino)
		live, used := n.cost()
		st.live, st.used = st.live+live, st.used+used
	}
	st.change(n, func() {
		n.inode = *r
		switch n.keep {
		case keepInline:
			n.data = n.data[:min(int64(len(n.data)), n.size)]
		case keepLarge:
			n.data = nil
			n.units.cut(uint64(align(n.size, unitBytes) / unitBytes))
		}
	})
	if !r.marked {
		for _, t := range [...]fs.Time{r.ctime, r.btime} {
			st.clock = later(st.clock, t)
		}
	}
	return nil
}

// checkInode says what is wrong with an inode by itself, or as the next state of n.
func checkInode(r *inode, n *node) error {
	isFile := r.typ == fs.TypeFile
	switch {
	case r.ino == 0 || r.typ == fs.TypeUnknown || r.typ > fs.TypeSocket || r.keep > keepDisk || isFile == (r.keep == keepNone):
		return contradicts("inode %d is a %v, kept as %d", r.ino, r.typ, r.keep)
	case r.keep == keepInline && r.size > inlineBytes || r.keep == keepLarge && r.size > maxFileBytes:
		return contradicts("inode %d has %d bytes", r.ino, r.size)
	case r.typ == fs.TypeDir && r.parent == 0:
		return contradicts("directory %d has no parent", r.ino)
	case n != nil && (n.typ != r.typ || n.keep != r.keep && (n.keep != keepInline || r.keep != keepLarge) || n.disk != r.disk):
		return contradicts("inode %d becomes another", r.ino)
	}
	return nil
}

func (st *state) directory(ino uint64) (*node, error) {
	d := st.nodes[ino]
	if d == nil || d.typ != fs.TypeDir {
		return nil, contradicts("inode %d is no directory", ino)
	}
	return d, nil
}

func (st *state) enter(r entryRec) error {
	d, err := st.directory(r.dir)
	if err != nil {
		return err
	}
	_, taken := d.byName[r.name]
	switch {
	case badName(r.name) != nil || taken:
		return contradicts("name %q in directory %d", r.name, r.dir)
	case r.cookie == 0 || len(d.entries) > 0 && d.entries[len(d.entries)-1].cookie >= r.cookie:
		return contradicts("place %d in directory %d", r.cookie, r.dir)
	case !r.session && st.nodes[r.child] == nil || r.session && (r.child == 0 || r.child > maxSession):
		return contradicts("name %q of %d, which is not there", r.name, r.child)
	}
	d.entries = append(d.entries, dirent{r.name, r.cookie, r.child, r.session})
	d.byName[r.name] = r.cookie
	st.cookie = max(st.cookie, r.cookie)
	if r.session {
		st.session = max(st.session, uint32(r.child))
	}
	st.live += entryCost + int64(len(r.name))
	return nil
}

func (st *state) leave(r goneRec) error {
	d, err := st.directory(r.dir)
	if err != nil {
		return err
	}
	i, ok := d.at(r.cookie)
	if !ok {
		return contradicts("place %d in directory %d is empty", r.cookie, r.dir)
	}
	name := d.entries[i].name
	delete(d.byName, name)
	d.entries = slices.Delete(d.entries, i, i+1)
	st.live -= entryCost + int64(len(name))
	return nil
}

// at finds the entry of that cookie, or where it would be.
func (n *node) at(cookie uint64) (i int, ok bool) {
	return slices.BinarySearchFunc(n.entries, cookie, func(e dirent, c uint64) int { return cmp.Compare(e.cookie, c) })
}

// named returns the entry of that name.
func (n *node) named(name string) (dirent, bool) {
	cookie, ok := n.byName[name]
	if !ok {
		return dirent{}, false
	}
	i, _ := n.at(cookie)
	return n.entries[i], true
}

func (st *state) forget(ino uint64) error {
	n := st.nodes[ino]
	if n == nil || ino == rootIno || len(n.entries) > 0 {
		return contradicts("inode %d ends", ino)
	}
	live, used := n.cost()
	st.live, st.used = st.live-live, st.used-used
	delete(st.nodes, ino)
	return nil
}

func (st *state) write(r bytesRec) error {
	n := st.nodes[r.ino]
	end := r.off + int64(len(r.p))
	if n == nil || n.keep != keepInline || end > n.size {
		return contradicts("%d bytes at %d of inode %d", len(r.p), r.off, r.ino)
	}
	st.change(n, func() {
		have := int64(len(n.data))
		if have < end {
			n.data = slices.Grow(n.data, int(end-have))[:end]
			clear(n.data[have:])
		}
		copy(n.data[r.off:], r.p)
	})
	return nil
}

// large returns a large file that can have these units.
func (st *state) large(ino, first, count uint64) (*node, error) {
	n := st.nodes[ino]
	if n == nil || n.keep != keepLarge || first+count > uint64(align(n.size, unitBytes)/unitBytes) {
		return nil, contradicts("%d units from %d on of inode %d", count, first, ino)
	}
	return n, nil
}

func (st *state) applyPage(r pageRec) error {
	var one unitMap
	one.put(r.page, r.units)
	for first, count := range one.runs {
		n, err := st.large(r.ino, first, count)
		if err != nil {
			return err
		}
		st.change(n, func() { n.units.add(first, count) })
	}
	return nil
}

func (st *state) note(r noteRec) {
	st.notes = append(st.notes, noteRec{r.at, slices.Clone(r.p)})
	st.noted += len(r.p)
	for len(st.notes) > maxNotes || st.noted > maxNotesLive-maxNotes*16 {
		st.noted -= len(st.notes[0].p)
		st.notes = st.notes[1:]
	}
	st.clock = later(st.clock, r.at)
}

// settle gives marked inodes times that are later than any they were seen with.
func (st *state) settle() {
	for _, n := range st.nodes {
		if n.marked {
			n.mtime, n.ctime = later(n.mtime, st.until), later(n.ctime, st.until)
		}
		st.clock = later(st.clock, n.ctime)
	}
	st.clock = later(st.clock, st.until)
}

// check says what is wrong with a tree as a whole: names without an inode,
// inodes without a name, wrong numbers of links, directories outside of the root.
func (st *state) check() error {
	root := st.nodes[rootIno]
	if root == nil || root.typ != fs.TypeDir || root.parent != rootIno {
		return contradicts("no root")
	}
	names := map[uint64]uint32{rootIno: 2}
	for ino, d := range st.nodes {
		for _, e := range d.entries {
			if e.session {
				names[ino]++
				continue
			}
			c := st.nodes[e.child]
			if c == nil {
				return contradicts("name %q of %d, which is not there", e.name, e.child)
			}
			names[e.child]++
			if c.typ == fs.TypeDir {
				if c.parent != ino {
					return contradicts("directory %d has the parent %d, not %d", e.child, c.parent, ino)
				}
				names[e.child]++
				names[ino]++
			}
		}
	}
	for ino, n := range st.nodes {
		if names[ino] != n.nlink || n.nlink == 0 {
			return contradicts("inode %d has %d links, not %d", ino, n.nlink, names[ino])
		}
	}
	return st.checkReached()
}

// checkReached sees to it that every directory is below the root.
func (st *state) checkReached() error {
	reached := map[uint64]bool{rootIno: true}
	for ino, n := range st.nodes {
		if n.typ != fs.TypeDir {
			continue
		}
		var way []uint64
		for at := ino; !reached[at]; {
			d := st.nodes[at]
			if d == nil || len(way) > len(st.nodes) {
				return contradicts("directory %d is not below the root", ino)
			}
			way = append(way, at)
			at = d.parent
		}
		for _, at := range way {
			reached[at] = true
		}
	}
	return nil
}

// snapshot appends records that make the state out of nothing.
func (st *state) snapshot(p []byte) []byte {
	p = st.tree.encode(p)
	p = countersRec{st.ino, st.cookie, st.session, st.clock, st.until}.encode(p)
	for _, d := range st.disks {
		p = d.encode(p)
	}
	inos := slices.Sorted(maps.Keys(st.nodes))
	for _, ino := range inos {
		p = st.nodes[ino].snapshot(p)
	}
	for _, ino := range inos {
		for _, e := range st.nodes[ino].entries {
			p = entryRec{ino, e.cookie, e.child, e.session, e.name}.encode(p)
		}
	}
	for _, n := range st.notes {
		p = n.encode(p)
	}
	return p
}

func (n *node) snapshot(p []byte) []byte {
	p = n.encode(p)
	if len(n.data) > 0 {
		p = bytesRec{n.ino, 0, n.data}.encode(p)
	}
	for _, k := range slices.Sorted(maps.Keys(n.units.pages)) {
		if u := n.units.pages[k]; u == fullPage {
			p = unitsRec{n.ino, k * pageUnits, pageUnits}.encode(p)
		} else {
			p = pageRec{n.ino, k, u}.encode(p)
		}
	}
	return p
}

// badName says what is wrong with a name.
func badName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q: %w", name, fs.ErrInvalid)
	case len(name) > maxNameBytes:
		return fmt.Errorf("name of %d bytes: %w", len(name), fs.ErrNameTooLong)
	}
	return nil
}
