package cli

import (
	"testing"
	"time"
)

func TestAgeFlag(t *testing.T) {
	tests := map[string]struct {
		want time.Duration
		text string
	}{
		"30d": {720 * time.Hour, "30d"}, "0d": {0, ""}, "1.5d": {36 * time.Hour, "36h0m0s"}, "12h": {12 * time.Hour, "12h0m0s"},
		"48h": {48 * time.Hour, "2d"}, "": {-1, ""}, "d": {-1, ""}, "-1d": {-1, ""}, "-1h": {-1, ""}, "5": {-1, ""}, "1e300d": {-1, ""}, "NaNd": {-1, ""},
	}
	for in, tt := range tests {
		var f ageFlag
		err := f.Set(in)
		if (err != nil) != (tt.want < 0) || err == nil && (time.Duration(f) != tt.want || f.String() != tt.text) {
			t.Errorf("%q: %v %q, %v; want %v %q", in, time.Duration(f), f.String(), err, tt.want, tt.text)
		}
	}
}

func TestShareFlag(t *testing.T) {
	tests := map[string]struct {
		want float64
		text string
	}{
		"5%": {0.05, "5%"}, "0.5": {0.5, "50%"}, "100%": {1, "100%"}, "1": {1, "100%"}, "0.1%": {0.001, "0.1%"},
		"0": {-1, ""}, "0%": {-1, ""}, "101%": {-1, ""}, "-5%": {-1, ""}, "": {-1, ""}, "%": {-1, ""}, "NaN": {-1, ""}, "Inf": {-1, ""},
	}
	for in, tt := range tests {
		var f shareFlag
		err := f.Set(in)
		if (err != nil) != (tt.want < 0) || err == nil && (float64(f) != tt.want || f.String() != tt.text) {
			t.Errorf("%q: %v %q, %v; want %v %q", in, float64(f), f.String(), err, tt.want, tt.text)
		}
	}
}
