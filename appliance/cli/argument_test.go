package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"holdfast/repo"
)

func TestParseDisks(t *testing.T) {
	tests := []struct {
		in   []string
		want []diskArg
	}{
		{[]string{"/vm/db1.raw"}, []diskArg{{"db1.raw", "/vm/db1.raw"}}},
		{[]string{"root=/vm/a.vmdk", "data=/dev/vg0/b"}, []diskArg{{"root", "/vm/a.vmdk"}, {"data", "/dev/vg0/b"}}},
		{[]string{"/vm/a=b.raw"}, []diskArg{{"a=b.raw", "/vm/a=b.raw"}}},
		{[]string{"./a=b"}, []diskArg{{"a=b", "./a=b"}}},
		{[]string{"a=./b=c"}, []diskArg{{"a", "./b=c"}}},
	}
	for _, tt := range tests {
		if got, err := parseDisks(tt.in); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("parseDisks(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	bad := map[string][]string{
		"no file":            {"a="},
		"no name":            {"=x"},
		"empty":              {""},
		"two of a name":      {"/a/x.raw", "/b/x.raw"},
		"a slash in a name":  {"a/b=x"},
		"dots":               {"..=x"},
		"the directory":      {"/vm/.."},
		"control characters": {"a\nb=x"},
		"300 bytes":          {strings.Repeat("n", 300) + "=x"},
		"not UTF-8":          {"\xff=x"},
	}
	for name, in := range bad {
		_, err := parseDisks(in)
		if err == nil || exitCode(err) != exitUsage {
			t.Errorf("%s: %v, want a usage error", name, err)
		}
	}
	if _, err := parseDisks([]string{"a/b=x"}); !errors.Is(err, repo.ErrName) {
		t.Errorf("name with a slash: %v, want ErrName", err)
	}
}

func TestSplitPoint(t *testing.T) {
	tests := []struct{ in, point, disk string }{
		{"4f6q", "4f6q", ""},
		{"4f6q:root", "4f6q", "root"},
		{"4f6q:a:b@c", "4f6q", "a:b@c"},
		{"db1@latest", "db1@latest", ""},
		{"db1@latest:root", "db1@latest", "root"},
		{"db1@2026-11-22", "db1@2026-11-22", ""},
		{"db1@2026-11-22Z:root", "db1@2026-11-22Z", "root"},
		{"db1@2026-11-22T10:30", "db1@2026-11-22T10:30", ""},
		{"db1@2026-11-22T10:30Z:a=b", "db1@2026-11-22T10:30Z", "a=b"},
		{"db1@2026-11-22T10:30:05:d", "db1@2026-11-22T10:30:05", "d"},
		{"a:b@c@latest:d", "a:b@c@latest", "d"},
		{"nonsense@then", "nonsense@then", ""},
		{"", "", ""},
	}
	for _, tt := range tests {
		if point, disk := splitPoint(tt.in); point != tt.point || disk != tt.disk {
			t.Errorf("splitPoint(%q) = %q, %q; want %q, %q", tt.in, point, disk, tt.point, tt.disk)
		}
	}
}

func TestFileNames(t *testing.T) {
	tests := []struct{ in, want []string }{
		{[]string{"root", "data.qcow2"}, []string{"root.raw", "data.raw"}},
		{[]string{"a.raw", "a.vmdk"}, []string{"a.raw.raw", "a.vmdk.raw"}},
		{[]string{".raw", "v1.2"}, []string{".raw.raw", "v1.2.raw"}},
	}
	for _, tt := range tests {
		if got := fileNames(tt.in, ".raw"); !slices.Equal(got, tt.want) {
			t.Errorf("fileNames(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
