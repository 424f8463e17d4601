package cli

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/fs"
	"holdfast/repo"
)

type filesFindOptions struct {
	dir, point string
	name       string
	path       string
	types      string
}

func newFilesFind(a *app) *cobra.Command {
	var opt filesFindOptions
	cmd := &cobra.Command{
		Use:   "find DIR POINT NAME|GLOB",
		Short: "Find files by name",
		Long: `Find files by their name, or by a pattern with *, ? and [a-z] that the whole name
has to match, in all volumes of a restore point that can be read, or below --path.
A pattern with a slash in it has to match the end of the path, as many names of it
as the pattern has. What is printed can be given to cat and cp as it is.`,
		Example: `  holdfast files find /srv/backup db1@latest postgresql.conf
  holdfast files find /srv/backup db1@latest '*.conf' --path /etc --type f
  holdfast files find /srv/backup db1@latest 'log/*.gz' --json`,
		Args: takes(false, "DIR", "POINT", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.point, opt.name = args[0], args[1], args[2]
			return a.filesFind(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.path, "path", "", "only below `PATH`")
	f.StringVar(&opt.types, "type", "", "only these `TYPES`: f file, d directory, l link, p FIFO, s socket, b and c device")
	return cmd
}

func (a *app) filesFind(ctx context.Context, opt filesFindOptions) error {
	if _, err := path.Match(opt.name, ""); err != nil {
		return usagef("%q is no pattern: %v", opt.name, err)
	}
	for _, t := range opt.types {
		if !strings.ContainsRune("fdlpsbc", t) {
			return usagef("--type %s: want some of f, d, l, p, s, b, c", opt.types)
		}
	}
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		return a.inPoint(ctx, r, opt.point, func(vs *volumes) error {
			s := &searcher{app: a, opt: opt, vs: vs, names: strings.Count(opt.name, "/") + 1}
			if a.json {
				s.json = a.beginList("holdfast.found/1", "files", jsonField{"point", string(vs.reader.Point().ID)})
			}
			err := s.search(ctx)
			if s.json != nil && err == nil {
				err = s.json.end()
			}
			if err == nil && s.failed > 0 {
				err = fmt.Errorf("%d files or directories can't be read", s.failed)
			}
			return err
		})
	})
}

type searcher struct {
	app    *app
	opt    filesFindOptions
	vs     *volumes
	names  int // of a path that the pattern is about
	json   *jsonList
	failed int
}

func (s *searcher) search(ctx context.Context) error {
	if s.opt.path != "" {
		f, err := s.vs.find(ctx, s.opt.path, true)
		if err != nil {
			return err
		}
		return s.below(ctx, f)
	}
	list := s.vs.readable()
	if len(list) == 0 {
		return withHint(fmt.Errorf("no volume of the point can be read: %w", fs.ErrUnsupported), hintVolumes)
	}
	for _, v := range list {
		t, err := v.open(ctx)
		if err != nil {
			s.fail(v.name(), err)
			continue
		}
		at, err := t.Attr(ctx, t.Root())
		if err != nil {
			s.fail(v.name(), err)
			continue
		}
		if err := s.below(ctx, &found{v, t, "/", at, s.vs}); err != nil {
			return err
		}
	}
	return nil
}

func (s *searcher) fail(path string, err error) {
	s.failed++
	s.app.failure("files find", path, err)
}

// below searches the directory that f is.
func (s *searcher) below(ctx context.Context, f *found) error {
	return fs.Walk(ctx, f.tree, f.attr.ID, func(below string, at fs.Attr, err error) error {
		full := f.path
		if below != "." {
			full = strings.TrimSuffix(f.path, "/") + "/" + below
		}
		if err != nil {
			s.fail(f.shown(full), err)
			return nil
		}
		if below == "." || !s.matches(full, at.Type) {
			return nil
		}
		if s.json == nil {
			_, err := fmt.Fprintln(s.app.out, plain(f.shown(full)))
			return err
		}
		target := ""
		if at.Type == fs.TypeSymlink {
			if target, err = f.tree.ReadLink(ctx, at.ID); err != nil {
				s.fail(f.shown(full), err)
				return nil
			}
		}
		s.json.add(listGuestFile(f.shown(full), &at, target))
		return s.json.err
	})
}

func (s *searcher) matches(full string, t fs.Type) bool {
	if s.opt.types != "" && (typeLetters[t] == "" || !strings.Contains(s.opt.types, typeLetters[t])) {
		return false
	}
	names := strings.Split(full, "/")
	end := strings.Join(names[max(0, len(names)-s.names):], "/")
	ok, _ := path.Match(s.opt.name, end)
	return ok || end == s.opt.name
}
