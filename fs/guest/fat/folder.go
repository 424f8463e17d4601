package fat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"unicode"

	"holdfast/fs"
)

// folder is the content of a directory. It does not change.
type folder struct {
	d        *dir
	g        *geometry
	raw      []byte       // its slots, up to the last that may be in use
	clusters []uint32     // that they are in; none of the fixed root
	names    []key        // sorted
	twice    map[int]bool // slots whose name another one before them has
	err      error        // why slots after these can't be read
}

// key finds a slot by a hash of one of its names.
type key struct {
	hash uint64
	slot uint32
}

// The three ways to find a name are kept apart by what is hashed before it.
const (
	asIs   = 'a' // the name that people see
	folded = 'f' // the same without regard to case
	short  = 's' // the short name beside a long one, folded
)

// seed keeps whoever makes a disk from choosing names whose hashes collide.
var seed = maphash.MakeSeed()

func hash(kind byte, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	_ = h.WriteByte(kind)
	_, _ = h.WriteString(name)
	return h.Sum64()
}

// fold makes names that differ by case alone the same.
func fold(name string) string { return strings.Map(unicode.ToUpper, name) }

func (fo *folder) slots() int        { return len(fo.raw) / slotBytes }
func (fo *folder) slot(i int) []byte { return fo.raw[i*slotBytes:][:slotBytes] }
func (fo *folder) shown(i int) bool  { return live(fo.slot(i)) && !fo.twice[i] }
func (fo *folder) cost() int         { return 512 + cap(fo.raw) + 4*cap(fo.clusters) + 16*cap(fo.names) }

// ino is the number of the inode whose slot is number i: the slot's place.
func (fo *folder) ino(i int) uint64 {
	at := int64(i) * slotBytes
	if len(fo.clusters) == 0 {
		return uint64(fo.g.rootOff+at) / slotBytes
	}
	c := fo.clusters[at>>fo.g.shift()]
	return uint64(fo.g.off(c)+at&(fo.g.clusterBytes-1)) / slotBytes
}

// name returns the name of slot i.
func (fo *folder) name(i int) string {
	if name, ok := longName(fo.raw, i); ok {
		return name
	}
	return shortName(fo.slot(i))
}

// nextDir returns the first slot from i on that is a directory, or -1.
func (fo *folder) nextDir(i int) int {
	for ; i < fo.slots(); i++ {
		if fo.slot(i)[11]&attrDir != 0 && fo.shown(i) {
			return i
		}
	}
	return -1
}

// read reads a directory from the device.
func (ds *dirs) read(ctx context.Context, d *dir) (*folder, error) {
	fo := &folder{d: d, g: ds.f.g}
	var err error
	if d.first == 0 && d.ino == rootIno {
		err = ds.readFixed(fo)
	} else {
		err = ds.readChain(ctx, fo)
	}
	if err != nil {
		return nil, err
	}
	ds.index(fo)
	return fo, nil
}

// readFixed reads the root directory of a FAT12 or FAT16.
func (ds *dirs) readFixed(fo *folder) error {
	fo.raw = make([]byte, ds.f.g.rootSlots*slotBytes)
	if err := readFull(ds.f.dev, fo.raw, ds.f.g.rootOff); err != nil {
		return err
	}
	fo.raw, _ = cutEnd(fo.raw)
	return nil
}

// readChain reads a directory whose slots are in clusters, up to the slot that
// ends it. What can be read before some damage is kept.
func (ds *dirs) readChain(ctx context.Context, fo *folder) error {
	for next := fo.d.first; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		first, n, after, chainErr := ds.stretch(fo, next)
		if n > 0 {
			ended, err := ds.readStretch(fo, first, n)
			if ended {
				return nil
			}
			if err != nil {
				chainErr = err
			}
		}
		switch {
		case chainErr != nil && (len(fo.raw) == 0 || !errors.Is(chainErr, fs.ErrDamaged)):
			return chainErr
		case chainErr != nil:
			fo.err = chainErr
			return nil
		case after >= entryEnd:
			return nil
		}
		next = after
	}
}

