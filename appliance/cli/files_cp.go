package cli

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/fs/extract"
	"holdfast/repo"
)

type filesCpOptions struct {
	dir, point string
	paths      []string
	to         string
	archive    bool
	force      bool
	devices    bool
	setID      bool
}

func newFilesCp(a *app) *cobra.Command {
	var opt filesCpOptions
	cmd := &cobra.Command{
		Use:   "cp DIR POINT PATH... TARGET",
		Short: "Copy files and directories out of a point",
		Long: `Copy files and directories to TARGET on this machine: into it if it is a
directory, ends in "/" or several PATHs are given, else under that name. The top of
a volume is copied as TARGET itself. Directories come with all that is in them;
those that exist are filled. Holes stay holes.

With -a modes, owners (as root), times, extended attributes, hard links and FIFOs
are kept, and alternate streams of NTFS up to 64 KiB as attributes user.stream.NAME.
Set-user-ID bits and capabilities are left out without --suid, device
nodes without --devices, which needs root.

Names come from the guest, places do not: nothing is written outside TARGET, no
symbolic link there is followed, and what exists is replaced with --force only. A
file gets its name when it is complete. What can't be read is named and left out,
and the exit code is then 1.`,
		Example: `  holdfast files cp /srv/backup db1@latest /etc/fstab .
  holdfast files cp /srv/backup db1@2026-11-22 -a /var/lib/postgresql /srv/rescue/
  holdfast files cp /srv/backup web1@latest c.vhdx/2/Users/ann /tmp/ann`,
		Args: takes(true, "DIR", "POINT", "PATH", "TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			last := len(args) - 1
			opt.dir, opt.point, opt.paths, opt.to = args[0], args[1], args[2:last], args[last]
			if opt.devices && !opt.archive {
				return usagef("--devices needs --archive")
			}
			outlivePipes()
			return a.filesCp(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&opt.archive, "archive", "a", false, "keep modes, owners, times, extended attributes and hard links")
	f.BoolVar(&opt.force, "force", false, "replace files that exist")
	f.BoolVar(&opt.setID, "suid", false, "keep set-user-ID and set-group-ID bits, and capabilities")
	f.BoolVar(&opt.devices, "devices", false, "make device nodes")
	return cmd
}

// cpListing says what a copy or an export did.
type cpListing struct {
	Schema     string  `json:"schema"`
	Point      string  `json:"point"`
	To         string  `json:"to"`
	Seconds    float64 `json:"seconds"`
	Files      int     `json:"files"`
	Dirs       int     `json:"dirs"`
	Links      int     `json:"links"`
	HardLinks  int     `json:"hardLinks"`
	Others     int     `json:"others"`
	Bytes      int64   `json:"bytes"`
	Failed     int     `json:"failed"`
	LeftOut    int     `json:"leftOut"`    // device nodes, FIFOs and sockets
	Stripped   int     `json:"stripped"`   // of set-user-ID bits or capabilities
	Attributes int     `json:"attributes"` // that the target did not take
	Streams    int     `json:"streams"`    // alternate ones, left out
}

func (a *app) filesCp(ctx context.Context, opt filesCpOptions) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		return a.inPoint(ctx, r, opt.point, func(vs *volumes) error {
			began := time.Now()
			// All is found before anything is made.
			var sources []*found
			for _, path := range opt.paths {
				f, err := vs.find(ctx, path, !opt.archive || strings.HasSuffix(path, "/"))
				if err != nil {
					return err
				}
				sources = append(sources, f)
			}
			into, err := intoDir(opt.to, len(sources))
			if err != nil {
				return err
			}
			m := a.copying("copy", "files cp")
			var sum extract.Totals
			for i, f := range sources {
				n, err := a.copyOne(ctx, f, opt.paths[i], opt.to, into, m.options(extract.Options{
					Attributes: opt.archive, Replace: opt.force, Devices: opt.devices, SetID: opt.setID,
				}))
				if sum = addTotals(sum, n); err != nil {
					m.bar.end(false)
					return err
				}
				m.before = sum.Bytes
			}
			m.bar.end(true)
			return a.printCopied(vs, "Copied", opt.to, sum, time.Since(began))
		})
	})
}

