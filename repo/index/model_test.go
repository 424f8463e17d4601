package index

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

var seed = flag.Uint64("seed", 0, "replay the model test with this seed")

// universe is small, so that ids meet in many packs, and some share their first
// 8 bytes, so that equal fences occur, and some are others inverted.
func universe(r *rand.Rand) (ids []chunk.ID, packs []pack.Name) {
	for i := range 240 {
		id := testID(r.Uint64())
		if i%3 > 0 {
			copy(id[:8], ids[i-i%3][:8])
		}
		if i%5 == 4 { // where the dependents of the one before are
			for k := range PrefixBytes {
				id[k] = ^ids[i-1][k]
			}
		}
		ids = append(ids, id)
	}
	for i := range 40 {
		packs = append(packs, testPack(uint32(i/8), r.Uint64()))
	}
	return ids, packs
}

func randomEntries(r *rand.Rand, ids []chunk.ID) []pack.Entry {
	var list []pack.Entry
	off := uint32(64)
	for range r.IntN(60) {
		n := 1 + r.Uint32N(MaxRecordBytes)
		e := pack.Entry{ID: ids[r.IntN(len(ids))], Kind: pack.RecordKind(1 + r.IntN(3)), Off: off, Len: n}
		switch k := r.IntN(100); {
		case k == 0: // a base not known
			e.Flags = pack.HasBase
		case k == 1: // the record beside its own row
			e.Flags = pack.HasBase
			for i, b := range e.ID {
				e.Base[i] = ^b
			}
		case k < 30:
			e.Flags, e.Base = pack.HasBase, ids[r.IntN(len(ids))]
		}
		list = append(list, e)
		if r.IntN(10) > 0 { // else another record at the same place: the later one counts
			off += 100
		}
	}
	return list
}

func TestModel(t *testing.T) {
	seeds := []uint64{1, rand.Uint64()}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	for _, s := range seeds {
		for _, cacheBytes := range []int64{1, 40 << 10, 1 << 20} { // one block, some, all
			t.Run(fmt.Sprintf("seed=%d,cache=%d", s, cacheBytes), func(t *testing.T) {
				runModel(t, s, Options{CacheBytes: cacheBytes, flushEntries: 400, floorEntries: 64})
			})
		}
	}
}

func runModel(t *testing.T, seed uint64, opt Options) {
	r := rand.New(rand.NewPCG(seed, binary.BigEndian.Uint64([]byte("holdfast"))))
	ids, packs := universe(r)
	fsys := newMem(t)
	x := own(t, fsys, opt)
	reader := read(t, fsys, opt)
	live, durable, seen := newModel(), newModel(), newModel()
	most := 0
	for range 200 {
		before := x.view.list.number
		switch op := r.IntN(100); {
		case op < 60:
			name := packs[r.IntN(len(packs))]
			entries := randomEntries(r, ids)
			must(t, x.Add(name, entries))
			live.add(name, entries)
		case op < 68:
			a, b := packs[r.IntN(len(packs))], packs[r.IntN(len(packs))]
			must(t, x.Remove(a, b))
			live.remove(a)
			live.remove(b)
		case op < 80:
			live.head++
			must(t, x.Flush(live.head))
		case op < 88:
			must(t, reader.Refresh())
			seen = durable.clone()
		case op < 92:
			must(t, x.Close())
			x = own(t, fsys, opt)
			live = durable.clone()
			before = x.view.list.number
		case op < 94:
			must(t, reader.Close())
			reader = read(t, fsys, opt)
			seen = durable.clone()
		case op < 95:
			must(t, x.Reset())
			live = newModel()
		default:
			live.check(t, x, ids, packs)
			seen.check(t, reader, ids, packs)
		}
		if x.view.list.number != before { // flushed, perhaps by Add
			durable = live.clone()
		}
		most = max(most, len(x.view.files))
	}
	live.check(t, x, ids, packs)
	seen.check(t, reader, ids, packs)
	must(t, reader.Refresh())
	durable.check(t, reader, ids, packs)
	if most < 2 {
		t.Errorf("at most %d file lived at once: nothing was tested", most)
	}
	must(t, x.Flush(live.head+1)) // a Reset may not have reached the disk
	accounted(t, fsys, x)
	must(t, x.Close())
	must(t, reader.Close())
}

// accounted fails when there is a file that the index does not need.
func accounted(tb testing.TB, fsys vfs.FS, x *Index) {
	tb.Helper()
	want := map[string]bool{}
	if x.view.list.number > 0 {
		want[naming.List(x.view.list.number)] = true
	}
	for _, f := range x.view.list.members {
		want[naming.File(f.Number)] = true
	}
	infos, err := fsys.ReadDir(dir)
	must(tb, err)
	for _, info := range infos {
		if !want[info.Name] {
			tb.Errorf("%s is nobody's", info.Name)
		}
		delete(want, info.Name)
	}
	for name := range want {
		tb.Errorf("%s is missing", name)
	}
	if infos, err = fsys.ReadDir(vfs.TempDir); err != nil || len(infos) > 0 {
		tb.Errorf("tmp holds %v, %v", infos, err)
	}
}
