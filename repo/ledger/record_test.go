package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
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

const goodHead = `"time":"2026-11-22T03:00:00Z","epoch":1,"actor":"x"`

// TestParseBody reads bodies that Append does not write.
func TestParseBody(t *testing.T) {
	s := testSigner(t, 7)
	point := func(change string) string {
		p := map[string]any{"type": "point", "point": testID("a"), "sequence": 1, "machine": "m", "full": true,
			"run": testID("r"), "manifest": strings.Repeat("0", 64)}
		var c map[string]any
		if err := json.Unmarshal([]byte(change), &c); err != nil {
			t.Fatal(err)
		}
		for k, v := range c {
			p[k] = v
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return `{` + goodHead + `,"records":[` + string(text) + `]}`
	}
	for _, c := range []struct {
		name, body string
		ok         bool
	}{
		{"no records", `{` + goodHead + `,"records":[]}`, true},
		{"records left out", `{` + goodHead + `}`, true},
		{"unknown field of the body", `{` + goodHead + `,"later":{"a":[1]},"records":[]}`, true},
		{"unknown field of a record", point(`{"later":[1,2]}`), true},
		{"unknown type", `{` + goodHead + `,"records":[{"type":"later","point":7}]}`, true},
		{"no time", `{"epoch":1,"actor":"x","records":[]}`, false},
		{"not JSON", `{`, false},
		{"not an object", `[]`, false},
		{"two objects", `{` + goodHead + `}{}`, false},
		{"negative epoch", `{"time":"2026-11-22T03:00:00Z","epoch":-1}`, false},
		{"records null", `{` + goodHead + `,"records":null}`, false},
		{"records an object", `{` + goodHead + `,"records":{}}`, false},
		{"record null", `{` + goodHead + `,"records":[null]}`, false},
		{"record without type", `{` + goodHead + `,"records":[{"point":"x"}]}`, false},
		{"point id", point(`{"point":"` + strings.Repeat("A", 20) + `"}`), false},
		{"point id short", point(`{"point":"aaaa"}`), false},
		{"run id", point(`{"run":"` + strings.Repeat("1", 20) + `"}`), false},
		{"full with a parent", point(`{"parent":"` + testID("b") + `"}`), false},
		{"increment without one", point(`{"full":false}`), false},
		{"parent id", point(`{"full":false,"parent":"b"}`), false},
		{"sequence 0", point(`{"sequence":0}`), false},
		{"no machine", point(`{"machine":""}`), false},
		{"digest in capitals", point(`{"manifest":"` + strings.Repeat("A", 64) + `"}`), false},
		{"digest short", point(`{"manifest":"00"}`), false},
		{"digest not hexadecimal", point(`{"manifest":"` + strings.Repeat("g", 64) + `"}`), false},
		{"void of nothing", `{` + goodHead + `,"records":[{"type":"void"}]}`, false},
		{"repository id", `{` + goodHead + `,"records":[{"type":"init","repository":"xy","signer":"k"}]}`, false},
		{"no signer", `{` + goodHead + `,"records":[{"type":"init","repository":"` + testRepository + `"}]}`, false},
		{"too many records", `{` + goodHead + `,"records":[` + strings.Repeat(`{"type":"x"},`, maxRecords) + `{"type":"x"}]}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseSegment(reframe(s, 1, Sum{}, c.body))
			if c.ok && err != nil || !c.ok && !errors.Is(err, ErrFormat) {
				t.Errorf("got %v, want it read: %t", err, c.ok)
			}
		})
	}
}

// TestPackBytes tries what may stand in a segment's list of packs.
func TestPackBytes(t *testing.T) {
	s := testSigner(t, 7)
	good := testPack(1, pack.Data)
	for _, c := range []struct {
		name   string
		change func(p []byte) []byte
		ok     bool
	}{
		{"as written", func(p []byte) []byte { return p }, true},
		{"two", func(p []byte) []byte { return append(p, p...) }, true},
		{"kind", func(p []byte) []byte { p[56] = 3; return p }, false},
		{"no bytes", func(p []byte) []byte { clear(p[48:56]); return p }, false},
		{"negative length", func(p []byte) []byte { p[55] = 0x80; return p }, false},
		{"reserved", func(p []byte) []byte { p[63] = 1; return p }, false},
		{"a part of one", func(p []byte) []byte { return p[:63] }, false},
		{"a part too much", func(p []byte) []byte { return append(p, 0) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseSegment(reframe(s, 1, Sum{}, `{`+goodHead+`,"records":[]}`, c.change(appendPack(nil, &good))...))
			if c.ok && err != nil || !c.ok && !errors.Is(err, ErrFormat) {
				t.Errorf("got %v, want it read: %t", err, c.ok)
			}
		})
	}
}

// TestUnknownKept writes a record again that this version does not know.
func TestUnknownKept(t *testing.T) {
	s := testSigner(t, 7)
	const record = `{"type":"evacuate","packs":[{"x":"y"}],"n":1.50}`
	seg, err := ParseSegment(reframe(s, 1, Sum{}, `{`+goodHead+`,"records":[`+record+`]}`))
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := Append(nil, seg.Body, s)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(p), record) {
		t.Errorf("%q does not have %s", p, record)
	}
}

// TestContradictions gives a state segments whose records cannot be true.
func TestContradictions(t *testing.T) {
	s := testSigner(t, 7)
	base := testBodies(public(s, 1))
	body := func(epoch uint64, r ...Record) Body {
		return Body{Time: time.Unix(1, 0).UTC(), Epoch: epoch, Records: r}
	}
	for _, c := range []struct {
		name   string
		bodies []Body
		want   error
	}{
		{"no beginning", []Body{body(1, testPoint("a", 1, "", ""))}, ErrFormat},
		{"a second beginning", append(base[:1:1], base[0]), ErrFormat},
		{"another signer's beginning", []Body{body(1, &Init{Repository: testRepository, Signer: "SHA256:x"})}, ErrSignature},
		{"the same point", append(base[:2:2], body(1, testPoint("a", 2, "", ""))), ErrFormat},
		{"the same number", append(base[:2:2], body(1, testPoint("b", 1, "", ""))), ErrFormat},
		{"a lower epoch", append(base[:3:3], body(1)), ErrChain},
		{"void of no point", append(base[:2:2], body(1, &Void{Point: testID("x"), Segment: 2})), ErrFormat},
		{"void in another segment", append(base[:2:2], body(1, &Void{Point: testID("a"), Segment: 1})), ErrFormat},
		{"void at once", append(base[:2:2], body(1, testPoint("b", 2, "", ""), &Void{Point: testID("b"), Segment: 3})), ErrFormat},
		{"void twice", append(base[:4:4], body(2, &Void{Point: testID("b"), Segment: 3})), ErrFormat},
		{"a void point's number again", append(base[:3:3], body(2, &Void{Point: testID("b"), Segment: 3}, testPoint("c", 2, "", ""))), ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			segments, head := testLedger(t, s, c.bodies)
			_, err := Verify(all(segments), []seal.Public{public(s, 1)}, head)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), fmt.Sprintf("segment %d", head.Number)) {
				t.Errorf("got %v, want %v in segment %d", err, c.want, head.Number)
			}
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	s := testSigner(t, 7)
	now := time.Unix(1, 0)
	for _, c := range []struct {
		name string
		prev *Head
		body Body
		want error
	}{
		{"no time", nil, Body{Epoch: 1}, ErrFormat},
		{"bad record", nil, Body{Time: now, Records: RecordList{&Void{}}}, ErrFormat},
		{"unknown record of another type", nil, Body{Time: now, Records: RecordList{&Unknown{Type: "a", JSON: json.RawMessage(`{"type":"b"}`)}}}, ErrFormat},
		{"too long", nil, Body{Time: now, Actor: strings.Repeat("x", MaxBodyBytes)}, ErrTooLarge},
		{"too many records", nil, Body{Time: now, Records: slices.Repeat(RecordList{&Void{Point: "aaaaaaaaaaaaaaaaaaaa", Segment: 1}}, maxRecords+1)}, ErrTooLarge},
		{"numbers used up", &Head{Number: MaxNumber}, Body{Time: now}, ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := Append(c.prev, c.body, s); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, _, err := Append(nil, Body{Time: now}, badSigner{}); !errors.Is(err, ErrSignature) {
		t.Errorf("short signature: got %v", err)
	}
}

type badSigner struct{}

func (badSigner) Sign([]byte) []byte { return make([]byte, 10) }

func TestFileName(t *testing.T) {
	for _, n := range []uint64{1, 42, MaxNumber} {
		if got, ok := ParseFileName(FileName(n)); !ok || got != n {
			t.Errorf("%d becomes %q and %d, %t", n, FileName(n), got, ok)
		}
	}
	for _, name := range []string{"", "1", "00000000", "000000001", "+0000001", "0000001x", "00000001.twin", "-0000001"} {
		if n, ok := ParseFileName(name); ok {
			t.Errorf("%q is read as %d", name, n)
		}
	}
}

func FuzzParseSegment(f *testing.F) {
	golden, err := filepath.Glob("testdata/0*")
	if err != nil || len(golden) == 0 {
		f.Fatal("no golden segments", err)
	}
	for _, name := range golden {
		p, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if s, err := ParseSegment(p); err == nil && len(p) != headBytes+tailBytes+len(s.signed)-headBytes {
			t.Errorf("%d bytes read of %d", len(s.signed), len(p))
		}
	})
}

// FuzzParseBody gets past the digest: what can be read can be written, and reads
// the same again.
func FuzzParseBody(f *testing.F) {
	s := testSigner(f, 7)
	for _, b := range testBodies(public(s, 1)) {
		text, err := json.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, body string) {
		seg, err := ParseSegment(reframe(s, 1, Sum{}, body))
		if err != nil {
			return
		}
		p, _, err := Append(nil, seg.Body, s)
		if err != nil {
			if !errors.Is(err, ErrTooLarge) {
				t.Fatalf("read but not written: %v", err)
			}
			return
		}
		again, err := ParseSegment(p)
		if err != nil {
			t.Fatalf("written but not read: %v", err)
		}
		// JSON of unknown records loses its spaces when written.
		if len(again.Records) != len(seg.Records) || !again.Time.Equal(seg.Time) {
			t.Fatalf("reads as %+v, then as %+v", seg.Body, again.Body)
		}
		for i := range seg.Records {
			_, unknown := seg.Records[i].(*Unknown)
			if !unknown && !reflect.DeepEqual(seg.Records[i], again.Records[i]) {
				t.Fatalf("record %d reads as %+v, then as %+v", i, seg.Records[i], again.Records[i])
			}
		}
		_ = NewState(nil).Add(again)
	})
}

func BenchmarkParseSegment(b *testing.B) {
	s := testSigner(b, 7)
	packs := make([]Pack, 10000)
	for i := range packs {
		packs[i] = testPack(byte(i)|1, pack.Data)
	}
	p, _, err := Append(nil, Body{Time: time.Unix(1, 0), Packs: packs}, s)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSegment(p); err != nil {
			b.Fatal(err)
		}
	}
}
