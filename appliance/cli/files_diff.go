package cli

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/fs"
	"holdfast/fs/compare"
	"holdfast/repo"
)

type filesDiffOptions struct {
	dir  string
	a, b string
	path string
}

func newFilesDiff(a *app) *cobra.Command {
	var opt filesDiffOptions
	cmd := &cobra.Command{
		Use:   "diff DIR POINT POINT",
		Short: "Print the files in which two points differ",
		Long: `Print which files were added (+), removed (-) or changed (M, with what did) from
one restore point to the other, in all volumes, or below --path. Volumes meet by
disk and number. Files whose blocks are the same in both points are not read; the
time it takes follows the number of files and what changed.

A volume that can be read in neither point, such as swap, is compared by its
blocks: "M disk/2 (blocks)" says that some differ. One that can be read in one
point only can't be compared.

Exit code 0: no difference. 2: they differ. 1: something can't be compared, and the
rest may differ or not.`,
		Example: `  holdfast files diff /srv/backup db1@2026-11-21 db1@latest
  holdfast files diff /srv/backup 4f6q 4g2a --path /etc --json`,
		Args: takes(false, "DIR", "POINT", "POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.a, opt.b = args[0], args[1], args[2]
			return a.filesDiff(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&opt.path, "path", "", "only below `PATH`")
	return cmd
}

// fileDiff is one difference in --json.
type fileDiff struct {
	Path      string     `json:"path"`
	PathBytes string     `json:"pathBytes,omitempty"`
	Kind      string     `json:"kind"` // added, removed, changed, touched
	What      []string   `json:"what"`
	A         *guestFile `json:"a,omitempty"`
	B         *guestFile `json:"b,omitempty"`
}

func (a *app) filesDiff(ctx context.Context, opt filesDiffOptions) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		return a.inPoint(ctx, r, opt.a, func(va *volumes) error {
			return a.inPoint(ctx, r, opt.b, func(vb *volumes) error {
				d := &differ{app: a, repo: r, a: va, b: vb}
				if a.json {
					d.json = a.beginList("holdfast.filesDiff/1", "changes",
						jsonField{"a", string(va.reader.Point().ID)}, jsonField{"b", string(vb.reader.Point().ID)})
				}
				d.bar = a.progressOf("compare", "files", unknownTotal)
				err := d.run(ctx, opt.path)
				d.bar.end(err == nil)
				if err != nil {
					return err
				}
				return d.end()
			})
		})
	})
}

type differ struct {
	app    *app
	repo   *repo.Repository
	a, b   *volumes
	json   *jsonList
	bar    *meter
	n      compare.Totals // of the volumes before
	found  int
	failed int
}

func (d *differ) end() error {
	if d.json != nil {
		if err := d.json.end(jsonField{"entries", d.n.Entries}, jsonField{"readBytes", d.n.ReadBytes}); err != nil {
			return err
		}
	} else if d.found > 0 {
		d.app.say("%d of %d files and directories differ", d.found, d.n.Entries)
	} else if d.failed == 0 {
		d.app.say("No file differs.")
	}
	switch {
	case d.failed > 0:
		return fmt.Errorf("%d files, directories or volumes can't be compared", d.failed)
	case d.found > 0:
		return errDifference
	}
	return nil
}

func (d *differ) run(ctx context.Context, path string) error {
	if path != "" {
		a, err := d.a.find(ctx, path, true)
		if err != nil {
			return fmt.Errorf("point %s: %w", d.a.reader.Point().ID, err)
		}
		b, err := d.b.find(ctx, path, true)
		if err != nil {
			return fmt.Errorf("point %s: %w", d.b.reader.Point().ID, err)
		}
		return d.compare(ctx, a, b)
	}
	// A disk whose volumes can't be found has not lost them.
	lost := make(map[string]bool)
	for _, l := range slices.Concat(d.a.lost, d.b.lost) {
		if !lost[l.name] {
			d.fail(l.name, l.err)
		}
		lost[l.name] = true
	}
	seen := make(map[string]bool)
	for _, v := range slices.Concat(d.a.list, d.b.list) {
		if seen[v.name()] || lost[v.disk] {
			continue
		}
		seen[v.name()] = true
		if err := d.volume(ctx, d.a.named(v.name()), d.b.named(v.name())); err != nil {
			return err
		}
	}
	return nil
}

// named returns the volume of that name, or nil.
func (vs *volumes) named(name string) *volume {
	for _, v := range vs.list {
		if v.name() == name {
			return v
		}
	}
	return nil
}

