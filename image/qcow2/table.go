package qcow2

import (
	"encoding/binary"
	"fmt"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

// kind is how a part of the disk is held.
type kind uint8

const (
	absent kind = iota // by the backing file, if there is one
	zeros
	plain
	packed
)

// run is n bytes of the disk that are held in one way.
type run struct {
	kind  kind
	n     int64
	host  int64  // plain: where the bytes begin in the file
	entry uint64 // packed: the L2 entry
}

const (
	entryPlace  = 0x00fffffffffffe00
	entryPacked = 1 << 62
	entryZeros  = 1 << 0
)

// run says how the disk is held from byte off, as far as one page of a table
// says the same.
func (d *Disk) run(off int64) (run, error) {
	l2, n, err := d.l2(off)
	if err != nil || l2 == 0 {
		return run{kind: absent, n: n}, err
	}
	cluster := d.h.clusterSize()
	index := off % d.h.perL2() / cluster
	page, err := d.page(l2+index*d.h.entryBytes(), d.h.entryBytes())
	if err != nil {
		return run{}, fmt.Errorf("L2 table for disk offset %d: %w", off, err)
	}
	unit := cluster
	if d.h.extended() {
		unit = cluster / subclusters
	}
	in := off % unit
	first := off % cluster / unit // in the first entry of page
	r, err := d.unit(page, first, unit)
	if err != nil {
		return run{}, fmt.Errorf("disk offset %d: %w", off, err)
	}
	if r.kind == packed {
		r.n = cluster - off%cluster
		return r, nil
	}
	r.n = unit
	units := int64(len(page)) / d.h.entryBytes() * (cluster / unit)
	for i := first + 1; i < units; i++ {
		next, err := d.unit(page, i, unit)
		if err != nil || next.kind != r.kind || (r.kind == plain && next.host != r.host+r.n) {
			break // an error is told when it is read
		}
		r.n += unit
	}
	r.host += in
	r.n -= in
	return r, nil
}

// l2 returns the place of the L2 table for a disk offset, 0 if it is absent, and
// then how much of the disk is absent with it.
func (d *Disk) l2(off int64) (place, n int64, err error) {
	index := off / d.h.perL2()
	page, err := d.page(int64(d.h.l1Offset)+8*index, 8)
	if err != nil {
		return 0, 0, fmt.Errorf("L1 table: %w", err)
	}
	for k := 0; k+8 <= len(page); k += 8 {
		if e := binary.BigEndian.Uint64(page[k:]) & entryPlace; e != 0 {
			if k > 0 {
				break
			}
			return int64(e), 0, d.checkPlace("L2 table", e)
		}
		n += d.h.perL2()
	}
	return 0, n - off%d.h.perL2(), nil
}

// unit reads how cluster or subcluster i of the entries in page is held.
func (d *Disk) unit(page []byte, i, unit int64) (run, error) {
	if !d.h.extended() {
		return d.entry(binary.BigEndian.Uint64(page[8*i:]))
	}
	at, sub := i/subclusters*16, i%subclusters
	e, bitmap := binary.BigEndian.Uint64(page[at:]), binary.BigEndian.Uint64(page[at+8:])
	allocated, zeroed := bitmap>>sub&1 != 0, bitmap>>(sub+subclusters)&1 != 0
	switch {
	case e&entryPacked != 0:
		return run{kind: packed, entry: e}, nil
	case e&entryZeros != 0 || (allocated && zeroed) || (allocated && e&entryPlace == 0):
		return run{}, fmt.Errorf("%w: L2 entry %016x %016x", fault.ErrDamaged, e, bitmap)
	case zeroed:
		return run{kind: zeros}, nil
	case !allocated:
		return run{kind: absent}, nil
	}
	return run{kind: plain, host: int64(e&entryPlace) + sub*unit}, d.checkPlace("cluster", e&entryPlace)
}

// entry reads an L2 entry that is not extended.
func (d *Disk) entry(e uint64) (run, error) {
	switch place := e & entryPlace; {
	case e&entryPacked != 0:
		return run{kind: packed, entry: e}, nil
	case e&entryZeros != 0:
		if d.h.version < 3 {
			return run{}, fmt.Errorf("%w: L2 entry %016x in version 2", fault.ErrDamaged, e)
		}
		return run{kind: zeros}, nil
	case place == 0:
		return run{kind: absent}, nil
	default:
		return run{kind: plain, host: int64(place)}, d.checkPlace("cluster", place)
	}
}

// checkPlace refuses what does not lie on a cluster's border in the file.
func (d *Disk) checkPlace(what string, place uint64) error {
	if place%uint64(d.h.clusterSize()) != 0 {
		return fmt.Errorf("%w: %s at %d, which no cluster is", fault.ErrDamaged, what, place)
	}
	if place >= uint64(d.fileSize) {
		return fmt.Errorf("%w: %s at %d", fault.ErrTruncated, what, place)
	}
	return nil
}

// page returns what the file holds from byte off, where a table has an entry, to
// the end of the page or of the cluster, whichever comes first.
func (d *Disk) page(off, entryBytes int64) ([]byte, error) {
	size := min(pageBytes, d.h.clusterSize())
	start := off / size * size
	b, err := d.pages.Get(start, func() ([]byte, error) {
		b := make([]byte, max(0, min(size, d.fileSize-start)))
		return b, layer.ReadFull(d.ra, b, start)
	})
	if err != nil {
		return nil, err
	}
	if off-start+entryBytes > int64(len(b)) {
		return nil, fmt.Errorf("%w: an entry at %d", fault.ErrTruncated, off)
	}
	return b[off-start:], nil
}
