package recovery

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	treefs "holdfast/fs"
	"holdfast/fs/datastore"
	"holdfast/image/redirect"
	"holdfast/image/vmdk"
	"holdfast/repo"
)

// PublishOptions say how a restore point is published. The zero value runs the
// machine as it was.
type PublishOptions struct {
	// Name is what the session, its directory and the machine in the hypervisor
	// are called; empty: as the machine, with a number if that is taken.
	Name string `json:"name,omitempty"`

	NewUUID    bool   `json:"newUuid,omitempty"`    // another identity, and other addresses of network adapters, than the original
	NoNetwork  bool   `json:"noNetwork,omitempty"`  // adapters are not connected when it starts
	EFI        bool   `json:"efi,omitempty"`        // how a machine without a configuration starts
	SwapDir    string `json:"swapDir,omitempty"`    // where the hypervisor puts the swap file; empty: beside the configuration
	NoSwapRoom bool   `json:"noSwapRoom,omitempty"` // don't refuse when there is no room for that

	Zone *time.Location `json:"-"` // of MACHINE@DATE; nil: local
}

// Publish makes a session of the restore point that spec names, as
// repo.Repository.Find has it. It reads the point's manifest and no disk.
func (m *Manager) Publish(ctx context.Context, spec string, opt PublishOptions) (Session, error) {
	s, err := m.publish(ctx, spec, opt)
	if err != nil {
		return Session{}, fmt.Errorf("publish %s: %w", spec, err)
	}
	return m.describe(s), nil
}

func (m *Manager) publish(ctx context.Context, spec string, opt PublishOptions) (*session, error) {
	at, r, point, err := m.findPoint(ctx, spec, opt.Zone)
	if err != nil {
		return nil, err
	}
	reader, err := r.OpenPoint(point.ID)
	if err != nil {
		return nil, err
	}
	defer reader.Close() //nolint:errcheck // attach takes a lease of its own; this one is given up in any case
	files, err := reader.Files()
	if err != nil {
		return nil, err
	}
	rec := &record{
		ID: newID(), State: publishing, Repository: r.Info().ID, Path: at.Path, Point: point.ID, PointTime: point.Time,
		Machine: point.Machine, MachineID: point.MachineID, Published: m.opt.Now().UTC(),
	}
	s, err := m.claimName(rec, opt.Name)
	if err != nil {
		return nil, err
	}
	defer s.end()
	content, err := m.contentOf(rec, reader.Point(), files, opt)
	if err != nil {
		m.forget(s)
		return nil, err
	}
	s.mu.Lock()
	s.rec = *rec
	s.mu.Unlock()
	if err := m.make(ctx, s, r, content); err != nil {
		if rerr := m.remove(context.WithoutCancel(ctx), s); rerr != nil {
			s.failed(rerr)
			err = errors.Join(err, rerr)
		}
		return nil, err
	}
	return s, nil
}

// claimName gives the session a name that no other has, and claims it.
func (m *Manager) claimName(rec *record, name string) (*session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	base := name
	if base == "" {
		if base = fileName(rec.Machine); len(base) > maxSessionName-4 {
			base = strings.ToValidUTF8(base[:maxSessionName-4], "")
		}
	}
	if err := checkSessionName(base); err != nil {
		return nil, err
	}
	rec.Name = base
	for n := 2; ; n++ {
		taken, err := m.nameTaken(rec.Name)
		if err != nil {
			return nil, err
		}
		if !taken {
			break
		}
		if name != "" {
			return nil, fmt.Errorf("%w: %q", ErrExists, name)
		}
		rec.Name = fmt.Sprintf("%s-%d", base, n)
	}
	s := newSession(rec)
	s.op.Lock() // nobody else has it
	s.doing, s.tried = "it is being published", true
	m.sessions[rec.ID] = s
	return s, nil
}

// nameTaken says whether a session, or something that hosts made in the root of
// the datastore, has a name. The caller holds mu.
func (m *Manager) nameTaken(name string) (bool, error) {
	for _, s := range m.sessions {
		if strings.EqualFold(s.snapshot().Name, name) {
			return true, nil
		}
	}
	_, err := m.store.Lookup(m.ctx, m.store.Root(), name)
	switch {
	case err == nil, errors.Is(err, treefs.ErrStale): // a session whose directory has gone
		return true, nil
	case errors.Is(err, treefs.ErrNotFound):
		return false, nil
	}
	// A session that is offline has its name all the same.
	taken := slices.ContainsFunc(m.store.Sessions(), func(s datastore.Session) bool { return s.Name == name })
	if taken {
		err = nil
	}
	return taken, err
}

// forget drops a session of which nothing was made.
func (m *Manager) forget(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, s.snapshot().ID)
}

