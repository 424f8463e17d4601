package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/image"
	"holdfast/repo"
	"holdfast/repo/seal"
)

type backupOptions struct {
	dir           string
	disks         []string
	files         []string
	machine       string
	machineID     string
	adopt         bool
	full          bool
	changed       string
	requireChange bool
	compression   string
	format        string
	wait          time.Duration
}

func newRepoBackup(a *app) *cobra.Command {
	var opt backupOptions
	cmd := &cobra.Command{
		Use:   "backup DIR --machine NAME DISK…",
		Short: "Back up the disks of a machine as one restore point",
		Long: `Back up the disks of a machine as one restore point. DISK is a file in one of
the formats ` + strings.Join(image.Formats(), ", ") + `, or a block device: PATH, whose disk is called by
the file's base name, or NAME=PATH. The format is detected; a block device is
raw. A disk meets its parent, the disk of the point before, by its name.

A run that fails or is interrupted makes no point. What it stored stays, and the
next run need not store it again.

--changed FILE names what may have changed since the machine's latest point, in
bytes, so that nothing else is read:

  base POINT-OR-CHANGE-ID size BYTES [disk NAME] [change CHANGE-ID]
  OFFSET LENGTH
  …

Each disk has such a part, with its name if there are several; a name with
blanks stands in double quotes. POINT is the whole id of the latest point, and
CHANGE-ID one that a list had as its "change" when that point was made. Where a
list does not fit, everything is read and that is said.

--file keeps a small file with the point, as the machine's .vmx and .nvram: with
them "holdfast nfs publish" runs it as it was. All of them have 1 MiB at most.`,
		Example: `  holdfast repo backup /srv/backup --machine db1 /dev/vg0/db1
  holdfast repo backup /srv/backup --machine web1 root=/vm/web1.qcow2 data=/vm/web1-data.vmdk
  holdfast repo backup /srv/backup --machine web1 --file /vm/web1.vmx --file /vm/web1.nvram /vm/web1.vmdk
  holdfast repo backup /srv/backup --machine db1 /dev/vg0/db1 --changed /run/db1.changed`,
		Args: takes(true, "DIR", "DISK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.disks = args[0], args[1:]
			outlivePipes()
			return a.repoBackup(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.machine, "machine", "", "`NAME` of the machine")
	f.StringVar(&opt.machineID, "machine-id", "", "its stable `ID`; default the one known under its name")
	f.BoolVar(&opt.adopt, "adopt", false, "continue the machine's points although its id is another")
	f.BoolVar(&opt.full, "full", false, "read everything and trust neither the parent nor a change list")
	f.StringArrayVar(&opt.files, "file", nil, "`PATH` of a small file to keep with the point, or NAME=PATH; may be repeated")
	f.StringVar(&opt.changed, "changed", "", "`FILE` that says what changed")
	f.BoolVar(&opt.requireChange, "require-changed", false, "fail where the change list does not fit")
	f.StringVar(&opt.format, "format", "", "`FORMAT` of the files, instead of detecting it")
	f.StringVar(&opt.compression, "compression", "", "auto, none, s2, zstd or dense; default the repository's")
	f.DurationVar(&opt.wait, "wait", 0, "how long to wait while another process owns the repository")
	return cmd
}

func (a *app) repoBackup(ctx context.Context, opt backupOptions) error {
	args, err := parseDisks(opt.disks)
	if err != nil {
		return err
	}
	run, err := a.backupRun(opt)
	if err != nil {
		return err
	}
	if run.Files, err = readMachineFiles(opt.files); err != nil {
		return err
	}
	var total int64
	for _, arg := range args {
		d, err := image.Open(arg.path, image.Options{Format: opt.format, DropCache: true})
		if err != nil {
			return err
		}
		defer d.Close() //nolint:errcheck // it was only read
		total += d.Size()
		run.Disks = append(run.Disks, repo.SourceDisk{Name: arg.name, Source: d, Format: image.FormatOf(d), Path: arg.path})
	}
	warnings, err := readChanges(opt, run.Disks)
	if err != nil {
		return err
	}
	return a.owning(ctx, opt.dir, "backup of "+opt.machine, opt.wait, func(o *repo.Owner) error {
		bar := a.progress("backup of "+opt.machine, total)
		run.Progress = func(p repo.Progress) { bar.at(p.DoneBytes) }
		r, err := o.Backup(ctx, run)
		bar.end(err == nil)
		if err != nil {
			return err
		}
		r.Warnings = append(warnings, r.Warnings...)
		return a.printRun(r)
	})
}

// backupRun checks what was asked for, as far as it needs no file.
func (a *app) backupRun(opt backupOptions) (repo.BackupOptions, error) {
	run := repo.BackupOptions{
		Machine: opt.machine, MachineID: opt.machineID, Adopt: opt.adopt, Actor: actor(),
		Full: opt.full, RequireChanged: opt.requireChange, Compression: seal.Compression(opt.compression),
	}
	switch {
	case opt.machine == "":
		return run, usagef("--machine is missing")
	case opt.full && opt.changed != "":
		return run, usagef("--full trusts no change list: --changed has no use")
	case opt.requireChange && opt.changed == "":
		return run, usagef("--require-changed without --changed")
	case opt.wait < 0:
		return run, usagef("--wait %s is negative", opt.wait)
	}
	if err := repo.CheckName("machine", opt.machine); err != nil {
		return run, err
	}
	if opt.format != "" && !slices.Contains(image.Formats(), opt.format) {
		return run, usagef("--format %s: want %s", opt.format, strings.Join(image.Formats(), ", "))
	}
	if opt.compression != "" {
		if _, err := seal.ParseCompression(opt.compression); err != nil {
			return run, &usageError{fmt.Errorf("--compression: %w", err)}
		}
	}
	return run, nil
}

// readMachineFiles reads what is kept with a point beside its disks.
func readMachineFiles(args []string) ([]repo.MachineFile, error) {
	var files []repo.MachineFile
	for _, arg := range args {
		named := parseDisk(arg)
		if named.path == "" {
			return nil, usagef("%q names no file", arg)
		}
		f, err := os.Open(named.path)
		if err != nil {
			return nil, fmt.Errorf("read a file of the machine: %w", err)
		}
		data, err := io.ReadAll(io.LimitReader(f, repo.MaxMachineFileBytes+1))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("read a file of the machine: %w", err)
		}
		files = append(files, repo.MachineFile{Name: named.name, Data: data})
	}
	return files, nil
}

// actor is who asks, for the record.
func actor() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// readChanges gives each disk its part of the change list. A list that is bad,
// or has a part for a disk that is not backed up, is worth a warning and leaves
// the disks without, unless it is required.
func readChanges(opt backupOptions, disks []repo.SourceDisk) (warnings []string, err error) {
	if opt.changed == "" {
		return nil, nil
	}
	f, err := os.Open(opt.changed)
	if err != nil {
		return nil, fmt.Errorf("read the change list: %w", err)
	}
	defer f.Close()
	set, err := repo.ParseChanges(f)
	if err == nil {
		err = assignChanges(set, disks)
	}
	switch {
	case err == nil:
		return nil, nil
	case opt.requireChange || !errors.Is(err, repo.ErrChanges):
		return nil, fmt.Errorf("read %s: %w", opt.changed, err)
	}
	for i := range disks {
		disks[i].Changes = nil
	}
	return []string{fmt.Sprintf("everything was read: %s: %v", opt.changed, err)}, nil
}

func assignChanges(set *repo.ChangeSet, disks []repo.SourceDisk) error {
	for i := range set.Disks {
		c := &set.Disks[i]
		found := false
		for j := range disks {
			if disks[j].Name == c.Disk || (c.Disk == "" && len(disks) == 1) {
				disks[j].Changes, found = c, true
			}
		}
		if !found && c.Disk == "" {
			return withHint(fmt.Errorf("%w: it does not say which disk", repo.ErrChanges), `add "disk NAME" to the line that begins with "base"`)
		}
		if !found {
			return fmt.Errorf("%w: disk %q is not among those backed up", repo.ErrChanges, c.Disk)
		}
	}
	return nil
}

type runListing struct {
	Schema   string       `json:"schema"`
	Point    pointListing `json:"point"`
	Head     headListing  `json:"ledgerHead"`
	Seconds  float64      `json:"seconds"`
	Disks    []diskRun    `json:"disks"`
	Warnings []string     `json:"warnings"`
}

type diskRun struct {
	Name     string        `json:"name"`
	Mode     repo.ReadMode `json:"mode"`
	Reason   string        `json:"reason"`
	Counters repo.Counters `json:"counters"`
}

func (a *app) printRun(r *repo.Run) error {
	if a.json {
		l := runListing{Schema: "holdfast.run/1", Point: listPoint(r.Point), Head: listHead(r.Head), Seconds: r.Duration.Seconds(), Warnings: nonNil(r.Warnings)}
		for _, d := range r.Disks {
			l.Disks = append(l.Disks, diskRun(d))
		}
		return a.printJSON(l)
	}
	for _, w := range r.Warnings {
		a.warn("%s", w)
	}
	p, c := r.Point, r.Point.Counters
	a.say("Point %s of %s: %s, %s", p.ID, p.Machine, kindOf(p), formatSize(p.SizeBytes()))
	a.say("  read      %s", formatSize(c.ReadBytes))
	a.say("  holes     %s not read, %s zeros", formatSize(c.HoleBytes), formatSize(c.ZeroBytes))
	a.say("  same      %s as before, %s not read, %s stored already", formatSize(c.UnchangedBytes), formatSize(c.SharedBytes), formatSize(c.KnownBytes))
	a.say("  new       %s, stored in %s, with parity %s", formatSize(c.NewBytes), formatSize(c.StoredBytes), formatSize(c.PackBytes))
	a.say("  ledger    head %d %s", r.Head.Number, r.Head.Sum)
	a.say("  took      %s, %s/s", r.Duration.Round(time.Millisecond), formatSize(perSecond(p.SizeBytes(), r.Duration)))
	if a.quiet {
		_, err := fmt.Fprintln(a.out, p.ID)
		return err
	}
	return nil
}

func perSecond(n int64, d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64(float64(n) / d.Seconds())
}