// intoDir says whether what is copied goes into a directory, which is made if
// it must be one.
func intoDir(to string, sources int) (bool, error) {
	info, err := os.Stat(to)
	switch {
	case err == nil && info.IsDir():
		return true, nil
	case err == nil && (sources > 1 || strings.HasSuffix(to, "/")):
		return false, fmt.Errorf("%s is not a directory", to)
	case err != nil && !errors.Is(err, iofs.ErrNotExist):
		return false, err
	case sources > 1 || strings.HasSuffix(to, "/"):
		return true, os.Mkdir(filepath.Clean(to), 0o750)
	}
	return false, nil
}

// copyOne copies one PATH, called arg, to the directory or name to.
func (a *app) copyOne(ctx context.Context, f *found, arg, to string, into bool, opt extract.Options) (n extract.Totals, err error) {
	name := f.base()
	dir := to
	switch {
	case name == "" && !into:
		if err := os.Mkdir(to, 0o750); err != nil {
			return n, err
		}
	case !into:
		dir, name = filepath.Split(filepath.Clean(to))
		dir = filepath.Clean(dir + ".")
	}
	d, err := extract.OpenDir(dir)
	if err != nil {
		return n, err
	}
	defer d.Close() //nolint:errcheck // nothing is written through it
	// The one file that was asked for: why it can't be had is the error.
	if !f.attr.IsDir() {
		opt.Failed = nil
	}
	n, err = extract.Copy(ctx, f.tree, f.attr, f.shown(f.path), d, name, opt)
	if errors.Is(err, iofs.ErrExist) {
		err = withHint(err, "--force replaces files that exist")
	}
	return n, err
}

// base is the last name of the path, "" for the top of a volume.
func (f *found) base() string {
	if f.attr.ID == f.tree.Root() {
		return ""
	}
	path := strings.TrimRight(f.path, "/")
	name := path[strings.LastIndexByte(path, '/')+1:]
	if name == "." || name == ".." {
		return "" // its content goes where it is asked for
	}
	return name
}

func addTotals(a, b extract.Totals) extract.Totals {
	return extract.Totals{
		Files: a.Files + b.Files, Dirs: a.Dirs + b.Dirs, Links: a.Links + b.Links, HardLinks: a.HardLinks + b.HardLinks,
		Others: a.Others + b.Others, Bytes: a.Bytes + b.Bytes, Failed: a.Failed + b.Failed, Unmade: a.Unmade + b.Unmade,
		Stripped: a.Stripped + b.Stripped, Attributes: a.Attributes + b.Attributes, Streams: a.Streams + b.Streams,
	}
}

// copying shows how far a copy is, and what it leaves out.
type copying struct {
	app    *app
	verb   string
	bar    *meter
	before int64 // bytes of earlier PATHs
}

func (a *app) copying(what, verb string) *copying {
	return &copying{app: a, verb: verb, bar: a.progress(what, unknownTotal)}
}

func (c *copying) options(opt extract.Options) extract.Options {
	opt.Progress = func(n extract.Totals) { c.bar.at(c.before + n.Bytes) }
	opt.Failed = func(path string, err error) error {
		c.app.failure(c.verb, path, err)
		return nil
	}
	return opt
}

// printCopied says what was done, and that something failed.
func (a *app) printCopied(vs *volumes, did, to string, n extract.Totals, took time.Duration) error {
	if a.json {
		l := cpListing{
			Schema: "holdfast.copied/1", Point: string(vs.reader.Point().ID), To: to, Seconds: took.Seconds(),
			Files: n.Files, Dirs: n.Dirs, Links: n.Links, HardLinks: n.HardLinks, Others: n.Others, Bytes: n.Bytes,
			Failed: n.Failed, LeftOut: n.Unmade, Stripped: n.Stripped, Attributes: n.Attributes, Streams: n.Streams,
		}
		if err := a.printJSON(l); err != nil {
			return err
		}
	} else {
		a.say("%s %d files in %d directories to %s: %s, %s/s", did, n.Files+n.HardLinks+n.Links+n.Others, n.Dirs, to, formatSize(n.Bytes), formatSize(perSecond(n.Bytes, took)))
		for _, note := range []struct {
			n    int
			text string
		}{
			{n.Unmade, "device nodes, FIFOs and sockets were left out"},
			{n.Stripped, "files lost their set-user-ID bit or capabilities; --suid keeps them"},
			{n.Attributes, "owners and attributes were not taken there"},
			{n.Streams, "alternate streams are too long for an attribute; \"files cat PATH:STREAM\" reads one"},
		} {
			if note.n > 0 {
				a.say("  %d %s", note.n, note.text)
			}
		}
	}
	if n.Failed > 0 {
		return fmt.Errorf("%d files or directories are left out because of errors", n.Failed)
	}
	return nil
}