func (d *differ) volume(ctx context.Context, a, b *volume) error {
	switch {
	case b == nil:
		return d.print(fileDiff{Path: a.name(), Kind: "removed", What: []string{"volume"}})
	case a == nil:
		return d.print(fileDiff{Path: b.name(), Kind: "added", What: []string{"volume"}})
	case a.Why != "" && b.Why != "":
		return d.blocks(ctx, a, b)
	}
	var sides [2]*found
	for i, v := range []*volume{a, b} {
		t, err := v.open(ctx)
		if err == nil {
			sides[i] = &found{vol: v, tree: t, path: "/", vs: d.a}
			sides[i].attr, err = t.Attr(ctx, t.Root())
		}
		if err != nil {
			d.fail(v.name(), err)
			return ctx.Err()
		}
	}
	return d.compare(ctx, sides[0], sides[1])
}

// blocks compares volumes without files to look at. That their blocks are the
// same says all there is to know; that some differ is a difference.
func (d *differ) blocks(ctx context.Context, a, b *volume) error {
	_, changed, err := d.same(ctx, a, b)
	if err != nil || !changed {
		return err
	}
	d.app.warn("volume %s is compared by its blocks only: %s", a.name(), a.Why)
	return d.print(fileDiff{Path: a.name(), Kind: "changed", What: []string{"blocks"}})
}

func (d *differ) fail(path string, err error) {
	d.failed++
	d.app.failure("files diff", path, err)
}

// compare tells of the differences between two directories or files.
func (d *differ) compare(ctx context.Context, a, b *found) error {
	same, changed, err := d.same(ctx, a.vol, b.vol)
	if err != nil {
		return err
	}
	if !changed && a.attr.ID == b.attr.ID {
		return nil // the same blocks are the same files
	}
	opt := compare.Options{
		Same: same,
		Failed: func(path string, err error) error {
			d.fail(a.shown(join(a.path, path)), err)
			return nil
		},
		Progress: func(n compare.Totals) { d.bar.at(int64(d.n.Entries + n.Entries)) },
	}
	n, err := compare.Compare(ctx, compare.Side{Tree: a.tree, Top: a.attr.ID}, compare.Side{Tree: b.tree, Top: b.attr.ID}, opt, func(c compare.Change) error {
		path := a.shown(join(a.path, c.Path))
		fd := fileDiff{Path: path, Kind: c.Kind.String(), What: nonNil(c.What)}
		for _, side := range []struct {
			at *fs.Attr
			to **guestFile
		}{{c.A, &fd.A}, {c.B, &fd.B}} {
			if side.at != nil {
				l := listGuestFile(path, side.at, "")
				*side.to = &l
			}
		}
		return d.print(fd)
	})
	d.n.Entries += n.Entries
	d.n.ReadBytes += n.ReadBytes
	return err
}

func join(dir, name string) string {
	if name == "" {
		return dir
	}
	return strings.TrimSuffix(dir, "/") + "/" + name
}

func (d *differ) print(fd fileDiff) error {
	d.found++
	if d.json != nil {
		fd.Path, fd.PathBytes = jsonPath(fd.Path)
		d.json.add(fd)
		return d.json.err
	}
	var err error
	switch fd.Kind {
	case "added":
		_, err = fmt.Fprintf(d.app.out, "+ %s\n", plain(fd.Path))
	case "removed":
		_, err = fmt.Fprintf(d.app.out, "- %s\n", plain(fd.Path))
	default:
		_, err = fmt.Fprintf(d.app.out, "M %s (%s)\n", plain(fd.Path), strings.Join(fd.What, ", "))
	}
	return err
}

// same asks the repository in what the disks differ. It returns how much of a
// stretch of the volume is the same in both, and whether anything may not be.
func (d *differ) same(ctx context.Context, a, b *volume) (same func(off, n int64) int64, differs bool, err error) {
	if a.Off != b.Off {
		return nil, true, nil
	}
	var changed []repo.Range // ascending, not touching
	end := a.Off + max(a.Size, b.Size)
	err = d.repo.Diff(ctx, a.dev, b.dev, func(off, n int64) error {
		if off < end && off+n > a.Off {
			changed = append(changed, repo.Range{Off: off, Len: n})
		}
		return nil
	})
	if err != nil {
		return nil, true, err
	}
	differs = len(changed) > 0 || a.Size != b.Size || a.Format != b.Format
	return func(off, n int64) int64 {
		off += a.Off
		i := sort.Search(len(changed), func(i int) bool { return changed[i].Off+changed[i].Len > off })
		if i == len(changed) || changed[i].Off >= off+n {
			return n
		}
		return max(0, changed[i].Off-off)
	}, differs, nil
}
