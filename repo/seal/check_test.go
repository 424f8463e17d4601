package seal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestCheckRoundTrip(t *testing.T) {
	for _, object := range []string{
		`{"a":1}`,
		`{"version":1,"label":"<a&b> \u003c \"check\":\"\"}"}`,
		`{"b": 2 , "a":[1,{"check":"inner"}]}`, // spaces and order stay
	} {
		line := AddCheck([]byte(object))
		if line[len(line)-1] != '\n' || bytes.Count(line, []byte("\n")) != 1 {
			t.Errorf("%s: no single line: %q", object, line)
		}
		got, err := CutCheck(line)
		if err != nil || string(got) != object {
			t.Errorf("%s: CutCheck = %s, %v", object, got, err)
		}
		for i := range line {
			for _, bit := range []byte{1, 0x20} { // 0x20 turns a digit's case
				bad := bytes.Clone(line)
				bad[i] ^= bit
				if _, err := CutCheck(bad); !errors.Is(err, ErrFormat) {
					t.Errorf("%s: flipped %#x of byte %d: %v, want ErrFormat", object, bit, i, err)
				}
			}
			if _, err := CutCheck(line[:i]); !errors.Is(err, ErrFormat) {
				t.Errorf("%s: cut to %d bytes: %v, want ErrFormat", object, i, err)
			}
		}
		if _, err := CutCheck(append(line, '\n')); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: an empty line more: %v, want ErrFormat", object, err)
		}
	}
}

func TestAddCheckRefuses(t *testing.T) {
	for _, object := range []string{"", "{}", "[1,2,3]", "{\"a\":1}\n", "{\"a\":\n12}", `{"a":123`} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("AddCheck took %q", object)
				}
			}()
			AddCheck([]byte(object))
		}()
	}
}

func TestParseLineRefuses(t *testing.T) {
	type line struct {
		Version int    `json:"version"`
		A       string `json:"a"`
	}
	for _, c := range []struct {
		name string
		line []byte
		want error
	}{
		{"good", AddCheck([]byte(`{"version":1,"a":"b"}`)), nil},
		{"newer", AddCheck([]byte(`{"version":2,"a":"b"}`)), ErrNewer},
		{"newer with other rules", []byte(`{"version":7}`), ErrNewer},
		{"older", AddCheck([]byte(`{"version":0,"a":"b"}`)), ErrFormat},
		{"negative", AddCheck([]byte(`{"version":-1,"a":"b"}`)), ErrFormat},
		{"no version", AddCheck([]byte(`{"a":"b"}`)), ErrFormat},
		{"unknown field", AddCheck([]byte(`{"version":1,"c":1}`)), ErrFormat},
		{"check twice", AddCheck(bytes.TrimSuffix(AddCheck([]byte(`{"version":1}`)), []byte("\n"))), ErrFormat},
		{"no json", AddCheck([]byte(`{version:1}`)), ErrFormat},
		{"long", AddCheck([]byte(`{"version":1,"a":"` + strings.Repeat("b", maxLineBytes) + `"}`)), ErrFormat},
		{"empty", nil, ErrFormat},
	} {
		var l line
		if err := parseLine(c.line, &l); !errors.Is(err, c.want) || c.want == nil && (err != nil || l.A != "b") {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzCutCheck(f *testing.F) {
	f.Add(AddCheck([]byte(`{"version":1}`)))
	f.Add([]byte(knownPublic))
	f.Add([]byte(`,"check":"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		object, err := CutCheck(line)
		if err != nil {
			return
		}
		if len(object) > 8 && object[0] == '{' && !bytes.Contains(object, []byte("\n")) && !bytes.Equal(AddCheck(object), line) {
			t.Errorf("AddCheck(%q) is not %q", object, line)
		}
	})
}
