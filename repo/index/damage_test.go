package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"syscall"
	"testing"

	"holdfast/repo/blockfile"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// sample writes an index of one file that has two blocks of names, seven of
// entries and one of fences, and returns its ids.
func sample(tb testing.TB, fsys vfs.FS) (ids []chunk.ID, packs []pack.Name) {
	tb.Helper()
	x := own(tb, fsys, Options{})
	for p := range uint64(300) {
		packs = append(packs, testPack(1, p))
		var entries []pack.Entry
		for i := range uint64(3) {
			ids = append(ids, testID(3*p+i))
			entries = append(entries, chunkAt(ids[len(ids)-1], 64+1000*uint32(i), 1000))
		}
		must(tb, x.Add(packs[p], entries))
	}
	must(tb, x.Flush(5))
	h := x.view.files[0].head
	if got := [3]int64{h.nameBlocks(), h.entryBlocks(), h.fenceBlocks()}; got != [3]int64{2, 7, 1} {
		tb.Fatalf("the sample has %v blocks", got)
	}
	must(tb, x.Close())
	return ids, packs
}

// TestFlippedBits flips a bit at several places of every block. Whatever meets
// it says so, with file and block, and all other answers are right.
func TestFlippedBits(t *testing.T) {
	mem := newMem(t)
	ids, packs := sample(t, mem)
	name := path.Join(dir, naming.File(1))
	info, err := mem.Stat(name)
	must(t, err)
	for off := int64(3); off < info.Size; off += 1021 {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			must(t, mem.Corrupt(name, off, 0x10))
			defer func() { must(t, mem.Corrupt(name, off, 0x10)) }()
			x := read(t, mem, Options{})
			defer x.Close()
			if skipped := x.Skipped(); skipped != nil {
				wantDamage(t, skipped, name, off/blockBytes)
				if x.Covers() != 0 || x.Count() != 0 {
					t.Errorf("a list that was skipped still counts")
				}
				return
			}
			wantDamage(t, x.Verify(t.Context()), name, off/blockBytes)
			wantDamage(t, x.Walk(func(uint64, Entry) error { return nil }), name, off/blockBytes)
			met := 0
			for i, id := range ids {
				list, err := x.Lookup(id)
				if err != nil {
					wantDamage(t, err, name, off/blockBytes)
					met++
				} else if len(list) != 1 || list[0].Pack != packs[i/3] {
					t.Fatalf("lookup %d: %v", i, list)
				}
			}
			for _, p := range packs {
				if has, err := x.HasPack(p); err != nil {
					wantDamage(t, err, name, off/blockBytes)
				} else if !has {
					t.Fatalf("pack %s is missing", p)
				}
			}
			if met == 0 {
				t.Errorf("no look-up met the damage")
			}
		})
	}
}

func wantDamage(t *testing.T, err error, file string, block int64) {
	t.Helper()
	var d *DamageError
	if !errors.As(err, &d) || !errors.Is(err, ErrDamaged) || d.File != file || d.Block != block {
		t.Fatalf("got %v, want damage of %s, block %d", err, file, block)
	}
}

// TestUnreadableBlocks is a medium that gives errors rather than other bytes.
func TestUnreadableBlocks(t *testing.T) {
	mem := newMem(t)
	ids, _ := sample(t, mem)
	fsys := vfs.NewFaulty(mem)
	x := read(t, fsys, Options{})
	defer x.Close()
	fsys.FailReads(path.Join(dir, "*.idx"), syscall.EIO)
	if _, err := x.Lookup(ids[0]); !errors.Is(err, ErrDamaged) || !errors.Is(err, syscall.EIO) {
		t.Errorf("lookup: got %v, want ErrDamaged and EIO", err)
	}
	y := read(t, fsys, Options{})
	defer y.Close()
	if err := y.Skipped(); !errors.Is(err, syscall.EIO) {
		t.Errorf("open: skipped %v, want EIO", err)
	}
}

