package repo

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSelection(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 3, 0, 0, 0, time.UTC) }
	points := []Point{ // a copy of an older point may have a higher number
		{ID: "a", Machine: "web", MachineID: "1", Sequence: 3, Time: day(1)},
		{ID: "b", Machine: "web", MachineID: "1", Sequence: 1, Time: day(2)},
		{ID: "c", Machine: "db", MachineID: "2", Sequence: 7, Time: day(3)},
		{ID: "d", Machine: "www", MachineID: "1", Sequence: 2, Time: day(4)},
		{ID: "e", Machine: "db", MachineID: "2", Sequence: 8, Time: day(5)},
	}
	for _, c := range []struct {
		name string
		sel  Selection
		want string
	}{
		{"all", Selection{}, "abcde"},
		{"a machine", Selection{Machines: []string{"db"}}, "ce"},
		{"by the name it had", Selection{Machines: []string{"web"}}, "ab"},
		{"by its id", Selection{Machines: []string{"1"}}, "abd"},
		{"two", Selection{Machines: []string{"www", "2"}}, "cde"},
		{"last of each", Selection{Last: 1}, "ae"},
		{"last two", Selection{Last: 2}, "acde"},
		{"more than there are", Selection{Last: 9}, "abcde"},
		{"last of one", Selection{Last: 1, Machines: []string{"db"}}, "e"},
		{"since", Selection{Since: day(3)}, "cde"},
		{"last, if since", Selection{Since: day(2), Last: 1}, "e"},
	} {
		got, err := c.sel.Of(points)
		var ids []string
		for _, p := range got {
			ids = append(ids, string(p.ID))
		}
		if err != nil || strings.Join(ids, "") != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, ids, err, c.want)
		}
	}
	if _, err := (&Selection{Machines: []string{"db", "mail"}}).Of(points); !errors.Is(err, ErrNotFound) {
		t.Errorf("a machine without points: %v", err)
	}
}
