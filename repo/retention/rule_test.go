package retention

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	tests := []struct {
		name string
		rule Rule
		want []string // parts of the error; none: valid
	}{
		{"empty", Rule{}, nil},
		{"all parts", Rule{Last: 14, Hourly: 24, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 10, Within: Span{30, Day},
			AtLeast: Span{14, Day}, Extra: Span{3, Day}, ExpireNewest: true}, nil},
		{"no extras, no floor", Rule{Last: 1, Extra: Span{0, Day}, AtLeast: Span{0, Day}}, nil},
		{"a negative count", Rule{Last: 3, Weekly: -4}, []string{"weekly -4 is below zero"}},
		{"only a negative count", Rule{Last: -1}, []string{"last -1 is below zero"}},
		{"everything at once", Rule{Last: -1, Yearly: -2, AtLeast: Span{-3, Day}},
			[]string{"last -1", "yearly -2", "at least: span -3d: below zero"}},
		{"no unit", Rule{Within: Span{Count: 30}}, []string{"within: span: 30 of unknown unit"}},
		{"too long a span", Rule{Within: Span{1000, Year}}, []string{"within: span 1000y: more than 200 years"}},
		{"within nothing", Rule{Within: Span{0, Day}}, []string{"within 0d keeps nothing"}},
		{"only a floor", Rule{AtLeast: Span{14, Day}}, []string{"at least 14d is a floor", "say within 14d"}},
		{"only extras", Rule{Extra: Span{7, Day}}, []string{"extra 7d without a rule"}},
		{"keeps everything but the newest", Rule{ExpireNewest: true}, []string{"the newest point can't expire"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.rule.Validate()
			if (err != nil) != (tt.want != nil) || (err != nil && !errors.Is(err, ErrRule)) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
			if strings.Contains(tt.rule.String(), "%!") || (err != nil && strings.Contains(err.Error(), "%!")) {
				t.Errorf("badly written: %v, %v", tt.rule, err)
			}
			// A rule that is wrong lets nothing go.
			got, decideErr := Decide([]Point{{ID: "a"}}, tt.rule, time.Time{}, nil)
			if err != nil && (!errors.Is(decideErr, ErrRule) || got != nil) {
				t.Errorf("decided %v, %v", got, decideErr)
			}
			if err == nil && (decideErr != nil || len(got) != 1) {
				t.Errorf("decided %v, %v; want one decision", got, decideErr)
			}
		})
	}
}

func TestRuleString(t *testing.T) {
	tests := []struct {
		rule Rule
		want string
	}{
		{Rule{}, "everything"},
		{Rule{Last: 14, Weekly: 4, Monthly: 12}, "last 14, weekly 4, monthly 12"},
		{Rule{Last: 1, Hourly: 2, Daily: 3, Weekly: 4, Monthly: 5, Yearly: 6, Within: Span{30, Day}, AtLeast: Span{2, Week},
			Extra: Span{0, Day}, ExpireNewest: true},
			"last 1, hourly 2, daily 3, weekly 4, monthly 5, yearly 6, within 30d, at least 2w, extra 0d, even the newest"},
	}
	for _, tt := range tests {
		if got := tt.rule.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
