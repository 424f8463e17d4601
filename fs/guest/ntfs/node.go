package ntfs

import (
	"fmt"
	"math"

	"holdfast/fs"
)

const nodesBudget = 8 << 20

// node is a file as its records tell of it.
type node struct {
	num   uint64
	seq   uint16
	dir   bool // has entries, if it is no junction
	attrs []attribute

	parent  ref // of one of its names
	attribs uint32
	secID   uint32 // of the security descriptor; 0: none
	tag     uint32 // of the reparse point; 0: none
	reparse []byte // what it holds behind the header
	interix string // the target of a link of that kind
	wof     *wof   // compressed in Windows' second way
	attr    fs.Attr
}

// find returns the attribute of that type and name, or nil.
func (n *node) find(typ uint32, name string) *attribute {
	for i := range n.attrs {
		if a := &n.attrs[i]; a.typ == typ && a.name == name {
			return a
		}
	}
	return nil
}

// data is the contents of a file; nil: there are none.
func (n *node) data() *attribute { return n.find(typeData, "") }

// node returns the file whose base record is num. ErrStale if there is none.
func (f *FS) node(num uint64) (*node, error) {
	if n, ok := f.nodes.get(num); ok {
		return n, nil
	}
	r, err := f.record(num)
	if err != nil {
		return nil, err
	}
	if r.flags&recordInUse == 0 || r.base != 0 {
		return nil, fmt.Errorf("file record %d: %w", num, fs.ErrStale)
	}
	n := &node{num: num, seq: r.seq, dir: r.flags&recordIsDir != 0}
	if n.attrs, err = f.attributes(r); err != nil {
		return nil, err
	}
	if err := f.describe(n); err != nil {
		return nil, fmt.Errorf("file record %d: %w", num, err)
	}
	cost := int64(f.recordBytes) + 512
	for _, a := range n.attrs {
		cost += int64(128 + len(a.pieces)*64)
		if a.rec != num {
			cost += int64(f.recordBytes)
		}
	}
	f.nodes.put(num, n, cost)
	return n, nil
}

// describe fills in what is no attribute.
func (f *FS) describe(n *node) error {
	n.attr = fs.Attr{ID: fs.ID{Ino: n.num}, Type: fs.TypeFile, Perm: 0o644, Fixed: true}
	if n.dir {
		n.attr.Type, n.attr.Perm = fs.TypeDir, 0o755
	}
	if err := n.standard(); err != nil {
		return err
	}
	if err := n.names(); err != nil {
		return err
	}
	if err := f.loadReparse(n); err != nil {
		return fmt.Errorf("reparse point: %w", err)
	}
	n.sizes()
	if err := f.loadInterix(n); err != nil {
		return fmt.Errorf("special file: %w", err)
	}
	if err := f.loadWSL(n); err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	return nil
}

// standard reads times and attributes. Source: Linux-NTFS documentation,
// "$STANDARD_INFORMATION".
func (n *node) standard() error {
	a := n.find(typeStandard, "")
	if a == nil || !a.resident || len(a.value) < 36 {
		return fmt.Errorf("no standard information: %w", fs.ErrDamaged)
	}
	n.attr.Mtime = timeOf(a.value[8:])
	n.attr.Ctime = timeOf(a.value[16:])
	n.attr.Atime = timeOf(a.value[24:])
	if le.Uint64(a.value) != 0 {
		n.attr.Btime = timeOf(a.value)
	}
	n.attribs = le.Uint32(a.value[32:])
	if len(a.value) >= 56 {
		n.secID = le.Uint32(a.value[52:])
	}
	// On a directory the bit means something else to Windows.
	if n.attribs&attribReadOnly != 0 && !n.dir {
		n.attr.Perm &^= 0o222
	}
	return nil
}

// timeOf is a count of 100 ns since 1601.
func timeOf(b []byte) fs.Time {
	const (
		perSecond = 10_000_000
		until1970 = 11_644_473_600
	)
	t := int64(le.Uint64(b))
	sec, rest := t/perSecond, t%perSecond
	if rest < 0 {
		sec, rest = sec-1, rest+perSecond
	}
	return fs.Time{Sec: sec - until1970, Nsec: uint32(rest) * 100}
}

// names counts the links and notes where one of them is.
func (n *node) names() error {
	for i := range n.attrs {
		a := &n.attrs[i]
		if a.typ != typeFileName {
			continue
		}
		if !a.resident {
			return fmt.Errorf("file name outside the record: %w", fs.ErrDamaged)
		}
		name, err := parseFileName(a.value)
		if err != nil {
			return err
		}
		if n.attr.Nlink == 0 {
			n.parent = name.parent
		}
		if name.space != spaceDOS && (!n.dir || n.attr.Nlink == 0) {
			n.attr.Nlink++
		}
	}
	if n.attr.Nlink == 0 {
		return fmt.Errorf("no name: %w", fs.ErrDamaged)
	}
	return nil
}

// sizes tells how large a file or a directory is, and what it takes up.
func (n *node) sizes() {
	for i := range n.attrs {
		if a := &n.attrs[i]; !a.resident && (a.typ == typeData && a.name == "" || a.typ == typeIndexAlloc) {
			n.use(a.allocated)
		}
	}
	a := n.data()
	if n.dir {
		if a = n.find(typeIndexAlloc, nameI30); a == nil {
			a = n.find(typeIndexRoot, nameI30)
		}
	}
	if a != nil {
		n.attr.Size = a.bytes()
	}
	if n.wof != nil {
		n.use(n.wof.packed.allocated)
	}
}

// use counts what an attribute takes, to where numbers end.
func (n *node) use(allocated int64) { n.attr.Used += min(allocated, math.MaxInt64-n.attr.Used) }
