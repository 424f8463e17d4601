package repo

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones below, wherever this runs
)

func findPoints() []Point {
	at := func(s string) time.Time {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			panic(err)
		}
		return t.UTC()
	}
	return []Point{
		{ID: "aaaabaaaaaaaaaaaaaaa", Machine: "web", MachineID: "m1", Sequence: 1, Time: at("2026-03-28T22:59:59.999Z")},
		{ID: "aaaacaaaaaaaaaaaaaaa", Machine: "web", MachineID: "m1", Sequence: 2, Time: at("2026-03-29T21:59:59.999Z")},
		{ID: "aaaadaaaaaaaaaaaaaaa", Machine: "web", MachineID: "m1", Sequence: 3, Time: at("2026-03-29T22:00:00Z")},
		{ID: "bbbbbaaaaaaaaaaaaaaa", Machine: "a@b", MachineID: "m2", Sequence: 1, Time: at("2026-03-29T22:00:30Z")},
		{ID: "ccccbaaaaaaaaaaaaaaa", Machine: "web", MachineID: "m1", Sequence: 4, Time: at("2026-10-25T22:30:00Z")},
	}
}

func TestFind(t *testing.T) {
	zurich, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	// Summer time began in Zurich on 29 March 2026 and ended on 25 October.
	tests := []struct {
		name, spec string
		loc        *time.Location
		want       PointID // its start; empty: ErrNotFound; "?": ambiguous; "!": ErrTime
	}{
		{"whole id", "aaaabaaaaaaaaaaaaaaa", nil, "aaaab"},
		{"prefix", "aaaad", nil, "aaaad"},
		{"prefix of four", "bbbb", nil, "bbbb"},
		{"prefix of three", "bbb", nil, ""},
		{"empty", "", nil, ""},
		{"ambiguous", "aaaa", nil, "?"},
		{"unknown", "dddd", nil, ""},
		{"longer than an id", "aaaabaaaaaaaaaaaaaaaa", nil, ""},
		{"latest", "web@latest", nil, "ccccb"},
		{"latest by machine id", "m1@latest", nil, "ccccb"},
		{"a name with @", "a@b@latest", nil, "bbbbb"},
		{"unknown machine", "wob@latest", nil, ""},
		{"no machine", "@latest", nil, ""},

		{"day", "web@2026-03-29", time.UTC, "aaaad"},
		{"day before all", "web@2026-03-27", time.UTC, ""},
		{"day after all", "web@2027-01-01", time.UTC, "ccccb"},
		{"day in UTC for a local", "web@2026-03-28Z", zurich, "aaaab"},
		{"local day", "web@2026-03-28", zurich, "aaaab"},             // it ends at 23:00Z
		{"local day of 23 hours", "web@2026-03-29", zurich, "aaaac"}, // it ends at 22:00Z
		{"local day of 25 hours", "web@2026-10-25", zurich, "ccccb"}, // it ends at 23:00Z
		{"local day after that", "web@2026-10-24", zurich, "aaaad"},  // it ends at 22:00Z
		{"minute", "web@2026-03-29T21:59Z", nil, "aaaac"},            // its last millisecond counts
		{"minute that follows", "web@2026-03-29T22:00Z", nil, "aaaad"},
		{"minute before", "web@2026-03-29T21:58Z", nil, "aaaab"},
		{"local minute", "web@2026-03-29T23:59", zurich, "aaaac"},
		{"second", "web@2026-03-29T21:59:59Z", nil, "aaaac"},
		{"second before", "web@2026-03-29T21:59:58Z", nil, "aaaab"},
		{"a local time there is not", "web@2026-03-29T02:30", zurich, "aaaab"},
		{"millisecond", "web@2026-03-29T21:59:59.999Z", nil, "aaaac"},
		{"millisecond before", "web@2026-03-29T21:59:59.998Z", nil, "aaaab"},
		{"a point's name in the content tree", "web@2026-03-29T21-59-59.999Z", nil, "aaaac"},
		{"minute with a dash", "web@2026-03-29T21-59Z", nil, "aaaac"},
		{"half a fraction", "web@2026-03-29T21:59:59.9Z", nil, "!"},
		{"no time", "web@yesterday", nil, "!"},
		{"no day", "web@2026-02-30", nil, "!"},
		{"no time of an unknown machine", "wob@yesterday", nil, "!"},
		{"another zone's letter", "web@2026-03-29T21:59:59+02:00", nil, "!"},
	}
	for _, tt := range tests {
		p, err := findPoint(findPoints(), tt.spec, tt.loc)
		var many *AmbiguousError
		switch {
		case tt.want == "?":
			if !errors.As(err, &many) || len(many.Matches) != 3 || !strings.Contains(err.Error(), "aaaacaaaaaaaaaaaaaaa (web, 2026-03-29T21:59:59Z)") {
				t.Errorf("%s: got %v, want three matches", tt.name, err)
			}
		case tt.want == "!":
			if !errors.Is(err, ErrTime) || !strings.Contains(err.Error(), tt.spec[strings.LastIndexByte(tt.spec, '@')+1:]) {
				t.Errorf("%s: got %q, %v, want ErrTime", tt.name, p.ID, err)
			}
		case tt.want == "":
			if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), strings.TrimLeft(tt.spec[strings.LastIndexByte(tt.spec, '@')+1:], "@")) && !strings.Contains(err.Error(), "machine") {
				t.Errorf("%s: got %q, %v, want ErrNotFound", tt.name, p.ID, err)
			}
		case err != nil || !strings.HasPrefix(string(p.ID), string(tt.want)):
			t.Errorf("%s: got %q, %v, want %s", tt.name, p.ID, err, tt.want)
		}
	}
}

