package repo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// TestStatsScale measures statistics of many points: set HOLDFAST_SCALE to how
// many, of which 10000 take some minutes to make.
func TestStatsScale(t *testing.T) {
	points, err := strconv.Atoi(os.Getenv("HOLDFAST_SCALE"))
	if err != nil {
		t.Skip("needs HOLDFAST_SCALE, a number of points")
	}
	w := newWorld(false, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	err = errors.Join(w.init(t.Context()), w.with(t.Context(), func(o *repo.Owner) error {
		disks := make([]*repotest.Disk, 100)
		for i := range points {
			m := i % len(disks)
			if disks[m] == nil {
				disks[m] = repotest.New(rng, repotest.Dense, 8<<20)
			}
			for range 10 {
				disks[m].Write([]byte(fmt.Sprint("point ", i)), rng.Int64N(8<<20))
			}
			opt := repo.BackupOptions{Machine: fmt.Sprint("m", m), Disks: repotest.NewPoint("", repotest.NamedDisk{Name: "d", Disk: disks[m]}).Sources()}
			if _, err := o.Backup(t.Context(), opt); err != nil {
				return err
			}
			if i == points*9/10 {
				start := time.Now()
				sweep(t, o)
				t.Logf("first sweep: %v", time.Since(start))
			}
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	for name, opt := range map[string]repo.StatsOptions{"whole": {}, "machines": {Machines: true}, "points": {Points: true}} {
		start := time.Now()
		s, err := r.Stats(t.Context(), opt)
		if err = errors.Join(err, s.Unknown); err != nil {
			t.Error(err)
		}
		t.Logf("%s: %v, %d points, %d records", name, time.Since(start), s.Points, s.Chunks+s.Patches+s.Nodes)
	}
	start := time.Now()
	story, err := r.ExplainPack(t.Context(), w.packFiles(t)[0])
	if err != nil {
		t.Error(err)
	}
	t.Logf("explain a pack of %d records: %v, %s", story.Records, time.Since(start), story.Fate)
	start = time.Now()
	wi, err := r.WhatIf(t.Context())
	if err := errors.Join(err, wi.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	t.Logf("what if: %v", time.Since(start))
}
