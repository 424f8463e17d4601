package seal

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// What the golden key files were made with. They open nothing else.
const (
	goldenPass     = "correct horse"
	goldenIdentity = "AGE-SECRET-KEY-1WDV3STHF635S5NHU5SZQYZQWX6Q24JW2WP43C9Y4TD63K0LKRSLQKJGSK3"
	goldenFactor   = 10 // fast; the default takes half a second
)

func identity(t testing.TB) *age.X25519Identity {
	id, err := age.ParseX25519Identity(goldenIdentity)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func goldenFile(t testing.TB, kind Kind) (path string) {
	path = filepath.Join("testdata", string(kind)+".key")
	if !*update {
		return path
	}
	f, err := WrapPassphrase(Master(run(0, 32)), []byte(goldenPass), goldenFactor)
	if kind == Recipient {
		f, err = WrapRecipient(Master(run(0, 32)), identity(t).Recipient().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Label, f.Created = "office safe", knownTime
	line, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, line, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Wrapping is random, so the golden files can only be read again, and written
// back as they are.
func TestKeyFileGolden(t *testing.T) {
	for _, kind := range []Kind{Passphrase, Recipient} {
		line, err := os.ReadFile(goldenFile(t, kind))
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFile(line)
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind != kind || f.Label != "office safe" || !f.Created.Equal(knownTime) {
			t.Errorf("%s: got %s, %q, %s", kind, f.Kind, f.Label, f.Created)
		}
		m, err := f.Unwrap([]byte(goldenPass), []age.Identity{identity(t)})
		if err != nil || m != Master(run(0, 32)) {
			t.Errorf("%s: Unwrap: %v", kind, err)
		}
		back, err := f.Marshal()
		if diff := cmp.Diff(string(line), string(back)); err != nil || diff != "" {
			t.Errorf("%s: written back (%v): %s", kind, err, diff)
		}
	}
}

func TestUnwrapRefuses(t *testing.T) {
	m := Master(run(7, 32))
	pass, err := WrapPassphrase(m, []byte("secret one"), goldenFactor)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := WrapRecipient(m, identity(t).Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	flipped := rec
	flipped.Wrapped = bytes.Clone(rec.Wrapped)
	flipped.Wrapped[len(flipped.Wrapped)-1] ^= 1
	cut := rec
	cut.Wrapped = rec.Wrapped[:len(rec.Wrapped)-1]
	costly := pass
	costly.Wrapped = bytes.Replace(pass.Wrapped, []byte(" 10\n"), []byte(" 23\n"), 1)
	mine, yours := []age.Identity{identity(t)}, []age.Identity{other}
	for _, c := range []struct {
		name string
		file File
		pass string
		ids  []age.Identity
		want error
	}{
		{"passphrase", pass, "secret one", nil, nil},
		{"passphrase beside identities", pass, "secret one", yours, nil},
		{"recipient", rec, "", mine, nil},
		{"recipient, second identity", rec, "", []age.Identity{other, identity(t)}, nil},
		{"wrong passphrase", pass, "secret two", nil, ErrWrongKey},
		{"wrong identity", rec, "secret one", yours, ErrWrongKey},
		{"no passphrase", pass, "", mine, ErrNeedKey},
		{"no identity", rec, "secret one", nil, ErrNeedKey},
		{"flipped", flipped, "", mine, ErrFormat},
		{"cut", cut, "", mine, ErrFormat},
		{"work factor beyond the limit", costly, "secret one", nil, ErrFormat},
		{"no age file", File{Kind: Passphrase, Wrapped: []byte("x")}, "secret one", nil, ErrFormat},
		{"zero file", File{}, "secret one", mine, ErrFormat},
		{"longer key", wrapped(t, run(0, 33)), "", mine, ErrFormat},
		{"shorter key", wrapped(t, run(0, 31)), "", mine, ErrFormat},
	} {
		got, err := c.file.Unwrap([]byte(c.pass), c.ids)
		if !errors.Is(err, c.want) || c.want == nil && (err != nil || got != m) || c.want != nil && got != (Master{}) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "AGE-SECRET")) {
			t.Errorf("%s: the error tells a secret: %v", c.name, err)
		}
	}
}

// wrapped returns a recipient's key file that holds something else.
func wrapped(t *testing.T, key []byte) File {
	var buf bytes.Buffer
	r := identity(t).Recipient()
	w, err := age.Encrypt(&buf, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(key); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return File{Kind: Recipient, Recipient: r.String(), Wrapped: buf.Bytes()}
}

func TestWrapRefuses(t *testing.T) {
	if _, err := WrapPassphrase(Master{}, nil, goldenFactor); err == nil {
		t.Error("wrapped for an empty passphrase")
	}
	for _, factor := range []int{-1, MaxWorkFactor + 1} {
		if _, err := WrapPassphrase(Master{}, []byte("p"), factor); err == nil {
			t.Errorf("wrapped with work factor %d", factor)
		}
	}
	for _, r := range []string{"", "age1", "ssh-ed25519 AAAA", goldenIdentity} {
		_, err := WrapRecipient(Master{}, r)
		if err == nil {
			t.Errorf("wrapped for recipient %q", r)
		} else if r != "" && strings.Contains(err.Error(), "AGE-SECRET") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}

func TestMarshalFileRefuses(t *testing.T) {
	good, err := WrapRecipient(Master{}, identity(t).Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*File){
		"kind":                      func(f *File) { f.Kind = "other" },
		"passphrase with recipient": func(f *File) { f.Kind = Passphrase },
		"no recipient":              func(f *File) { f.Recipient = "" },
		"nothing wrapped":           func(f *File) { f.Wrapped = nil },
		"long label":                func(f *File) { f.Label = strings.Repeat("x", maxLabelBytes+1) },
		"label of two lines":        func(f *File) { f.Label = "a\nb" },
		"label no text":             func(f *File) { f.Label = "\xff" },
	} {
		f := good
		change(&f)
		if line, err := f.Marshal(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Marshal = %s, %v, want ErrFormat", name, line, err)
		}
	}
	good.Label, good.Created = `"quoted" <&> ü`, knownTime.Add(time.Millisecond).In(time.FixedZone("x", 3600))
	line, err := good.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseFile(line)
	if err != nil {
		t.Fatal(err)
	}
	good.Created = knownTime
	if diff := cmp.Diff(good, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseFile(f *testing.F) {
	for _, kind := range []Kind{Passphrase, Recipient} {
		line, err := os.ReadFile(filepath.Join("testdata", string(kind)+".key"))
		if err != nil {
			f.Fatal(err)
		}
		object, err := CutCheck(line)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object)
	}
	f.Add([]byte(`{"version":2}`))
	ids := []age.Identity{identity(f)}
	f.Fuzz(func(t *testing.T, object []byte) {
		_, _ = ParseFile(object)
		if len(object) < 6 || object[0] != '{' || object[len(object)-1] != '}' || bytes.IndexByte(object, '\n') >= 0 {
			return
		}
		file, err := ParseFile(AddCheck(object)) // past the check
		if err != nil {
			return
		}
		line, err := file.Marshal()
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		again, err := ParseFile(line)
		if err != nil || again.Label != file.Label || !bytes.Equal(again.Wrapped, file.Wrapped) {
			t.Errorf("%+v came back as %+v, %v", file, again, err)
		}
		if file.Kind == Recipient { // a passphrase would cost what the file says
			_, _ = file.Unwrap(nil, ids)
		}
	})
}
