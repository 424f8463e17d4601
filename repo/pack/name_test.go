package pack

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	n, err := NewName(0x12ab, bytes.NewReader([]byte("\xc0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\xff")))
	if err != nil {
		t.Fatal(err)
	}
	const text = "000012ab-c00102030405060708090aff"
	if n.Epoch() != 0x12ab || n.String() != text {
		t.Fatalf("%d %s", n.Epoch(), n)
	}
	for k, want := range map[Kind]string{Data: "packs/data/c0/" + text + ".pack", Meta: "packs/meta/c0/" + text + ".pack"} {
		if n.Path(k) != want {
			t.Errorf("path %s, want %s", n.Path(k), want)
		}
		gotKind, got, err := ParsePath(want)
		if gotKind != k || got != n || err != nil {
			t.Errorf("%s: %v %v %v", want, gotKind, got, err)
		}
	}
	if got, err := ParseName(text); got != n || err != nil {
		t.Errorf("%v %v", got, err)
	}
	if _, err := NewName(1, strings.NewReader("short")); err == nil {
		t.Error("a name without enough random bytes")
	}
}

func TestParsePathRefuses(t *testing.T) {
	for _, bad := range []string{
		"", "packs", "packs/data/", "packs/data/c0/", "packs/data/c0/.pack",
		"packs/data/c1/000012ab-c00102030405060708090aff.pack",  // another directory
		"packs/blob/c0/000012ab-c00102030405060708090aff.pack",  // another kind
		"packs/data/c0/000012AB-c00102030405060708090aff.pack",  // upper case
		"packs/data/c0/000012ab-c00102030405060708090af.pack",   // a digit short
		"packs/data/c0/000012ab-c00102030405060708090afff.pack", // one too many
		"packs/data/c0/000012ab_c00102030405060708090aff.pack",
		"packs/data/c0/000012abc00102030405060708090aff-.pack",
		"packs/data/c0/000012ab-c00102030405060708090a+f.pack",
		"packs/data/c0/000012ab-c00102030405060708090aff",
		"packs/data/c0/000012ab-c00102030405060708090aff.pack.twin",
		"packs/data/c0000012ab-c00102030405060708090aff.pack",
		"/packs/data/c0/000012ab-c00102030405060708090aff.pack",
		"packs/data//c0/000012ab-c00102030405060708090aff.pack",
	} {
		if _, _, err := ParsePath(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
