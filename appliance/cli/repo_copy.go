package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

// envFromPassphraseFile names the file for the repository that is copied from.
const envFromPassphraseFile = "HOLDFAST_FROM_PASSPHRASE_FILE"

// copySource says where to copy from and which of its points; copy and sync have
// it in common.
type copySource struct {
	dir            string
	passphraseFile string
	machines       []string
	last           int
	since          string
	adopt          bool
	wait           time.Duration
}

func (s *copySource) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVar(&s.machines, "machine", nil, "only points of the machine of this `NAME` or id; may be repeated")
	f.IntVar(&s.last, "last", 0, "only the last `N` of each machine")
	f.StringVar(&s.since, "since", "", "only those made at `TIME` or later: 2006-01-02 or 2006-01-02T15:04, with Z for UTC")
	f.StringVar(&s.passphraseFile, "from-passphrase-file", "", "`FILE` with the passphrase of SRC (or $"+envFromPassphraseFile+"); without, that of DST is tried")
	f.BoolVar(&s.adopt, "adopt", false, "copy machines too whose name another machine has in DST")
	f.DurationVar(&s.wait, "wait", 0, "how long to wait while another process owns DST")
}

// selection checks what was asked for.
func (s *copySource) selection() (sel repo.Selection, err error) {
	switch {
	case s.last < 0:
		return sel, usagef("--last %d is negative", s.last)
	case s.wait < 0:
		return sel, usagef("--wait %s is negative", s.wait)
	}
	sel = repo.Selection{Machines: s.machines, Last: s.last}
	if s.since != "" {
		if sel.Since, err = parseSince(s.since); err != nil {
			return sel, err
		}
	}
	return sel, nil
}

// parseSince reads a moment, local unless a Z follows.
func parseSince(s string) (time.Time, error) {
	text, loc := s, time.Local
	if n := len(s) - 1; n > 0 && s[n] == 'Z' {
		text, loc = s[:n], time.UTC
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, loc); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--since %s: want 2006-01-02, 2006-01-02T15:04 or 2006-01-02T15:04:05, with Z for UTC", s)
}

