package content

import (
	"slices"
	"strings"
	"testing"

	"holdfast/repo"
)

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a/b", "a%2Fb", "100%", "50%2", "\x00", "ä", `q"u`} {
		f.Add(s, s+"x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		ea, eb := escape(a, ""), escape(b, "")
		if a != b && ea == eb && a != "" && b != "" {
			t.Errorf("%q and %q are both %q", a, b, ea)
		}
		if ea == "" || ea == "." || ea == ".." || strings.ContainsAny(ea, "/\x00") {
			t.Errorf("%q is no name", ea)
		}
		if repo.CheckName("x", a) == nil && !strings.Contains(a, "%") && ea != a {
			t.Errorf("%q became %q for nothing", a, ea)
		}
		if s := shorten(ea); len(s) > 255-len("-stream.vmdk") {
			t.Errorf("%d bytes", len(s))
		}
	})
}

func TestViewNames(t *testing.T) {
	long := strings.Repeat("ä", 127)
	tests := []struct{ disks, want []string }{
		{[]string{"root.qcow2", "data"}, []string{"root", "data"}},
		{[]string{"a.vmdk", "a.raw"}, []string{"a.vmdk", "a.raw"}},
		{[]string{".raw", "b.txt"}, []string{".raw", "b.txt"}},
		{[]string{`5" \ disk`}, []string{"5%22 %5C disk"}},
		{[]string{"a", "a-flat"}, []string{"a", "a-flat~" + digestName("a-flat")[4:]}},
		{[]string{long}, []string{long[:maxName] + "~" + shorten(long)[maxName+1:]}},
	}
	for _, tt := range tests {
		var disks []repo.DiskInfo
		for _, d := range tt.disks {
			disks = append(disks, repo.DiskInfo{Name: d})
		}
		if got := viewNames(disks); !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q, want %q", tt.disks, got, tt.want)
		}
	}
}

func TestSlots(t *testing.T) {
	many := []string{"1", "2", "15", "2", "01", "whole", "root", "2048", "-1"}
	got := slots(many)
	if !slices.Equal(got[:3], []int{1, 2, 15}) {
		t.Errorf("partitions have the slots %v", got[:3])
	}
	sorted := slices.Clone(got)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != len(many) || sorted[0] < 1 || sorted[len(sorted)-1] >= maxSlots {
		t.Errorf("slots %v", got)
	}
	if other := slots([]string{"3", "root"}); other[1] != got[6] {
		t.Errorf("root has slot %d, and %d beside others", other[1], got[6])
	}
	flood := make([]string, 5000)
	for i := range flood {
		flood[i] = "x"
	}
	if got := slots(flood); slices.Index(got, 0) != maxSlots/2 {
		t.Errorf("there is room for %d volumes, want %d", slices.Index(got, 0), maxSlots/2)
	}
	for _, n := range []uint64{1, 1<<keyBits - 1} {
		if k, d, s := splitFS(fsOf(n, 255, 4095)); k != n || d != 255 || s != 4095 {
			t.Errorf("key %x, disk %d, slot %d", k, d, s)
		}
	}
}