// TestFindLatestBySequence: the highest sequence is the latest, whatever the
// clocks said.
func TestFindLatestBySequence(t *testing.T) {
	points := findPoints()
	points[0].Sequence = 9
	if p, err := findPoint(points, "web@latest", nil); err != nil || p.Sequence != 9 {
		t.Error(p, err)
	}
	if p, err := findPoint(points, "web@2026-03-30Z", nil); err != nil || p.Sequence != 9 {
		t.Error(p, err)
	}
}

func TestCheckName(t *testing.T) {
	good := []string{"a", "Hard disk 1.vmdk", "web-1", "Zürich", "…", ".hidden", "a..b", "...", strings.Repeat("x", 255), "a@b", `a\b`, " "}
	for _, name := range good {
		if err := CheckName("disk", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	bad := []struct{ name, why string }{
		{"", "is empty"}, {".", "stands for a directory"}, {"..", "stands for a directory"},
		{"a/b", "slash"}, {"/", "slash"}, {"../x", "slash"},
		{"a\nb", "control"}, {"\x00", "control"}, {"a\x7f", "control"}, {"a\u0085b", "control"}, {"a\ufffd", "control"},
		{"\xff", "UTF-8"}, {"ab\xc3", "UTF-8"}, {"\xed\xa0\x80", "UTF-8"},
		{strings.Repeat("x", 256), "256 bytes"}, {strings.Repeat("x", 300), "300 bytes"}, {strings.Repeat("ü", 128), "256 bytes"},
	}
	for _, tt := range bad {
		err := CheckName("disk", tt.name)
		if !errors.Is(err, ErrName) || !strings.Contains(err.Error(), tt.why) || !strings.Contains(err.Error(), "disk") || len(err.Error()) > 400 {
			t.Errorf("%.20q: got %v, want ErrName: %s", tt.name, err, tt.why)
		}
	}
}

func TestNewID(t *testing.T) {
	start := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	zeros, ones := bytes.Repeat([]byte{0}, 7), bytes.Repeat([]byte{0xff}, 7)
	id := func(at time.Time, rand []byte) string {
		t.Helper()
		id, err := newID(at, bytes.NewReader(rand))
		if err != nil || !isID(id) {
			t.Fatalf("%q, %v", id, err)
		}
		return id
	}
	// 48 bits of milliseconds are nine characters and three bits of the tenth.
	if got := id(time.UnixMilli(0), zeros); got != "22222222222222222222" {
		t.Error(got)
	}
	if got := id(time.UnixMilli(1), zeros); got != "22222222262222222222" {
		t.Error(got)
	}
	if got := id(time.UnixMilli(1<<48-1), ones); got != "zzzzzzzzzzzzzzzzzzzz" {
		t.Error(got)
	}
	var ids []string
	for d := time.Duration(0); d < 100*365*24*time.Hour; d += d/2 + time.Millisecond {
		at := start.Add(d)
		ids = append(ids, id(at, zeros), id(at, ones))
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("ids are not in order of time: %v", ids)
	}
	if _, err := newID(start, bytes.NewReader(zeros[:6])); err == nil {
		t.Error("an id was made of too little chance")
	}
	for _, s := range []string{"", "aaaa", "aaaabaaaaaaaaaaaaaa1", "AAAABAAAAAAAAAAAAAAA", "aaaabaaaaaaaaaaaaaaaa", "aaaabaaaa/aaaaaaaaaa"} {
		if isID(s) {
			t.Errorf("%q is taken for an id", s)
		}
	}
}

// TestComparePoints: by time, then sequence, then id.
func TestComparePoints(t *testing.T) {
	t0 := time.Unix(100, 0)
	want := []Point{
		{ID: "b", Time: t0, Sequence: 1}, {ID: "c", Time: t0, Sequence: 1}, {ID: "a", Time: t0, Sequence: 2},
		{ID: "a", Time: t0.Add(1), Sequence: 1},
	}
	got := []Point{want[3], want[1], want[2], want[0]}
	slices.SortFunc(got, comparePoints)
	for i := range want {
		if got[i].ID != want[i].ID || got[i].Sequence != want[i].Sequence || !got[i].Time.Equal(want[i].Time) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}
