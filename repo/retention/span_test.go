package retention

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func TestParseSpan(t *testing.T) {
	tests := []struct {
		text string
		want Span
		bad  bool
	}{
		{text: "", want: Span{}},
		{text: "12h", want: Span{12, Hour}},
		{text: "30d", want: Span{30, Day}},
		{text: "6w", want: Span{6, Week}},
		{text: "3m", want: Span{3, Month}},
		{text: "1y", want: Span{1, Year}},
		{text: "0d", want: Span{0, Day}},
		{text: "200y", want: Span{200, Year}},
		{text: "201y", bad: true},
		{text: "1752000h", want: Span{1752000, Hour}},
		{text: "1752001h", bad: true},
		{text: "99999999999999999999d", bad: true},
		{text: "30", bad: true},
		{text: "d", bad: true},
		{text: "30D", bad: true},
		{text: "30min", bad: true},
		{text: "1y6m", bad: true},
		{text: "014d", bad: true},
		{text: "-3d", bad: true},
		{text: "+3d", bad: true},
		{text: " 3d", bad: true},
		{text: "3 d", bad: true},
		{text: "1.5d", bad: true},
		{text: "٣d", bad: true},
	}
	for _, tt := range tests {
		got, err := ParseSpan(tt.text)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("ParseSpan(%q) = %#v, %v; want %#v, error %v", tt.text, got, err, tt.want, tt.bad)
		}
		if tt.bad && !errors.Is(err, ErrSpan) {
			t.Errorf("ParseSpan(%q): %v is not ErrSpan", tt.text, err)
		}
		if !tt.bad && got.String() != tt.text {
			t.Errorf("%#v is written %q, want %q", got, got.String(), tt.text)
		}
	}
}

func TestSpanText(t *testing.T) {
	type doc struct{ A, B Span }
	text, err := json.Marshal(doc{A: Span{3, Month}})
	if want := `{"A":"3m","B":""}`; err != nil || string(text) != want {
		t.Fatalf("marshal: %s, %v; want %s", text, err, want)
	}
	got := doc{B: Span{1, Day}}
	if err := json.Unmarshal(text, &got); err != nil || got != (doc{A: Span{3, Month}}) {
		t.Errorf("unmarshal: %v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"3x"}`), &got); !errors.Is(err, ErrSpan) || got.A != (Span{3, Month}) {
		t.Errorf("unmarshal of 3x: %v, %v; want ErrSpan and the old value", got.A, err)
	}
	if _, err := (Span{-1, Day}).MarshalText(); !errors.Is(err, ErrSpan) {
		t.Errorf("marshal of -1d: %v, want ErrSpan", err)
	}
}

func TestSpanEnd(t *testing.T) {
	tests := []struct {
		name string
		zone string
		from string
		span Span
		want string
	}{
		{"days keep the time of day when summer time starts", "Europe/Berlin", "2026-03-28T22:00:00+01:00", Span{1, Day}, "2026-03-29T22:00:00+02:00"},
		{"days keep the time of day when it ends", "Europe/Berlin", "2026-10-24T22:00:00+02:00", Span{1, Week}, "2026-10-31T22:00:00+01:00"},
		{"hours are elapsed time", "Europe/Berlin", "2026-03-28T22:00:00+01:00", Span{24, Hour}, "2026-03-29T23:00:00+02:00"},
		{"days are local whatever zone the time is in", "Europe/Berlin", "2026-03-28T21:00:00Z", Span{1, Day}, "2026-03-29T22:00:00+02:00"},
		{"a month", "UTC", "2026-11-20T10:00:00Z", Span{1, Month}, "2026-12-20T10:00:00Z"},
		{"months over a year's end", "UTC", "2026-11-20T10:00:00Z", Span{3, Month}, "2027-02-20T10:00:00Z"},
		{"a month without that day", "UTC", "2026-01-31T10:00:00Z", Span{1, Month}, "2026-03-01T00:00:00Z"},
		{"a leap month without that day", "UTC", "2028-01-30T10:00:00Z", Span{1, Month}, "2028-03-01T00:00:00Z"},
		{"a leap month with that day", "UTC", "2028-01-29T10:00:00Z", Span{1, Month}, "2028-02-29T10:00:00Z"},
		{"a year from a leap day", "UTC", "2028-02-29T10:00:00Z", Span{1, Year}, "2029-03-01T00:00:00Z"},
		{"four years from a leap day", "UTC", "2028-02-29T10:00:00Z", Span{4, Year}, "2032-02-29T10:00:00Z"},
		{"2100 is no leap year", "UTC", "2096-02-29T10:00:00Z", Span{4, Year}, "2100-03-01T00:00:00Z"},
		{"midnight does not exist", "America/Sao_Paulo", "2017-09-15T00:30:00-03:00", Span{1, Month}, "2017-10-15T01:30:00-02:00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.span.end(instant(t, tt.from), zone(t, tt.zone))
			want := instant(t, tt.want)
			// In a gap Go chooses one of two instants an hour apart.
			if d := got.Sub(want); d != 0 && (tt.name != "midnight does not exist" || d != -time.Hour) {
				t.Errorf("%v from %s ends %v, want %v", tt.span, tt.from, got, want)
			}
		})
	}
}

func FuzzParseSpan(f *testing.F) {
	for _, s := range []string{"", "12h", "30d", "6w", "3m", "1y", "014d", "200y", "-1d", "99999999999999999999y", "1y6m", "0d"} {
		f.Add(s)
	}
	from := time.Date(2028, 2, 29, 23, 59, 59, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSpan(text)
		if err != nil {
			if !errors.Is(err, ErrSpan) || s != (Span{}) || len(err.Error()) > 500 {
				t.Fatalf("ParseSpan(%q) = %v, %v", text, s, err)
			}
			return
		}
		if s.String() != text || s.check() != nil {
			t.Fatalf("ParseSpan(%q) = %#v, written %q, check %v", text, s, s, s.check())
		}
		if end := s.end(from, time.UTC); end.Before(from) || (s.Count > 0) != end.After(from) || end.Year() > 2028+maxYears {
			t.Fatalf("%v from %v ends %v", s, from, end)
		}
	})
}
