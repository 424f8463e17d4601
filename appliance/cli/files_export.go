package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"holdfast/fs/extract"
	"holdfast/repo"
)

type filesExportOptions struct {
	dir, point string
	paths      []string
	tar, zip   bool
	to         string // empty: standard output
	force      bool
	devices    bool
	setID      bool
}

func newFilesExport(a *app) *cobra.Command {
	var opt filesExportOptions
	cmd := &cobra.Command{
		Use:   "export DIR POINT PATH... --tar|--zip",
		Short: "Write files and directories as a tar or zip",
		Long: `Write files and directories as a tar or zip, to standard output or to a file. It is
written as it is read; nothing is kept in between. Each PATH is under its last name;
the content of a volume's top is at the top.

A tar has modes, owners, times, extended attributes, symbolic and hard links, and
names as bytes. A zip has modes and times; a backslash in a name, which is none to
Windows, stands there as %5C. Set-user-ID bits and capabilities are left
out without --suid, device nodes without --devices. What can't be read is named and
left out, and the exit code is then 1; a file that breaks off in its middle ends it.`,
		Example: `  holdfast files export /srv/backup db1@latest /etc /home --tar --to db1.tar
  holdfast files export /srv/backup db1@latest /var/www --tar | ssh web1 tar -xp -C /
  holdfast files export /srv/backup web1@latest c.vhdx/2/Users/ann --zip --to ann.zip`,
		Args: takes(true, "DIR", "POINT", "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.point, opt.paths = args[0], args[1], args[2:]
			if opt.tar == opt.zip {
				return usagef("want --tar or --zip")
			}
			return a.filesExport(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&opt.tar, "tar", false, "write a tar")
	f.BoolVar(&opt.zip, "zip", false, "write a zip")
	f.StringVar(&opt.to, "to", "", "`FILE` to write, instead of standard output")
	f.BoolVar(&opt.force, "force", false, "replace the file if it exists")
	f.BoolVar(&opt.setID, "suid", false, "keep set-user-ID and set-group-ID bits, and capabilities")
	f.BoolVar(&opt.devices, "devices", false, "with device nodes")
	return cmd
}

func (a *app) filesExport(ctx context.Context, opt filesExportOptions) error {
	if out, ok := a.out.(*os.File); ok && opt.to == "" && term.IsTerminal(int(out.Fd())) {
		return withHint(usagef("an archive is nothing for a terminal"), "--to FILE, or a pipe")
	}
	if opt.to == "" && a.json {
		return usagef("--json needs --to FILE: standard output is the archive")
	}
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		return a.inPoint(ctx, r, opt.point, func(vs *volumes) error {
			began := time.Now()
			var sources []*found
			for _, path := range opt.paths {
				f, err := vs.find(ctx, path, false)
				if err != nil {
					return err
				}
				sources = append(sources, f)
			}
			if err := distinctNames(sources); err != nil {
				return err
			}
			out, place, err := a.exportTo(opt)
			if err != nil {
				return err
			}
			n, err := a.export(ctx, opt, sources, out)
			if err := place(err); err != nil {
				return err
			}
			if opt.to == "" {
				if n.Failed > 0 {
					return fmt.Errorf("%d files or directories are left out because of errors", n.Failed)
				}
				return nil
			}
			return a.printCopied(vs, "Exported", opt.to, n, time.Since(began))
		})
	})
}

// distinctNames refuses two PATHs that would have the same name in the archive.
func distinctNames(sources []*found) error {
	taken := make(map[string]string)
	for _, f := range sources {
		name := f.base()
		if other, dup := taken[name]; dup && name != "" {
			return usagef("%s and %s would both be %s", other, f.shown(f.path), name)
		}
		taken[name] = f.shown(f.path)
	}
	return nil
}

// exportTo opens where the archive goes. place gives it its name, unless err
// says that it is not complete.
func (a *app) exportTo(opt filesExportOptions) (out io.Writer, place func(err error) error, err error) {
	if opt.to == "" {
		return a.out, func(err error) error { return err }, nil
	}
	if _, err := os.Lstat(opt.to); err == nil && !opt.force {
		return nil, nil, existsError(opt.to)
	}
	s, err := stage(opt.to, opt.force)
	if err != nil {
		return nil, nil, err
	}
	return s, func(err error) error {
		if err == nil {
			err = s.Sync()
		}
		if err != nil {
			return errors.Join(err, s.discard())
		}
		return s.place()
	}, nil
}

func (a *app) export(ctx context.Context, opt filesExportOptions, sources []*found, out io.Writer) (extract.Totals, error) {
	m := a.copying("export", "files export")
	eo := m.options(extract.Options{Devices: opt.devices, SetID: opt.setID})
	w := extract.NewTar(out, eo)
	if opt.zip {
		w = extract.NewZip(out, eo)
	}
	var err error
	for _, f := range sources {
		if err = w.Add(ctx, f.tree, f.attr, f.shown(f.path), f.base()); err != nil {
			break
		}
	}
	if err == nil {
		err = w.Close()
	}
	m.bar.end(err == nil)
	return w.Totals(), err
}
