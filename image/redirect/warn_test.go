package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testreq"
	"holdfast/repo/vfs"
)

// TestLevels follows the use of 100 bytes.
func TestLevels(t *testing.T) {
	tests := []struct {
		name string
		used []int64
		want []int // the levels told of
	}{
		{"empty", []int64{0, 69, 0}, nil},
		{"each once", []int64{69, 70, 71, 84, 85, 86, 94, 95, 100}, []int{70, 85, 95}},
		{"at once", []int64{96}, []int{95}},
		{"to and fro", []int64{70, 69, 70, 66, 70, 65, 70}, []int{70}},
		{"back by five", []int64{70, 64, 70}, []int{70, 0, 70}},
		{"down one", []int64{85, 81, 80, 79, 85}, []int{85, 70, 85}},
		{"down all", []int64{99, 10, 99}, []int{95, 0, 95}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var g gauge
			var got []int
			for i, used := range tt.used {
				g.look(time.Unix(int64(i), 0), used)
				if g.moved(100) {
					got = append(got, warnLevels[g.level])
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("told of %v, want %v", got, tt.want)
			}
		})
	}
}

// TestPace expects the time left to follow what is written, and to forget what
// was long ago.
func TestPace(t *testing.T) {
	var g gauge
	now := time.Unix(0, 0)
	run := func(d time.Duration, perSecond int64) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(time.Second)
			g.look(now, g.used+perSecond)
		}
	}
	g.look(now, 5000)
	if d := g.left(1000); d != 0 {
		t.Errorf("at first: %v left, want not known", d)
	}
	about := func(want time.Duration) {
		t.Helper()
		if d := g.left(36_000); d < want*9/10 || d > want*11/10 {
			t.Errorf("%v left, want about %v", d, want)
		}
	}
	run(time.Minute, 10)
	about(time.Hour)
	run(time.Hour, 100)
	about(6 * time.Minute)
	run(2*time.Hour, 10)
	about(time.Hour)
	run(time.Hour, -5)
	if d := g.left(36_000); d != 0 {
		t.Errorf("while space comes back: %v left", d)
	}
}

// warnings collects what a session tells.
type warnings struct {
	mu   sync.Mutex
	list []string
	left []time.Duration
}

func (w *warnings) add(sw SpaceWarning) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := "volume"
	if sw.Quota {
		of = "quota"
	}
	w.list = append(w.list, fmt.Sprint(of, " ", sw.Percent))
	w.left = append(w.left, sw.TimeLeft)
}

// await waits until the last thing told is what is wanted.
func (w *warnings) await(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		list := slices.Clone(w.list)
		w.mu.Unlock()
		switch n := len(list); {
		case n > 0 && list[n-1] == want:
			return
		case time.Now().After(end):
			t.Fatalf("told of %q, and not of %q at last", list, want)
		}
	}
}

// told returns how often something was told.
func (w *warnings) told(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.list {
		if s == what {
			n++
		}
	}
	return n
}

// TestWarned fills a quota and a volume, and empties the quota again.
func TestWarned(t *testing.T) {
	var got warnings
	opt := smallLog
	opt.QuotaBytes, opt.Warn, opt.often = 100*grainBytes, got.add, 10*time.Millisecond
	base := newBase(31, 400*grainBytes)
	fsys := vfs.NewMem()
	s := mustCreate(t, fsys, opt, base)
	write := func(d *Disk, first, n int, b byte) {
		t.Helper()
		for g := first; g < first+n; g++ {
			if _, err := d.Write(bytes.Repeat([]byte{b}, grainBytes), int64(g)*grainBytes, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := s.Disks()[0]
	write(d, 0, 72, 1)
	got.await(t, "quota 70")
	write(d, 0, 72, 2) // nothing new
	write(d, 72, 24, 1)
	got.await(t, "quota 95")
	if n := got.told("quota 70"); n != 1 {
		t.Errorf("told %d times of 70 %% of the quota", n)
	}
	write(d, 0, 60, 0) // back with the next checkpoint
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	got.await(t, "quota 0")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, d := range got.left {
		if d <= 0 && got.list[i] != "quota 0" {
			t.Errorf("%s: no time left", got.list[i])
		}
	}

	// The volume, of which the session has 36 grains, its log and its reserve.
	own := 36*grainBytes + opt.WALBytes + opt.ReserveBytes
	opt.QuotaBytes = 0
	fsys.SetCapacity(fsys.Used() + own/2)
	s = mustOpen(t, fsys, opt, base)
	defer s.Close()
	write(s.Disks()[0], 100, int(own*3/10/grainBytes), 1)
	got.await(t, "volume 85")
}

// TestWarnedOfVolume fills a real volume with the file of somebody else.
func TestWarnedOfVolume(t *testing.T) {
	testreq.Need(t, "root", "loop", "mkfs.xfs")
	dir := mountXFS(t, 512)
	fsys, err := vfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	var got warnings
	base := newBase(32, 10*grainBytes)
	s := mustCreate(t, fsys, Options{WALBytes: mib, Warn: got.add, often: 10 * time.Millisecond}, base)
	total, err := volumeBytes(fsys)
	if err != nil || total < 400*mib || total > 512*mib {
		t.Fatalf("a volume of %d bytes, %v", total, err)
	}
	take := func(name string, percent int64) {
		t.Helper()
		f, err := fsys.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Preallocate(total*percent/100), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	take("one", 70)
	got.await(t, "volume 70")
	take("two", 15)
	got.await(t, "volume 85")
	if err := errors.Join(fsys.Remove("one"), fsys.Remove("two")); err != nil {
		t.Fatal(err)
	}
	got.await(t, "volume 0")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(got.list); n > 4 { // maybe 70 once more, on the way back
		t.Errorf("told of %q", got.list)
	}
}
