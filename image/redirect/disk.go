package redirect

import (
	"fmt"
	"io"
	"sync"

	"holdfast/repo/vfs"
)

// Disk is one disk of a session: its base with what was written on top.
type Disk struct {
	s     *Session
	index uint16
	name  string
	base  Base
	size  int64
	locks rangeLock // writes to a grain go one after another

	// Guarded by Session.mu:
	layers     []*layer // bottom first
	pending    table    // records that are queued
	migration  *migration
	targetName string // the disk was switched to it

	target     Target     // changed with the gate held alone
	targetSync sync.Mutex // one sync of it at a time; guards targetErr
	targetErr  error      // a sync failed
}

// layer is what a disk has of one layer.
type layer struct {
	id     uint32
	file   vfs.File
	grains grainMap
}

func newDisk(s *Session, index uint16, spec DiskSpec) *Disk {
	d := &Disk{s: s, index: index, name: spec.Name, base: spec.Base, size: spec.Identity.Size, pending: make(table)}
	d.locks.init()
	return d
}

// Name returns the disk's name in the session.
func (d *Disk) Name() string { return d.name }

// Size returns the length of the disk in bytes; it does not change.
func (d *Disk) Size() int64 { return d.size }

// grainCount is how many grains the disk has.
func (d *Disk) grainCount() uint64 { return uint64(align(d.size, grainBytes) / grainBytes) }

// UsedBytes is what the disk takes in its data files.
func (d *Disk) UsedBytes() int64 {
	d.s.mu.RLock()
	defer d.s.mu.RUnlock()
	var n int64
	for _, l := range d.layers {
		n += l.grains.count[stateData] + l.grains.count[stateLoose]
	}
	return n * grainBytes
}

// dataFile returns the data file of a layer.
func (d *Disk) dataFile(id uint32) vfs.File {
	d.s.mu.RLock()
	defer d.s.mu.RUnlock()
	return d.layer(id).file
}

// layer returns the layer of that number. mu is held.
func (d *Disk) layer(id uint32) *layer {
	for _, l := range d.layers {
		if l.id == id {
			return l
		}
	}
	panic(fmt.Sprintf("redirect: disk %s has no layer %d", d.name, id)) // modes and layers change together
}

// setMode makes the layers those of the mode: new ones are empty, those that
// are gone are closed. mu is held, or nobody else knows the session.
func (d *Disk) setMode(m mode) {
	var layers []*layer
	for _, id := range m.layers {
		found := &layer{id: id}
		for _, l := range d.layers {
			if l.id == id {
				found = l
			}
		}
		layers = append(layers, found)
	}
	d.layers = layers
}

// openLayers opens the data files of the disk that are not open. mu is held.
func (d *Disk) openLayers() error {
	for _, l := range d.layers {
		if l.file != nil {
			continue
		}
		f, err := d.s.fs.OpenWrite(dataName(d.index, l.id))
		if err != nil {
			return err
		}
		l.file = f
	}
	return nil
}

// ReadAt reads len(p) bytes from byte off, as they were written last, or else as
// the base has them. n < len(p) only at the end, with io.EOF, or with the error
// that stopped it.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	d.s.gate.RLock()
	defer d.s.gate.RUnlock()
	if err := d.s.usable(false); err != nil {
		return 0, fmt.Errorf("read disk %s at %d: %w", d.name, off, err)
	}
	return d.read(p, off, maxLayers)
}

// read is ReadAt of the lowest depth layers. The gate is held.
func (d *Disk) read(p []byte, off int64, depth int) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read disk %s at %d: negative offset", d.name, off)
	}
	want := len(p)
	p = p[:max(0, min(int64(len(p)), d.size-off))]
	if d.target != nil && depth == maxLayers {
		n, err = d.target.ReadAt(p, off)
		if err == io.EOF && n == len(p) {
			err = nil
		}
	} else {
		for n < len(p) && err == nil {
			part := p[n:min(len(p), n+maxChunk)]
			err = d.readPart(part, off+int64(n), depth)
			n += len(part)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("read disk %s at %d: %w", d.name, off, err)
	}
	if n < want {
		return n, io.EOF
	}
	return n, nil
}

