//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"holdfast/repo"
)

// upkeep is what a process of ours does to a repository through the Go API, as
// the verb of that name does.
type upkeep struct {
	Verb    string // expire, sweep, compact, synthesize
	Point   string `json:",omitempty"`
	AnyDead bool   `json:",omitempty"`
}

// upkeepReport is what such a process prints.
type upkeepReport struct {
	Open    float64 // seconds until it owned the repository
	Seconds float64 // for the verb
	Close   float64

	Packs, MovedBytes, FreedBytes, DeadBytes int64
}

// upkeep returns the command that does it: this program as a child.
func (h *holdfast) upkeep(s site, u upkeep) command {
	in := h.input(s)
	in.Upkeep = u
	p, err := json.Marshal(in)
	if err != nil {
		panic(err) // strings and numbers
	}
	self, err := os.Executable()
	if err != nil {
		panic(err) // Linux knows
	}
	return command{args: []string{self}, env: []string{childEnv + "=upkeep"}, in: p}
}

func childUpkeep(in childInput) (err error) {
	dir, opt, err := in.directories()
	if err != nil {
		return err
	}
	var r upkeepReport
	lap := time.Now()
	seconds := func() float64 {
		d := time.Since(lap)
		lap = time.Now()
		return d.Seconds()
	}
	ctx := context.Background()
	o, err := repo.Own(ctx, dir, opt, 0)
	if err != nil {
		return err
	}
	r.Open = seconds()
	err = r.do(ctx, o, in.Upkeep)
	r.Seconds = seconds()
	err = errors.Join(err, o.Close())
	r.Close = seconds()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func (r *upkeepReport) do(ctx context.Context, o *repo.Owner, u upkeep) error {
	point := repo.PointID(u.Point)
	swept := func(res repo.SweepResult) {
		r.Packs, r.FreedBytes, r.DeadBytes = int64(res.Packs), res.Bytes, res.DeadBytes
	}
	switch u.Verb {
	case "expire":
		_, err := o.Expire(ctx, point, "bench")
		return err
	case "sweep":
		res, err := o.Sweep(ctx, repo.SweepOptions{})
		swept(res)
		return err
	case "compact":
		res, err := o.Compact(ctx, repo.CompactOptions{AnyDead: u.AnyDead})
		swept(res.Swept)
		r.MovedBytes = res.MovedBytes
		return err
	case "synthesize":
		plan, err := o.Synthesize(ctx, point, repo.SynthesizeOptions{})
		r.MovedBytes = plan.Bytes
		return err
	}
	return fmt.Errorf("no upkeep %q", u.Verb)
}
