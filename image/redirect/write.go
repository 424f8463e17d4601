package redirect

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// Write writes p at byte off. When durable is set the bytes are on the disk when
// it returns; otherwise after a later Commit under the same Verifier. A write
// that reaches beyond the end of the disk is refused. After an error, ErrNoSpace
// too, some of the grains may have been written, none of them in part.
func (d *Disk) Write(p []byte, off int64, durable bool) (n int, err error) {
	d.s.gate.RLock()
	defer d.s.gate.RUnlock()
	if off < 0 || off > d.size || int64(len(p)) > d.size-off {
		return 0, fmt.Errorf("write disk %s at %d: %d bytes reach beyond the end", d.name, off, len(p))
	}
	err = d.s.usable(true)
	for err == nil && n < len(p) {
		at := off + int64(n)
		part := p[n:min(int64(len(p)), int64(n)+d.chunk()-at%grainBytes)]
		if err = d.writePart(part, at, durable); err == nil {
			n += len(part)
		}
	}
	switch {
	case err != nil:
	case d.target != nil && durable:
		err = d.syncTarget()
	case d.target == nil && durable:
		err = d.s.sync()
	case d.target == nil:
		err = d.s.pressure()
	}
	if err != nil {
		return 0, fmt.Errorf("write disk %s at %d: %w", d.name, off, err)
	}
	return n, nil
}

// Commit makes every write to the disk that has returned durable.
func (d *Disk) Commit() error {
	d.s.gate.RLock()
	defer d.s.gate.RUnlock()
	var err error
	if d.target != nil {
		err = d.syncTarget()
	} else {
		err = d.s.commit()
	}
	if err != nil {
		return fmt.Errorf("commit disk %s: %w", d.name, err)
	}
	return nil
}

// chunk is the most that is written at once: it must fit the log well.
func (d *Disk) chunk() int64 {
	return max(grainBytes, min(maxChunk, d.s.opt.WALBytes/16/grainBytes*grainBytes))
}

// writePart writes a part of at most one chunk.
func (d *Disk) writePart(p []byte, off int64, durable bool) error {
	first := uint64(off / grainBytes)
	end := uint64(align(off+int64(len(p)), grainBytes) / grainBytes)
	d.locks.lock(first, end)
	defer d.locks.unlock(first, end)
	if d.target != nil {
		return d.writeTarget(p, off)
	}
	buf := p
	if off%grainBytes != 0 || len(p)%grainBytes != 0 {
		var err error
		if buf, err = d.fill(p, off, first, end); err != nil {
			return err
		}
	}
	if err := d.put(first, buf, durable); err != nil {
		return err
	}
	d.mirror(p, off)
	return nil
}

// fill returns whole grains: p, and around it what they hold now. The locks are
// held.
func (d *Disk) fill(p []byte, off int64, first, end uint64) ([]byte, error) {
	start := int64(first) * grainBytes
	buf := make([]byte, int64(end-first)*grainBytes)
	edge := func(g uint64) error {
		at := int64(g) * grainBytes
		part := buf[at-start : min(at-start+grainBytes, d.size-start)]
		if at >= off && at+int64(len(part)) <= off+int64(len(p)) {
			return nil
		}
		return d.readPart(part, at, maxLayers)
	}
	if err := edge(first); err != nil {
		return nil, err
	}
	if end-1 > first {
		if err := edge(end - 1); err != nil {
			return nil, err
		}
	}
	copy(buf[off-start:], p)
	return buf, nil
}

// class says which way a grain goes.
type class uint8

const (
	viaLog   class = iota // a record with its bytes
	asZero                // a record
	inPlace               // a record with its bytes, and in the data file
	onlyFile              // in the data file, the record comes with the commit
)

// piece is a run of grains of one class.
type piece struct {
	class        class
	first, count uint64
	buf          []byte
}

