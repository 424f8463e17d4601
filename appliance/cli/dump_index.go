package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"holdfast/repo/index"
	"holdfast/repo/vfs"
)

func newDumpIndex(a *app) *cobra.Command {
	var entries bool
	cmd := &cobra.Command{
		Use:   "index DIR",
		Short: "Files of an index directory and, with --entries, what is in them",
		Args:  takes(false, "DIR"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.dumpIndex(args[0], entries) },
	}
	cmd.Flags().BoolVar(&entries, "entries", false, "print every entry too, in the order of ids: prefix, kind, pack, offset, bytes")
	return cmd
}

type indexListing struct {
	Schema  string       `json:"schema"`
	Covers  uint64       `json:"covers"` // ledger segment up to which all packs are in it
	Files   []indexFile  `json:"files"`
	Entries []indexEntry `json:"entries"` // null without --entries
}

type indexFile struct {
	Name    string `json:"name"`
	Bytes   int64  `json:"bytes"`
	Entries uint64 `json:"entries"`
	Packs   uint32 `json:"packs"`
}

type indexEntry struct {
	Prefix string `json:"prefix"` // of the id
	Kind   string `json:"kind"`
	Pack   string `json:"pack"`
	Off    uint32 `json:"off"`
	Bytes  uint32 `json:"bytes"`
}

func (a *app) dumpIndex(dir string, entries bool) (err error) {
	// The directory's own name is part of the names in errors.
	d, err := vfs.OS(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // it was only read
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	x, err := index.Open(d, filepath.Base(filepath.Clean(dir)), index.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	l := indexListing{Schema: "holdfast.index/1", Covers: x.Covers(), Files: []indexFile{}}
	for _, f := range x.Files() {
		l.Files = append(l.Files, indexFile(f))
	}
	show := func(e indexEntry) error {
		_, err := fmt.Fprintf(a.out, "%s  %-5s  %s  %d  %d\n", e.Prefix, e.Kind, e.Pack, e.Off, e.Bytes)
		return err
	}
	if a.json {
		show = func(e indexEntry) error {
			l.Entries = append(l.Entries, e)
			return nil
		}
	} else if err := a.printIndex(l); err != nil {
		return err
	}
	if entries {
		l.Entries = []indexEntry{}
		err = x.Walk(func(_ uint64, e index.Entry) error {
			return show(indexEntry{fmt.Sprintf("%x", e.Prefix), e.Kind.String(), e.Pack.String(), e.Off, e.Len})
		})
	}
	if a.json {
		err = errors.Join(a.printJSON(l), err)
	}
	return err
}

func (a *app) printIndex(l indexListing) error {
	fmt.Fprintf(a.out, "covers ledger segments to %d\n", l.Covers)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FILE\tBYTES\tENTRIES\tPACKS")
	for _, f := range l.Files {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", f.Name, f.Bytes, f.Entries, f.Packs)
	}
	return w.Flush()
}
