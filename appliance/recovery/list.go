package recovery

import (
	"fmt"
	"time"

	"holdfast/repo"
)

// Session describes a session.
type Session struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	Machine    string       `json:"machine"`
	Point      repo.PointID `json:"point"`
	PointTime  time.Time    `json:"pointTime"`
	Repository string       `json:"repository"` // its path
	Published  time.Time    `json:"published"`
	State      string       `json:"state"`           // running, starting, offline, stopping
	Doing      string       `json:"doing,omitempty"` // keep, migration …
	Config     string       `json:"config"`          // the vmx, in the session's directory
	Disks      []DiskStatus `json:"disks"`
	UsedBytes  int64        `json:"usedBytes"`         // of the redirect volume
	FreeBytes  int64        `json:"freeBytes"`         // that may still be written
	Seconds    float64      `json:"seconds,omitempty"` // until that is used up, at the pace so far; 0: not known
	Kept       []Kept       `json:"kept,omitempty"`
	Warnings   []string     `json:"warnings,omitempty"`
	Error      string       `json:"error,omitempty"` // why it is offline
}

// DiskStatus describes a disk of a session.
type DiskStatus struct {
	Name      string `json:"name"` // in the restore point
	File      string `json:"file"` // the flat file
	SizeBytes int64  `json:"sizeBytes"`
	UsedBytes int64  `json:"usedBytes"`
	Target    string `json:"target,omitempty"` // what it was migrated to, or is being
	Migrated  bool   `json:"migrated,omitempty"`
}

// Kept is a restore point that was made of a session.
type Kept struct {
	Point   repo.PointID `json:"point"`
	Machine string       `json:"machine"`
	Time    time.Time    `json:"time"`
}

// List describes all sessions, in the order of their publishing.
func (m *Manager) List() []Session {
	list := []Session{}
	for _, s := range m.list() {
		list = append(list, m.describe(s))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.damaged {
		list = append(list, Session{ID: f.id, Name: f.id, State: "offline", Disks: []DiskStatus{}, Error: f.err.Error()})
	}
	return list
}

func (m *Manager) describe(s *session) Session {
	rec := s.snapshot()
	s.mu.Lock()
	layer, err, tried, doing := s.layer, s.err, s.tried, s.doing
	s.mu.Unlock()
	d := Session{
		ID: rec.ID, Name: rec.Name, Machine: rec.Machine, Point: rec.Point, PointTime: rec.PointTime.UTC(), Repository: rec.Path,
		Published: rec.Published.UTC(), State: "running", Doing: doing, Config: rec.Config, Disks: []DiskStatus{}, Kept: rec.Kept, Warnings: rec.Warnings,
	}
	for _, rd := range rec.Disks {
		ds := DiskStatus{Name: rd.Name, File: rd.File, SizeBytes: rd.SizeBytes, Target: rd.Target, Migrated: rd.Migrated}
		if layer != nil {
			if disk, derr := layer.Disk(rd.Name); derr == nil {
				ds.UsedBytes = disk.UsedBytes()
			}
		}
		d.Disks = append(d.Disks, ds)
	}
	switch {
	case rec.State != running:
		d.State = "stopping"
	case layer == nil && !tried:
		d.State = "starting"
	case layer == nil:
		d.State = "offline"
	}
	if err != nil {
		d.Error = err.Error()
	}
	if layer == nil {
		return d
	}
	st, serr := layer.Stats()
	if serr != nil {
		d.Error = serr.Error()
		return d
	}
	d.UsedBytes, d.FreeBytes, d.Seconds = st.UsedBytes, st.FreeBytes, st.TimeLeft.Seconds()
	if st.Full {
		d.Warnings = append(d.Warnings, "the redirect volume is full: new writes are refused")
	} else if w := fillWarning(st.UsedBytes, st.FreeBytes); w != "" {
		d.Warnings = append(d.Warnings, w)
	}
	if st.ReadOnly {
		d.Warnings = append(d.Warnings, "the redirect volume has failed twice: the session is read-only; keep or migrate what there is")
	}
	return d
}

// fillWarning says how full the space for a session is, from 70 % on.
func fillWarning(used, free int64) string {
	if used+free <= 0 {
		return ""
	}
	percent := int(100 * float64(used) / float64(used+free))
	for _, mark := range []int{95, 85, 70} {
		if percent >= mark {
			return fmt.Sprintf("%d %% of the space for what is written is used", percent)
		}
	}
	return ""
}