// put accepts whole grains. The locks are held.
func (d *Disk) put(first uint64, buf []byte, durable bool) error {
	s := d.s
	s.mu.RLock()
	pieces := d.classify(first, buf, durable)
	write := d.layer(s.mode.write)
	s.mu.RUnlock()
	fresh := int64(0)
	for i := range pieces {
		if pc := &pieces[i]; pc.class >= inPlace {
			if pc.class == onlyFile && int64(pc.count)*grainBytes < min(looseBytes, d.chunk()) {
				pc.class = inPlace
			}
			fresh += int64(pc.count)
		}
	}
	if err := s.take(fresh); err != nil {
		return err
	}
	for _, pc := range pieces {
		if pc.class < inPlace {
			continue
		}
		if _, err := write.file.WriteAt(pc.buf, int64(pc.first)*grainBytes); err != nil {
			s.give(fresh)
			return spaceError(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(true); err != nil {
		s.used -= fresh
		return err
	}
	for _, pc := range pieces {
		r := &rec{kind: kindData, d: d, first: pc.first, count: uint32(pc.count), inData: pc.class == inPlace}
		switch pc.class {
		case onlyFile:
			write.grains.setRun(pc.first, pc.count, stateLoose)
			s.loose = append(s.loose, looseRun{d, pc.first, pc.count})
			s.looseBytes += int64(pc.count) * grainBytes
			continue
		case asZero:
			r.kind = kindZero
		default:
			r.buf = append([]byte(nil), pc.buf...)
		}
		s.enqueue(r)
	}
	return nil
}

// classify says which way the grains go. mu is held.
func (d *Disk) classify(first uint64, buf []byte, durable bool) []piece {
	var pieces []piece
	for len(buf) > 0 {
		c := d.classOf(first, buf[:grainBytes], durable)
		if k := len(pieces) - 1; k >= 0 && pieces[k].class == c {
			pieces[k].count++
			pieces[k].buf = pieces[k].buf[:len(pieces[k].buf)+grainBytes]
		} else {
			pieces = append(pieces, piece{c, first, 1, buf[:grainBytes]})
		}
		first, buf = first+1, buf[grainBytes:]
	}
	return pieces
}

func (d *Disk) classOf(g uint64, p []byte, durable bool) class {
	if isZero(p) {
		return asZero
	}
	s := d.s
	l := d.layer(s.mode.write)
	st := l.grains.get(g)
	if st == stateData || st == stateLoose {
		return viaLog
	}
	// The data file has nothing of this grain that anyone may see; unless a
	// record is going to say so.
	var found bool
	for _, t := range s.tables(d) {
		c, ok := t[g]
		if c.hadData {
			return viaLog
		}
		found = found || ok
	}
	if durable || found || st != stateBase || d.layers[len(d.layers)-1] != l {
		return inPlace
	}
	return onlyFile
}

// tables returns the tables that may have records of the disk. mu is held.
func (s *Session) tables(d *Disk) []table {
	t := [3]table{d.pending, s.log.active.tables[d.index]}
	if s.log.sealed == nil {
		return t[:2]
	}
	t[2] = s.log.sealed.tables[d.index]
	return t[:]
}

var zeroGrain [grainBytes]byte

func isZero(p []byte) bool { return string(p) == string(zeroGrain[:len(p)]) }

// take reserves space for grains that the data files do not have yet.
func (s *Session) take(n int64) error {
	if n == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.opt.QuotaBytes; q > 0 && (s.used+n)*grainBytes > q {
		return fmt.Errorf("%w: quota of %d bytes", ErrNoSpace, q)
	}
	if !s.reserved {
		if s.reserved = s.reserveWhole(); !s.reserved {
			return fmt.Errorf("%w: the reserve is in use", ErrNoSpace)
		}
	}
	s.used += n
	return nil
}

func (s *Session) give(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
}

// spaceError makes a full volume ErrNoSpace.
func spaceError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// maxQueue is how many bytes of records wait in memory for a sync.
const maxQueue = mib

// pressure keeps what is not durable within bounds, after an unsynced write.
func (s *Session) pressure() error {
	s.mu.RLock()
	queued := s.queueBytes > maxQueue
	dirty := s.dirtyLocked()
	s.mu.RUnlock()
	if dirty >= s.opt.DirtyBytes {
		return s.commit()
	}
	if dirty >= s.opt.DirtyBytes/2 {
		s.wake()
	}
	if queued {
		return s.flush()
	}
	return nil
}

// dirtyLocked is how many bytes are not durable. mu is held.
func (s *Session) dirtyLocked() int64 {
	w := s.log.active
	return s.looseBytes + s.queueBytes + w.end - w.durable.Load()
}

// rangeLock lets one at a time have a grain.
type rangeLock struct {
	mu   sync.Mutex
	free sync.Cond
	held []span
}

type span struct{ first, end uint64 }

func (l *rangeLock) init() { l.free.L = &l.mu }

func (l *rangeLock) lock(first, end uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.taken(first, end) {
		l.free.Wait()
	}
	l.held = append(l.held, span{first, end})
}

func (l *rangeLock) taken(first, end uint64) bool {
	for _, h := range l.held {
		if first < h.end && h.first < end {
			return true
		}
	}
	return false
}

func (l *rangeLock) unlock(first, end uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, h := range l.held {
		if h == (span{first, end}) {
			last := len(l.held) - 1
			l.held[i] = l.held[last]
			l.held = l.held[:last]
			break
		}
	}
	l.free.Broadcast()
}
