package ledger

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/repo/seal"
)

// TestSequences holds the spans against a map.
func TestSequences(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var s Sequences
		var all []uint64
		for range rng.IntN(60) {
			n := 1 + rng.Uint64N(40)
			s = s.add(n)
			all = append(all, n)
		}
		if !s.sound() {
			t.Fatalf("%v is not sound", s)
		}
		for n := range uint64(42) {
			if got, want := s.has(n), slices.Contains(all, n); got != want {
				t.Fatalf("%v has %d: %t, want %t", s, n, got, want)
			}
		}
	}
	for _, bad := range []Sequences{{{2, 1}}, {{1, 2}, {3, 4}}, {{5, 6}, {1, 2}}, {{1, 5}, {3, 9}}} {
		if bad.sound() {
			t.Errorf("%v is sound", bad)
		}
	}
}

// TestSequenceFree: numbers stay taken when the points that had them are
// forgotten, and a point may have its own again.
func TestSequenceFree(t *testing.T) {
	signer := testSigner(t, 7)
	s := NewState(nil)
	if err := fold(t, s, signer,
		testBody(1, &Init{Repository: testRepository, Signer: public(signer, 1).Fingerprint()}, testPoint("a", 5, "", ""), testPoint("b", 7, "", "")),
		testBody(1, testExpire("a")),
	); err != nil {
		t.Fatal(err)
	}
	machine := s.Points()[0].Machine
	check := func(what string, s *State, point string, n uint64, want bool) {
		t.Helper()
		if got := s.SequenceFree(machine, testID(point), n); got != want {
			t.Errorf("%s: number %d is free for %s: %t, want %t", what, n, point, got, want)
		}
	}
	for _, n := range []uint64{1, 6, 8} {
		check("never given out", s, "c", n, true)
	}
	check("of an expired point", s, "c", 5, false)
	check("its own", s, "a", 5, true)
	if !s.SequenceFree("another machine", testID("c"), 5) {
		t.Error("a machine without points has no number free")
	}

	text, err := json.Marshal(s.Save(func(*PointState) bool { return false }))
	if err != nil {
		t.Fatal(err)
	}
	var v Saved
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	forgot, err := Load(v, []seal.Public{public(signer, 1)})
	if err != nil {
		t.Fatal(err)
	}
	check("forgotten", forgot, "c", 5, false)
	check("forgotten, its own", forgot, "a", 5, false)
	check("forgotten, never given out", forgot, "c", 6, true)

	v.Machines[0].Used = Sequences{{1, 2}}
	if _, err := Load(v, nil); err == nil {
		t.Error("loaded numbers that do not reach the last one")
	}
}
