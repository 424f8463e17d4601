package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

var update = flag.Bool("update", false, "rewrite testdata")

func testSigner(tb testing.TB, seed byte) *seal.Signer {
	tb.Helper()
	s, err := seal.NewSigner(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func public(s *seal.Signer, epoch uint32) seal.Public { return s.Public(epoch, time.Unix(0, 0)) }

const testRepository = "00112233445566778899aabbccddeeff"

// testID is an id of a point or a run.
func testID(c string) string { return strings.Repeat(c, idDigits) }

func testPack(n byte, kind pack.Kind) Pack {
	return Pack{Name: pack.Name{3: 1, 15: n}, Kind: kind, Bytes: int64(n) << 12, SHA256: sha256.Sum256([]byte{n})}
}

func testPoint(id string, sequence uint64, parent, slot string) *Point {
	return &Point{
		ID: testID(id), Sequence: sequence, Machine: "4c4c4544-0042", Job: "nightly", Slot: slot, Parent: parent,
		Full: parent == "", Run: testID("r"), Manifest: sha256.Sum256([]byte(id)),
	}
}

// testBodies are those of the ledger in testdata.
func testBodies(signer seal.Public) []Body {
	at := func(min int) time.Time { return time.Date(2026, 11, 22, 3, min, 0, 500_000_000, time.UTC) }
	return []Body{
		{Time: at(0), Epoch: 1, Actor: "root@vault", Records: RecordList{&Init{Repository: testRepository, Signer: signer.Fingerprint()}}},
		{Time: at(10), Epoch: 1, Actor: "root@vault", Packs: []Pack{testPack(1, pack.Data), testPack(2, pack.Meta)}, Records: RecordList{
			testPoint("a", 1, "", "2026-11-22"),
		}},
		{Time: at(20), Epoch: 2, Actor: "holdfast", Packs: []Pack{testPack(3, pack.Data)}, Records: RecordList{
			testPoint("b", 2, testID("a"), "2026-11-23"),
			&Unknown{Type: "pin", JSON: json.RawMessage(`{"type":"pin","point":"` + testID("a") + `","why":{"x":[1,2]}}`)},
		}},
		{Time: at(30), Epoch: 2, Actor: "holdfast", Records: RecordList{
			&Void{Point: testID("b"), Segment: 3},
			testPoint("c", 3, testID("a"), ""),
		}},
	}
}

// testLedger makes the segments of bodies.
func testLedger(tb testing.TB, s Signer, bodies []Body) ([][]byte, Head) {
	tb.Helper()
	var segments [][]byte
	var head *Head
	for _, b := range bodies {
		p, h, err := Append(head, b, s)
		if err != nil {
			tb.Fatal(err)
		}
		segments, head = append(segments, p), &h
	}
	return segments, *head
}

func all(segments [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, p := range segments {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// reframe makes a segment of any body, with a right signature and digest.
func reframe(s Signer, number uint64, prev Sum, body string, packs ...byte) []byte {
	p := append([]byte(magic), version, 0, 0, 0)
	p = binary.LittleEndian.AppendUint64(p, number)
	p = append(p, prev[:]...)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(body)))
	p = binary.LittleEndian.AppendUint32(p, uint32(len(packs)/packBytes))
	p = append(p, body...)
	p = append(p, packs...)
	p = append(p, s.Sign(p)...)
	sum := sha256.Sum256(p)
	return append(p, sum[:]...)
}

// TestGolden keeps the format: a ledger made of fixed values is, byte for byte,
// what it was.
func TestGolden(t *testing.T) {
	s := testSigner(t, 7)
	bodies := testBodies(public(s, 1))
	segments, _ := testLedger(t, s, bodies)
	for i, got := range segments {
		name := filepath.Join("testdata", FileName(uint64(i)+1))
		if *update {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from what is written now:\n got %q\nwant %q", name, got, want)
		}
		seg, err := ParseSegment(want)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(seg.Body, bodies[i]) {
			t.Errorf("%s reads as\n%+v, want\n%+v", name, seg.Body, bodies[i])
		}
	}
}

func TestState(t *testing.T) {
	s := testSigner(t, 7)
	segments, head := testLedger(t, s, testBodies(public(s, 1)))
	state, err := Verify(all(segments), []seal.Public{public(s, 1)}, head)
	if err != nil {
		t.Fatal(err)
	}
	if got := state.Head(); got != head || got.Number != 4 {
		t.Errorf("head %v, want %v", got, head)
	}
	if state.Repository() != testRepository || state.Epoch() != 2 {
		t.Errorf("repository %s, epoch %d", state.Repository(), state.Epoch())
	}
	want := []PointState{
		{Point: *testPoint("a", 1, "", "2026-11-22"), Segment: 2, Epoch: 1, Signed: true},
		{Point: *testPoint("b", 2, testID("a"), "2026-11-23"), Segment: 3, Epoch: 2, Void: true, Signed: true},
		{Point: *testPoint("c", 3, testID("a"), ""), Segment: 4, Epoch: 2, Signed: true},
	}
	if got := state.Points(); !reflect.DeepEqual(got, want) {
		t.Errorf("points\n%+v, want\n%+v", got, want)
	}
	if p, ok := state.Point(testID("b")); !ok || !reflect.DeepEqual(p, want[1]) {
		t.Errorf("point b: %+v, %t", p, ok)
	}
	if _, ok := state.Point(testID("x")); ok {
		t.Error("there is a point x")
	}
	machine := want[0].Machine
	if got := state.LastSequence(machine); got != 3 {
		t.Errorf("last sequence %d, want 3", got)
	}
	if got := state.LastSequence("another"); got != 0 {
		t.Errorf("last sequence of an unknown machine %d", got)
	}
	if got := state.LastSlot(machine, "nightly"); got != "2026-11-22" {
		t.Errorf("last slot %q, want that of the last point that is neither void nor an extra", got)
	}
	if got := state.LastSlot(machine, "weekly"); got != "" {
		t.Errorf("last slot %q of a job without points", got)
	}
	if n, size := state.Packs(); n != 3 || size != (1+2+3)<<12 {
		t.Errorf("%d packs of %d bytes", n, size)
	}
	seg, err := ParseSegment(segments[1])
	if err != nil {
		t.Fatal(err)
	}
	if got := seg.Packs; !reflect.DeepEqual(got, []Pack{testPack(1, pack.Data), testPack(2, pack.Meta)}) {
		t.Errorf("packs of segment 2: %+v", got)
	}
}

// TestVerify breaks a ledger between its segments in every way, and names what
// is found.
func TestVerify(t *testing.T) {
	s, other := testSigner(t, 7), testSigner(t, 8)
	bodies := testBodies(public(s, 1))
	good, head := testLedger(t, s, bodies)
	foreign, _ := testLedger(t, other, bodies)
	later := []seal.Public{public(s, 1), public(other, 2)}
	adopted, _ := testLedger(t, s, bodies[:2])
	h2, _ := ParseSegment(adopted[1])
	taken := bodies[2]
	taken.Epoch, taken.Records = 2, append(RecordList{&Adopt{Signer: later[1].Fingerprint(), Previous: later[0].Fingerprint()}}, taken.Records...)
	third, _, err := Append(&h2.Head, taken, other)
	if err != nil {
		t.Fatal(err)
	}
	silent := bodies[2]
	silent.Epoch = 2
	fourth, _, err := Append(&h2.Head, silent, other)
	if err != nil {
		t.Fatal(err)
	}
	unadopted := append(slices.Clone(adopted), fourth)
	adopted = append(adopted, third)

	without := func(i int) [][]byte { return slices.Delete(slices.Clone(good), i, i+1) }
	swapped := slices.Clone(good)
	swapped[1], swapped[2] = swapped[2], swapped[1]
	mine := []seal.Public{public(s, 1)}

	for _, c := range []struct {
		name     string
		segments [][]byte
		signers  []seal.Public
		known    Head
		want     error
		says     string
	}{
		{"whole", good, mine, head, nil, ""},
		{"whole, an older head known", good, mine, h2.Head, nil, ""},
		{"whole, no signer known", good, nil, head, nil, ""},
		{"another signer from epoch 2 on", adopted, later, Head{}, nil, ""},
		{"empty", nil, mine, Head{}, nil, ""},
		{"first missing", without(0), mine, Head{}, ErrChain, "segment 2 stands where 1 belongs"},
		{"middle missing", without(2), mine, Head{}, ErrChain, "segment 4 stands where 3 belongs"},
		{"last missing", without(3), mine, head, ErrChain, "ends at segment 3, but had 4"},
		{"all missing", nil, mine, head, ErrChain, "ends at segment 0"},
		{"swapped", swapped, mine, head, ErrChain, "segment 3 stands where 2 belongs"},
		{"twice", append(slices.Clone(good), good[3]), mine, head, ErrChain, "segment 4 stands where 5 belongs"},
		{"last of another ledger", append(slices.Clone(good[:3]), foreign[3]), nil, Head{}, ErrChain, "segment 4 was written after another segment 3"},
		{"another ledger in its place", foreign, nil, head, ErrChain, "segment 4 is not the one"},
		{"another ledger, signed by another", foreign, mine, Head{}, ErrSignature, "segment 1, epoch 1"},
		{"another signer, and nobody adopted it", unadopted, later, Head{}, ErrSignature, "segment 3, epoch 2"},
		{"empty file", append(slices.Clone(good[:2]), nil), mine, Head{}, ErrFormat, "after ledger segment 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			state, err := Verify(all(c.segments), c.signers, c.known)
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err != nil {
				if !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %q does not say %q", err, c.says)
				}
				return
			}
			for _, p := range state.Points() {
				if p.Signed != (c.signers != nil) {
					t.Errorf("point %s is signed: %t", p.ID, p.Signed)
				}
			}
		})
	}
	broken := errors.New("broken disk")
	_, err = Verify(func(yield func([]byte, error) bool) { yield(nil, broken) }, nil, Head{})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's own error", err)
	}
}