// readingSource runs fn with the source open for reading, by its own passphrase
// if there is one.
func (a *app) readingSource(ctx context.Context, s *copySource, fn func(*repo.Repository) error) (err error) {
	d, err := openDir(s.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // nothing was written through it
	opt, err := a.openOptions()
	if err != nil {
		return err
	}
	name := s.passphraseFile
	if name == "" {
		name = os.Getenv(envFromPassphraseFile)
	}
	if name != "" {
		if opt.Passphrase, err = readPassphrase(name); err != nil {
			return err
		}
	}
	src, err := repo.Open(ctx, d, opt)
	if errors.Is(err, repo.ErrNeedKey) && a.interactive() {
		if opt.Passphrase, err = a.ask("Passphrase of " + s.dir + ": "); err != nil {
			return err
		}
		src, err = repo.Open(ctx, d, opt)
	}
	if errors.Is(err, repo.ErrNeedKey) || errors.Is(err, repo.ErrWrongKey) {
		err = withHint(err, "--from-passphrase-file names the passphrase of %s", s.dir)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	return fn(src)
}

type copyOptions struct {
	from   copySource
	dst    string
	points []string
}

func newRepoCopy(a *app) *cobra.Command {
	var opt copyOptions
	cmd := &cobra.Command{
		Use:   "copy SRC DST [POINT…]",
		Short: "Copy restore points to another repository",
		Long: `Copy restore points of the repository SRC to the repository DST: those named, or
all. A copy has the id, the time, the names and every byte of its point. What
DST has already is neither read nor sent, so copying a machine again costs what
changed. SRC is only read, and may be written meanwhile.

The two may differ in everything: one sealed and the other not, other keys,
other chunks. If both are plain and have chunks of one size, records are taken
over as they are; else they are read, and stored as a backup stores them.

Everything is verified on the way. A point of which SRC has lost something is
named and not copied; the others are. What an interrupted copy has stored is
found by the next one.`,
		Example: `  holdfast repo copy /srv/backup /mnt/usb
  holdfast repo copy /srv/backup /mnt/usb --machine db1 --last 3
  holdfast repo copy /mnt/usb /srv/backup db1@2026-11-22
  holdfast repo copy /srv/backup /mnt/usb --from-passphrase-file /root/backup.pass \
    --passphrase-file /root/usb.pass`,
		Args: takes(true, "SRC", "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.from.dir, opt.dst, opt.points = args[0], args[1], args[2:]
			outlivePipes()
			return a.repoCopy(cmd.Context(), opt)
		},
	}
	opt.from.flags(cmd)
	return cmd
}

func (a *app) repoCopy(ctx context.Context, opt copyOptions) error {
	sel, err := opt.from.selection()
	if err != nil {
		return err
	}
	if len(opt.points) > 0 && (len(opt.from.machines) > 0 || opt.from.last > 0 || opt.from.since != "") {
		return usagef("either name points, or choose them by --machine, --last and --since")
	}
	return a.readingSource(ctx, &opt.from, func(src *repo.Repository) error {
		ids, err := pickPoints(ctx, src, sel, opt.points)
		if err != nil {
			return err
		}
		return a.owning(ctx, opt.dst, "copy from "+opt.from.dir, opt.from.wait, func(dst *repo.Owner) error {
			bar := &copyBar{app: a}
			rep, err := dst.Copy(ctx, src, ids, repo.CopyOptions{Adopt: opt.from.adopt, Actor: actor(), Progress: bar.at})
			bar.end(err == nil)
			return errors.Join(a.printCopy(rep, err == nil), err)
		})
	})
}

// pickPoints returns the ids of the points named, or of those selected.
func pickPoints(ctx context.Context, src *repo.Repository, sel repo.Selection, specs []string) (ids []repo.PointID, err error) {
	for _, spec := range specs {
		p, err := src.Find(ctx, spec, time.Local)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, p.ID) {
			ids = append(ids, p.ID)
		}
	}
	if len(specs) > 0 {
		return ids, nil
	}
	points, err := src.Points(ctx)
	if err == nil {
		points, err = sel.Of(points)
	}
	for _, p := range points {
		ids = append(ids, p.ID)
	}
	return ids, err
}

// copyBar is the meter of a copy, which knows its total from the first report on.
type copyBar struct {
	app   *app
	meter *meter
}

func (b *copyBar) at(p repo.CopyProgress) {
	if b.meter == nil {
		b.meter = b.app.progress("copy", p.TotalBytes)
	}
	b.meter.at(p.DoneBytes)
}

func (b *copyBar) end(complete bool) { b.meter.end(complete) }

type copyListing struct {
	Schema      string         `json:"schema"`
	Copied      []pointListing `json:"copied"`
	Recalled    []pointListing `json:"recalled"`
	Present     int            `json:"present"`
	Damaged     []damageEntry  `json:"damaged"`
	Records     int64          `json:"records"`
	Encoded     int64          `json:"encoded"`
	ReadBytes   int64          `json:"readBytes"`
	StoredBytes int64          `json:"storedBytes"`
	PackBytes   int64          `json:"packBytes"`
	Seconds     float64        `json:"seconds"`
	Warnings    []string       `json:"warnings"`
}

type damageEntry struct {
	Point string `json:"point"`
	Error string `json:"error"`
}

// printCopy says what was copied, also before it failed.
func (a *app) printCopy(r repo.CopyReport, done bool) error {
	if a.json {
		if !done {
			return nil // the error is the one object
		}
		l := listCopy(r)
		l.Schema = "holdfast.copy/1"
		return a.printJSON(l)
	}
	for _, w := range r.Warnings {
		a.warn("%s", w)
	}
	for _, d := range r.Damaged {
		a.warn("point %s of %s, number %d, is not copied: %v", d.Point.ID, d.Point.Machine, d.Point.Sequence, d.Err)
	}
	for _, p := range r.Copied {
		if a.quiet {
			fmt.Fprintln(a.out, p.ID)
		} else {
			a.say("Point %s of %s: %s, %s", p.ID, p.Machine, kindOf(p), formatSize(p.SizeBytes()))
		}
	}
	for _, p := range r.Recalled {
		a.say("Point %s of %s: had expired and was there still, recalled", p.ID, p.Machine)
	}
	a.say("%d copied, %d there already", len(r.Copied), r.Present)
	if len(r.Copied) > 0 {
		a.say("  read      %s of the source", formatSize(r.Read))
		a.say("  stored    %s, with parity %s; %d chunks as they were, %d anew", formatSize(r.Stored), formatSize(r.Packs), r.Records, r.Encoded)
		a.say("  took      %s", r.Duration.Round(time.Millisecond))
	}
	return nil
}

func listCopy(r repo.CopyReport) copyListing {
	l := copyListing{
		Copied: listPoints(r.Copied), Recalled: listPoints(r.Recalled), Present: r.Present, Damaged: []damageEntry{}, Records: r.Records, Encoded: r.Encoded,
		ReadBytes: r.Read, StoredBytes: r.Stored, PackBytes: r.Packs, Seconds: r.Duration.Seconds(), Warnings: nonNil(r.Warnings),
	}
	for _, d := range r.Damaged {
		l.Damaged = append(l.Damaged, damageEntry{string(d.Point.ID), d.Err.Error()})
	}
	return l
}
