package repo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/refcount"
	"holdfast/repo/vfs"
)

// refs knows how often each record is referenced, as of a ledger head.
//
// A machine's counted points in order, and of each the disk of the same number,
// give every node and chunk of the block map a timeline: the ids that stood in
// that place one point after the other. An id's count is the number of times it
// begins in any timeline. So counts change by what differs between neighbours,
// and a point that is taken out costs what changed around it and not the disk.
//
// Not safe for concurrent use; the owner's is guarded by Owner.upkeep.
type refs struct {
	table  *refcount.Table
	tally  tally // what points are counted in: the table, or what would become of it
	loader blockmap.Loader
	geo    chunk.Geometry

	head   ledger.Head
	points map[string][]countedPoint // machine id → in order
	dead   map[pack.Name]deadPack    // packs with bytes that nothing needs
}

// A tally holds numbers of references, as a *refcount.Table does.
type tally interface {
	Count(id chunk.ID) (int64, error)
	Add(id chunk.ID, change int32) error
}

// countedPoint is a point whose references are counted.
type countedPoint struct {
	id       PointID
	sequence uint64
	roots    []ledger.Root
}

func compareCounted(a, b countedPoint) int {
	return cmp.Or(cmp.Compare(a.sequence, b.sequence), cmp.Compare(a.id, b.id))
}

// deadPack says what of a pack is needed.
type deadPack struct {
	kind        pack.Kind
	fileBytes   int64 // length of the file
	recordBytes int64 // of all its records
	deadBytes   int64 // of those that nothing needs
}

// empty reports whether nothing in the pack is needed.
func (d deadPack) empty() bool { return d.deadBytes == d.recordBytes }

// refsDir is where the table lies; it belongs to the table alone.
const refsDir = indexDir + "/refs"

