package vfs

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Keep says what becomes of things not synced when the power goes.
type Keep int

const (
	KeepNone Keep = iota // they are lost
	KeepAll              // they had reached the disk
	KeepSome             // the seed decides on each
)

func (k Keep) String() string { return [...]string{"none", "all", "some"}[k] }

// CrashOptions says what of the unsynced state a crash leaves. The zero value
// is the strictest: nothing.
type CrashOptions struct {
	// Data is for written bytes. With KeepSome each page of 4 KiB has seen
	// all, none or the first few of the writes that touched it, whatever its
	// neighbours have seen.
	Data Keep

	// Sizes is for lengths, which change in the order of the operations.
	// Where the length is kept and the data is not there are zeros, or what
	// was there before: file systems that delay allocation leave just that.
	Sizes Keep

	// Names is for the operations on entries of directories. In each
	// directory they are kept up to some point, as in a journal, and a
	// renaming from one directory to another happens in both or in neither.
	Names Keep

	// AnyOrder lets any subset of the operations on entries be kept. A
	// renamed file may then have both names, but is never without one.
	AnyOrder bool

	// Torn lets pages tear, at 512 bytes.
	Torn bool

	// Seed decides for KeepSome. The same seed decides the same, given the
	// same operations in the same order.
	Seed uint64
}

// String names the options for a test case.
func (o CrashOptions) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "data=%v,sizes=%v,names=%v", o.Data, o.Sizes, o.Names)
	if o.AnyOrder {
		b.WriteString(",anyorder")
	}
	if o.Torn {
		b.WriteString(",torn")
	}
	if o.Data == KeepSome || o.Sizes == KeepSome || o.Names == KeepSome {
		fmt.Fprintf(&b, ",seed=%d", o.Seed)
	}
	return b.String()
}

// Crashes returns the crashes a test should survive at any moment: the corner
// cases, and for each seed one where chance decides.
func Crashes(seeds ...uint64) []CrashOptions {
	list := []CrashOptions{
		{},
		{Data: KeepAll, Sizes: KeepAll, Names: KeepAll},
		{Names: KeepAll},                 // empty files under their names
		{Sizes: KeepAll, Names: KeepAll}, // files of zeros under their names
		{Data: KeepAll, Sizes: KeepAll},  // no names
		{AnyOrder: true},                 // renamed files under both names
	}
	for _, seed := range seeds {
		list = append(list, CrashOptions{
			Data: KeepSome, Sizes: KeepSome, Names: KeepSome,
			AnyOrder: seed%2 == 1, Torn: true, Seed: seed,
		})
	}
	return list
}

// CrashClone returns the file system as it could look after the power went now.
// It shares memory with m, not state: m goes on as before. Nobody holds a lock
// in it or has a file open, and everything in it is durable. What SetLocked set
// or took back is so at once.
func (m *Mem) CrashClone(opt CrashOptions) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{
		opt:     opt,
		rng:     rand.New(rand.NewPCG(opt.Seed, 0x686f6c6466617374)),
		entries: make(map[*node]map[string]*node),
		copies:  make(map[*node]*node),
		mem: &Mem{
			nextID: m.nextID, capacity: m.capacity, readOnly: m.readOnly,
			unsynced: make(map[*node]struct{}),
		},
	}
	c.names(m.unsynced)
	c.mem.root = c.copy(m.root)
	c.mem.root.links = 1
	c.data()
	return c.mem
}

// crash is one CrashClone under way.
type crash struct {
	opt     CrashOptions
	rng     *rand.Rand
	mem     *Mem                       // the clone
	entries map[*node]map[string]*node // of directories that had changes
	copies  map[*node]*node            // from the original's to the clone's
}

// byID sorts nodes by creation, so that a seed always decides the same.
func byID[V any](m map[*node]V) []*node {
	return slices.SortedFunc(maps.Keys(m), func(a, b *node) int { return cmp.Compare(a.id, b.id) })
}

// count returns how many of n the crash keeps where they go in order.
func (c *crash) count(k Keep, n int) int {
	switch k {
	case KeepAll:
		return n
	case KeepSome:
		return c.rng.IntN(n + 1)
	}
	return 0
}

// names decides on every change of an entry.
func (c *crash) names(unsynced map[*node]struct{}) {
	dirs := byID(unsynced)
	kept := make(map[*node][]bool, len(dirs))
	for _, d := range dirs {
		keep := make([]bool, len(d.changes))
		n := c.count(c.opt.Names, len(keep))
		for i := range keep {
			keep[i] = i < n
			if c.opt.AnyOrder {
				keep[i] = c.count(c.opt.Names, 1) == 1
			}
		}
		kept[d] = keep
	}
	for c.close(dirs, kept) {
	}
	for _, d := range dirs {
		c.entries[d] = rewind(d, kept[d])
	}
}

// close adds what must be kept because of what else is, and tells whether that
// was anything.
func (c *crash) close(dirs []*node, kept map[*node][]bool) (more bool) {
	var come, gone = make(map[*move]bool), make(map[*move]bool)
	for _, d := range dirs {
		for i, ch := range d.changes {
			if ch.move != nil && kept[d][i] {
				come[ch.move] = come[ch.move] || ch.set != ""
				gone[ch.move] = gone[ch.move] || ch.set == ""
			}
		}
	}
	for _, d := range dirs {
		keep := kept[d]
		for i, ch := range slices.Backward(d.changes) {
			if ch.move != nil && !keep[i] && c.must(ch, come[ch.move], gone[ch.move]) {
				keep[i], more = true, true
			}
			if !c.opt.AnyOrder && i+1 < len(keep) && keep[i+1] && !keep[i] {
				keep[i], more = true, true
			}
		}
	}
	return more
}