// contentOf says what is in the session's directory, and completes the record.
func (m *Manager) contentOf(rec *record, p repo.Point, files []repo.MachineFile, opt PublishOptions) (datastore.SessionSpec, error) {
	spec := datastore.SessionSpec{Name: rec.Name}
	want := machineConfig{name: rec.Name, newUUID: opt.NewUUID, offline: opt.NoNetwork, efi: opt.EFI, swapDir: opt.SwapDir}
	for i, name := range diskFiles(p.Disks) {
		d := p.Disks[i]
		descriptor := name + ".vmdk"
		flat := vmdk.FlatExtentName(descriptor)
		text, err := vmdk.FlatDescriptor(descriptor, d.SizeBytes, contentID(d.Root.String()))
		if err != nil {
			return spec, fmt.Errorf("disk %s: %w", d.Name, err)
		}
		want.disks = append(want.disks, configDisk{d.Name, d.Source, descriptor})
		spec.Files = append(spec.Files, datastore.File{Name: descriptor, Data: text, Perm: 0o600})
		spec.Disks = append(spec.Disks, datastore.DiskFile{Name: flat, Size: vmdk.FlatExtentBytes(d.SizeBytes)})
		rec.Disks = append(rec.Disks, recordDisk{Name: d.Name, File: flat, SizeBytes: d.SizeBytes, Root: d.Root.String()})
	}
	config, rest := m.configOf(rec, files, &want)
	if config == nil {
		config = makeVMX(want)
		rec.Warnings = append(rec.Warnings, "the restore point has no configuration that can be used: the machine gets a minimal one")
	}
	rec.Config = rec.Name + ".vmx"
	rec.Warnings = briefly(rec.Warnings)
	spec.Files = append(spec.Files, rest...)
	spec.Files = append(spec.Files, datastore.File{Name: rec.Config, Data: config.encode(), Perm: 0o755})
	return spec, m.checkRoom(config, opt)
}

// briefly shortens what a configuration made us warn of: it came with a backup and
// may be anything, and the record keeps it.
func briefly(warnings []string) []string {
	const most, longest = 40, 300
	if n := len(warnings) - most; n > 0 {
		warnings = append(warnings[:most:most], fmt.Sprintf("and %d more", n))
	}
	for i, w := range warnings {
		if len(w) > longest {
			warnings[i] = strings.ToValidUTF8(w[:longest], "") + " …"
		}
	}
	return warnings
}

// configOf finds the machine's configuration among its files, and what else of
// them goes into the directory.
func (m *Manager) configOf(rec *record, files []repo.MachineFile, want *machineConfig) (config *vmx, rest []datastore.File) {
	var text []byte
	for _, f := range files {
		switch strings.ToLower(filepath.Ext(f.Name)) {
		case ".vmx":
			if text == nil {
				text = f.Data
			}
		case ".nvram":
			if want.nvram == "" {
				want.nvram = rec.Name + ".nvram"
				want.efi = want.efi || len(f.Data) > biosVariables
				rest = append(rest, datastore.File{Name: want.nvram, Data: f.Data, Perm: 0o600})
			}
		}
	}
	if text == nil {
		return nil, rest
	}
	config, warnings, err := rewriteVMX(text, *want)
	if err != nil {
		rec.Warnings = append(rec.Warnings, err.Error())
		return nil, rest
	}
	rec.Warnings = append(rec.Warnings, warnings...)
	return config, rest
}

// biosVariables is how large the variables of a BIOS are; those of an EFI are
// more.
const biosVariables = 16 << 10

// contentID names the content of a disk, for its descriptor.
func contentID(root string) uint32 {
	if id := crc32.ChecksumIEEE([]byte(root)); id != 0xffffffff {
		return id
	}
	return 1
}

// checkRoom refuses a machine whose swap file would not fit, as the hypervisor
// then refuses to start it.
func (m *Manager) checkRoom(config *vmx, opt PublishOptions) error {
	swap := config.swapBytes()
	if opt.NoSwapRoom || opt.SwapDir != "" || swap == 0 {
		return nil
	}
	free, _, err := m.space()
	if err != nil {
		return err
	}
	if need := swap + m.layerBytes(); free < need {
		return &RoomError{Swap: swap, Need: need, Free: free}
	}
	return nil
}

// layerBytes is what a session takes before anything is written to it.
func (m *Manager) layerBytes() int64 {
	const logs, journals = 130 << 20, 8 << 20
	if wal := m.opt.redirect.WALBytes; wal > 0 {
		return 2*wal + journals
	}
	return logs + journals
}

// RoomError says how much room is missing. It is an ErrNoRoom.
type RoomError struct {
	Swap, Need, Free int64 // bytes
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("%v: it takes %d bytes, with the redirect layer %d, and there are %d", ErrNoRoom, e.Swap, e.Need, e.Free)
}

func (e *RoomError) Unwrap() error { return ErrNoRoom }

// make makes what a session consists of, in the order that remove undoes.
func (m *Manager) make(ctx context.Context, s *session, r *repo.Repository, content datastore.SessionSpec) error {
	rec := s.snapshot()
	if err := rec.save(m.opt.State); err != nil {
		return err
	}
	if err := r.Pin(rec.Point, rec.pin()); err != nil {
		return err
	}
	if err := m.makeLayer(&rec, r); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	number, err := m.store.AddSession(content)
	if err != nil {
		return err
	}
	err = s.change(m.opt.State, func(rec *record) { rec.Number, rec.State = number, running })
	if err != nil {
		return err
	}
	b := m.traces.boot(cmp.Or(rec.MachineID, rec.Machine), m.frames)
	if err := m.attach(ctx, s, b); err != nil {
		return err
	}
	m.watch(s, b)
	return nil
}

// makeLayer makes the redirect session. It is opened by attach.
func (m *Manager) makeLayer(rec *record, r *repo.Repository) error {
	if err := m.opt.Redirect.Mkdir(rec.dir()); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := m.opt.Redirect.SyncDir("."); err != nil {
		return err
	}
	reader, err := r.OpenPoint(rec.Point)
	if err != nil {
		return err
	}
	specs, err := m.specs(rec, reader, nil)
	var layer *redirect.Session
	if err == nil {
		layer, err = redirect.Create(sub(m.opt.Redirect, rec.dir()), specs, m.redirectOptions(rec))
	}
	if err == nil {
		err = layer.Close()
	}
	return errors.Join(err, reader.Close())
}

// newID returns ten random characters.
func newID() string {
	var p [6]byte
	_, _ = rand.Read(p[:]) // never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(p[:]))[:10]
}