// ownRefs opens the counts for changing. Counts that can't be read are begun
// anew; head is zero then.
func (o *Owner) ownRefs() (*refs, error) {
	t, err := refcount.Own(o.fsys, refsDir, refcount.Options{})
	if err != nil {
		return nil, fmt.Errorf("open reference counts: %w", err)
	}
	c := newRefs(t, o.store)
	if err := errors.Join(t.Skipped(), c.decode(t.Payload())); err != nil {
		o.log.Warn("reference counts are made anew", "err", err)
		if err := c.reset(); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	return c, nil
}

// readRefs opens the counts for asking what if, in memory alone.
func readRefs(fsys vfs.FS, s *store) (*refs, error) {
	t, err := refcount.Open(fsys, refsDir, refcount.Options{})
	if err != nil {
		return nil, fmt.Errorf("open reference counts: %w", err)
	}
	c := newRefs(t, s)
	if err := c.decode(t.Payload()); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return c, nil
}

func newRefs(t *refcount.Table, s *store) *refs {
	return &refs{
		table: t, tally: t, loader: s, geo: s.settings.Geometry,
		points: make(map[string][]countedPoint), dead: make(map[pack.Name]deadPack),
	}
}

// reset forgets everything, so that bring counts from nothing.
func (c *refs) reset() error {
	c.head = ledger.Head{}
	clear(c.points)
	clear(c.dead)
	return c.table.Reset()
}

// commit makes the counts durable, as those of a head.
func (c *refs) commit(head ledger.Head) error {
	c.head = head
	if err := c.table.Commit(c.encode()); err != nil {
		return fmt.Errorf("write reference counts: %w", err)
	}
	return nil
}

// bring makes the counts those of the given points, by machine: what is counted
// and not among them is taken out, what is among them and not counted comes in.
func (c *refs) bring(ctx context.Context, want map[string][]countedPoint) error {
	for _, machine := range sortedKeys(want) {
		for _, p := range want[machine] {
			if err := c.insert(ctx, machine, p); err != nil {
				return fmt.Errorf("count point %s: %w", p.id, err)
			}
		}
	}
	for _, machine := range sortedKeys(c.points) {
		keep := make(map[PointID]bool, len(want[machine]))
		for _, p := range want[machine] {
			keep[p.id] = true
		}
		for _, p := range slices.Clone(c.points[machine]) {
			if keep[p.id] {
				continue
			}
			if err := c.remove(ctx, machine, p); err != nil {
				return fmt.Errorf("take point %s out of the counts: %w", p.id, err)
			}
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// insert counts a point, unless it is counted.
func (c *refs) insert(ctx context.Context, machine string, p countedPoint) error {
	of := c.points[machine]
	i, found := slices.BinarySearchFunc(of, p, compareCounted)
	if found {
		if slices.Equal(of[i].roots, p.roots) {
			return nil
		}
		// The same point under another map: it was copied here again.
		if err := c.remove(ctx, machine, of[i]); err != nil {
			return err
		}
		return c.insert(ctx, machine, p)
	}
	if err := c.change(ctx, before(of, i), p.roots, at(of, i), 1); err != nil {
		return err
	}
	c.points[machine] = slices.Insert(of, i, p)
	return nil
}

// remove takes a point out of the counts.
func (c *refs) remove(ctx context.Context, machine string, p countedPoint) error {
	of := c.points[machine]
	i, found := slices.BinarySearchFunc(of, p, compareCounted)
	if !found {
		return nil
	}
	if err := c.change(ctx, before(of, i), of[i].roots, at(of, i+1), -1); err != nil {
		return err
	}
	if of = slices.Delete(of, i, i+1); len(of) == 0 {
		delete(c.points, machine)
	} else {
		c.points[machine] = of
	}
	return nil
}

// before and at return the roots of a neighbour, nil when there is none.
func before(of []countedPoint, i int) []ledger.Root { return at(of, i-1) }

func at(of []countedPoint, i int) []ledger.Root {
	if i < 0 || i >= len(of) {
		return nil
	}
	return of[i].roots
}

// change adds sign times what point p means between its neighbours prev and
// next. With D(x, y) the ids of y in the places where x has others:
//
//	between two:   D(prev, p) + D(p, next) - D(prev, next)
//	as the last:   D(prev, p)
//	as the first:  D(next, p)
//
// The last line follows from the first with an empty prev, and doesn't read what
// p and next share.
func (c *refs) change(ctx context.Context, prev, p, next []ledger.Root, sign int32) error {
	for i := range max(len(prev), len(p), len(next)) {
		a, b, n := c.tree(prev, i), c.tree(p, i), c.tree(next, i)
		var err error
		switch {
		case a.Root.IsNull():
			err = c.add(ctx, n, b, sign)
		case n.Root.IsNull():
			err = c.add(ctx, a, b, sign)
		default:
			err = errors.Join(c.add(ctx, a, b, sign), c.add(ctx, b, n, sign), c.add(ctx, a, n, -sign))
		}
		if err != nil {
			return fmt.Errorf("disk %d: %w", i+1, err)
		}
	}
	return nil
}

func (c *refs) tree(roots []ledger.Root, i int) blockmap.Tree {
	if i >= len(roots) {
		return blockmap.Tree{}
	}
	return blockmap.NewTree(roots[i].Root, roots[i].SizeBytes, c.geo)
}

// add adds n times D(from, to) to the counts.
func (c *refs) add(ctx context.Context, from, to blockmap.Tree, n int32) error {
	return blockmap.Slots(ctx, c.loader, from, to, func(_ int, _ int64, _, id chunk.ID) error {
		if id.IsNull() {
			return nil
		}
		return c.tally.Add(id, n)
	})
}

// rootsOf is what an expiry says of a point's disks.
func rootsOf(p *Point) []ledger.Root {
	roots := make([]ledger.Root, len(p.Disks))
	for i, d := range p.Disks {
		roots[i] = ledger.Root{Root: d.Root, Levels: d.levels, SizeBytes: d.SizeBytes}
	}
	return roots
}

const refsVersion = 1

// encode returns the table's payload. See FORMAT.md, "References".
func (c *refs) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, refsVersion)
	b = le.AppendUint64(b, c.head.Number)
	b = append(b, c.head.Sum[:]...)
	machines := sortedKeys(c.points)
	b = le.AppendUint32(b, uint32(len(machines)))
	for _, m := range machines {
		b = append(b, byte(len(m)))
		b = append(b, m...)
		b = le.AppendUint32(b, uint32(len(c.points[m])))
		for _, p := range c.points[m] {
			b = append(b, p.id...)
			b = le.AppendUint64(b, p.sequence)
			b = le.AppendUint32(b, uint32(len(p.roots)))
			for _, r := range p.roots {
				b = append(b, r.Root[:]...)
				b = append(b, byte(r.Levels))
				b = le.AppendUint64(b, uint64(r.SizeBytes))
			}
		}
	}
	names := sortedPacks(c.dead)
	b = le.AppendUint32(b, uint32(len(names)))
	for _, name := range names {
		d := c.dead[name]
		b = append(b, name[:]...)
		b = append(b, byte(d.kind))
		for _, n := range []int64{d.fileBytes, d.recordBytes, d.deadBytes} {
			b = le.AppendUint64(b, uint64(n))
		}
	}
	return b
}

func sortedPacks(dead map[pack.Name]deadPack) []pack.Name {
	return slices.SortedFunc(maps.Keys(dead), func(a, b pack.Name) int { return bytes.Compare(a[:], b[:]) })
}

// decode reads what encode wrote. No payload is that of no counts.
func (c *refs) decode(p []byte) error {
	if p == nil {
		return nil
	}
	r := payloadReader{p: p}
	if v := r.u32(); v != refsVersion {
		return fmt.Errorf("%w: reference counts of version %d", ErrFormat, v)
	}
	c.head.Number = r.u64()
	copy(c.head.Sum[:], r.take(len(c.head.Sum)))
	for range r.u32() {
		machine := string(r.take(int(r.u8())))
		var of []countedPoint
		for range r.u32() {
			cp := countedPoint{id: PointID(r.take(idChars)), sequence: r.u64()}
			for range r.u32() {
				var root ledger.Root
				copy(root.Root[:], r.take(len(root.Root)))
				root.Levels, root.SizeBytes = int(r.u8()), int64(r.u64())
				if cp.roots = append(cp.roots, root); r.bad {
					break
				}
			}
			if of = append(of, cp); r.bad {
				break
			}
		}
		if c.points[machine] = of; r.bad {
			break
		}
	}
	for range r.u32() {
		name := pack.Name(r.take(len(pack.Name{})))
		d := deadPack{kind: pack.Kind(r.u8()), fileBytes: int64(r.u64()), recordBytes: int64(r.u64()), deadBytes: int64(r.u64())}
		if c.dead[name] = d; r.bad {
			break
		}
	}
	if r.bad || len(r.p) > 0 {
		return fmt.Errorf("%w: reference counts with a payload that ends too early or too late", ErrFormat)
	}
	return nil
}

// payloadReader cuts a payload up. Beyond its end everything is zero, and bad.
type payloadReader struct {
	p   []byte
	bad bool
}

func (r *payloadReader) take(n int) []byte {
	if n > len(r.p) {
		r.bad, r.p = true, nil
		return make([]byte, n)
	}
	b := r.p[:n]
	r.p = r.p[n:]
	return b
}

func (r *payloadReader) u8() byte    { return r.take(1)[0] }
func (r *payloadReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *payloadReader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }
