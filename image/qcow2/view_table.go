package qcow2

import "encoding/binary"

// window is a piece of a table, its bytes from off on, which begin and end
// anywhere in an entry.
type window struct {
	p     []byte
	off   int64
	width int // of an entry, in bytes
}

// first and last bound the entries that the piece has bytes of: [first, last).
func (w window) first() int64 { return w.off / int64(w.width) }
func (w window) last() int64  { return ceil(w.off+int64(len(w.p)), int64(w.width)) }

// put writes as much of entry i as the piece has of it.
func (w window) put(i int64, value uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], value)
	entry := b[len(b)-w.width:]
	if at := i*int64(w.width) - w.off; at >= 0 {
		copy(w.p[at:], entry)
	} else {
		copy(w.p, entry[-at:])
	}
}

// eachUnit calls put with every i in [first, last) for which the disk may have
// data in its bytes from i*unit to (i+1)*unit, in rising order.
func (v *View) eachUnit(unit, first, last int64, put func(i int64)) error {
	for i := first; i < last; {
		start, end, err := v.nextData(i * unit)
		if err != nil {
			return err
		}
		if start == v.diskSize {
			return nil
		}
		for i = max(i, start/unit); i < min(last, ceil(end, unit)); i++ {
			put(i)
		}
	}
	return nil
}

// eachCluster calls put with every cluster of the file in [first, last) that is
// in use, in rising order.
func (v *View) eachCluster(first, last int64, put func(cluster int64)) error {
	part := func(begin, end int64, each func(first, last int64, put func(int64)) error) error {
		if first >= end || last <= begin {
			return nil
		}
		return each(max(first, begin)-begin, min(last, end)-begin, func(i int64) { put(begin + i) })
	}
	all := func(first, last int64, put func(int64)) error {
		for i := first; i < last; i++ {
			put(i)
		}
		return nil
	}
	with := func(unit int64) func(first, last int64, put func(int64)) error {
		return func(first, last int64, put func(int64)) error { return v.eachUnit(unit, first, last, put) }
	}
	for _, p := range []struct {
		begin, end int64
		each       func(first, last int64, put func(int64)) error
	}{
		{0, v.blocks, all},
		{v.blocks, v.l1, v.eachBlock},
		{v.l1, v.tables, all},
		{v.tables, v.data, with(viewPerL2)},
		{v.data, v.end, with(viewCluster)},
	} {
		if err := part(p.begin, p.end, p.each); err != nil {
			return err
		}
	}
	return nil
}

// eachBlock calls put with every reference block in [first, last) that is in
// use, in rising order.
func (v *View) eachBlock(first, last int64, put func(block int64)) error {
	last = min(last, v.l1-v.blocks)
	for i := first; i < last; i++ {
		var err error
		if i, err = v.nextBlock(i); err != nil {
			return err
		}
		if i < last {
			put(i)
		}
	}
	return nil
}

// nextBlock returns the first reference block from i on that is in use, or how
// many there are: those that count what comes before the L2 tables, and those
// that count an L2 table or a cluster of the disk that is in use.
func (v *View) nextBlock(i int64) (int64, error) {
	count := v.l1 - v.blocks
	if i >= count || i*viewPerBlock < v.tables {
		return min(i, count), nil
	}
	next := count
	for _, part := range []struct{ begin, end, unit int64 }{{v.tables, v.data, viewPerL2}, {v.data, v.end, viewCluster}} {
		if i*viewPerBlock >= part.end {
			continue
		}
		start, _, err := v.nextData(max(0, i*viewPerBlock-part.begin) * part.unit)
		if err != nil {
			return 0, err
		}
		if start < v.diskSize {
			next = min(next, (part.begin+start/part.unit)/viewPerBlock)
		}
	}
	return next, nil
}
