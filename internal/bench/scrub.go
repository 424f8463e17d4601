//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// scrub verifies what is stored of the dense disk.
func (b *runner) scrub(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	r := &result{
		Title:   fmt.Sprintf("verifying a repository with one point of the dense disk, %s, not in the page cache", size(d.SizeBytes)),
		columns: []column{colWall, colCPU, colRate, colPerCPU, colRSS, colAnon, {"stored", func(f figures) string { return size(f.Work) }}, colIn},
	}
	plain, deep := variant{b.plain, b.plain.label() + ": scrub"}, variant{b.plain, b.plain.label() + ": scrub --deep"}
	secret, secretDeep := variant{b.secret, b.secret.label() + ": scrub"}, variant{b.secret, b.secret.label() + ": scrub --deep"}
	borg := variant{b.borg, b.borg.label() + ": check --verify-data"}
	restic := variant{b.restic, b.restic.label() + ": check --read-data"}
	r.Rows, err = b.run(ctx, contest{
		tools: []tool{plain, deep, borg, secret, secretDeep, restic}, times: b.times(), reuse: true,
		prepare: func(ctx context.Context, t tool) (site, error) {
			s, err := b.fullSite(ctx, t.(variant).tool)
			if err != nil {
				return s, err
			}
			return s, chill(s.repo())
		},
		do: func(s site, t tool) command {
			switch v := t.(variant); v {
			case borg:
				return b.borg.command(s, "check", "--verify-data", s.repo())
			case restic:
				return b.restic.command(s, "check", "--read-data")
			default:
				c := v.tool.(*holdfast).command(s, "scrub", s.repo(), "--restart")
				if v == deep || v == secretDeep {
					c.args = append(c.args, "--deep")
				}
				return c
			}
		},
		after: func(s site, t tool, _ []byte, f *figures) (err error) {
			f.Stored = 0
			if f.Work, err = treeBytes(s.repo()); err != nil || t.peer() {
				return err
			}
			// Room set aside for a full volume, which holds nothing.
			reserve, err := os.Stat(filepath.Join(s.repo(), "reserve"))
			if err == nil {
				f.Work -= reserve.Size()
			}
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	for _, pair := range [][2]variant{{plain, borg}, {deep, borg}, {secret, restic}, {secretDeep, restic}} {
		ours, _ := r.row(pair[0].name)
		peer, _ := r.row(pair[1].name)
		r.note("%s: MiB per CPU second / %s: %s; CPU seconds of it / ours: %s", ours.Tool, peer.Tool, number(ours.perCPU()/peer.perCPU()), number(peer.CPU/ours.CPU))
	}
	r.note("rates are of stored bytes, of ours with parity. Scrub compares every stored byte with the ledger's digests; --deep decodes every record too, and follows the points to their chunks, as the peers do")
	return r, nil
}