// stretch claims clusters of a directory from first on, as many as follow one
// another and are worth one read: n of them. after is what the FAT has behind
// the last; err is why there are no more.
func (ds *dirs) stretch(fo *folder, first uint32) (_ uint32, n int, after uint32, err error) {
	const worth = 64 << 10
	g, w := ds.f.g, walker{t: ds.f.table}
	for c := first; ; c++ {
		nth := len(fo.clusters) + n
		switch {
		case !g.valid(c):
			return first, n, 0, fmt.Errorf("its chain leads to cluster number %d of %d: %w", c, g.clusters, fs.ErrDamaged)
		case int64(nth)*g.clusterBytes >= maxDirBytes:
			return first, n, 0, fmt.Errorf("longer than %d bytes: %w", maxDirBytes, fs.ErrDamaged)
		}
		if err := ds.claim(fo.d, c, uint32(nth)); err != nil {
			return first, n, 0, err
		}
		n++
		if after, err = w.next(c); err != nil || after != c+1 || int64(n)*g.clusterBytes >= worth {
			return first, n, after, err
		}
	}
}

// readStretch appends n clusters to what is known of a directory, and says
// whether it ends in them.
func (ds *dirs) readStretch(fo *folder, first uint32, n int) (ended bool, err error) {
	g, at, more := ds.f.g, len(fo.raw), n*int(ds.f.g.clusterBytes)
	fo.raw = slices.Grow(fo.raw, more)[:at+more]
	if err := readFull(ds.f.dev, fo.raw[at:], g.off(first)); err != nil {
		fo.raw = fo.raw[:at]
		return false, err
	}
	for i := range n {
		fo.clusters = append(fo.clusters, first+uint32(i))
	}
	b, ended := cutEnd(fo.raw[at:])
	fo.raw = fo.raw[:at+len(b)]
	return ended, nil
}

// cutEnd cuts slots off at the one that ends the directory, and says whether
// there was one.
func cutEnd(raw []byte) ([]byte, bool) {
	for i := 0; i < len(raw); i += slotBytes {
		if raw[i] == slotEnd {
			return raw[:i], true
		}
	}
	return raw, false
}

// index makes the names findable, and finds those that are there twice.
func (ds *dirs) index(fo *folder) {
	for i := range fo.slots() {
		slot := fo.slot(i)
		if !live(slot) {
			continue
		}
		name, long := longName(fo.raw, i)
		if !long {
			name = shortName(slot)
		} else {
			fo.names = append(fo.names, key{hash(short, fold(shortName(slot))), uint32(i)})
		}
		fo.names = append(fo.names, key{hash(asIs, name), uint32(i)}, key{hash(folded, fold(name)), uint32(i)})
	}
	slices.SortFunc(fo.names, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.slot, b.slot))
	})
	ds.findTwice(fo)
}

// findTwice marks slots whose name another one before them has. Equal hashes
// show where to compare.
func (ds *dirs) findTwice(fo *folder) {
	for i := 0; i < len(fo.names); {
		end := i + 1
		for end < len(fo.names) && fo.names[end].hash == fo.names[i].hash {
			end++
		}
		if end-i > 1 {
			ds.compare(fo, fo.names[i:end])
		}
		i = end
	}
}

func (ds *dirs) compare(fo *folder, same []key) {
	first := map[string]uint32{}
	for _, k := range same {
		name := fo.name(int(k.slot))
		if slot, ok := first[name]; !ok {
			first[name] = k.slot
		} else if slot != k.slot {
			if fo.twice == nil {
				fo.twice = map[int]bool{}
			}
			fo.twice[int(k.slot)] = true
			ds.f.note(fmt.Sprintf("directory %d has the name %q twice: the first is shown", fo.d.ino, name))
		}
	}
}

// find returns the slot of a name: the one that is spelled so, or else one that
// differs by case alone, or else one whose short name it is. -1: none.
func (fo *folder) find(name string) int {
	like := fold(name)
	for _, way := range []struct {
		kind   byte
		hashed string
		fits   func(i int) bool
	}{
		{asIs, name, func(i int) bool { return fo.name(i) == name }},
		{folded, like, func(i int) bool { return fold(fo.name(i)) == like }},
		{short, like, func(i int) bool { return fold(shortName(fo.slot(i))) == like }},
	} {
		h := hash(way.kind, way.hashed)
		at, _ := slices.BinarySearchFunc(fo.names, h, func(k key, h uint64) int { return cmp.Compare(k.hash, h) })
		for ; at < len(fo.names) && fo.names[at].hash == h; at++ {
			if i := int(fo.names[at].slot); fo.shown(i) && way.fits(i) {
				return i
			}
		}
	}
	return -1
}
