package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/fs"
	"holdfast/fs/datastore"
	"holdfast/image/redirect"
	"holdfast/image/vmdk"
	"holdfast/repo"
	"holdfast/repo/vfs"
)

// session is a published restore point.
type session struct {
	// op is held by whatever changes the session as a whole: bringing it back,
	// keep, migrate, stop. It comes before mu.
	op sync.Mutex

	mu      sync.Mutex // guards what follows
	rec     record
	doing   string // what holds op, for people
	stop    func() // cancels that
	tried   bool   // it was tried to bring it back
	settles bool   // what was interrupted is being finished
	err     error  // why it is offline
	layer   *redirect.Session
	reader  *repo.Reader // nil when all is migrated
	percent int          // of what is being done
	unwatch func()       // ends the watch over the boot, and waits; nil: there is none
}

func newSession(rec *record) *session { return &session{rec: *rec} }

func compareRecords(a, b record) int {
	return cmp.Or(a.Published.Compare(b.Published), strings.Compare(a.ID, b.ID))
}

// snapshot returns the record as it is.
func (s *session) snapshot() record {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.rec
	rec.Disks, rec.Kept, rec.Warnings = slices.Clone(rec.Disks), slices.Clone(rec.Kept), slices.Clone(rec.Warnings)
	return rec
}

// change makes a change to the record durable, and then known.
func (s *session) change(fsys vfs.FS, fn func(*record)) error {
	rec := s.snapshot()
	fn(&rec)
	if err := rec.save(fsys); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rec = rec
	return nil
}

// offline says whether the disks are not there.
func (s *session) offline() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layer == nil
}

// pending says whether it was not tried yet to bring it back.
func (s *session) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layer == nil && !s.tried || s.settles
}

// begin claims the session unless something else has it.
func (s *session) begin() bool { return s.op.TryLock() }

func (s *session) end() {
	s.mu.Lock()
	s.doing, s.stop, s.percent = "", nil, 0
	s.mu.Unlock()
	s.op.Unlock()
}

// claim is begin for a verb, whose context it returns. It waits for what nobody has
// asked for.
func (s *session) claim(ctx context.Context, doing string) (context.Context, error) {
	for !s.begin() {
		s.mu.Lock()
		other, name := s.doing, s.rec.Name
		s.mu.Unlock()
		if other != "" {
			return nil, fmt.Errorf("%w: %s: %s", ErrBusy, name, other)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(claimPoll):
		}
	}
	s.booted() // what a verb reads is not what the machine asks for
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doing, s.stop = doing, cancel
	return ctx, nil
}

const claimPoll = 5 * time.Millisecond

// booted ends the watch over the machine's boot.
func (s *session) booted() {
	s.mu.Lock()
	unwatch := s.unwatch
	s.unwatch = nil
	s.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
}

// giveUp has the verb that is under way end.
func (s *session) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
}

// failed notes why the session is offline, and says whether that is news.
func (s *session) failed(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.err == nil || s.err.Error() != err.Error()
	s.err, s.tried = err, true
	return news
}

// online returns the layer, or why there is none.
func (s *session) online() (*redirect.Session, *repo.Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layer == nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrOffline, s.rec.Name, cmp.Or(s.err, errComing))
	}
	return s.layer, s.reader, nil
}

var errComing = errors.New("it is being brought back")

// attach opens a session's point and layer and gives the datastore its disks.
// If it has just been published, b is its boot.
func (m *Manager) attach(ctx context.Context, s *session, b *boot) (err error) {
	rec := s.snapshot()
	var reader *repo.Reader
	if !rec.elsewhere() {
		if reader, err = m.openPoint(ctx, &rec); err != nil {
			return err
		}
	}
	specs, err := m.specs(&rec, reader, b)
	var layer *redirect.Session
	if err == nil {
		layer, err = redirect.Open(sub(m.opt.Redirect, rec.dir()), specs, m.redirectOptions(&rec))
	}
	if err == nil {
		if err = m.store.Attach(rec.Number, disksOf(&rec, layer)); err != nil {
			err = errors.Join(err, layer.Close())
		}
	}
	if err != nil {
		if reader != nil {
			err = errors.Join(err, reader.Close())
		}
		return errors.Join(err, m.store.Offline(rec.Number, awaited(err)))
	}
	s.mu.Lock()
	s.layer, s.reader, s.err, s.tried, s.settles = layer, reader, nil, true, true
	s.mu.Unlock()
	m.work.Go(func() { m.settle(s) })
	return nil
}

