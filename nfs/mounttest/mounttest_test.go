package mounttest_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"holdfast/nfs/mounttest"
)

// What a machine of its own tells its tests, which then are not those of this
// package but of what is mounted there.
var (
	dir    = flag.String("dir", "", "an empty directory of the file system to test; none: one of the machine's own")
	seed   = flag.Uint64("seed", 1, "of all that is random")
	ops    = flag.Int("ops", 0, "of the verifier")
	files  = flag.Int("files", 0, "of the large directory")
	loops  = flag.Int("loops", 0, "of what is done again and again")
	align  = flag.Int("align", 0, "of transfers past the cache")
	middle = flag.Bool("middle", false, "tell of the middle of each group by a line \"@middle GROUP\"")
	pause  = flag.Duration("pause", time.Hour, "the longest time that a step may take")
)

func TestGroups(t *testing.T) {
	for _, g := range mounttest.Groups() {
		t.Run(g.Name, func(t *testing.T) {
			opt := mounttest.Options{Dir: *dir, Seed: *seed, Ops: *ops, Files: *files, Loops: *loops, Align: *align}
			if opt.Dir == "" {
				opt.Dir = t.TempDir()
			}
			if *middle {
				opt.Middle = func(group string) { fmt.Printf("@middle %s\n", group) }
			}
			longest, step := g.Run(t, opt)
			t.Logf("the longest step took %.1f s: %s", longest.Seconds(), step)
			if longest > *pause {
				t.Errorf("that is longer than %v", *pause)
			}
		})
	}
}
