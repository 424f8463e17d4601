package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type restoreOptions struct {
	dir    string
	point  string
	disk   string // empty: all
	to     string
	format string
	force  bool
}

func newRepoRestore(a *app) *cobra.Command {
	var opt restoreOptions
	cmd := &cobra.Command{
		Use:   "restore DIR POINT[:DISK] --to PATH",
		Short: "Restore the disks of a point",
		Long: `Restore the disks of a restore point. POINT is an id, the start of one (four
characters or more), MACHINE@latest, or MACHINE@2026-11-22 or
MACHINE@2026-11-22T10:30: the last point at or before the end of that day or
minute, local time unless Z follows. A point's name in "holdfast mount" will do
behind the @, too.

One disk goes to the file or block device PATH, or into PATH when that is a
directory; several disks go into the directory PATH, which is made. Formats are
  raw        the bytes of the disk; a file is sparse
  vmdk       streamOptimized: compressed, so the smallest, for import and OVF
  vmdk-flat  monolithicFlat: a descriptor, and the bytes beside it, sparse
  vhdx       dynamic, for Hyper-V, sparse
  qcow2      version 3, for QEMU and KVM, sparse

Every byte is verified before it is written. The file gets its name when it is
complete; a block device has no first MiB until then. What exists is overwritten
with --force only.`,
		Example: `  holdfast repo restore /srv/backup db1@latest --to /tmp/db1.raw
  holdfast repo restore /srv/backup db1@2026-11-22:data --to /dev/vg0/db1 --force
  holdfast repo restore /srv/backup 4f6q --to /tmp/db1.vmdk --format vmdk
  holdfast repo restore /srv/backup web1@latest --to /vm/web1 --format qcow2`,
		Args: takes(false, "DIR", "POINT[:DISK]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			opt.point, opt.disk = splitPoint(args[1])
			outlivePipes()
			return a.repoRestore(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.to, "to", "", "`PATH` of the file, block device or directory")
	f.StringVar(&opt.format, "format", "", strings.Join(targetFormatNames(), ", ")+"; default raw")
	f.BoolVar(&opt.force, "force", false, "overwrite what exists")
	return cmd
}

// restoreTask is one disk on its way to its target.
type restoreTask struct {
	disk   *repo.Disk
	path   string
	target target
	result repo.RestoreResult
}

func (a *app) repoRestore(ctx context.Context, opt restoreOptions) error {
	if opt.to == "" {
		return usagef("--to is missing")
	}
	format, err := findTargetFormat(opt.format, opt.to)
	if err != nil {
		return err
	}
	return a.reading(ctx, opt.dir, func(r *repo.Repository) (err error) {
		began := time.Now()
		p, err := r.Find(ctx, opt.point, time.Local)
		if err != nil {
			return err
		}
		reader, err := r.OpenPoint(p.ID)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, reader.Close()) }()
		tasks, into, err := restoreTasks(reader, opt, format)
		if err != nil {
			return err
		}
		made, err := makeTargetDir(into)
		if err != nil {
			return err
		}
		if err := a.runRestore(ctx, p, tasks, format, opt.force); err != nil {
			if made {
				err = errors.Join(err, os.Remove(into))
			}
			return err
		}
		return a.printRestore(p, tasks, format, time.Since(began))
	})
}

// restoreTasks says which disks go where; into is the directory they go into,
// "" when the target is a file.
func restoreTasks(reader *repo.Reader, opt restoreOptions, format targetFormat) (tasks []*restoreTask, into string, err error) {
	p := reader.Point()
	names := []string{opt.disk}
	if opt.disk == "" {
		names = nil
		for _, d := range p.Disks {
			names = append(names, d.Name)
		}
	}
	if info, err := os.Stat(opt.to); len(names) > 1 || strings.HasSuffix(opt.to, "/") || (err == nil && info.IsDir()) {
		into = filepath.Clean(opt.to)
	}
	files := fileNames(names, format.ext)
	for i, name := range names {
		d, err := reader.Disk(name)
		if err != nil {
			return nil, "", err
		}
		t := &restoreTask{disk: d, path: opt.to}
		if into != "" {
			t.path = filepath.Join(into, files[i])
		}
		tasks = append(tasks, t)
	}
	return tasks, into, distinct(tasks, format)
}

