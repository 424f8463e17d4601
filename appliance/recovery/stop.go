package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"holdfast/fs/datastore"
	"holdfast/image/redirect"
	"holdfast/repo"
)

// Stop ends a session: what was written and not kept is gone, its handles are
// stale, and its point is pinned no more. What is under way with it is given up.
// A disk that was migrated stays where it is. A session whose record is damaged is
// named by its id. Interrupted, it is ended by the
// next Open.
func (m *Manager) Stop(ctx context.Context, name string) error {
	s, err := m.find(name)
	if errors.Is(err, ErrNoSession) && m.isDamaged(name) {
		if err := m.stopDamaged(ctx, name); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	s.giveUp()
	s.op.Lock()
	defer s.end()
	if _, err := m.find(s.snapshot().ID); err != nil {
		return err // somebody else has stopped it
	}
	s.mu.Lock()
	s.doing = "it is being stopped"
	s.mu.Unlock()
	if err := m.remove(ctx, s); err != nil {
		s.failed(err)
		return fmt.Errorf("stop %s: %w", s.snapshot().Name, err)
	}
	return nil
}

// remove takes away what there is of a session, the record last. It may be begun
// again wherever it ended. The caller holds op.
func (m *Manager) remove(ctx context.Context, s *session) error {
	if rec := s.snapshot(); rec.State == running {
		if err := s.change(m.opt.State, func(r *record) { r.State = stopping }); err != nil {
			return err
		}
	}
	rec := s.snapshot()
	if err := m.removeDirectory(&rec); err != nil {
		return err
	}
	if err := m.detach(s, errStopped); err != nil {
		// Nothing that was written is wanted any more.
		m.log.Warn("a session that is stopped had trouble", "session", rec.Name, "err", err)
	}
	if err := m.removeLayer(&rec); err != nil {
		return err
	}
	if err := m.unpin(ctx, &rec); err != nil {
		return err
	}
	if err := removeRecord(m.opt.State, rec.ID); err != nil {
		return err
	}
	m.forget(s)
	return nil
}

var errStopped = errors.New("the session was stopped")

// removeDirectory removes the session from the datastore: the one of its name, which
// it shares with no other, and of its number, if the record knows that. Another one
// with that number would be of another datastore, unless it has lost its name by
// damage.
func (m *Manager) removeDirectory(rec *record) error {
	for _, s := range m.store.Sessions() {
		if s.Number == rec.Number && (s.Name == rec.Name || s.Err != nil) || rec.Number == 0 && s.Name == rec.Name {
			if err := m.store.RemoveSession(s.Number); err != nil && !errors.Is(err, datastore.ErrNoSession) {
				return err
			}
		}
	}
	return nil
}

// removeLayer removes what was written.
func (m *Manager) removeLayer(rec *record) error {
	if _, err := m.opt.Redirect.Stat(rec.dir()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := redirect.Discard(sub(m.opt.Redirect, rec.dir())); err != nil {
		return err
	}
	if err := m.opt.Redirect.Remove(rec.dir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return m.opt.Redirect.SyncDir(".")
}

// unpin lets go of the point.
func (m *Manager) unpin(ctx context.Context, rec *record) error {
	if rec.Released {
		return nil
	}
	_, r, err := m.repositoryOf(ctx, rec)
	if err != nil {
		return err
	}
	if err := r.Unpin(rec.Point, rec.pin()); err != nil && !errors.Is(err, repo.ErrNotFound) {
		return err
	}
	return nil
}
