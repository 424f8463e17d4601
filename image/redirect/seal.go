package redirect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"holdfast/repo/vfs"
)

// Sealed is the state of all disks at one instant, the same for all, while new
// writes go to a layer on top: what a keep reads. It lasts until Release, also
// over a restart (see Session.Sealed), but not over a failed sync, after which
// its views give ErrFailed.
type Sealed struct {
	s     *Session
	depth int
	epoch int // failures the session had had

	barrier time.Duration
}

// Seal ends the present layer and begins the next one. Writes wait meanwhile,
// but not for what was written long before: that is made durable first. ErrBusy
// while there is a sealed layer, or one that is not merged yet.
func (s *Session) Seal() (*Sealed, error) {
	x, err := s.seal()
	if err != nil {
		return nil, fmt.Errorf("seal redirect session: %w", spaceError(err))
	}
	return x, nil
}

func (s *Session) seal() (*Sealed, error) {
	if !s.changing.TryLock() {
		return nil, ErrBusy
	}
	defer s.changing.Unlock()
	s.mu.RLock()
	m, err := s.mode, s.usableLocked(true)
	s.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	top := m.layers[len(m.layers)-1]
	if m.sealed > 0 || m.write != top || len(m.layers) == maxLayers {
		return nil, ErrBusy
	}
	if err := s.makeLayer(top + 1); err != nil {
		return nil, err
	}
	if err := s.Checkpoint(); err != nil {
		return nil, err
	}
	if err := s.calm(); err != nil {
		return nil, err
	}
	began := time.Now()
	s.gate.Lock()
	defer s.gate.Unlock()
	next := mode{append(slices.Clone(m.layers), top+1), top + 1, len(m.layers)}
	if err := s.switchMode(next, m); err != nil {
		return nil, err
	}
	x := s.sealedLocked()
	x.barrier = time.Since(began)
	return x, nil
}

// Barrier returns how long reads and writes waited while the layer was sealed;
// 0 when that was before the session was opened.
func (x *Sealed) Barrier() time.Duration { return x.barrier }

