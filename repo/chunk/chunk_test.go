package chunk_test

import (
	"errors"
	"strings"
	"testing"

	"holdfast/repo/chunk"
)

func TestIDText(t *testing.T) {
	var id chunk.ID
	for i := range id {
		id[i] = byte(0xf0 + i)
	}
	const text = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f"
	if id.String() != text || id.Short() != text[:16] || chunk.Digest(id).String() != text {
		t.Errorf("got %s, %s and %s, want %s", id, id.Short(), chunk.Digest(id), text)
	}
	p, err := id.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var back chunk.ID
	if err := back.UnmarshalText(p); err != nil || back != id {
		t.Errorf("UnmarshalText(%s) = %v, %v", p, back, err)
	}
	if id.IsNull() || !chunk.Null.IsNull() {
		t.Error("IsNull is not about Null")
	}
}

func TestParseIDRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "short": strings.Repeat("0", 63), "long": strings.Repeat("0", 65), "no hex": strings.Repeat("g", 64),
	} {
		if id, err := chunk.ParseID(text); !errors.Is(err, chunk.ErrID) || !id.IsNull() {
			t.Errorf("%s: got %v, %v, want ErrID", name, id, err)
		}
		was := chunk.ID{1}
		if err := was.UnmarshalText([]byte(text)); err == nil || was != (chunk.ID{1}) {
			t.Errorf("%s: UnmarshalText left %v, %v", name, was, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := chunk.ParseID(text)
		if err == nil && id.String() != strings.ToLower(text) {
			t.Errorf("ParseID(%q) = %s", text, id)
		}
	})
}
