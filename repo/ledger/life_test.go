package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// fold adds bodies to a state one by one, with segments as Append makes them.
func fold(t *testing.T, s *State, signer Signer, bodies ...Body) error {
	t.Helper()
	for _, b := range bodies {
		head := s.Head()
		p, _, err := Append(&head, b, signer)
		if err != nil {
			t.Fatal(err)
		}
		seg, err := ParseSegment(p)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(seg.Records, b.Records) {
			t.Fatalf("records read %v, written %v", seg.Records, b.Records)
		}
		if err := s.Add(seg); err != nil {
			return err
		}
	}
	return nil
}

func testBody(epoch uint64, records ...Record) Body {
	return Body{Time: time.Unix(1e9, 0).UTC(), Epoch: epoch, Records: records}
}

func testExpire(id string) *Expire {
	return &Expire{Point: testID(id), Reason: "3rd of last 2", Roots: []Root{{Root: chunk.ID{1, 2}, Levels: 2, SizeBytes: 7 << 20}}}
}

// TestPointLife follows points through expiry, recall and copy.
func TestPointLife(t *testing.T) {
	signer := testSigner(t, 7)
	begin := testBody(1, &Init{Repository: testRepository, Signer: public(signer, 1).Fingerprint()},
		testPoint("a", 5, "", "mon"), testPoint("b", 6, "", "tue"))
	for _, c := range []struct {
		name    string
		records []Record
		ok      bool
		live    string // ids
	}{
		{"expire", []Record{testExpire("a")}, true, "b"},
		{"expire twice", []Record{testExpire("a"), testExpire("a")}, false, ""},
		{"expire nothing", []Record{testExpire("c")}, false, ""},
		{"recall", []Record{testExpire("a"), &Recall{Point: testID("a")}}, true, "ab"},
		{"recall what is there", []Record{&Recall{Point: testID("a")}}, false, ""},
		{"expire again", []Record{testExpire("a"), &Recall{Point: testID("a")}, testExpire("a")}, true, "b"},
		{"an older point comes later", []Record{testPoint("c", 2, "", "")}, true, "abc"},
		{"same number", []Record{testPoint("c", 5, "", "")}, false, ""},
		{"same point", []Record{testPoint("a", 5, "", "")}, false, ""},
		{"same point after expiry", []Record{testExpire("a"), testPoint("a", 5, "", "")}, true, "ba"},
		{"number of an expired point", []Record{testExpire("a"), testPoint("c", 5, "", "")}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewState([]seal.Public{public(signer, 1)})
			err := fold(t, s, signer, begin, testBody(1, c.records...))
			if !c.ok {
				if !errors.Is(err, ErrFormat) {
					t.Fatalf("got %v, want ErrFormat", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			live := ""
			for _, p := range s.Points() {
				if p.Live() {
					live += p.ID[:1]
				}
			}
			if live != c.live {
				t.Errorf("live points %q, want %q", live, c.live)
			}
			if got := s.LastSequence("4c4c4544-0042"); got != 6 {
				t.Errorf("last sequence %d, want 6", got)
			}
		})
	}
}

func TestExpiredKeepsRoots(t *testing.T) {
	signer := testSigner(t, 7)
	s := NewState(nil)
	e := testExpire("a")
	if err := fold(t, s, signer, testBody(1, &Init{Repository: testRepository, Signer: "x"}, testPoint("a", 1, "", "")), testBody(1, e)); err != nil {
		t.Fatal(err)
	}
	p, _ := s.Point(testID("a"))
	if p.Expired != 2 || p.Reason != e.Reason || !reflect.DeepEqual(p.Roots, e.Roots) {
		t.Errorf("got %+v", p)
	}
}

// TestAdopt has a second key take over.
func TestAdopt(t *testing.T) {
	first, second := testSigner(t, 7), testSigner(t, 8)
	known := []seal.Public{public(first, 1), public(second, 4)}
	begin := func() *State {
		s := NewState(known)
		if err := fold(t, s, first, testBody(1, &Init{Repository: testRepository, Signer: known[0].Fingerprint()})); err != nil {
			t.Fatal(err)
		}
		return s
	}
	adopt := &Adopt{Signer: known[1].Fingerprint(), Previous: known[0].Fingerprint()}
	s := begin()
	if err := fold(t, s, second, testBody(4, adopt), testBody(4, testPoint("a", 1, "", ""))); err != nil {
		t.Fatal(err)
	}
	if err := fold(t, s, first, testBody(4)); !errors.Is(err, ErrSignature) {
		t.Errorf("the first key signs on: %v", err)
	}
	if err := fold(t, begin(), second, testBody(4, &Adopt{Signer: "SHA256:another"})); !errors.Is(err, ErrSignature) {
		t.Errorf("an adoption of another key: %v", err)
	}
	if err := fold(t, begin(), second, testBody(3, adopt)); !errors.Is(err, ErrSignature) {
		t.Errorf("an adoption before its epoch: %v", err)
	}
}

// TestAdoptUnknown has signers whose public keys are not there, or are there and
// were never adopted.
func TestAdoptUnknown(t *testing.T) {
	first, second, third := testSigner(t, 7), testSigner(t, 8), testSigner(t, 9)
	init := testBody(1, &Init{Repository: testRepository, Signer: public(first, 1).Fingerprint()})
	adopt := &Adopt{Signer: public(second, 4).Fingerprint(), Previous: public(first, 1).Fingerprint()}
	point := func(id string, n uint64) Body { return testBody(4, testPoint(id, n, "", "")) }

	// A key that nobody adopted changes nothing.
	s := NewState([]seal.Public{public(first, 1), public(third, 2)})
	if err := fold(t, s, first, init, point("a", 1)); err != nil {
		t.Error(err)
	}
	// The first public key is lost, then the second.
	for _, known := range []seal.Public{public(second, 4), public(first, 1)} {
		s := NewState([]seal.Public{known})
		if err := fold(t, s, first, init, testBody(1, testPoint("a", 1, "", ""))); err != nil {
			t.Fatal(err)
		}
		if err := fold(t, s, second, testBody(4, adopt), point("b", 2)); err != nil {
			t.Fatal(err)
		}
		for i, p := range s.Points() {
			if want := (known.Epoch == 1) == (i == 0); p.Signed != want {
				t.Errorf("with the signer of epoch %d, point %d is signed: %t, want %t", known.Epoch, i, p.Signed, want)
			}
		}
		if name, epoch := s.Signer(); name != adopt.Signer || epoch != 4 {
			t.Errorf("signer in force %s of epoch %d, want %s of 4", name, epoch, adopt.Signer)
		}
		_, ok := s.SignerKey()
		if ok != (known.Epoch == 4) {
			t.Errorf("its key is known: %t", ok)
		}
	}
	// An adoption after somebody who did not sign.
	s = NewState(nil)
	if err := fold(t, s, first, init); err != nil {
		t.Fatal(err)
	}
	if err := fold(t, s, second, testBody(4, &Adopt{Signer: "b", Previous: "c"})); !errors.Is(err, ErrSignature) {
		t.Errorf("adopted after another: %v", err)
	}
}

// TestKeys remembers what became of each key file.
func TestKeys(t *testing.T) {
	signer := testSigner(t, 7)
	s := NewState(nil)
	add := func(name string) *Key { return &Key{Action: "add", Name: name, Kind: "passphrase", SHA256: Sum{1}} }
	gone := &Key{Action: "remove", Name: "key-1", Kind: "passphrase", SHA256: Sum{1}}
	if err := fold(t, s, signer, testBody(1, &Init{Repository: testRepository, Signer: "x"}, add("key-2"), add("key-1")), testBody(1, gone)); err != nil {
		t.Fatal(err)
	}
	want := []Key{*gone, *add("key-2")}
	if got := reload(t, s, nil).Keys(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestSaved holds a state that was saved and loaded on the way to one that
// read everything.
func TestSaved(t *testing.T) {
	signer := testSigner(t, 7)
	signers := []seal.Public{public(signer, 1)}
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		whole, kept := NewState(signers), NewState(signers)
		bodies := []Body{testBody(1, &Init{Repository: testRepository, Signer: signers[0].Fingerprint()})}
		for n := range 60 {
			bodies = append(bodies, randomBody(rng, whole, n))
			for _, s := range []*State{whole, kept} {
				if err := fold(t, s, signer, bodies[max(0, len(bodies)-1-boolInt(n == 0)):]...); err != nil {
					t.Fatalf("seed %d, body %d: %v", seed, n, err)
				}
			}
			if rng.IntN(10) == 0 {
				kept = reload(t, kept, signers)
			}
		}
		kept = reload(t, kept, signers)
		want := reload(t, whole, signers)
		if !reflect.DeepEqual(kept, want) {
			t.Fatalf("seed %d: saved on the way\n%+v\nread whole\n%+v", seed, kept, want)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func reload(t *testing.T, s *State, signers []seal.Public) *State {
	t.Helper()
	text, err := json.Marshal(s.Save(func(p *PointState) bool { return p.Expired != 0 }))
	if err != nil {
		t.Fatal(err)
	}
	var v Saved
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(v, signers)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// randomBody makes a body that may follow.
func randomBody(rng *rand.Rand, s *State, n int) Body {
	id := func(n int) string { return fmt.Sprintf("%020s", base32Of(n)) }
	b := testBody(1)
	var live, gone []string
	for _, p := range s.Points() {
		switch {
		case p.Live():
			live = append(live, p.ID)
		case p.Expired != 0:
			gone = append(gone, p.ID)
		}
	}
	switch r := rng.IntN(10); {
	case r < 2 && len(live) > 0:
		b.Records = RecordList{&Expire{Point: live[rng.IntN(len(live))], Roots: []Root{{Levels: 1, SizeBytes: int64(n)}}}}
	case r == 2 && len(gone) > 0:
		b.Records = RecordList{&Recall{Point: gone[rng.IntN(len(gone))]}}
	case r == 3:
		b.Records = RecordList{&Sweep{Packs: []PackRef{{Name: pack.Name{15: byte(n)}, Kind: pack.Data, Bytes: 9}}}}
	default:
		machine := fmt.Sprint("m", rng.IntN(3))
		p := testPoint("a", s.LastSequence(machine)+1, "", []string{"", fmt.Sprint("slot", n)}[rng.IntN(2)])
		p.ID, p.Machine, p.Job = id(n), machine, fmt.Sprint("job", rng.IntN(2))
		b.Records, b.Packs = RecordList{p}, []Pack{testPack(byte(n+1), pack.Data)}
	}
	return b
}

func base32Of(n int) string {
	const digits = "234567abcdefghijklmnopqrstuvwxyz"
	b := []byte("22222222222222222222")
	for i := len(b) - 1; n > 0; i, n = i-1, n/32 {
		b[i] = digits[n%32]
	}
	return string(b)
}

// TestParseRecords reads records that Append does not write.
func TestParseRecords(t *testing.T) {
	s := testSigner(t, 7)
	for _, record := range []string{
		`{"type":"expire","point":"x"}`,
		`{"type":"expire","point":"` + testID("a") + `","roots":[{"root":"` + chunk.ID{}.String() + `","levels":0,"sizeBytes":1}]}`,
		`{"type":"expire","point":"` + testID("a") + `","roots":[{"root":"` + chunk.ID{}.String() + `","levels":1,"sizeBytes":-1}]}`,
		`{"type":"recall"}`,
		`{"type":"sweep","packs":[{"name":"x","kind":"data","bytes":1}]}`,
		`{"type":"sweep","packs":[{"name":"00000001-000000000000000000000001","kind":"both","bytes":1}]}`,
		`{"type":"sweep","packs":[{"name":"00000001-000000000000000000000001","kind":"data","bytes":0}]}`,
		`{"type":"repair","pack":{"name":"00000001-000000000000000000000001","kind":"data","bytes":1},"by":"x"}`,
		`{"type":"repair","pack":{"name":"00000001-000000000000000000000001","kind":"data","bytes":1},"lost":-1}`,
		`{"type":"repair"}`,
		`{"type":"adopt"}`,
		`{"type":"key","action":"change","name":"key-1"}`,
		`{"type":"key","action":"add"}`,
	} {
		if _, err := ParseSegment(reframe(s, 1, Sum{}, `{`+goodHead+`,"records":[`+record+`]}`)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", record, err)
		}
	}
}
