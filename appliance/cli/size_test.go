package cli

import (
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	tests := []struct {
		in   string
		want int64
	}{
		{"0", 0}, {"4096", 4096}, {"7B", 7}, {"1K", 1 << 10}, {"512k", 512 << 10}, {"1M", 1 << 20},
		{"1MiB", 1 << 20}, {"1mib", 1 << 20}, {"3 GiB", 3 << 30}, {"2T", 2 << 40}, {"8191PiB", 8191 << 50},
		{"9223372036854775807", math.MaxInt64},
	}
	for _, tt := range tests {
		if got, err := parseSize(tt.in); err != nil || got != tt.want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"", "M", "-1", "+1", "1.5G", "1MB", "1 MB", "1KK", "0x10", "8192P", "9223372036854775808", "1e3", "１"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	tests := []struct {
		in   int64
		want string
	}{
		{0, "0 B"}, {1, "1 B"}, {1023, "1023 B"}, {1024, "1 KiB"}, {1536, "1.50 KiB"}, {20 << 20, "20 MiB"},
		{20<<20 + 300<<10, "20.3 MiB"}, {529<<20 + 1, "529 MiB"}, {4 << 40, "4 TiB"}, {-1536, "-1.50 KiB"},
		{math.MaxInt64, "8192 PiB"},
	}
	for _, tt := range tests {
		if got := formatSize(tt.in); got != tt.want {
			t.Errorf("formatSize(%d) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
