package redirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// Target is where a disk is migrated to: a file or device that is as large as
// the disk. Its methods may be called by several goroutines at once. One that
// has a method DropCache(off, n int64) error is read from the medium when the
// copy is verified.
type Target interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// ErrTarget says that a migration ended because of its target: the disk goes on
// without it.
var ErrTarget = errors.New("migration target")

// maxTargetName is how long the name of a target may be, in bytes.
const maxTargetName = 4000

// migration of one disk that is under way.
type migration struct {
	target Target

	mu     sync.Mutex // guards what follows; comes after all other locks
	cursor int64      // bytes before it are in the target and kept equal
	err    error      // it has ended
}

func (m *migration) stop(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
	}
}

func (m *migration) state() (cursor int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursor, m.err
}

// Migrate copies the disk to a target while it is in use, in one pass: what is
// written behind the cursor goes to both. Then it reads the target back, and at
// last switches: from then on the disk is the target, also after a restart,
// when Options.OpenTarget is given name. Until then the layer is the truth, and
// an error of the target, which wraps ErrTarget, ends the migration and nothing
// else. On success the session owns the target.
//
// A migration that was interrupted begins again; what the target has already is
// read and not written. The caller sees to it that the target is exclusive.
func (d *Disk) Migrate(ctx context.Context, name string, t Target) error {
	if name == "" || len(name) > maxTargetName {
		return fmt.Errorf("migrate disk %s: a target's name of %d bytes", d.name, len(name))
	}
	s := d.s
	s.gate.Lock() // no write is between the log and the mirror
	s.mu.Lock()
	err := s.usableLocked(true)
	if err == nil && (d.migration != nil || d.target != nil) {
		err = ErrBusy
	}
	m := &migration{target: t}
	if err == nil {
		d.migration = m
	}
	s.mu.Unlock()
	s.gate.Unlock()
	if err == nil {
		err = d.migrate(ctx, name, m)
		s.mu.Lock()
		d.migration = nil
		s.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("migrate disk %s to %s: %w", d.name, name, err)
	}
	return nil
}

func (d *Disk) migrate(ctx context.Context, name string, m *migration) error {
	for _, pass := range []func(*migration, int64, int64) error{d.copyChunk, d.verifyChunk} {
		for off := int64(0); off < d.size; off += maxChunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := d.underLock(off, func(n int64) error { return pass(m, off, n) }); err != nil {
				return err
			}
		}
		if err := m.target.Sync(); err != nil {
			return targetError("sync", err)
		}
		if c, ok := m.target.(interface{ DropCache(off, n int64) error }); ok {
			if err := c.DropCache(0, 0); err != nil {
				return targetError("drop cache", err)
			}
		}
	}
	return d.switchTo(name, m)
}

func targetError(op string, err error) error { return fmt.Errorf("%w: %s: %w", ErrTarget, op, err) }

// underLock calls fn for the chunk at off, n bytes long, while nobody writes to
// it.
func (d *Disk) underLock(off int64, fn func(n int64) error) error {
	d.s.gate.RLock()
	defer d.s.gate.RUnlock()
	if err := d.s.usable(true); err != nil {
		return err
	}
	n := min(maxChunk, d.size-off)
	first, end := uint64(off/grainBytes), uint64(align(off+n, grainBytes)/grainBytes)
	d.locks.lock(first, end)
	defer d.locks.unlock(first, end)
	return fn(n)
}

// compare reads a chunk from both and tells whether they are equal.
func (d *Disk) compare(m *migration, off, n int64) (p []byte, equal bool, err error) {
	if _, err := m.state(); err != nil {
		return nil, false, err
	}
	buf := make([]byte, 2*n)
	p, q := buf[:n], buf[n:]
	if err := d.readPart(p, off, maxLayers); err != nil {
		return nil, false, fmt.Errorf("read at %d: %w", off, err)
	}
	if k, err := m.target.ReadAt(q, off); k < len(q) {
		return nil, false, targetError(fmt.Sprintf("read at %d", off), err)
	}
	return p, bytes.Equal(p, q), nil
}

