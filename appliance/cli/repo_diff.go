package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type diffOptions struct {
	dir  string
	a, b string
}

func newRepoDiff(a *app) *cobra.Command {
	var opt diffOptions
	return &cobra.Command{
		Use:   "diff DIR POINT[:DISK] POINT[:DISK]",
		Short: "Print the ranges in which two points differ",
		Long: `Print the ranges of bytes in which the disks of two points differ, in whole
frames. Disks meet by name; one that is missing in one of the points is named,
without ranges. With :DISK on both sides, two disks of any names are
compared. The time it takes follows the difference, not the disks.

Exit code 0: the points are equal. 2: they differ.`,
		Example: `  holdfast repo diff /srv/backup 4f6q db1@latest
  holdfast repo diff /srv/backup db1@2026-11-21:root db1@2026-11-22:root --json`,
		Args: takes(false, "DIR", "POINT", "POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt = diffOptions{args[0], args[1], args[2]}
			return a.repoDiff(cmd.Context(), opt)
		},
	}
}

type diffListing struct {
	Schema string     `json:"schema"`
	A      string     `json:"a"`
	B      string     `json:"b"`
	Bytes  int64      `json:"bytes"` // in all ranges
	Disks  []diskDiff `json:"disks"`
}

type diskDiff struct {
	A          string      `json:"a"` // name of the disk; empty: not in this point
	B          string      `json:"b"`
	SizeABytes int64       `json:"sizeABytes"`
	SizeBBytes int64       `json:"sizeBBytes"`
	Ranges     []diffRange `json:"ranges"`
}

type diffRange struct {
	Off int64 `json:"off"`
	Len int64 `json:"len"`
}

// differs says whether anything of the disk does: bytes, size, being there.
func (d *diskDiff) differs() bool {
	return len(d.Ranges) > 0 || d.SizeABytes != d.SizeBBytes || d.A == "" || d.B == ""
}

func (a *app) repoDiff(ctx context.Context, opt diffOptions) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) (err error) {
		var sides [2]*repo.Reader
		var only [2]string
		for i, arg := range []string{opt.a, opt.b} {
			point, disk := splitPoint(arg)
			p, err := r.Find(ctx, point, time.Local)
			if err != nil {
				return err
			}
			reader, err := r.OpenPoint(p.ID)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, reader.Close()) }()
			sides[i], only[i] = reader, disk
		}
		l := diffListing{Schema: "holdfast.diff/1", A: string(sides[0].Point().ID), B: string(sides[1].Point().ID)}
		if l.Disks, err = pairDisks(sides, only); err != nil {
			return err
		}
		for i := range l.Disks {
			if err := diffDisk(ctx, r, sides, &l.Disks[i]); err != nil {
				return err
			}
		}
		return a.printDiff(l)
	})
}

// pairDisks says which disks meet: the two named, or all by their names.
func pairDisks(sides [2]*repo.Reader, only [2]string) ([]diskDiff, error) {
	if (only[0] == "") != (only[1] == "") {
		return nil, usagef("name a disk on both sides or on none")
	}
	if only[0] != "" {
		return []diskDiff{{A: only[0], B: only[1]}}, nil
	}
	var pairs []diskDiff
	for _, d := range sides[0].Point().Disks {
		pairs = append(pairs, diskDiff{A: d.Name})
	}
	for _, d := range sides[1].Point().Disks {
		if i := slices.IndexFunc(pairs, func(p diskDiff) bool { return p.A == d.Name }); i >= 0 {
			pairs[i].B = d.Name
			continue
		}
		pairs = append(pairs, diskDiff{B: d.Name})
	}
	return pairs, nil
}

// diffDisk fills in sizes and ranges. Of a disk in one point only, being there
// is the difference.
func diffDisk(ctx context.Context, r *repo.Repository, sides [2]*repo.Reader, d *diskDiff) error {
	d.Ranges = []diffRange{}
	var disks []*repo.Disk
	for i, name := range []string{d.A, d.B} {
		if name == "" {
			continue
		}
		disk, err := sides[i].Disk(name)
		if err != nil {
			return err
		}
		if i == 0 {
			d.SizeABytes = disk.Size()
		} else {
			d.SizeBBytes = disk.Size()
		}
		disks = append(disks, disk)
	}
	if len(disks) < 2 {
		return nil
	}
	return r.Diff(ctx, disks[0], disks[1], func(off, n int64) error {
		d.Ranges = append(d.Ranges, diffRange{off, n})
		return nil
	})
}

func (a *app) printDiff(l diffListing) error {
	differs := false
	for i := range l.Disks {
		differs = differs || l.Disks[i].differs()
		for _, r := range l.Disks[i].Ranges {
			l.Bytes += r.Len
		}
	}
	var err error
	if a.json {
		err = a.printJSON(l)
	} else {
		err = a.printRanges(l)
	}
	if err == nil && differs {
		err = errDifference
	}
	return err
}

func (a *app) printRanges(l diffListing) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	ranges := 0
	for _, d := range l.Disks {
		switch {
		case d.B == "":
			fmt.Fprintf(w, "disk %s is only in %s\n", d.A, l.A)
		case d.A == "":
			fmt.Fprintf(w, "disk %s is only in %s\n", d.B, l.B)
		case d.SizeABytes != d.SizeBBytes:
			fmt.Fprintf(w, "disk %s has %d bytes in %s and %d in %s\n", d.A, d.SizeABytes, l.A, d.SizeBBytes, l.B)
		}
		for _, r := range d.Ranges {
			if ranges == 0 {
				fmt.Fprintln(w, "DISK\tOFFSET\tBYTES")
			}
			ranges++
			fmt.Fprintf(w, "%s\t%d\t%d\n", d.A, r.Off, r.Len)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	a.say("%s in %d ranges differ", formatSize(l.Bytes), ranges)
	return nil
}