// must tells whether half of a renaming is kept because the other half is: come
// and gone tell which of the halves not yet synced are kept. A journal keeps
// both or neither. Without one the new name still comes before the old one
// goes; and a directory never has two names.
func (c *crash) must(ch change, come, gone bool) bool {
	come = come || ch.move.toSynced
	gone = gone || ch.move.fromSynced
	if c.opt.AnyOrder && ch.set == "" && !ch.clearedNode.dir {
		return false
	}
	return come || gone
}

// rewind returns the entries of a directory with only the kept changes made.
func rewind(d *node, keep []bool) map[string]*node {
	entries := make(map[string]*node, len(d.entries))
	maps.Copy(entries, d.entries)
	put := func(name string, n *node) {
		switch {
		case name == "":
		case n == nil:
			delete(entries, name)
		default:
			entries[name] = n
		}
	}
	for _, ch := range slices.Backward(d.changes) {
		put(ch.set, ch.old)
		put(ch.cleared, ch.clearedNode)
	}
	for i, ch := range d.changes {
		if keep[i] {
			put(ch.cleared, nil)
			put(ch.set, ch.node)
		}
	}
	return entries
}

// copy makes the clone's node for n and for all below it.
func (c *crash) copy(n *node) *node {
	if have := c.copies[n]; have != nil {
		return have
	}
	d := &node{id: n.id, dir: n.dir, locked: n.locked}
	c.copies[n] = d
	c.mem.used++
	if !n.dir {
		return d
	}
	entries, ok := c.entries[n]
	if !ok {
		entries = n.entries
	}
	if len(entries) > 0 {
		d.entries = make(map[string]*node, len(entries))
	}
	for name, child := range entries {
		e := c.copy(child)
		e.links++
		d.entries[name] = e
	}
	return d
}

// data decides on the bytes of every file that is left.
func (c *crash) data() {
	var torn []*node // those that need a decision, which chance makes in order
	for n, d := range c.copies {
		if n.dir {
			continue
		}
		if len(n.writes) > 0 {
			torn = append(torn, n)
			continue
		}
		c.give(d, n.durable)
	}
	slices.SortFunc(torn, func(a, b *node) int { return cmp.Compare(a.id, b.id) })
	for _, n := range torn {
		c.give(c.copies[n], c.bytes(n))
	}
}

func (c *crash) give(d *node, b *blob) {
	d.live, d.durable = b, b
	c.mem.used += b.pages
}

// bytes decides on the bytes of a file with unsynced writes.
func (c *crash) bytes(n *node) *blob {
	if c.opt.Data == KeepAll && c.opt.Sizes == KeepAll && !n.dropped {
		return n.live.freeze()
	}
	b := n.durable.thaw()
	resized := c.count(c.opt.Sizes, len(n.writes)) // how many changed the length
	size := sizeAfter(b.size, n.writes[:resized])
	keep := c.sectors(n.writes)
	for i, r := range n.writes {
		if r.data != nil {
			keep(r, b)
		} else if i < resized {
			b.resize(min(b.size, r.off))
		}
	}
	b.resize(size)
	return b.freeze()
}

func sizeAfter(size int64, writes []record) int64 {
	for _, r := range writes {
		if r.data == nil {
			size = r.off
		} else {
			size = max(size, r.off+int64(len(r.data)))
		}
	}
	return size
}

const (
	sectorSize  = 512
	pageSectors = pageSize / sectorSize
)

// sectors returns the function that makes what is kept of each write, to be
// called for all of them in order.
func (c *crash) sectors(writes []record) func(record, *blob) {
	switch c.opt.Data {
	case KeepNone:
		return func(record, *blob) {}
	case KeepAll:
		return func(r record, b *blob) { r.apply(b) }
	}
	touched := make(map[int64]int) // page → how many writes touch it
	for _, r := range writes {
		for i := range r.pages {
			touched[i]++
		}
	}
	kept := make(map[int64]*[pageSectors]int) // page → how many each sector has seen
	for _, i := range slices.Sorted(maps.Keys(touched)) {
		kept[i] = c.page(touched[i])
	}
	seen := make(map[int64]int)
	return func(r record, b *blob) {
		for i := range r.pages {
			seen[i]++
			for s, n := range kept[i] {
				if seen[i] <= n {
					r.applyWithin(b, i*pageSize+int64(s)*sectorSize)
				}
			}
		}
	}
}

// page decides how many of n writes each sector of a page has seen: none, all,
// the first few, or something else in each sector.
func (c *crash) page(n int) *[pageSectors]int {
	var keep [pageSectors]int
	how := c.rng.IntN(4)
	one := [...]int{0, n, c.rng.IntN(n + 1), c.rng.IntN(n + 1)}[how]
	for s := range keep {
		keep[s] = one
		if how == 3 && c.opt.Torn {
			keep[s] = c.rng.IntN(n + 1)
		}
	}
	return &keep
}

// pages yields the numbers of the pages that a write touches.
func (r record) pages(yield func(int64) bool) {
	end := r.off + int64(len(r.data))
	for i := r.off / pageSize; r.data != nil && i*pageSize < end; i++ {
		if !yield(i) {
			return
		}
	}
}

// applyWithin makes the part of a write that lies in the sector at off.
func (r record) applyWithin(b *blob, off int64) {
	from := max(off, r.off)
	to := min(off+sectorSize, r.off+int64(len(r.data)))
	if from < to {
		b.writeAt(r.data[from-r.off:to-r.off], from)
	}
}
