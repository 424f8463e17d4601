//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// copy brings a machine's points to another repository: again, when all are
// there, and when one more has come.
func (b *runner) copy(ctx context.Context) (*result, error) {
	dense, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	h := history{size: min(b.opt.history, dense.SizeBytes) &^ (mergeExtent - 1), extent: mergeExtent, count: ofHundred(b.opt.history)}
	dir := filepath.Join(b.opt.work, "out", "copy")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	src, err := os.Open(dense.image())
	if err != nil {
		return nil, err
	}
	defer src.Close()
	disk := filepath.Join(dir, diskName)
	if err := copyHead(disk, src, h.size); err != nil {
		return nil, err
	}
	r := &result{
		Title:   fmt.Sprintf("copy of a machine to another repository, a disk of %s", size(h.size)),
		columns: []column{colWall, colCPU, colRSS, colIn, {"of it packs", func(f figures) string { return size(f.Read) }}, colOut, colStored},
	}
	tools := []tool{b.plain, b.secret, b.restic}
	from, to := make(map[tool]site), make(map[tool]site)
	for _, t := range tools {
		if from[t], err = b.firstBackup(ctx, t, dir); err != nil {
			return nil, err
		}
		if to[t], err = b.begin(ctx, t); err != nil {
			return nil, err
		}
	}
	round := func(what string, times int) error {
		rows, err := b.run(ctx, contest{
			tools: tools, times: times,
			prepare: func(ctx context.Context, t tool) (site, error) { return b.copySite(ctx, to[t]) },
			do:      func(s site, t tool) command { return copying(t, from[t], s) },
			after: func(s site, t tool, out []byte, f *figures) error {
				if t.peer() {
					return nil
				}
				var rep struct{ ReadBytes int64 }
				err := json.Unmarshal(out, &rep)
				f.Read = rep.ReadBytes
				return err
			},
			keep: func(t tool, s site) {
				err = errors.Join(err, os.RemoveAll(to[t].dir))
				to[t] = s
			},
		})
		for _, f := range rows {
			f.Tool += ": " + what
			r.Rows = append(r.Rows, f)
		}
		return err
	}
	if err := round("first copy", 1); err != nil {
		return nil, err
	}
	if err := round("unchanged", b.times()); err != nil {
		return nil, err
	}
	if _, err := h.change(disk, src, dense.SizeBytes, b.opt.seed, 1); err != nil {
		return nil, err
	}
	for _, t := range tools {
		if _, _, err := t.backup(from[t], dir, "second").run(ctx); err != nil {
			return nil, err
		}
	}
	if err := round("one more point, 1 % changed", b.times()); err != nil {
		return nil, err
	}
	r.note("each to a repository of the same kind. Plain to plain, records go as they are; the encrypted ones have keys of their own, so what is missing is decrypted and encrypted anew")
	r.note("\"reads\" is all that the process read, of both repositories; \"of it packs\" is what ours says it read of the source's packs")
	for _, t := range tools {
		if err := errors.Join(os.RemoveAll(from[t].dir), os.RemoveAll(to[t].dir)); err != nil {
			return nil, err
		}
	}
	return r, os.RemoveAll(dir)
}

// copying returns the command that copies all points.
func copying(t tool, from, to site) command {
	switch t := t.(type) {
	case *holdfast:
		c := t.command(to, "copy", from.repo(), to.repo(), "--json")
		if t.seal {
			c.env = append(c.env, "HOLDFAST_FROM_PASSPHRASE_FILE="+from.pass())
		}
		return c
	case *restic:
		return t.command(to, "copy", "--from-repo", from.repo(), "--from-password-file", from.pass())
	}
	panic("a tool that copies nothing: " + t.label())
}