// distinct refuses tasks that would write the same file, as the disks "a" and
// "a-flat" do in a format that puts the bytes of a.vmdk into a-flat.vmdk.
func distinct(tasks []*restoreTask, format targetFormat) error {
	taken := make(map[string]string)
	for _, t := range tasks {
		name, files := t.disk.Info().Name, []string{t.path}
		if format.beside != nil {
			files = append(files, format.beside(t.path))
		}
		for _, file := range files {
			if other, dup := taken[file]; dup {
				return withHint(fmt.Errorf("disks %s and %s would both be in %s", other, name, file), "POINT:DISK restores one")
			}
			taken[file] = name
		}
	}
	return nil
}

// fileNames gives each disk the name of a file of its own. A disk that is
// called like the file it came from does not keep that file's extension, unless
// two would then be the same.
func fileNames(disks []string, ext string) []string {
	var files []string
	seen := make(map[string]bool)
	same := false
	for _, d := range disks {
		if e := filepath.Ext(d); isImageExt(e) && e != d {
			d = strings.TrimSuffix(d, e)
		}
		same = same || seen[d]
		seen[d] = true
		files = append(files, d+ext)
	}
	if same {
		for i, d := range disks {
			files[i] = d + ext
		}
	}
	return files
}

// makeTargetDir makes the directory for several disks; made says whether it
// was not there before.
func makeTargetDir(dir string) (made bool, err error) {
	if dir == "" {
		return false, nil
	}
	err = os.Mkdir(dir, 0o750)
	if errors.Is(err, fs.ErrExist) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = withHint(fmt.Errorf("%s is not a directory", dir), "several disks go into a directory; POINT:DISK restores one")
		}
		return false, err
	}
	return err == nil, err
}

// runRestore checks all targets, writes all disks, and then names them all.
func (a *app) runRestore(ctx context.Context, p repo.Point, tasks []*restoreTask, format targetFormat, force bool) (err error) {
	var total int64
	defer func() {
		if err != nil {
			for _, t := range tasks {
				if t.target != nil {
					err = errors.Join(err, t.target.discard())
				}
			}
		}
	}()
	for _, t := range tasks {
		if t.target, err = newTarget(t.path, format, t.disk.Size(), force); err != nil {
			return err
		}
		total += t.disk.Size()
	}
	bar := a.progress("restore of "+p.Machine, total)
	defer func() { bar.end(err == nil) }()
	var before int64
	for _, t := range tasks {
		t.result, err = t.target.restore(ctx, t.disk, func(done int64) { bar.at(before + done) })
		if err != nil {
			return fmt.Errorf("restore disk %s: %w", t.disk.Info().Name, err)
		}
		before += t.disk.Size()
	}
	for _, t := range tasks {
		if err := t.target.place(); err != nil {
			return err
		}
	}
	return nil
}

type restoreListing struct {
	Schema  string            `json:"schema"`
	Point   string            `json:"point"`
	Machine string            `json:"machine"`
	Seconds float64           `json:"seconds"`
	Disks   []restoredListing `json:"disks"`
}

type restoredListing struct {
	Name         string `json:"name"`
	Path         string `json:"path"`
	Format       string `json:"format"`
	SizeBytes    int64  `json:"sizeBytes"`
	WrittenBytes int64  `json:"writtenBytes"`
	StoredBytes  int64  `json:"storedBytes,omitempty"` // read from packs; not counted for vmdk
}

func (a *app) printRestore(p repo.Point, tasks []*restoreTask, format targetFormat, took time.Duration) error {
	l := restoreListing{Schema: "holdfast.restore/1", Point: string(p.ID), Machine: p.Machine, Seconds: took.Seconds()}
	var size int64
	for _, t := range tasks {
		size += t.disk.Size()
		l.Disks = append(l.Disks, restoredListing{t.disk.Info().Name, t.path, format.name, t.disk.Size(), t.result.WrittenBytes, t.result.StoredBytes})
	}
	if a.json {
		return a.printJSON(l)
	}
	a.say("Restored point %s of %s", p.ID, p.Machine)
	for _, d := range l.Disks {
		a.say("  disk %s to %s: %s %s, written %s%s", d.Name, d.Path, formatSize(d.SizeBytes), d.Format, formatSize(d.WrittenBytes), fromPacks(d.StoredBytes))
	}
	a.say("  took %s, %s/s", took.Round(time.Millisecond), formatSize(perSecond(size, took)))
	return nil
}

func fromPacks(n int64) string {
	if n == 0 {
		return ""
	}
	return ", read " + formatSize(n) + " of packs"
}