func (d *Disk) copyChunk(m *migration, off, n int64) error {
	p, equal, err := d.compare(m, off, n)
	if err != nil {
		return err
	}
	if !equal {
		if _, err := m.target.WriteAt(p, off); err != nil {
			return targetError(fmt.Sprintf("write at %d", off), err)
		}
	}
	m.mu.Lock()
	m.cursor = off + n
	m.mu.Unlock()
	return nil
}

func (d *Disk) verifyChunk(m *migration, off, n int64) error {
	_, equal, err := d.compare(m, off, n)
	if err == nil && !equal {
		err = targetError(fmt.Sprintf("verify %d bytes at %d", n, off), errors.New("reads other bytes than were written"))
	}
	return err
}

// mirror writes to the target what was written behind the cursor. The locks are
// held.
func (d *Disk) mirror(p []byte, off int64) {
	d.s.mu.RLock()
	m := d.migration
	d.s.mu.RUnlock()
	if m == nil {
		return
	}
	cursor, err := m.state()
	if err != nil || off >= cursor {
		return
	}
	p = p[:min(int64(len(p)), cursor-off)]
	if _, err := m.target.WriteAt(p, off); err != nil {
		m.stop(targetError(fmt.Sprintf("write at %d", off), err))
	}
}

// switchTo makes the target the disk, while no one reads or writes.
func (d *Disk) switchTo(name string, m *migration) error {
	s := d.s
	s.gate.Lock()
	defer s.gate.Unlock()
	if _, err := m.state(); err != nil {
		return err
	}
	if err := s.usable(true); err != nil {
		return err
	}
	if err := m.target.Sync(); err != nil {
		return targetError("sync", err)
	}
	r := &rec{kind: kindTarget, d: d, name: []byte(name)}
	s.mu.Lock()
	s.enqueue(r)
	s.mu.Unlock()
	if err := s.sync(); err != nil {
		s.takeBack(r) // or the next sync would say that the disk was switched
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.targetName, d.target = name, m.target
	return nil
}

// takeBack takes a record out of the queue. One that is in the log already needs
// a repair, and gets it: what failed was its sync.
func (s *Session) takeBack(r *rec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.queue, r); i >= 0 {
		s.queue = slices.Delete(slices.Clone(s.queue), i, i+1)
		s.queueBytes -= r.bytes()
	}
}

// Target returns the name of the target that the disk was switched to, or "".
func (d *Disk) Target() string {
	d.s.mu.RLock()
	defer d.s.mu.RUnlock()
	return d.targetName
}

// openTarget opens what the disk was switched to.
func (d *Disk) openTarget() error {
	if d.targetName == "" {
		return nil
	}
	if d.s.opt.OpenTarget == nil {
		return fmt.Errorf("disk %s was switched to %s, and nobody opens that", d.name, d.targetName)
	}
	t, err := d.s.opt.OpenTarget(d.name, d.targetName)
	if err != nil {
		return fmt.Errorf("open target %s of disk %s: %w", d.targetName, d.name, err)
	}
	d.target = t
	return nil
}

// syncTarget makes the writes to the target durable. When that fails, what was
// written is lost, and nothing more is taken.
func (d *Disk) syncTarget() error {
	d.targetSync.Lock()
	defer d.targetSync.Unlock()
	if d.targetErr == nil {
		d.targetErr = d.target.Sync()
		if d.targetErr != nil {
			d.s.mu.Lock()
			d.s.newVerifier()
			d.s.mu.Unlock()
		}
	}
	if d.targetErr != nil {
		return fmt.Errorf("%w: sync target %s: %w", ErrReadOnly, d.targetName, d.targetErr)
	}
	return nil
}

// writeTarget writes to the target.
func (d *Disk) writeTarget(p []byte, off int64) error {
	d.targetSync.Lock()
	err := d.targetErr
	d.targetSync.Unlock()
	if err != nil {
		return fmt.Errorf("%w: sync target %s: %w", ErrReadOnly, d.targetName, err)
	}
	_, err = d.target.WriteAt(p, off)
	return spaceError(err)
}
