package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"holdfast/fs"
	"holdfast/image/redirect"
	"holdfast/image/vmdk"
	"holdfast/repo"
)

// KeepOptions say as what a session is kept.
type KeepOptions struct {
	// As is the name of the machine that the new point is of; empty: the
	// session's machine with "-recovered" behind it. Same makes it a point of the
	// session's machine, and so its latest.
	As   string
	Same bool

	Wait     time.Duration // for another process that owns the repository and can't be asked
	Progress func(repo.Progress)
}

// keepJob is the job of points that are made of sessions.
const keepJob = "recovery"

// Keep makes a restore point of a session as it is now, crash-consistent, while
// it goes on: all its disks at one instant, of which only what was written is
// read, its configuration and its firmware's variables. Its parent is the point
// that was published.
func (m *Manager) Keep(ctx context.Context, name string, opt KeepOptions) (*repo.Run, error) {
	s, err := m.find(name)
	if err != nil {
		return nil, err
	}
	ctx, err = s.claim(ctx, "it is being kept")
	if err != nil {
		return nil, err
	}
	defer s.end()
	run, err := m.keep(ctx, s, opt)
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", s.snapshot().Name, err)
	}
	return run, nil
}

func (m *Manager) keep(ctx context.Context, s *session, opt KeepOptions) (*repo.Run, error) {
	rec := s.snapshot()
	layer, reader, err := s.online()
	if err != nil {
		return nil, err
	}
	for _, d := range layer.Disks() {
		if d.Target() != "" {
			return nil, fmt.Errorf("%w: %s is at %s; back it up from there", ErrMigrated, d.Name(), d.Target())
		}
	}
	at, _, err := m.repositoryOf(ctx, &rec)
	if err != nil {
		return nil, err
	}
	backup := repo.BackupOptions{
		Machine: cmp.Or(opt.As, rec.Machine+"-recovered"), Job: keepJob, Actor: m.opt.Actor, Consistency: "crash",
		Parent: rec.Point, Progress: opt.Progress,
	}
	if opt.Same || opt.As == rec.Machine {
		backup.Machine, backup.MachineID = rec.Machine, rec.MachineID
	}
	if err := repo.CheckName("machine", backup.Machine); err != nil {
		return nil, err
	}
	if err := m.merge(ctx, layer); err != nil { // of a keep that was interrupted
		return nil, err
	}
	sealed, err := layer.Seal()
	if err != nil {
		return nil, err
	}
	run, err := m.backupSealed(ctx, s, at, reader.Point(), sealed, backup, opt.Wait)
	// The merge goes on after a restart, and with the next keep.
	if rerr := sealed.Release(m.ctx); rerr != nil {
		m.log.Warn("the layers of a kept session are not merged yet", "session", rec.Name, "err", rerr)
	}
	return run, err
}

// backupSealed makes the point.
func (m *Manager) backupSealed(ctx context.Context, s *session, at *repository, base repo.Point, sealed *redirect.Sealed, b repo.BackupOptions, wait time.Duration) (*repo.Run, error) {
	rec := s.snapshot()
	var err error
	var warnings []string
	if b.Files, warnings, err = m.machineFiles(ctx, &rec); err != nil {
		return nil, err
	}
	_, r, err := m.repositoryOf(ctx, &rec)
	if err != nil {
		return nil, err
	}
	chunkBytes := int64(r.Info().Geometry.ChunkBytes)
	for _, d := range base.Disks {
		view, err := sealed.Disk(d.Name)
		if err != nil {
			return nil, err
		}
		changes := &repo.Changes{Disk: d.Name, Base: string(base.ID), SizeBytes: view.Size()}
		if changes.Ranges, err = changedChunks(view, chunkBytes); err != nil {
			return nil, fmt.Errorf("disk %s: %w", d.Name, err)
		}
		b.Disks = append(b.Disks, repo.SourceDisk{Name: d.Name, Source: view, Format: d.Format, Path: d.Source, Changes: changes})
	}
	run, err := repo.PerformBackup(ctx, at.FS, at.Options, wait, b)
	if err != nil {
		return nil, err
	}
	run.Warnings = append(run.Warnings, briefly(warnings)...)
	kept := Kept{run.Point.ID, run.Point.Machine, run.Point.Time.UTC()}
	if err := s.change(m.opt.State, func(rec *record) { rec.Kept = append(rec.Kept, kept) }); err != nil {
		run.Warnings = append(run.Warnings, err.Error()) // the point is there
	}
	return run, nil
}

