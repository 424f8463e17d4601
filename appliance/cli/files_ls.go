package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"holdfast/fs"
	"holdfast/repo"
)

type filesLsOptions struct {
	dir, point string
	path       string // empty: the volumes
	long       bool
	recursive  bool
}

func newFilesLs(a *app) *cobra.Command {
	var opt filesLsOptions
	cmd := &cobra.Command{
		Use:   "ls DIR POINT [PATH]",
		Short: "List the volumes of a point, or a directory",
		Long: `List the volumes on the disks of a restore point, and why one can't be read; or,
with PATH, a directory or file in one of them. "holdfast files --help" says what
PATH is. Bytes that a terminal could take for something else are printed as \x1b;
--json has names as they are.`,
		Example: `  holdfast files ls /srv/backup db1@latest
  holdfast files ls /srv/backup db1@latest /etc -l
  holdfast files ls /srv/backup db1@latest root/1/var/log -R --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 3 {
				return nil
			}
			return takes(false, "DIR", "POINT")(nil, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.point = args[0], args[1]
			if len(args) > 2 {
				opt.path = args[2]
			}
			return a.filesLs(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&opt.long, "long", "l", false, "with type, mode, owner, size and time of change")
	f.BoolVarP(&opt.recursive, "recursive", "R", false, "directories below it too")
	return cmd
}

func (a *app) filesLs(ctx context.Context, opt filesLsOptions) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		return a.inPoint(ctx, r, opt.point, func(vs *volumes) error {
			if opt.path == "" {
				return a.printVolumes(ctx, vs, "")
			}
			v, path, err := vs.split(opt.path)
			if err == nil && v == nil {
				return a.printVolumes(ctx, vs, path)
			}
			f, err := vs.find(ctx, opt.path, !opt.long || strings.HasSuffix(opt.path, "/"))
			if err != nil {
				return err
			}
			return a.listFiles(ctx, vs, f, opt)
		})
	})
}

type volumesListing struct {
	Schema  string          `json:"schema"`
	Point   string          `json:"point"`
	Volumes []volumeListing `json:"volumes"`
	Notes   []string        `json:"notes"`
}

type volumeListing struct {
	Path        string   `json:"path"` // DISK/VOLUME
	Disk        string   `json:"disk"`
	Volume      string   `json:"volume"`
	Format      string   `json:"format"`
	Label       string   `json:"label"`
	UUID        string   `json:"uuid"`
	Partition   string   `json:"partition"` // its name in a GPT
	Type        string   `json:"type"`      // of the partition
	OffsetBytes int64    `json:"offsetBytes"`
	SizeBytes   int64    `json:"sizeBytes"`
	Readable    bool     `json:"readable"`
	Why         string   `json:"why,omitempty"` // not
	Notes       []string `json:"notes,omitempty"`
}

// printVolumes lists the volumes, of one disk if it is named. Each is opened, to
// see whether that can be done.
func (a *app) printVolumes(ctx context.Context, vs *volumes, disk string) error {
	l := volumesListing{Schema: "holdfast.volumes/1", Point: string(vs.reader.Point().ID), Volumes: []volumeListing{}, Notes: nonNil(vs.notes)}
	for _, v := range vs.list {
		if disk != "" && v.disk != disk {
			continue
		}
		vl := volumeListing{
			Path: v.name(), Disk: v.disk, Volume: v.Name, Format: v.Format, Label: v.Label, UUID: v.UUID, Partition: v.PartName, Type: v.PartType,
			OffsetBytes: v.Off, SizeBytes: v.Size, Why: v.Why,
		}
		if v.Why == "" {
			t, err := v.open(ctx)
			if err := ctx.Err(); err != nil {
				return err
			}
			if err != nil {
				vl.Why = oneLine(err)
			} else if noted, ok := t.(fs.NotedTree); ok {
				vl.Notes = noted.Notes()
			}
		}
		vl.Readable = vl.Why == ""
		l.Volumes = append(l.Volumes, vl)
	}
	if a.json {
		return a.printJSON(l)
	}
	if len(l.Volumes) == 0 {
		a.say("No volumes.")
	} else if err := a.tableOfVolumes(l.Volumes); err != nil {
		return err
	}
	for _, n := range l.Notes {
		a.say("%s", plain(n))
	}
	return nil
}

func (a *app) tableOfVolumes(list []volumeListing) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VOLUME\tFORMAT\tSIZE\tLABEL\tNOTE")
	for _, v := range list {
		note := v.Why
		if v.Readable {
			note = strings.Join(v.Notes, "; ")
		}
		label := v.Label
		if label == "" {
			label = v.Partition
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", plain(v.Path), orDash(v.Format), formatSize(v.SizeBytes), orDash(plain(label)), plain(note))
	}
	return w.Flush()
}

// listFiles lists what f is, or if it is a directory what is in it.
func (a *app) listFiles(ctx context.Context, vs *volumes, f *found, opt filesLsOptions) error {
	l := &lister{app: a, f: f, opt: opt, out: a.out}
	if a.json {
		l.json = a.beginList("holdfast.files/1", "files", jsonField{"point", string(vs.reader.Point().ID)}, jsonField{"volume", f.vol.name()})
	} else if opt.long {
		l.table = tabwriter.NewWriter(a.out, 0, 0, 1, ' ', 0)
		l.out = l.table
	}
	var err error
	if f.attr.IsDir() {
		err = l.directory(ctx, f.attr, f.path, 0)
	} else {
		l.line(ctx, f.path, f.path, &f.attr)
	}
	if l.table != nil {
		err = errors.Join(err, l.table.Flush())
	}
	if l.json != nil {
		err = errors.Join(err, l.json.end())
	}
	if err == nil && l.failed > 0 {
		err = fmt.Errorf("%d of what is listed can't be read", l.failed)
	}
	return err
}

type lister struct {
	app    *app
	f      *found
	opt    filesLsOptions
	out    io.Writer
	table  *tabwriter.Writer // nil: names only
	json   *jsonList         // nil: text
	failed int
	dirs   fs.Dirs
}

func (l *lister) directory(ctx context.Context, dir fs.Attr, path string, depth int) error {
	first := depth == 0
	if err := l.dirs.Enter(dir.ID, depth); err != nil {
		l.fail(path, err)
		return nil
	}
	if l.opt.recursive && l.json == nil {
		if !first {
			fmt.Fprintln(l.out)
		}
		fmt.Fprintf(l.out, "%s:\n", plain(l.f.shown(path)))
	}
	list, err := listDir(ctx, l.f.tree, dir.ID)
	if err != nil {
		if ctx.Err() != nil || first {
			return fmt.Errorf("%s: %w", plain(l.f.shown(path)), err)
		}
		l.fail(path, err)
	}
	var dirs []fs.Attr
	var paths []string
	for i := range list {
		e := &list[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		below := strings.TrimSuffix(path, "/") + "/" + e.Name
		at, err := l.attr(ctx, e)
		if err != nil {
			l.fail(below, err)
			continue
		}
		l.line(ctx, below, e.Name, &at)
		if at.IsDir() && l.opt.recursive {
			dirs, paths = append(dirs, at), append(paths, below)
		}
	}
	for i, d := range dirs {
		if err := l.directory(ctx, d, paths[i], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// attr returns what is known of an entry, and asks for it only if it is shown.
func (l *lister) attr(ctx context.Context, e *fs.Entry) (fs.Attr, error) {
	switch {
	case e.Attr != nil:
		return *e.Attr, nil
	case l.table == nil && l.json == nil && e.Type != fs.TypeUnknown:
		return fs.Attr{ID: e.ID, Type: e.Type}, nil
	}
	return l.f.tree.Attr(ctx, e.ID)
}

func (l *lister) fail(path string, err error) {
	l.failed++
	if l.json != nil {
		fl := guestFile{Type: "unknown", Error: oneLine(err)}
		fl.Path, fl.PathBytes = jsonPath(l.f.shown(path))
		l.json.add(fl)
		return
	}
	l.app.failure("files ls", l.f.shown(path), err)
}

func (l *lister) line(ctx context.Context, path, name string, at *fs.Attr) {
	if l.json == nil && l.table == nil {
		fmt.Fprintln(l.out, plain(name))
		return
	}
	target := ""
	if at.Type == fs.TypeSymlink {
		var err error
		if target, err = l.f.tree.ReadLink(ctx, at.ID); err != nil {
			l.fail(path, err)
			return
		}
	}
	if l.json != nil {
		l.json.add(listGuestFile(l.f.shown(path), at, target))
		return
	}
	size := fmt.Sprint(at.Size)
	if at.Type == fs.TypeCharDevice || at.Type == fs.TypeBlockDevice {
		size = fmt.Sprintf("%d,%d", at.Major, at.Minor)
	}
	text := plain(name)
	if target != "" {
		text += " -> " + plain(target)
	}
	fmt.Fprintf(l.table, "%s\t%d\t%d\t%d\t%s\t%s\t%s\n", modeText(at), at.Nlink, at.UID, at.GID, size,
		at.Mtime.Time().Local().Format("2006-01-02 15:04:05"), text)
}
