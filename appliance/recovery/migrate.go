package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"holdfast/image/redirect"
	"holdfast/repo"
)

// MigrateOptions say where a session's disks go.
type MigrateOptions struct {
	// To is, by the name of the disk, the path of a file, which must not be there,
	// or of a block device, which nobody uses and which is as large as the disk or
	// larger. What is in it is gone. Disks that aren't named stay.
	To map[string]string

	// Progress is called now and then; it must not wait.
	Progress func(Progress)
}

// Migrate copies disks of a session to where they are to stay, while they are in
// use, reads back what it wrote, and switches over: from then on reads and writes
// of a disk go there, under the same file handle. When all disks are elsewhere the
// point is pinned no more. Interrupted, it is begun again with the same targets;
// what they have already is not written again. Until the switch the session is as
// it was.
func (m *Manager) Migrate(ctx context.Context, name string, opt MigrateOptions) (Session, error) {
	s, err := m.find(name)
	if err != nil {
		return Session{}, err
	}
	ctx, err = s.claim(ctx, "it is being migrated")
	if err != nil {
		return Session{}, err
	}
	defer s.end()
	if err := m.migrate(ctx, s, opt); err != nil {
		return Session{}, fmt.Errorf("migrate %s: %w", s.snapshot().Name, err)
	}
	return m.describe(s), nil
}

func (m *Manager) migrate(ctx context.Context, s *session, opt MigrateOptions) error {
	layer, _, err := s.online()
	if err != nil {
		return err
	}
	rec := s.snapshot()
	for name := range opt.To {
		if !slices.ContainsFunc(rec.Disks, func(d recordDisk) bool { return d.Name == name }) {
			return fmt.Errorf("%w: %s has no disk %q", repo.ErrNotFound, rec.Name, name)
		}
	}
	if err := m.merge(ctx, layer); err != nil {
		return err
	}
	progress := migrateProgress{report: opt.Progress}
	for _, d := range rec.Disks {
		if _, wanted := opt.To[d.Name]; wanted {
			progress.Total += 2 * d.SizeBytes // written and read back
		}
	}
	for i, d := range rec.Disks {
		to, wanted := opt.To[d.Name]
		if !wanted {
			continue
		}
		disk, err := layer.Disk(d.Name)
		if err == nil && disk.Target() != "" {
			err = fmt.Errorf("%w: %s is at %s", ErrMigrated, d.Name, disk.Target())
		}
		if err == nil {
			progress.Disk = d.Name
			err = m.migrateDisk(ctx, s, i, disk, to, &progress)
		}
		if err != nil {
			return err
		}
	}
	return m.noteMigrated(s)
}

// migrateDisk copies one disk and switches it over. The record names the target
// before that is made, so that a file found there later is known as ours.
func (m *Manager) migrateDisk(ctx context.Context, s *session, i int, disk *redirect.Disk, to string, progress *migrateProgress) error {
	to, err := m.opt.targets.path(to)
	if err != nil {
		return err
	}
	before := s.snapshot().Disks[i].Target
	if before != to {
		if there, err := m.opt.targets.isFile(to); err != nil || there {
			return fmt.Errorf("%w: %s: %w", redirect.ErrTarget, to, cmp.Or(err, errFileThere))
		}
	}
	err = s.change(m.opt.State, func(rec *record) { rec.Disks[i].Target = to })
	if err != nil {
		return err
	}
	t, err := m.opt.targets.open(to, disk.Size())
	if err != nil {
		err = fmt.Errorf("%w: %w", redirect.ErrTarget, err)
		return errors.Join(err, s.change(m.opt.State, func(rec *record) { rec.Disks[i].Target = before }))
	}
	w := &watched{migrationTarget: t, progress: progress}
	err = disk.Migrate(ctx, to, w)
	w.forget()
	if err == nil || disk.Target() != "" {
		return err // it is the session's now
	}
	return errors.Join(err, t.Close())
}

var errFileThere = fmt.Errorf("%w; a new file is wanted", os.ErrExist)

// migrateProgress counts what was copied and what was read back.
type migrateProgress struct {
	Progress
	report func(Progress)
}

func (p *migrateProgress) add(n int) {
	p.DoneBytes = min(p.DoneBytes+int64(n), p.Total)
	if p.report != nil {
		p.report(p.Progress)
	}
}

// targets are the files and devices that disks can be migrated to.
type targets interface {
	// path makes a path one that means the same after a restart.
	path(path string) (string, error)

	// isFile says whether there is a file.
	isFile(path string) (bool, error)

	// open opens a target, for this process alone. For a disk of size bytes it
	// makes the file if it isn't there, and as long; 0: it is there already.
	open(path string, size int64) (migrationTarget, error)
}

type migrationTarget interface {
	redirect.Target
	DropCache(off, n int64) error
}

// watched is a target that tells how far its copy is: both passes read each byte
// of it once.
type watched struct {
	migrationTarget
	mu       sync.Mutex
	progress *migrateProgress
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.migrationTarget.ReadAt(p, off)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.progress != nil {
		w.progress.add(n)
	}
	return n, err
}

// forget ends the counting: from now on the disk is read.
func (w *watched) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress = nil
}

// noteMigrated remembers which disks are elsewhere, and lets go of the point when
// all are.
func (m *Manager) noteMigrated(s *session) error {
	layer, reader, err := s.online()
	if err != nil {
		return err
	}
	rec := s.snapshot()
	all, news := true, false
	for i := range rec.Disks {
		d := &rec.Disks[i]
		disk, err := layer.Disk(d.Name)
		if err != nil {
			return err
		}
		to := disk.Target()
		all = all && to != ""
		if to != "" && !d.Migrated {
			d.Target, d.Migrated, news = to, true, true
		}
	}
	if news {
		if err := s.change(m.opt.State, func(r *record) { r.Disks = rec.Disks }); err != nil {
			return err
		}
	}
	if !all || rec.Released {
		return nil
	}
	// The pin goes before the record says so: it is put back by whoever finds
	// the record as it was.
	if err := m.unpin(m.ctx, &rec); err != nil {
		return err
	}
	if err := s.change(m.opt.State, func(r *record) { r.Released = true }); err != nil {
		return err
	}
	s.mu.Lock()
	s.reader = nil
	s.mu.Unlock()
	if reader == nil {
		return nil
	}
	return reader.Close()
}
