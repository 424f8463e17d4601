package cli

import (
	"strings"
	"testing"
	"time"
)

func TestProgressLines(t *testing.T) {
	var out strings.Builder
	a := &app{err: &out}
	m := a.progress("backup of db1", 100<<20)
	now := m.start
	m.now = func() time.Time { return now }
	for range 150 { // seconds, half a MiB in each
		now = now.Add(time.Second)
		m.at(int64(now.Sub(m.start).Seconds()) << 19)
	}
	m.end(true)
	want := "backup of db1: 30 MiB of 100 MiB, 512 KiB/s, 2m20s left\n" +
		"backup of db1: 60 MiB of 100 MiB, 512 KiB/s, 1m20s left\n"
	if out.String() != want {
		t.Errorf("printed\n%s, want\n%s", out.String(), want)
	}
}

// TestProgressWithoutEnd shows work of which nobody knows how much it is.
func TestProgressWithoutEnd(t *testing.T) {
	var out strings.Builder
	a := &app{err: &out}
	for _, unit := range []string{"", "files"} {
		m := a.progressOf("copy", unit, unknownTotal)
		now := m.start.Add(64 * time.Second)
		m.now = func() time.Time { return now }
		m.at(64 << 20)
		m.end(true)
	}
	if want := "copy: 64 MiB, 1 MiB/s\ncopy: 67108864 files\n"; out.String() != want {
		t.Errorf("printed\n%s, want\n%s", out.String(), want)
	}
}

func TestProgressOff(t *testing.T) {
	for name, a := range map[string]*app{"quiet": {quiet: true}, "json": {json: true}} {
		m := a.progress("x", 1)
		m.at(1)
		m.end(false)
		if m != nil {
			t.Errorf("%s: progress is shown", name)
		}
	}
}