// segment is some bytes of a read that lie in one place.
type segment struct {
	place
	p []byte
}

// place says where a grain's bytes are.
type place struct {
	from from
	file io.ReaderAt
	w    *walFile // fromLog
	off  int64
	mem  []byte // fromMemory
}

type from uint8

const (
	fromBase from = iota
	fromZero
	fromFile
	fromLog
	fromMemory
)

// readPart reads all of p.
func (d *Disk) readPart(p []byte, off int64, depth int) error {
	var room [16]segment
	segs := room[:0]
	s := d.s
	s.mu.RLock()
	for len(p) > 0 {
		g, at := uint64(off/grainBytes), off%grainBytes
		n := int(min(int64(len(p)), grainBytes-at))
		pl := d.place(g, depth)
		pl.off += at
		if pl.from == fromMemory {
			copy(p[:n], pl.mem[at:])
		} else if k := len(segs) - 1; k >= 0 && segs[k].follows(pl) && len(segs[k].p)+n <= cap(segs[k].p) && &segs[k].p[:len(segs[k].p)+1][len(segs[k].p)] == &p[0] {
			segs[k].p = segs[k].p[:len(segs[k].p)+n]
		} else {
			segs = append(segs, segment{pl, p[:n]})
			if pl.from == fromLog {
				pl.w.users.RLock() // nobody gives a file back before its tables are gone from under mu
			}
		}
		p, off = p[n:], off+int64(n)
	}
	s.mu.RUnlock()
	var first error
	for _, sg := range segs {
		if first == nil {
			first = sg.read()
		}
		if sg.from == fromLog {
			sg.w.users.RUnlock()
		}
	}
	return first
}

// follows tells whether pl goes on where the segment ends.
func (sg *segment) follows(pl place) bool {
	return sg.from == pl.from && sg.file == pl.file && sg.w == pl.w && sg.off+int64(len(sg.p)) == pl.off
}

func (sg *segment) read() error {
	if sg.from == fromZero {
		clear(sg.p)
		return nil
	}
	n, err := sg.file.ReadAt(sg.p, sg.off)
	if n == len(sg.p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// place finds a grain in the lowest depth layers. mu is held.
func (d *Disk) place(g uint64, depth int) place {
	s := d.s
	if c, ok := d.pending[g]; ok && s.within(s.mode.write, depth) {
		return c.place()
	}
	for _, w := range [...]*walFile{s.log.active, s.log.sealed} {
		if w == nil {
			continue
		}
		if c, ok := w.tables[d.index][g]; ok && s.within(w.mode.write, depth) {
			return c.place()
		}
	}
	for i := min(depth, len(d.layers)) - 1; i >= 0; i-- {
		l := d.layers[i]
		switch l.grains.get(g) {
		case stateData, stateLoose:
			return place{from: fromFile, file: l.file, off: int64(g) * grainBytes}
		case stateZero:
			return place{from: fromZero, off: int64(g) * grainBytes}
		}
	}
	return place{from: fromBase, file: d.base, off: int64(g) * grainBytes}
}

// within tells whether a layer is one of the lowest depth ones.
func (s *Session) within(id uint32, depth int) bool {
	for i, l := range s.mode.layers {
		if l == id {
			return i < depth
		}
	}
	return false
}

func (c cell) place() place {
	at := int64(c.i) * grainBytes
	switch {
	case c.r.kind == kindZero:
		return place{from: fromZero, off: int64(c.r.first+uint64(c.i)) * grainBytes}
	case c.r.buf != nil:
		return place{from: fromMemory, mem: c.r.buf[at : at+grainBytes]}
	}
	return place{from: fromLog, file: c.r.w.file, w: c.r.w, off: c.r.off + at}
}
