package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/nfs/nfstest"
)

// kills is how often a test kills what it looks at.
func kills(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_KILLS")); err == nil && n > 0 {
		return n
	}
	if os.Getenv("HOLDFAST_LONG") == "1" {
		return 200
	}
	return 4
}

// TestServeKilled kills the server again and again under writers that look at
// every byte, keeps what they wrote, and compares.
func TestServeKilled(t *testing.T) {
	const size, writers = 16 << 20, 3
	s := &served{t: t, dir: t.TempDir(), addr: freePort(t)}
	disk := make([]byte, size)
	nfstest.Stamp(disk, 0, 1)
	path := filepath.Join(s.dir, "disk.raw")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(s.dir, "repo")
	s.run("repo", "init", repo)
	s.run("repo", "backup", repo, "--machine", "m", path)
	s.start()
	t.Cleanup(func() { s.end(syscall.SIGKILL) })
	s.run("nfs", "publish", "m@latest", "--no-swap-room")

	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	results := make([]nfstest.WriterResult, writers)
	errs := make([]error, writers)
	for i := range writers {
		blocks := size / nfstest.BlockBytes / writers
		w := nfstest.Writer{Addr: s.addr, Dir: datastorePath + "/m", Name: "disk-flat.vmdk", First: i * blocks, Blocks: blocks, Seed: uint64(i), Away: 5 * time.Minute}
		all.Go(func() { results[i], errs[i] = w.Run(ctx) })
	}
	rng := rand.New(rand.NewPCG(5, 6))
	n := kills(t)
	for range n {
		if rng.IntN(4) > 0 { // or in the middle of coming back
			s.bytesBack()
		}
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
		s.end(syscall.SIGKILL)
		s.start()
	}
	s.bytesBack()
	time.Sleep(100 * time.Millisecond)
	cancel()
	all.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("writer %d: %v\n%s", i, err, s.out.String())
		}
	}
	if t.Failed() {
		return
	}
	report(t, s, results, n)
	s.compare(size)
}

// bytesBack waits until the disk can be read again.
func (s *served) bytesBack() {
	s.t.Helper()
	began := time.Now()
	for {
		c, err := nfstest.Dial(s.t.Context(), s.addr)
		if err == nil {
			var dir, h nfstest.Handle
			if dir, err = c.Mount(datastorePath + "/m"); err == nil {
				h, _, err = c.Lookup(dir, "disk-flat.vmdk")
			}
			if err == nil {
				_, err = c.Read(h, 0, nfstest.BlockBytes)
			}
			c.Close()
		}
		if err == nil {
			break
		}
		if time.Since(began) > time.Minute {
			s.t.Fatalf("the disk can't be read: %v\n%s", err, s.out.String())
		}
	}
	s.bytes = max(s.bytes, time.Since(began))
}

func report(t *testing.T, s *served, results []nfstest.WriterResult, n int) {
	var sum nfstest.WriterResult
	for _, r := range results {
		sum.Writes, sum.Commits, sum.Replayed, sum.Checked = sum.Writes+r.Writes, sum.Commits+r.Commits, sum.Replayed+r.Replayed, sum.Checked+r.Checked
		sum.Outages, sum.Longest = sum.Outages+r.Outages, max(sum.Longest, r.Longest)
	}
	t.Logf("%d kills: %d writes, %d commits, %d blocks written again, %d looked at; from start to first answer at most %s, to the first byte %s more, a writer waited at most %s",
		n, sum.Writes, sum.Commits, sum.Replayed, sum.Checked, s.longest.Round(time.Millisecond), s.bytes.Round(time.Millisecond), sum.Longest.Round(time.Millisecond))
	if sum.Outages < n {
		t.Errorf("%d outages were seen of %d kills", sum.Outages, n)
	}
	if s.longest > 10*time.Second {
		t.Errorf("%s from start to first answer", s.longest)
	}
}

// compare keeps the session, and compares the point with what is served; and looks
// at the base, in which nothing may have changed.
func (s *served) compare(size int) {
	t := s.t
	var kept keptListing
	if err := json.Unmarshal([]byte(s.run("nfs", "keep", "m", "--json")), &kept); err != nil {
		t.Fatal(err)
	}
	c, err := nfstest.Dial(t.Context(), s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dir, err := c.Mount(datastorePath + "/m")
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := c.Lookup(dir, "disk-flat.vmdk")
	if err != nil {
		t.Fatal(err)
	}
	served := make([]byte, 0, size)
	for len(served) < size {
		res, err := c.Read(h, uint64(len(served)), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, res.Data...)
	}
	for point, want := range map[string][]byte{string(kept.Point): served, "m@latest": nil} {
		to := filepath.Join(s.dir, "restored-"+point)
		s.run("repo", "restore", filepath.Join(s.dir, "repo"), point, "--to", to)
		got, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = make([]byte, size)
			nfstest.Stamp(want, 0, 1)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("point %s has other bytes", point)
		}
	}
	s.run("repo", "scrub", filepath.Join(s.dir, "repo"), "--deep")
	s.run("nfs", "stop", "m")
	s.end(syscall.SIGTERM)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.out.String())
	}
	if left := s.run("repo", "points", filepath.Join(s.dir, "repo")); strings.Contains(left, "recovery:") {
		t.Errorf("a pin is left:\n%s", left)
	}
}
