package recovery

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/repo"
)

func randomTrace(rng *rand.Rand, n int, most int64) trace {
	t := make(trace, n)
	for i := range t {
		t[i] = rng.Int64N(most)
	}
	return t
}

func TestTraceCodec(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, want := range map[string]trace{
		"empty": {}, "one": {7}, "back and forth": {5, 0, maxTraceBlock, 1}, "many": randomTrace(rng, 5000, 1<<20),
	} {
		got, err := decodeTrace(want.encode())
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, err, cmp.Diff(want, got))
		}
	}
	long := randomTrace(rng, 200_000, maxTraceBlock)
	p := long.encode()
	got, err := decodeTrace(p)
	if err != nil || len(p) > maxTraceBytes || len(p) < maxTraceBytes-10 || !slices.Equal(got, long[:len(got)]) {
		t.Errorf("a long one: %d bytes, %d blocks, %v", len(p), len(got), err)
	}
}

// seal gives bytes the checksum that they should have.
func seal(p []byte) []byte {
	return binary.LittleEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

func TestTraceRefuses(t *testing.T) {
	good := trace{1, 2, 3}.encode()
	body := func(change func(p []byte) []byte) []byte {
		return seal(change(slices.Clone(good[:len(good)-traceTail])))
	}
	for name, p := range map[string][]byte{
		"empty":            nil,
		"short":            good[:len(good)-1],
		"long":             append(slices.Clone(good), make([]byte, maxTraceBytes)...),
		"checksum":         append(slices.Clone(good[:len(good)-1]), good[len(good)-1]^1),
		"magic":            body(func(p []byte) []byte { p[0] = 'X'; return p }),
		"version":          body(func(p []byte) []byte { p[4]++; return p }),
		"reserved":         body(func(p []byte) []byte { p[7] = 1; return p }),
		"too many":         body(func(p []byte) []byte { p[8]++; return p }),
		"far too many":     body(func(p []byte) []byte { p[11] = 0xff; return p }),
		"bytes behind":     body(func(p []byte) []byte { return append(p, 2) }),
		"a negative block": body(func(p []byte) []byte { p[traceHead] = 1; return p }),
		"too far":          body(func(p []byte) []byte { p[8] = 4; return binary.AppendVarint(p, maxTraceBlock) }),
		"half a number":    body(func(p []byte) []byte { p[8] = 4; return append(p, 0x80) }),
	} {
		if got, err := decodeTrace(p); !errors.Is(err, errTrace) || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func FuzzTrace(f *testing.F) {
	f.Add(trace{}.encode())
	f.Add(trace{9, 1, maxTraceBlock}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := decodeTrace(p)
		if err != nil {
			got, err = decodeTrace(seal(p)) // so that more than the checksum is tried
		}
		if err != nil {
			if !errors.Is(err, errTrace) {
				t.Error(err)
			}
			return
		}
		if again, err := decodeTrace(got.encode()); err != nil || !cmp.Equal(again, got) {
			t.Errorf("%v became %v, %v", got, again, err)
		}
	})
}

func TestRecorder(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRecorder(func() time.Time { return now }, time.Minute)
	const b = traceBlockBytes
	r.note(3*b+5, 10)
	r.note(3*b, b)
	r.note(2*b-1, 2)
	r.note(0, 0)
	r.note(-b, b)
	r.note(8*b, 2*b)
	now = now.Add(time.Minute)
	r.note(20*b, 1)
	now = now.Add(time.Nanosecond)
	r.note(30*b, 1)
	if got, want := r.stop(), (trace{3, 1, 2, 8, 9, 20}); !cmp.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
	r.note(40*b, 1)
	if got := r.stop(); len(got) != 0 {
		t.Errorf("recorded %v after the end", got)
	}
	(*recorder)(nil).note(0, 1)

	full := newRecorder(func() time.Time { return now }, time.Minute)
	full.note(0, 2*maxRecorded*b)
	if got := full.stop(); len(got) != maxRecorded {
		t.Errorf("%d blocks recorded, want %d", len(got), maxRecorded)
	}
}

func TestBetterTrace(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after trace
		whole, want   bool
	}{
		{"the first", nil, trace{1}, false, true},
		{"nothing", nil, nil, true, false},
		{"whole, though shorter", trace{1, 2}, trace{1}, true, true},
		{"cut short", trace{1, 2}, trace{1}, false, false},
		{"cut short, and yet more", trace{1}, trace{1, 2}, false, true},
	} {
		if got := betterTrace(c.before, c.after, c.whole); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestMayWarm(t *testing.T) {
	const frame = 64
	for _, c := range []struct {
		name  string
		stats repo.FrameStats
		want  bool
	}{
		{"an empty cache", repo.FrameStats{BudgetBytes: 1024}, true},
		{"a reader waits", repo.FrameStats{BudgetBytes: 1024, Waiting: 1}, false},
		{"the last that fits", repo.FrameStats{BudgetBytes: 1024, WarmBytes: 256 - frame}, true},
		{"a quarter is taken", repo.FrameStats{BudgetBytes: 1024, WarmBytes: 256 - frame + 1}, false},
		{"full of what was asked for", repo.FrameStats{BudgetBytes: 1024, Bytes: 1024}, true},
	} {
		if got := mayWarm(c.stats, frame); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestInterleave(t *testing.T) {
	got := interleave([]trace{{1, 2, 3, 4}, nil, {10, 20}})
	want := []warmBlock{{0, 1}, {2, 10}, {0, 2}, {0, 3}, {2, 20}, {0, 4}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(warmBlock{})); diff != "" {
		t.Error(diff)
	}
	rng := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		list := []trace{randomTrace(rng, rng.IntN(50), 100), randomTrace(rng, rng.IntN(50), 100), randomTrace(rng, rng.IntN(5), 100)}
		back := make([]trace, len(list))
		for _, w := range interleave(list) {
			back[w.disk] = append(back[w.disk], w.block)
		}
		for i := range list {
			if !slices.Equal(back[i], list[i]) {
				t.Errorf("disk %d: %v became %v", i, list[i], back[i])
			}
		}
	}
}
