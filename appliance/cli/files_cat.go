package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/fs"
	"holdfast/repo"
)

func newFilesCat(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cat DIR POINT PATH...",
		Short: "Print files",
		Long: `Print the content of files, one after the other, to standard output. Symbolic
links are followed inside the volume. PATH:STREAM is an alternate stream of a file
on NTFS, unless there is a file of that whole name.

What can't be read as it was written is an error: never zeros in its place.`,
		Example: `  holdfast files cat /srv/backup db1@latest /etc/fstab
  holdfast files cat /srv/backup web1@2026-11-22 c.vhdx/2/Users/ann/notes.txt:Zone.Identifier`,
		Args: takes(true, "DIR", "POINT", "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.filesCat(cmd.Context(), args[0], args[1], args[2:])
		},
	}
}

func (a *app) filesCat(ctx context.Context, dir, point string, paths []string) error {
	return a.reading(ctx, dir, func(r *repo.Repository) error {
		return a.inPoint(ctx, r, point, func(vs *volumes) error {
			for _, path := range paths {
				if err := a.catFile(ctx, vs, path); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (a *app) catFile(ctx context.Context, vs *volumes, path string) error {
	f, err := vs.find(ctx, path, true)
	if errors.Is(err, fs.ErrNotFound) {
		if stream, serr := vs.findStream(ctx, path); stream != nil || serr != nil {
			f, err = stream, serr
		}
	}
	if err != nil {
		return err
	}
	switch f.attr.Type {
	case fs.TypeFile:
	case fs.TypeDir:
		return withHint(fmt.Errorf("%s: %w", path, fs.ErrIsDir), "cp and export take directories")
	default:
		return fmt.Errorf("%s: a %s has no content", path, f.attr.Type)
	}
	const atOnce = 1 << 20
	// Hidden behind a struct, the output can't ask for smaller pieces.
	if _, err := io.CopyBuffer(struct{ io.Writer }{a.out}, struct{ io.Reader }{fs.File(ctx, f.tree, f.attr)}, make([]byte, atOnce)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// findStream resolves PATH:STREAM. nil, nil: it is none.
func (vs *volumes) findStream(ctx context.Context, arg string) (*found, error) {
	colon := strings.LastIndexByte(arg, ':')
	if colon < 0 || strings.Contains(arg[colon:], "/") {
		return nil, nil
	}
	f, err := vs.find(ctx, arg[:colon], true)
	if err != nil {
		return nil, nil //nolint:nilerr // the error about the whole name says more
	}
	t, ok := f.tree.(fs.StreamTree)
	if !ok {
		return nil, nil
	}
	list, err := t.Streams(ctx, f.attr.ID)
	if err != nil {
		return nil, fmt.Errorf("%s: list streams: %w", arg, err)
	}
	for _, s := range list {
		if strings.EqualFold(s.Name, arg[colon+1:]) {
			f.attr = fs.Attr{ID: s.ID, Type: fs.TypeFile, Size: s.Size, Nlink: 1}
			return f, nil
		}
	}
	return nil, nil
}