// TestDamage flips each bit of a ledger, and cuts each segment at each length. No
// key is needed to find that.
func TestDamage(t *testing.T) {
	s := testSigner(t, 7)
	segments, head := testLedger(t, s, testBodies(public(s, 1)))
	found := func(i int, p []byte, what string, at int) {
		t.Helper()
		damaged := slices.Clone(segments)
		damaged[i] = p
		if _, err := Verify(all(damaged), nil, head); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
			t.Fatalf("segment %d, %s %d: got %v", i+1, what, at, err)
		}
	}
	for i, p := range segments {
		for bit := range 8 * len(p) {
			q := slices.Clone(p)
			q[bit/8] ^= 1 << (bit % 8)
			found(i, q, "flipped bit", bit)
		}
		for n := range len(p) {
			found(i, p[:n], "cut at", n)
		}
		found(i, append(slices.Clone(p), 0), "longer than", len(p))
	}
}

// TestForged changes the body of a segment and gives it a new digest, as one who
// has no key can.
func TestForged(t *testing.T) {
	s, other := testSigner(t, 7), testSigner(t, 8)
	segments, _ := testLedger(t, s, testBodies(public(s, 1)))
	seg, err := ParseSegment(segments[3])
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(seg.Body)
	if err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(segments)
	forged[3] = reframe(other, 4, seg.Prev, strings.Replace(string(text), testID("c"), testID("d"), 1))
	if _, err := Verify(all(forged), []seal.Public{public(s, 1)}, Head{}); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v, want ErrSignature", err)
	}
	forged[3] = reframe(s, 4, seg.Prev, string(text))
	if _, err := Verify(all(forged), []seal.Public{public(s, 1)}, Head{}); err != nil {
		t.Errorf("signed by the right key: %v", err)
	}
}
