package index

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

func patchAt(id, base chunk.ID, off, n uint32) pack.Entry {
	return pack.Entry{ID: id, Base: base, Kind: pack.Patch, Flags: pack.HasBase, Off: off, Len: n}
}

// inverse is the id whose rows are where the dependents of another are.
func inverse(id chunk.ID) chunk.ID {
	for i := range id {
		id[i] = ^id[i]
	}
	return id
}

// TestDependentsApart has more dependents of one base than a look-up returns.
// They count all, and are in no look-up, walk or count of another.
func TestDependentsApart(t *testing.T) {
	mem := newMem(t)
	x := own(t, mem, Options{})
	base := testID(1)
	must(t, x.Add(testPack(1, 0), []pack.Entry{chunkAt(base, 64, 100), chunkAt(inverse(base), 164, 100)}))
	var names []pack.Name
	for i := range uint64(3 * maxCandidates) {
		names = append(names, testPack(2, i))
		must(t, x.Add(names[i], []pack.Entry{patchAt(testID(100+i), base, 64, 100)}))
		if i == maxCandidates {
			must(t, x.Flush(1))
		}
	}
	for range 2 {
		for _, id := range []chunk.ID{base, inverse(base)} {
			if got := lookup(t, x, id); len(got) != 1 || got[0].Kind != pack.Chunk {
				t.Errorf("lookup %s: %v", id.Short(), got)
			}
		}
		got, err := x.Dependents(base)
		if err != nil || len(got) != maxCandidates || got[0].Kind != pack.Patch {
			t.Errorf("%d dependents, %v, want %d", len(got), err, maxCandidates)
		}
		if got, err := x.AllDependents(base); err != nil || len(got) != len(names) {
			t.Errorf("%d dependents in all, %v, want %d", len(got), err, len(names))
		}
		if has, err := x.HasDependents(inverse(base), nil); has || err != nil {
			t.Errorf("the inverse of a base has dependents: %v", err)
		}
		// Whichever is the last one left, it is found.
		for _, last := range []pack.Name{names[0], names[maxCandidates], names[len(names)-1]} {
			has, err := x.HasDependents(base, func(n pack.Name) bool { return n != last })
			if err != nil || !has {
				t.Errorf("the dependent in %s is not found: %v", last, err)
			}
		}
		if has, err := x.HasDependents(base, func(pack.Name) bool { return true }); err != nil || has {
			t.Errorf("with all packs passed over: %v, %v", has, err)
		}
		n := 0
		must(t, x.Walk(func(uint64, Entry) error { n++; return nil }))
		if want := len(names) + 2; n != want || x.Count() != uint64(want+len(names)) {
			t.Errorf("walk has %d records, count %d; want %d and %d", n, x.Count(), want, want+len(names))
		}
		must(t, x.Flush(2))
	}
	must(t, x.Remove(names...))
	if has, err := x.HasDependents(base, nil); has || err != nil {
		t.Errorf("after the packs were removed: %v, %v", has, err)
	}
	must(t, x.Close())
}

// TestBaseNotKnown: a record of which nobody knows the base is found under the
// null id.
func TestBaseNotKnown(t *testing.T) {
	x := own(t, newMem(t), Options{})
	defer x.Close()
	for _, want := range []bool{false, true} {
		if has, err := x.HasDependents(chunk.ID{}, nil); err != nil || has != want {
			t.Errorf("got %v, %v, want %v", has, err, want)
		}
		must(t, x.Add(testPack(1, 1), []pack.Entry{chunkAt(testID(1), 64, 100), patchAt(testID(2), chunk.ID{}, 164, 100)}))
	}
}

// TestHasDependentsCalls lets skip wait for somebody who waits for the index.
func TestHasDependentsCalls(t *testing.T) {
	x := own(t, newMem(t), Options{})
	defer x.Close()
	base := testID(1)
	must(t, x.Add(testPack(1, 1), []pack.Entry{patchAt(testID(2), base, 64, 100)}))
	for range 2 {
		calls := 0
		has, err := x.HasDependents(base, func(pack.Name) bool {
			calls++
			err := x.Add(testPack(1, 2), []pack.Entry{chunkAt(testID(3), 64, 100)})
			return err != nil
		})
		if !has || err != nil || calls != 1 {
			t.Errorf("got %v, %v after %d calls", has, err, calls)
		}
		must(t, x.Flush(1))
	}
}

// TestDependentsDamaged: an answer that rests on damage says so.
func TestDependentsDamaged(t *testing.T) {
	mem := newMem(t)
	x := own(t, mem, Options{})
	must(t, x.Add(testPack(1, 1), []pack.Entry{patchAt(testID(2), testID(1), 64, 100)}))
	must(t, x.Flush(1))
	name := path.Join(dir, naming.File(1))
	must(t, mem.Corrupt(name, 2*blockBytes, 1))
	if has, err := x.HasDependents(testID(1), nil); has || !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, %v, want ErrDamaged", has, err)
	}
	must(t, x.Close())
	if _, err := x.HasDependents(testID(1), nil); err == nil {
		t.Error("a closed index answers")
	}
}

// TestLookupByPrefix: the first 16 bytes of an id are enough.
func TestLookupByPrefix(t *testing.T) {
	x := own(t, newMem(t), Options{})
	defer x.Close()
	id := testID(1)
	must(t, x.Add(testPack(1, 1), []pack.Entry{chunkAt(id, 64, 100), chunkAt(testID(2), 164, 100)}))
	var short chunk.ID
	copy(short[:PrefixBytes], id[:])
	for range 2 {
		if got := lookup(t, x, short); len(got) != 1 || !slices.Equal(got, lookup(t, x, id)) {
			t.Errorf("got %v, want %v", got, lookup(t, x, id))
		}
		must(t, x.Flush(1))
	}
}

// TestListOfAnotherVersion: what another version of the list names is as good
// as not there, and goes when an owner comes.
func TestListOfAnotherVersion(t *testing.T) {
	for _, version := range []byte{1, 3} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			mem := newMem(t)
			ids, packs := sample(t, mem)
			name := path.Join(dir, naming.List(1))
			p, err := vfs.ReadFile(mem, name, maxListBytes)
			must(t, err)
			p[4] = version
			sealList(p)
			must(t, mem.Remove(name))
			must(t, vfs.WriteFile(mem, name, p))

			reader := read(t, mem, Options{})
			x := own(t, mem, Options{})
			for _, x := range []*Index{reader, x} {
				if x.Skipped() != nil || x.Covers() != 0 || x.Count() != 0 {
					t.Errorf("covers %d, %d entries, skipped: %v", x.Covers(), x.Count(), x.Skipped())
				}
				must(t, x.Add(packs[0], []pack.Entry{chunkAt(ids[0], 64, 100)}))
				if got := lookup(t, x, ids[0]); len(got) != 1 {
					t.Errorf("what was added anew: %v", got)
				}
			}
			must(t, x.Flush(7))
			accounted(t, mem, x)
			must(t, x.Close())
			must(t, reader.Refresh())
			if reader.Skipped() != nil || reader.Covers() != 7 {
				t.Errorf("after the owner: covers %d, skipped %v", reader.Covers(), reader.Skipped())
			}
			must(t, reader.Close())
		})
	}
}
