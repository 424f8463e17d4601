package refcount

import (
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/vfs"

	gocmp "github.com/google/go-cmp/cmp"
)

var (
	update = flag.Bool("update", false, "rewrite the golden files")
	seed   = flag.Uint64("seed", 0, "replay the model test with this seed")
)

const dir = "index/refs"

// newMem returns a file system with what a repository has around a table.
func newMem(tb testing.TB) *vfs.Mem {
	tb.Helper()
	m := vfs.NewMem()
	must(tb, m.Mkdir(vfs.TempDir))
	must(tb, m.Mkdir(path.Dir(dir)))
	must(tb, m.SyncDir("."))
	return m
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func own(tb testing.TB, fsys vfs.FS, opt Options) *Table {
	tb.Helper()
	t, err := Own(fsys, dir, opt)
	must(tb, err)
	return t
}

func read(tb testing.TB, fsys vfs.FS, opt Options) *Table {
	tb.Helper()
	t, err := Open(fsys, dir, opt)
	must(tb, err)
	return t
}

// testID returns the i-th id, which looks like a digest. mix is splitmix64's,
// by Sebastiano Vigna, in the public domain.
func testID(i uint64) (id chunk.ID) {
	mix := func(z uint64) uint64 {
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		return z ^ z>>31
	}
	hi := mix(i*0x9E3779B97F4A7C15 + 1)
	binary.BigEndian.PutUint64(id[:], hi)
	binary.BigEndian.PutUint64(id[8:], mix(hi))
	binary.BigEndian.PutUint64(id[16:], i)
	return id
}

// universe returns ids, of which many share their first 8 bytes, so that equal
// fences occur.
func universe(n int) []chunk.ID {
	ids := make([]chunk.ID, n)
	for i := range ids {
		ids[i] = testID(uint64(i))
		if i%3 > 0 {
			copy(ids[i][:8], ids[i-i%3][:8])
		}
		if i < n/2 {
			copy(ids[i][:8], ids[0][:8])
		}
	}
	return ids
}

// model is a table as maps.
type model struct {
	counts  map[key]int64
	touched map[key]int64
	payload []byte
}

func newModel() *model { return &model{counts: map[key]int64{}, touched: map[key]int64{}} }

func (m *model) clone() *model {
	return &model{maps.Clone(m.counts), maps.Clone(m.touched), m.payload}
}

func (m *model) add(id chunk.ID, change int32) {
	k := key(id[:PrefixBytes])
	m.touched[k] += int64(change)
	if m.counts[k] += int64(change); m.counts[k] == 0 {
		delete(m.counts, k)
	}
}

// committed returns the model after a Commit.
func (m *model) committed(payload []byte) *model {
	return &model{maps.Clone(m.counts), map[key]int64{}, payload}
}

// check compares everything that a table says with the model.
func (m *model) check(tb testing.TB, x *Table, ids []chunk.ID) {
	tb.Helper()
	if got := x.Payload(); string(got) != string(m.payload) || (got == nil) != (m.payload == nil) {
		tb.Fatalf("payload %q, want %q", got, m.payload)
	}
	for _, id := range ids {
		if got, err := x.Count(id); err != nil || got != m.counts[key(id[:PrefixBytes])] {
			tb.Fatalf("count of %s: %d, %v, want %d", id.Short(), got, err, m.counts[key(id[:PrefixBytes])])
		}
	}
	m.compare(tb, "walk", m.counts, x.Walk)
	m.compare(tb, "touched", m.touched, x.Touched)
}

func (m *model) compare(tb testing.TB, what string, want map[key]int64, walk func(func([PrefixBytes]byte, int64) error) error) {
	tb.Helper()
	got := map[key]int64{}
	var last key
	must(tb, walk(func(p [PrefixBytes]byte, n int64) error {
		if len(got) > 0 && last.compare(p) >= 0 {
			return fmt.Errorf("%s: %x after %x", what, p, last)
		}
		last = p
		got[p] = n
		return nil
	}))
	if !maps.Equal(want, got) {
		tb.Fatalf("%s (-want +got):\n%s", what, gocmp.Diff(want, got))
	}
}

func TestModel(t *testing.T) {
	seeds := []uint64{1, rand.Uint64()}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	for _, s := range seeds {
		for _, cacheBytes := range []int64{1, 64 << 10, 1 << 20} { // one block, some, all
			t.Run(fmt.Sprintf("seed=%d,cache=%d", s, cacheBytes), func(t *testing.T) {
				runModel(t, s, Options{CacheBytes: cacheBytes, MaxDelta: 150, floorRows: 64})
			})
		}
	}
}

func runModel(t *testing.T, seed uint64, opt Options) {
	r := rand.New(rand.NewPCG(seed, 3))
	ids := universe(3000)
	fsys := newMem(t)
	x := own(t, fsys, opt)
	live, durable := newModel(), newModel()
	files, spills, fewer := 0, 0, false
	for range 250 {
		before := len(x.files)
		switch op := r.IntN(100); {
		case op < 60:
			from, n := r.IntN(len(ids)), r.IntN(200)
			for i := range n {
				id := ids[(from+i*7)%len(ids)]
				change := int32(r.IntN(5)) - 2
				if live.counts[key(id[:PrefixBytes])]+int64(change) < 0 {
					change = 3
				}
				must(t, x.Add(id, change))
				if change != 0 {
					live.add(id, change)
				}
			}
		case op < 75:
			payload := fmt.Appendf(nil, "payload %d", r.Uint32())
			must(t, x.Commit(payload))
			durable = live.committed(payload)
			live = durable.clone()
			accounted(t, fsys, x)
		case op < 80:
			must(t, x.Rollback())
			live = durable.clone()
		case op < 84:
			must(t, x.Close())
			x = own(t, fsys, opt)
			live = durable.clone()
			before = len(x.files)
		case op < 86:
			must(t, x.Reset())
			live = newModel()
		case op < 94:
			y := read(t, fsys, opt)
			durable.check(t, y, ids[:100])
			must(t, y.Close())
		default:
			live.check(t, x, ids)
		}
		files, spills, fewer = max(files, len(x.files)), max(spills, len(x.spills)), fewer || len(x.files) < before
	}
	live.check(t, x, ids)
	if seed == 1 && (files < 2 || spills < 2 || !fewer) {
		t.Errorf("at most %d files and %d spills, merged %v: nothing was tested", files, spills, fewer)
	}
	must(t, x.Commit([]byte("end")))
	live.committed([]byte("end")).check(t, x, ids)
	accounted(t, fsys, x)
	must(t, x.Close())
}

// accounted fails when there is a file that the table does not need.
func accounted(tb testing.TB, fsys vfs.FS, x *Table) {
	tb.Helper()
	want := map[string]bool{}
	if x.saved.number > 0 {
		want[naming.List(x.saved.number)] = true
	}
	var size int64
	for _, m := range x.saved.members {
		want[naming.File(m.Number)] = true
	}
	infos, err := fsys.ReadDir(dir)
	must(tb, err)
	for _, info := range infos {
		size += info.Size
		if !want[info.Name] {
			tb.Errorf("%s is nobody's", info.Name)
		}
		delete(want, info.Name)
	}
	for name := range want {
		tb.Errorf("%s is missing", name)
	}
	if size != x.Bytes() {
		tb.Errorf("%d bytes, want %d", x.Bytes(), size)
	}
	if infos, err = fsys.ReadDir(vfs.TempDir); err != nil || len(infos) != len(x.spills) {
		tb.Errorf("tmp holds %v, %v", infos, err)
	}
}

// TestPick holds the choice of files to merge to what it is for.
func TestPick(t *testing.T) {
	const f = floorRows
	for _, tc := range []struct {
		name  string
		sizes []uint64 // oldest first
		fresh uint64
		want  int
	}{
		{"nothing there", nil, 5 * f, 0},
		{"a larger one stays", []uint64{3 * f}, f, 0},
		{"a smaller one goes in", []uint64{3*f - 1}, f, 1},
		{"few rows count as the floor", []uint64{3 * f}, 1, 0},
		{"small files go in", []uint64{3 * f, 1}, 1, 2},
		{"what goes in draws in the next", []uint64{11 * f, 2 * f}, 2 * f, 2},
		{"but not one that is large enough", []uint64{12 * f, 2 * f}, 2 * f, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := pick(tc.sizes, tc.fresh, f); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

// TestAmortized plays a year of small commits into a large table: what is
// rewritten is in proportion to the changes, and the files are few.
func TestAmortized(t *testing.T) {
	const fresh, commits = 10_000, 5_000
	sizes := []uint64{10_000_000}
	var written uint64
	most := 0
	for range commits {
		n := pick(sizes, fresh, floorRows)
		sum := uint64(fresh)
		for _, s := range sizes[len(sizes)-n:] {
			sum += s
		}
		sizes = append(sizes[:len(sizes)-n], sum)
		written += sum
		most = max(most, len(sizes))
	}
	factor := float64(written) / (fresh * commits)
	t.Logf("each changed row is written %.1f times, at most %d files", factor, most)
	if factor > 20 || most > 10 {
		t.Errorf("each changed row is written %.1f times, at most %d files: want 20 and 10", factor, most)
	}
}

// TestLimits holds the errors that are the caller's.
func TestLimits(t *testing.T) {
	mem := newMem(t)
	x := own(t, mem, Options{})
	id := testID(1)
	must(t, x.Add(id, 1<<30))
	must(t, x.Add(id, 1<<30-1))
	wantErr(t, x.Add(id, 1), ErrRange)
	must(t, x.Add(id, -(1<<31-1)))
	must(t, x.Commit(nil))
	if p := x.Payload(); p == nil || len(p) != 0 {
		t.Errorf("an empty payload is %v", p)
	}
	wantErr(t, x.Commit(make([]byte, MaxPayloadBytes+1)), ErrPayload)

	must(t, x.Add(id, -1))
	_, err := x.Count(id)
	wantErr(t, err, ErrDamaged)
	wantErr(t, x.Commit(nil), errNegative)
	wantErr(t, x.Walk(func([PrefixBytes]byte, int64) error { return nil }), errNegative)
	must(t, x.Rollback())

	y := read(t, mem, Options{MaxDelta: 2})
	must(t, y.Add(testID(1), 1))
	must(t, y.Add(testID(2), 1))
	wantErr(t, y.Add(testID(3), 1), ErrTooMany)
	must(t, y.Add(testID(2), 1))
	wantErr(t, y.Commit(nil), ErrReadOnly)
	if n, err := y.Count(testID(2)); n != 2 || err != nil {
		t.Errorf("a reader counts %d, %v", n, err)
	}
	for _, z := range []*Table{x, y} {
		must(t, z.Close())
		must(t, z.Close())
		_, err := z.Count(id)
		for _, err := range []error{err, z.Add(id, 1), z.Rollback(), z.Reset(), z.Commit(nil), z.Touched(nil)} {
			wantErr(t, err, errClosed)
		}
	}
}

// TestNeighbours shares the directory with files of others.
func TestNeighbours(t *testing.T) {
	mem := newMem(t)
	must(t, mem.Mkdir(dir))
	names := []string{"00000001.idx", "list-00000001", "checkpoint", "refs-1", "refs-00000000", "0000001.ref"}
	for _, name := range names {
		must(t, vfs.WriteFile(mem, path.Join(dir, name), []byte(name)))
	}
	x := own(t, mem, Options{})
	must(t, x.Add(testID(1), 1))
	must(t, x.Commit(nil))
	must(t, x.Close())
	infos, err := mem.ReadDir(dir)
	must(t, err)
	var got []string
	for _, info := range infos {
		got = append(got, info.Name)
	}
	want := slices.Sorted(slices.Values(append(names, naming.File(1), naming.List(1))))
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