// awaited is what the disks of a session answer that could not be brought back.
// Damage is final; but what is not there now, as a repository that is not mounted
// yet, is tried again, and the machine had better wait for it than lose its file
// systems.
func awaited(err error) error {
	var corrupt *repo.CorruptError
	switch {
	case errors.Is(err, redirect.ErrDamaged), errors.Is(err, redirect.ErrMismatch), errors.Is(err, fs.ErrDamaged), errors.As(err, &corrupt) && !corrupt.Missing:
		return err
	}
	return fmt.Errorf("%w: %w", fs.ErrRetry, err)
}

// openPoint opens the point of a session and sees to it that it is pinned.
func (m *Manager) openPoint(ctx context.Context, rec *record) (*repo.Reader, error) {
	_, r, err := m.repositoryOf(ctx, rec)
	if err != nil {
		return nil, err
	}
	reader, err := r.OpenPoint(rec.Point)
	if err != nil {
		return nil, err
	}
	if err := r.Pin(rec.Point, rec.pin()); err != nil {
		// Somebody took it away by hand, and the point expired: it goes on as long
		// as it is open.
		m.log.Warn("the point of a session is not pinned", "session", rec.Name, "point", rec.Point, "err", err)
	}
	return reader, nil
}

// specs are the disks of a session's redirect layer.
func (m *Manager) specs(rec *record, reader *repo.Reader, b *boot) ([]redirect.DiskSpec, error) {
	var specs []redirect.DiskSpec
	for _, d := range rec.Disks {
		spec := redirect.DiskSpec{Name: d.Name, Identity: redirect.Identity{
			Repository: rec.Repository, Point: string(rec.Point), Root: d.Root, Size: vmdk.FlatExtentBytes(d.SizeBytes),
		}, Base: gone(vmdk.FlatExtentBytes(d.SizeBytes))}
		if reader != nil {
			disk, err := reader.Disk(d.Name)
			if err != nil {
				return nil, err
			}
			if root := disk.Info().Root.String(); root != d.Root || disk.Size() != d.SizeBytes {
				return nil, fmt.Errorf("%w: disk %s of point %s", redirect.ErrMismatch, d.Name, rec.Point)
			}
			spec.Base = b.base(disk)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// redirectOptions are those of a session's layer.
func (m *Manager) redirectOptions(rec *record) redirect.Options {
	opt := m.opt.redirect
	opt.QuotaBytes, opt.Log, opt.Now = m.opt.QuotaBytes, m.log.With("session", rec.Name), m.opt.Now
	opt.OpenTarget = func(_, name string) (redirect.Target, error) { return m.opt.targets.open(name, 0) }
	return opt
}

// disksOf are the big files of a session's directory.
func disksOf(rec *record, layer *redirect.Session) map[string]datastore.Disk {
	disks := make(map[string]datastore.Disk)
	for _, d := range layer.Disks() {
		i := slices.IndexFunc(rec.Disks, func(rd recordDisk) bool { return rd.Name == d.Name() })
		disks[rec.Disks[i].File] = lending(layer, d)
	}
	return disks
}

// settle ends what was under way when the process before this one ended: a keep
// whose layers are not merged, a migration whose switch was not noted.
func (m *Manager) settle(s *session) {
	s.op.Lock()
	defer s.end()
	defer func() {
		s.mu.Lock()
		s.settles = false
		s.mu.Unlock()
	}()
	layer, _, err := s.online()
	if err != nil || m.ctx.Err() != nil {
		return
	}
	if err := m.merge(m.ctx, layer); err != nil && m.ctx.Err() == nil {
		m.log.Error("the layers of a session are not merged", "session", s.snapshot().Name, "err", err)
	}
	if err := m.noteMigrated(s); err != nil {
		m.log.Error("a migration that has ended is not noted", "session", s.snapshot().Name, "err", err)
	}
}

// merge lets go of a sealed layer.
func (m *Manager) merge(ctx context.Context, layer *redirect.Session) error {
	if sealed := layer.Sealed(); sealed != nil {
		return sealed.Release(ctx)
	}
	return layer.Merge(ctx)
}

// detach closes what a session has open; its disks answer why from now on.
func (m *Manager) detach(s *session, why error) error {
	s.mu.Lock()
	layer, reader, number := s.layer, s.reader, s.rec.Number
	s.layer, s.reader = nil, nil
	s.mu.Unlock()
	s.booted()
	var errs []error
	if layer != nil {
		// Whoever reads or writes has ended when this returns.
		if err := m.store.Offline(number, why); err != nil && !errors.Is(err, datastore.ErrNoSession) {
			errs = append(errs, err)
		}
		errs = append(errs, layer.Close())
	}
	if reader != nil {
		errs = append(errs, reader.Close())
	}
	return errors.Join(errs...)
}