// changedChunks lists the chunks of a disk that were written to, one range for
// those that follow each other: however small and many the writes were, it is no
// longer than the disk has chunks.
func changedChunks(v *redirect.View, chunkBytes int64) ([]repo.Range, error) {
	var list []repo.Range
	err := v.Changed(func(off, n int64) error {
		start := off / chunkBytes * chunkBytes
		end := min((off+n+chunkBytes-1)/chunkBytes*chunkBytes, v.Size())
		if last := len(list) - 1; last >= 0 && start <= list[last].Off+list[last].Len {
			list[last].Len = max(list[last].Len, end-list[last].Off)
		} else {
			list = append(list, repo.Range{Off: start, Len: end - start})
		}
		return nil
	})
	return list, err
}

// machineFiles reads what a restore point keeps of a session's directory: the
// configuration and the firmware's variables, as they are now. It warns of what
// the machine would miss.
func (m *Manager) machineFiles(ctx context.Context, rec *record) (files []repo.MachineFile, warnings []string, err error) {
	var list []fs.Entry
	dir, err := m.directory(ctx, rec)
	if err != nil {
		return nil, nil, err
	}
	err = m.store.ReadDir(ctx, dir, 0, func(e fs.Entry) bool { list = append(list, e); return true })
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", rec.Name, err)
	}
	room := int64(repo.MaxMachineFileBytes)
	for _, e := range list {
		switch strings.ToLower(path.Ext(e.Name)) {
		case ".vmx", ".nvram":
		case ".vmdk":
			if !rec.hasFile(e.Name) {
				warnings = append(warnings, fmt.Sprintf("%.100q is not in the point: it is of a snapshot or a disk that the hypervisor made", e.Name))
			}
			continue
		default:
			continue // swap, locks, logs
		}
		attr, err := m.store.Attr(ctx, e.ID)
		if err != nil {
			return nil, nil, err
		}
		if attr.Type != fs.TypeFile || attr.Size > room || len(files) == repo.MaxMachineFiles || repo.CheckName("file", e.Name) != nil {
			warnings = append(warnings, fmt.Sprintf("%.100q is not in the point: a point takes %d files of %d bytes together", e.Name, repo.MaxMachineFiles, repo.MaxMachineFileBytes))
			continue
		}
		room -= attr.Size
		data := make([]byte, attr.Size)
		if n, err := m.store.ReadAt(ctx, e.ID, data, 0); n < len(data) && !errors.Is(err, io.EOF) {
			return nil, nil, fmt.Errorf("read %s: %w", e.Name, err)
		}
		files = append(files, repo.MachineFile{Name: e.Name, Data: data})
	}
	return files, warnings, nil
}

// hasFile says whether a file of the session's directory is of a published disk.
func (r *record) hasFile(name string) bool {
	return slices.ContainsFunc(r.Disks, func(d recordDisk) bool {
		return name == d.File || vmdk.FlatExtentName(name) == d.File
	})
}

// directory finds the session's directory.
func (m *Manager) directory(ctx context.Context, rec *record) (fs.ID, error) {
	attr, err := m.store.Lookup(ctx, m.store.Root(), rec.Name)
	if err != nil {
		return fs.ID{}, fmt.Errorf("find %s: %w", rec.Name, err)
	}
	return attr.ID, nil
}
