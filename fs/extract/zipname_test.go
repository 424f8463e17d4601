package extract

import (
	"strings"
	"testing"
)

func TestZipName(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"etc/fstab", "etc/fstab"},
		{"100%", "100%"},
		{"a%20b", "a%20b"},
		{`..\..\x`, "..%5C..%5Cx"},
		{`dev-disk\x2duuid.swap`, "dev-disk%5Cx2duuid.swap"},
		{"a%5cb", "a%255cb"},
		{"%25", "%2525"},
		{"%2525", "%252525"},
		{"C:/Windows/x", "C%3A/Windows/x"},
		{"c:x", "c%3Ax"},
		{"C%3A/x", "C%253A/x"},
		{"info/libc6:amd64.list", "info/libc6:amd64.list"},
		{"a/C:x", "a/C:x"},
		{"%", "%"},
		{"a%", "a%"},
	} {
		if got := zipName(tt.path); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.path, got, tt.want)
		}
	}
}

// FuzzZipName undoes what was written, by a way of its own, so that no two paths
// are written alike.
func FuzzZipName(f *testing.F) {
	for _, s := range []string{"", "a", `\`, "%5C", "%25", "C:", "C%3A", "%3A", "\xff%2", `%\`, "%2%5c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := zipName(path)
		if strings.Contains(got, `\`) || len(got) > 1 && got[1] == ':' && strings.ContainsAny(got[:1], "CcZz") {
			t.Fatalf("%q became %q", path, got)
		}
		back := strings.NewReplacer("%5C", `\`, "%25", "%").Replace(got)
		if len(got) > 3 && got[1:4] == "%3A" {
			back = got[:1] + ":" + strings.NewReplacer("%5C", `\`, "%25", "%").Replace(got[4:])
		}
		if back != path {
			t.Fatalf("%q became %q, which is %q", path, got, back)
		}
	})
}
