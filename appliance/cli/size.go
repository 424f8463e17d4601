package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

var sizeUnits = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}

// parseSize reads a number of bytes: "4096", "512K", "1M", "1MiB", "2 GiB", in
// either case. Units are powers of 1024; the decimal ones, such as "MB", are
// refused rather than taken for something that they are not.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToLower(strings.TrimSpace(s[len(digits):]))
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size: want a whole number and B, K, M, G, T or KiB … TiB", s)
	}
	shift := -1
	for i, u := range sizeUnits {
		u = strings.ToLower(u)
		if unit == u || unit == u[:1] || (unit == "" && i == 0) {
			shift = 10 * i
		}
	}
	if shift < 0 {
		return 0, fmt.Errorf("%q is not a size: the unit %q is none of B, KiB, MiB, GiB, TiB, PiB", s, unit)
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size: more than 8 EiB", s)
	}
	return int64(n) << shift, nil
}

// formatSize prints n bytes for people: whole below 1 KiB and where exact, else
// three digits. parseSize reads what is exact.
func formatSize(n int64) string {
	abs, unit := math.Abs(float64(n)), 0
	for abs >= 1024 && unit < len(sizeUnits)-1 {
		abs, unit = abs/1024, unit+1
	}
	if n < 0 {
		abs = -abs
	}
	switch {
	case abs == math.Trunc(abs):
		return fmt.Sprintf("%.0f %s", abs, sizeUnits[unit])
	case math.Abs(abs) < 10:
		return fmt.Sprintf("%.2f %s", abs, sizeUnits[unit])
	case math.Abs(abs) < 100:
		return fmt.Sprintf("%.1f %s", abs, sizeUnits[unit])
	}
	return fmt.Sprintf("%.0f %s", abs, sizeUnits[unit])
}

// sizeFlag is a flag that holds a number of bytes.
type sizeFlag int64

func (f *sizeFlag) Set(s string) error {
	n, err := parseSize(s)
	*f = sizeFlag(n)
	return err
}

func (f *sizeFlag) String() string {
	if *f == 0 {
		return ""
	}
	return formatSize(int64(*f))
}

func (f *sizeFlag) Type() string { return "size" }