// calm commits until little is left to be made durable, so that what comes next
// under the gate is short, or until it is clear that writers are faster.
func (s *Session) calm() error {
	const little, most = 4 * mib, 4
	for range most {
		s.mu.RLock()
		dirty := s.dirtyLocked()
		s.mu.RUnlock()
		if dirty < little {
			return nil
		}
		if err := s.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// Sealed returns the sealed state that there is, or nil.
func (s *Session) Sealed() *Sealed {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.sealedLocked()
}

// sealedLocked is Sealed with the gate held.
func (s *Session) sealedLocked() *Sealed {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.mode.sealed == 0 {
		return nil
	}
	return &Sealed{s: s, depth: s.mode.sealed, epoch: s.failures}
}

// switchMode goes on in another mode, from a new log file on: all records in one
// are for one layer. was is the mode it was decided upon. The gate is held
// alone. After an error the session is repaired, or goes on in the old mode.
func (s *Session) switchMode(m, was mode) error {
	if err := s.usable(true); err != nil {
		return err
	}
	if err := s.commitLoose(); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.active.end > walStart {
		if err := s.turn(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	if !slices.Equal(s.mode.layers, was.layers) || s.mode.write != was.write || s.mode.sealed != was.sealed {
		s.mu.Unlock()
		return ErrBusy // a repair came between
	}
	dropped, empty := s.dropped(m)
	if !empty {
		s.mu.Unlock()
		return errors.New("a layer that is to go has grains") // never lose them
	}
	s.setMode(m)
	if len(dropped) > 0 {
		s.recount() // what was written in both layers is one grain now
	}
	err := s.openLayers()
	if err != nil {
		s.setMode(was)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.append(nil); err != nil {
		return err
	}
	if err := s.syncLog(l.active); err != nil {
		return err
	}
	for _, f := range dropped {
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// openLayers opens the data files of the layers of all disks. mu is held.
func (s *Session) openLayers() error {
	for _, d := range s.disks {
		if err := d.openLayers(); err != nil {
			return err
		}
	}
	return nil
}

// dropped returns the open files of the layers that m does not have, and whether
// nothing is in those layers. mu is held.
func (s *Session) dropped(m mode) (files []vfs.File, empty bool) {
	empty = true
	for _, d := range s.disks {
		for _, l := range d.layers {
			if !slices.Contains(m.layers, l.id) {
				files = append(files, l.file)
				empty = empty && l.grains.count[stateData]+l.grains.count[stateZero]+l.grains.count[stateLoose] == 0
			}
		}
	}
	return files, empty
}

// View is one disk of a Sealed. It does not change.
type View struct {
	x *Sealed
	d *Disk
}

// Disk returns the disk of that name as it was when it was sealed.
func (x *Sealed) Disk(name string) (*View, error) {
	d, err := x.s.Disk(name)
	if err != nil {
		return nil, err
	}
	return &View{x, d}, nil
}

// usable gives the error of a view whose state is gone. The gate is held.
func (v *View) usable() error {
	s := v.d.s
	s.mu.RLock()
	defer s.mu.RUnlock()
	err := s.usableLocked(false)
	switch {
	case err != nil:
	case v.x.epoch != s.failures:
		err = fmt.Errorf("%w: the sealed state is gone", ErrFailed)
	case s.mode.sealed != v.x.depth:
		err = fmt.Errorf("%w: the sealed state was released", ErrClosed)
	}
	return err
}

// Size returns the length of the disk in bytes.
func (v *View) Size() int64 { return v.d.size }

// ReadAt reads the disk as it was, as Disk.ReadAt does.
func (v *View) ReadAt(p []byte, off int64) (int, error) {
	v.d.s.gate.RLock()
	defer v.d.s.gate.RUnlock()
	if err := v.usable(); err != nil {
		return 0, fmt.Errorf("read disk %s at %d: %w", v.d.name, off, err)
	}
	return v.d.read(p, off, v.x.depth)
}

// NextData is the method of image.Disk of that name.
func (v *View) NextData(off int64) (start, end int64, err error) {
	v.d.s.gate.RLock()
	defer v.d.s.gate.RUnlock()
	if err := v.usable(); err != nil {
		return 0, 0, fmt.Errorf("find data of disk %s from %d: %w", v.d.name, off, err)
	}
	return v.d.nextData(off, v.x.depth)
}

// Changed calls fn for every range, in order, that was written since the base.
func (v *View) Changed(fn func(off, n int64) error) error {
	s := v.d.s
	var runs []run
	err := func() error {
		s.gate.RLock()
		defer s.gate.RUnlock()
		if err := v.usable(); err != nil {
			return err
		}
		if err := s.drain(); err != nil { // then the maps have it all
			return err
		}
		s.mu.RLock()
		defer s.mu.RUnlock()
		runs = v.d.changed(v.d.layers[:v.x.depth])
		return nil
	}()
	if err != nil {
		return fmt.Errorf("list changes of disk %s: %w", v.d.name, err)
	}
	for _, r := range runs {
		off := int64(r.first) * grainBytes
		if err := fn(off, min(int64(r.count)*grainBytes, v.d.size-off)); err != nil {
			return err
		}
	}
	return nil
}

// changed returns the grains that have a state in one of the layers. mu is held.
func (d *Disk) changed(layers []*layer) []run {
	pages := make(map[uint64]*mapPage)
	for _, l := range layers {
		for n, p := range l.grains.pages {
			if pages[n] == nil {
				pages[n] = new(mapPage)
			}
			for i, b := range p {
				any := (b | b>>1) & 0x55 // the low bit of each pair that is not 0
				pages[n][i] |= any
			}
		}
	}
	var out []run
	all := grainMap{pages: pages}
	for _, n := range all.pageNumbers() {
		for r := range pages[n].runs(n) {
			if k := len(out) - 1; k >= 0 && out[k].first+out[k].count == r.first {
				out[k].count += r.count
			} else {
				out = append(out, r)
			}
		}
	}
	return out
}

// Release ends the sealed state and merges the layers, while the session goes
// on. When ctx ends, or the process, the session is as good as before and
// Session.Merge goes on with it.
func (x *Sealed) Release(ctx context.Context) error { return x.s.Merge(ctx) }

// Merge brings what lies in layers above the sealed one into it. It does nothing
// when there is nothing to merge.
func (s *Session) Merge(ctx context.Context) error {
	if !s.changing.TryLock() {
		return fmt.Errorf("merge redirect layers: %w", ErrBusy)
	}
	defer s.changing.Unlock()
	if err := s.merge(ctx); err != nil {
		return fmt.Errorf("merge redirect layers: %w", err)
	}
	return nil
}

func (s *Session) merge(ctx context.Context) error {
	s.mu.RLock()
	m := s.mode
	s.mu.RUnlock()
	if m.sealed > 0 {
		next := mode{m.layers, m.layers[m.sealed-1], 0}
		if err := s.changeMode(next, m); err != nil {
			return err
		}
		m = next
	}
	at := slices.Index(m.layers, m.write)
	for {
		// What was written above before the mode changed may be in the log
		// only: it must have come to the map before that is looked at.
		if err := s.Checkpoint(); err != nil {
			return err
		}
		found, err := s.mergeOnce(ctx, at)
		if err != nil {
			return err
		}
		if !found {
			break
		}
	}
	if at == len(m.layers)-1 {
		return nil
	}
	next := mode{m.layers[: at+1 : at+1], m.write, 0}
	if err := s.changeMode(next, m); err != nil {
		return err
	}
	// The files go when the map knows of it.
	if err := s.Checkpoint(); err != nil {
		return err
	}
	return s.tidy(false)
}

// changeMode is switchMode with the gate.
func (s *Session) changeMode(m, was mode) error {
	if err := s.Checkpoint(); err != nil {
		return err
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.switchMode(m, was)
}

// mergeOnce writes each grain that has a state above layer number at anew, into
// that layer, which takes the state above away at the next checkpoint. It tells
// whether there were any.
func (s *Session) mergeOnce(ctx context.Context, at int) (found bool, err error) {
	for _, d := range s.disks {
		s.mu.RLock()
		var runs []run
		if at+1 < len(d.layers) {
			runs = d.changed(d.layers[at+1:])
		}
		s.mu.RUnlock()
		for _, r := range runs {
			found = true
			for r.count > 0 {
				n := min(r.count, uint64(d.chunk()/grainBytes))
				if err := errors.Join(ctx.Err(), d.mergeRun(r.first, n)); err != nil {
					return found, err
				}
				r.first, r.count = r.first+n, r.count-n
			}
		}
	}
	return found, nil
}

// mergeRun writes grains anew, but for those that were written meanwhile.
func (d *Disk) mergeRun(first, count uint64) error {
	s := d.s
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.usable(true); err != nil {
		return err
	}
	d.locks.lock(first, first+count)
	defer d.locks.unlock(first, first+count)
	for count > 0 {
		n := uint64(0) // grains that have no record
		s.mu.RLock()
		for n < count && !d.recorded(first+n) {
			n++
		}
		s.mu.RUnlock()
		if n > 0 {
			buf := make([]byte, n*grainBytes)
			off := int64(first) * grainBytes
			if err := d.readPart(buf[:min(int64(len(buf)), d.size-off)], off, maxLayers); err != nil {
				return err
			}
			if err := d.put(first, buf, false); err != nil {
				return err
			}
		}
		skip := min(n+1, count)
		first, count = first+skip, count-skip
	}
	return s.pressure()
}

// recorded tells whether a grain has a record in the log. mu is held.
func (d *Disk) recorded(g uint64) bool {
	for _, t := range d.s.tables(d) {
		if _, ok := t[g]; ok {
			return true
		}
	}
	return false
}

// NextData returns the next extent that may hold data, as image.Disk has it.
func (d *Disk) NextData(off int64) (start, end int64, err error) {
	d.s.gate.RLock()
	defer d.s.gate.RUnlock()
	if err := d.s.usable(false); err != nil {
		return 0, 0, fmt.Errorf("find data of disk %s from %d: %w", d.name, off, err)
	}
	if d.target != nil {
		if off >= d.size {
			return 0, 0, io.EOF
		}
		return off, d.size, nil
	}
	return d.nextData(off, maxLayers)
}

// nextData looks in the lowest depth layers. Zeros over data of the base may be
// part of an extent.
func (d *Disk) nextData(off int64, depth int) (start, end int64, err error) {
	if off >= d.size {
		return 0, 0, io.EOF
	}
	start, end, err = d.base.NextData(max(off, 0))
	if err != nil && err != io.EOF {
		return 0, 0, err
	}
	if err == io.EOF {
		start, end = d.size, d.size
	}
	first := uint64(max(off, 0) / grainBytes)
	d.s.mu.RLock()
	g, ok := d.nextWritten(first, depth)
	d.s.mu.RUnlock()
	if at := max(int64(g)*grainBytes, off); ok && at < start {
		return at, min(int64(g+1)*grainBytes, d.size), nil
	}
	if start >= d.size {
		return 0, 0, io.EOF
	}
	return start, end, nil
}

// nextWritten returns the first grain from first on that was written. mu is held.
func (d *Disk) nextWritten(first uint64, depth int) (g uint64, ok bool) {
	less := func(x uint64) {
		if x >= first && (!ok || x < g) {
			g, ok = x, true
		}
	}
	for _, t := range d.s.tables(d) {
		for x, c := range t {
			if c.r.kind == kindData {
				less(x)
			}
		}
	}
	for _, l := range d.layers[:min(depth, len(d.layers))] {
		if x, found := l.grains.next(first); found {
			less(x)
		}
	}
	return g, ok
}