// TestSkippedList keeps an older list beside a newer one that is spoilt in
// every way there is.
func TestSkippedList(t *testing.T) {
	newFile := path.Join(dir, naming.File(2))
	newList := path.Join(dir, naming.List(2))
	for _, tc := range []struct {
		name  string
		spoil func(m *vfs.Mem) error
	}{
		{"list with a flipped bit", func(m *vfs.Mem) error { return m.Corrupt(newList, 20, 1) }},
		{"list cut short", func(m *vfs.Mem) error { return truncate(m, newList, 40) }},
		{"empty list", func(m *vfs.Mem) error { return truncate(m, newList, 0) }},
		{"list that is too long", func(m *vfs.Mem) error { return truncate(m, newList, maxListBytes+1) }},
		{"file missing", func(m *vfs.Mem) error { return m.Remove(newFile) }},
		{"file cut short", func(m *vfs.Mem) error { return truncate(m, newFile, blockBytes) }},
		{"file too long", func(m *vfs.Mem) error { return truncate(m, newFile, 100*blockBytes) }},
		{"empty file", func(m *vfs.Mem) error { return truncate(m, newFile, 0) }},
		{"header with a flipped bit", func(m *vfs.Mem) error { return m.Corrupt(newFile, 9, 1) }},
		{"another file", func(m *vfs.Mem) error {
			return errors.Join(m.Remove(newFile), copyFile(m, path.Join(dir, naming.File(1)), newFile))
		}},
		{"another list", func(m *vfs.Mem) error {
			return errors.Join(m.Remove(newList), copyFile(m, path.Join(dir, naming.List(1)), newList))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mem := newMem(t)
			ids, _ := sample(t, mem)
			kept := []string{path.Join(dir, naming.List(1)), path.Join(dir, naming.File(1))}
			for _, name := range kept {
				must(t, copyFile(mem, name, path.Base(name)))
			}
			x := own(t, mem, Options{})
			must(t, x.Add(testPack(2, 1), []pack.Entry{chunkAt(testID(1<<20), 64, 100)}))
			must(t, x.Flush(6))
			must(t, x.Close())
			for _, name := range kept {
				if _, err := mem.Stat(name); err != nil {
					must(t, copyFile(mem, path.Base(name), name))
				}
			}
			must(t, tc.spoil(mem))
			for _, open := range []func(vfs.FS, string, Options) (*Index, error){Open, Own} {
				x, err := open(mem, dir, Options{})
				must(t, err)
				if x.Skipped() == nil || x.Covers() != 5 || len(lookup(t, x, ids[0])) != 1 {
					t.Errorf("covers %d, want 5; skipped: %v", x.Covers(), x.Skipped())
				}
				must(t, x.Close())
			}
		})
	}
}

func truncate(m *vfs.Mem, name string, size int64) error {
	f, err := m.OpenWrite(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func copyFile(m *vfs.Mem, from, to string) error {
	p, err := vfs.ReadFile(m, from, 1<<30)
	if err != nil {
		return err
	}
	f, err := m.Create(to)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	return errors.Join(err, f.Close())
}

// TestRebuild is the owner's way out of damage: a merge reports it and changes
// nothing, and after Reset the index is filled again.
func TestRebuild(t *testing.T) {
	mem := newMem(t)
	ids, packs := sample(t, mem)
	name := path.Join(dir, naming.File(1))
	must(t, mem.Corrupt(name, 5*blockBytes, 1))
	x := own(t, mem, Options{floorEntries: 1})
	extra := testID(1 << 20)
	var entries []pack.Entry
	for i := range uint32(400) {
		entries = append(entries, chunkAt(extra, 64+i, 100))
	}
	must(t, x.Add(testPack(2, 1), entries))
	wantDamage(t, x.Flush(6), name, 5)
	if x.Covers() != 5 || len(lookup(t, x, extra)) != maxCandidates {
		t.Errorf("a flush that failed changed something")
	}
	must(t, x.Reset())
	if list := lookup(t, x, extra); list != nil || x.Covers() != 0 {
		t.Errorf("after reset: %v, covers %d", list, x.Covers())
	}
	for i, p := range packs {
		must(t, x.Add(p, []pack.Entry{chunkAt(ids[i], 64, 100)}))
	}
	must(t, x.Flush(6))
	must(t, x.Verify(t.Context()))
	accounted(t, mem, x)
	must(t, x.Close())
}

// TestForged opens files whose checksums are right and whose content is not.
func TestForged(t *testing.T) {
	mem := newMem(t)
	ids, _ := sample(t, mem)
	data, err := vfs.ReadFile(mem, path.Join(dir, naming.File(1)), 1<<20)
	must(t, err)
	const names, entries, fences = 1 * blockBytes, 3 * blockBytes, 10 * blockBytes
	for _, tc := range []struct {
		name  string
		forge func(p []byte)
		err   error
	}{
		{"a pack beyond the table", func(p []byte) { p[entries+18] = 1 }, errOrdinal},
		{"entries out of order", func(p []byte) { swap(p[entries:], entryBytes) }, errOrder},
		{"an entry twice", func(p []byte) { copy(p[entries:], p[entries+entryBytes:][:entryBytes]) }, errOrder},
		{"names out of order", func(p []byte) { swap(p[names:], nameBytes) }, errNames},
		{"fences out of order", func(p []byte) { p[fences+2*blockfile.FenceBytes+7] = 0xff }, errFences},
		{"more entries than fit", func(p []byte) { p[16+7] = 0x7f }, errSize},
		{"fewer packs than blocks", func(p []byte) { p[24], p[25] = 1, 0 }, errSize},
		{"bytes that mean nothing", func(p []byte) { p[headerUsed] = 1 }, errHeader},
		{"a later version", func(p []byte) { p[4] = 2 }, errVersion},
		{"another magic", func(p []byte) { p[0] = 'h' }, errMagic},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := slices.Clone(data)
			tc.forge(p)
			reseal(p)
			err := readAll(p, ids[:5])
			if !errors.Is(err, ErrDamaged) || !errors.Is(err, tc.err) {
				t.Errorf("got %v, want %v", err, tc.err)
			}
		})
	}
}

