//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
)

// full backs up the dense disk to empty repositories.
func (b *runner) full(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	r := &result{
		Title:   fmt.Sprintf("first backup of a dense disk, %s of it %s real files", size(d.SizeBytes), size(d.FileBytes)),
		columns: []column{colWall, colCPU, colRate, colPerCPU, colRSS, colAnon, colBare, colStored, colRatio},
	}
	r.Rows, err = b.run(ctx, contest{
		tools: with(b.plain, b.s2, b.borg, b.borgLZ4, b.secret, b.restic, b.kopia), times: b.times(), source: d.image(),
		prepare: b.begin,
		do:      func(s site, t tool) command { return t.backup(s, d.Dir, "first") },
		after:   backedUp,
		keep:    func(t tool, s site) { b.fulls[t.label()] = s },
	})
	if err != nil {
		return nil, err
	}
	r.work(d.DataBytes)
	plain, _ := r.row(b.plain.label())
	s2, _ := r.row(b.s2.label())
	secret, _ := r.row(b.secret.label())
	borg, _ := r.row(b.borg.label())
	r.twiceAsFast("plain", plain)
	r.twiceAsFast("encrypted", secret)
	r.atLeast("zstd: MiB per CPU second / borg's", plain.perCPU()/borg.perCPU(), 1)
	r.atLeast("s2: MiB per CPU second / borg's", s2.perCPU()/borg.perCPU(), 1.6)
	r.atMost("zstd: stored before parity / borg's", float64(plain.bare())/float64(borg.bare()), 1.05)
	return r, nil
}

// twiceAsFast compares wall time with the fastest peer that stores no more.
func (r *result) twiceAsFast(what string, ours figures) {
	fastest := figures{Wall: math.Inf(1)}
	for _, f := range r.Rows {
		if f.Peer && f.Sealed == ours.Sealed && f.Stored <= ours.bare() && f.Wall < fastest.Wall {
			fastest = f
		}
	}
	if fastest.Tool == "" {
		r.note("%s: no peer stores as little as ours, so there is none to be twice as fast as; the goal is reached by that", what)
		r.Goals = append(r.Goals, goal{what + ": wall time of the fastest peer that stores no more / ours", "≥ 2.00", "no such peer", true})
		return
	}
	r.atLeast(fmt.Sprintf("%s: wall time of the fastest peer that stores no more (%s) / ours", what, fastest.Tool), fastest.Wall/ours.Wall, 2)
}

// work says what the rates of all rows are counted over.
func (r *result) work(n int64) {
	for i := range r.Rows {
		r.Rows[i].Work = n
	}
}

// sparse backs up a disk that is mostly holes.
func (b *runner) sparse(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, sparseDisk)
	if err != nil {
		return nil, err
	}
	r := &result{
		Title:   fmt.Sprintf("first backup of a sparse disk, %s with %s of data", size(d.SizeBytes), size(d.DataBytes)),
		columns: []column{colWall, colCPU, colPerCPU, colRSS, colAnon, colBare, colStored, colRead},
	}
	tools := with(b.plain, b.borg, b.borgSparse, b.secret, b.restic, b.kopia)
	r.Rows, err = b.run(ctx, contest{
		tools: tools, times: min(b.times(), 1), source: d.image(),
		prepare: b.begin,
		do:      func(s site, t tool) command { return t.backup(s, d.Dir, "first") },
		after:   backedUp,
	})
	if err != nil {
		return nil, err
	}
	r.work(d.SizeBytes)
	for i := range r.Rows {
		r.Rows[i].Outside = r.Rows[i].Tool == b.borgSparse.label()
	}
	r.note("MiB of the disk's size, holes included. One run each. Borg's --sparse skips holes, but only with chunks of one fixed size, which is not its default: shown for information")
	b.compareCPU(r, 4)
	return r, nil
}

// compareCPU adds goals: ours must take at most 1/times of the CPU of the
// fastest peer, plain against plain, encrypted against the others.
func (b *runner) compareCPU(r *result, times float64) {
	for _, t := range []tool{b.plain, b.secret} {
		ours, ok := r.row(t.label())
		if !ok {
			continue
		}
		if peer, ok := r.best(t.sealed(), figures.perCPU); ok {
			r.atLeast(fmt.Sprintf("CPU seconds of %s / %s", peer.Tool, t.label()), peer.CPU/ours.CPU, times)
		}
	}
}
