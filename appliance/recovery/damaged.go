package recovery

import (
	"context"
	"slices"
	"strings"
)

// stopDamaged ends a session whose record can't be read. Its pin tells its name
// and its point; where there is none, as all was migrated, it is the one session
// of the datastore that no record knows, if there is just one.
func (m *Manager) stopDamaged(ctx context.Context, id string) error {
	rec := &record{ID: id, Released: true}
	for _, r := range m.repos {
		open, err := r.get(ctx)
		if err != nil {
			return err
		}
		pins, err := open.Pinned()
		if err != nil {
			return err
		}
		for point, names := range pins {
			for _, pin := range names {
				name, recovered := strings.CutPrefix(pin, pinPrefix)
				name, its := strings.CutSuffix(name, "."+id)
				if recovered && its {
					rec.Name, rec.Repository, rec.Point, rec.Released = name, open.Info().ID, point, false
				}
			}
		}
	}
	if rec.Name == "" {
		rec.Name = m.orphan()
	}
	if rec.Name != "" {
		if err := m.removeDirectory(rec); err != nil {
			return err
		}
	}
	if err := m.removeLayer(rec); err != nil {
		return err
	}
	if err := m.unpin(ctx, rec); err != nil {
		return err
	}
	if err := removeRecord(m.opt.State, id); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.damaged = slices.DeleteFunc(m.damaged, func(f foundRecord) bool { return f.id == id })
	return nil
}

// orphan returns the name of the only session of the datastore that no record
// knows, "" if there is another number of them.
func (m *Manager) orphan() string {
	known := make(map[string]bool)
	for _, s := range m.list() {
		known[s.snapshot().Name] = true
	}
	var found []string
	for _, s := range m.store.Sessions() {
		if !known[s.Name] {
			found = append(found, s.Name)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(found) != 1 || len(m.damaged) != 1 {
		return ""
	}
	return found[0]
}

// isDamaged says whether there is a record of that id that can't be read.
func (m *Manager) isDamaged(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.damaged, func(f foundRecord) bool { return f.id == id })
}