// swap exchanges two rows.
func swap(p []byte, n int) {
	row := slices.Clone(p[:n])
	copy(p, p[n:2*n])
	copy(p[n:], row)
}

// reseal makes the checksums of all whole blocks right.
func reseal(p []byte) {
	for i := 0; (i+1)*blockBytes <= len(p); i++ {
		(*block)(p[i*blockBytes:]).Seal(uint32(i))
	}
}

// readAll does with a file all that an index does.
func readAll(p []byte, ids []chunk.ID) error {
	f, err := newFile(bytesAt(p), int64(len(p)), "file", blockfile.NewCache(1<<16))
	if err != nil {
		return err
	}
	v := newView(list{}, []*file{f})
	for _, id := range ids {
		if hits, err := v.find(query{key: keyOf(id[:]), limit: maxCandidates}, nil, 0); err != nil || len(hits) > maxCandidates {
			return fmt.Errorf("%d places: %w", len(hits), err)
		}
		if _, err := v.hasPack(pack.Name(id[:nameBytes])); err != nil {
			return err
		}
	}
	n := uint64(0)
	err = walk(newSources(v, v.files, nil), func(ordinal uint64, _ Entry) error { n++; return nil })
	if err == nil && n > f.head.entries {
		return fmt.Errorf("%d of %d entries", n, f.head.entries)
	}
	return err
}

type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// FuzzFile reads hostile files, with checksums as they are and made right. Each
// part of a file is padded to whole blocks, so that small inputs go deep.
func FuzzFile(f *testing.F) {
	p, err := os.ReadFile("testdata/" + naming.File(1))
	must(f, err)
	part := func(i int) []byte { return bytes.TrimRight(p[i*blockBytes:][:payloadBytes], "\x00") }
	f.Add(part(0), part(1), part(2), part(3), true)
	f.Add(part(0), part(1), part(2), part(3), false)
	f.Add(part(0), []byte{}, part(2), []byte{}, true)
	f.Fuzz(func(t *testing.T, head, names, entries, fences []byte, seal bool) {
		var p []byte
		for _, part := range [][]byte{head, names, entries, fences} {
			p = append(p, part...)
			p = append(p, make([]byte, (blockBytes-len(p)%blockBytes)%blockBytes)...)
		}
		if seal {
			reseal(p)
		}
		ids := []chunk.ID{testID(1), testID(2), {}, chunk.ID(testRow(entries))}
		if err := readAll(p, ids); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
	})
}

// testRow is the first 32 bytes of p, or zeros where it has fewer.
func testRow(p []byte) (row [chunk.IDBytes]byte) {
	copy(row[:], p)
	return row
}

// FuzzBlock decodes rows of any block.
func FuzzBlock(f *testing.F) {
	var b block
	for i := range 3 {
		putEntry(&b, i, entry{key: key{uint64(i), 1}, pack: 1, off: 2, size: 3})
	}
	f.Add(b[:3*entryBytes], uint32(7), uint64(5), uint64(1), 3)
	f.Fuzz(func(t *testing.T, p []byte, number uint32, hi, lo uint64, n int) {
		if n < 0 || n > entriesPerBlock {
			return
		}
		var b block
		copy(b[:], p)
		was := b
		if at := firstEntry(&b, n, key{hi, lo}); at < 0 || at > n {
			t.Fatalf("first entry %d of %d", at, n)
		}
		for i := range n {
			if putEntry(&b, i, entryAt(&b, i)); b != was {
				t.Fatalf("entry %d does not encode as it was", i)
			}
		}
		whole := b.Check(number) == nil
		if b.Seal(number); b.Check(number) != nil {
			t.Fatal("a sealed block does not check")
		}
		if whole && b != was {
			t.Fatal("sealing changed a whole block")
		}
	})
}

// FuzzList decodes hostile lists. What is taken encodes as it was.
func FuzzList(f *testing.F) {
	l := goldenList()
	f.Add(l.encode())
	f.Add((&list{number: 1}).encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		for range 2 {
			if l, err := parseList(p); err == nil && !slices.Equal(l.encode(), p) {
				t.Fatalf("%v encodes otherwise", l)
			}
			if p = slices.Clone(p); len(p) >= 4 { // again with the right checksum
				sealList(p)
			}
		}
	})
}
