package index

import (
	"math/rand/v2"
	"testing"
)

func TestPick(t *testing.T) {
	const f = floorEntries
	for _, tc := range []struct {
		name  string
		sizes []uint64 // oldest first
		fresh uint64
		want  int
	}{
		{"nothing there", nil, 5 * f, 0},
		{"a larger one stays", []uint64{3 * f}, f, 0},
		{"a smaller one goes in", []uint64{3*f - 1}, f, 1},
		{"few entries count as the floor", []uint64{3 * f}, 1, 0},
		{"small files go in", []uint64{3 * f, 1}, 1, 2},
		{"what goes in draws in the next", []uint64{11 * f, 2 * f}, 2 * f, 2},
		{"but not one that is large enough", []uint64{12 * f, 2 * f}, 2 * f, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := (tier{}).pick(tc.sizes, tc.fresh); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

// TestTierBounds plays flushes up to 64 TiB of chunks and holds the number of
// files and what is written to what the design says.
func TestTierBounds(t *testing.T) {
	const total = 64 << 20
	r := rand.New(rand.NewPCG(1, 1))
	for _, tc := range []struct {
		name    string
		fresh   func() uint64
		rewrite float64
	}{
		{"full deltas", func() uint64 { return defaultFlushEntries }, 12},
		{"small commits", func() uint64 { return 1000 }, 40},
		{"random commits", func() uint64 { return 1 + r.Uint64N(200_000) }, 16},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var sizes []uint64
			var n, written uint64
			most := 0
			for n < total {
				fresh := tc.fresh()
				n += fresh
				k := tier{}.pick(sizes, fresh)
				for _, s := range sizes[len(sizes)-k:] {
					fresh += s
				}
				written += fresh
				sizes = append(sizes[:len(sizes)-k], fresh)
				most = max(most, len(sizes))
			}
			rewrite := float64(written) / float64(n)
			t.Logf("at most %d files, every entry written %.1f times", most, rewrite)
			if most > 8 {
				t.Errorf("%d files at once, want at most 8", most)
			}
			if rewrite > tc.rewrite {
				t.Errorf("every entry written %.1f times, want at most %.0f", rewrite, tc.rewrite)
			}
		})
	}
}
