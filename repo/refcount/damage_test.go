package refcount

import (
	"bytes"
	"encoding/binary"
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
	"holdfast/repo/vfs"
)

// sample writes a table of one file of three blocks of rows, in which testID(i)
// counts 1 + i%5.
func sample(tb testing.TB, fsys vfs.FS, payload string) {
	tb.Helper()
	x := own(tb, fsys, Options{})
	for i := range sampleIDs {
		must(tb, x.Add(testID(uint64(i)), int32(1+i%5)))
	}
	must(tb, x.Commit([]byte(payload)))
	if n := x.files[0].head.blocks(); n != 5 {
		tb.Fatalf("the sample has %d blocks", n)
	}
	must(tb, x.Close())
}

const sampleIDs = 500

// checkSample looks for every id and walks, and returns the damage that was
// met. Counts are right or there are none.
func checkSample(t *testing.T, fsys vfs.FS, payload string) error {
	t.Helper()
	x := read(t, fsys, Options{})
	defer x.Close()
	if x.Payload() == nil {
		if x.Skipped() == nil {
			t.Fatal("there is no table, and nothing is wrong")
		}
		wantErr(t, x.Skipped(), ErrDamaged)
		return x.Skipped()
	}
	if string(x.Payload()) != payload {
		t.Fatalf("payload %q", x.Payload())
	}
	var met error
	for i := range sampleIDs {
		n, err := x.Count(testID(uint64(i)))
		if err != nil {
			wantErr(t, err, ErrDamaged)
			met = err
		} else if n != int64(1+i%5) {
			t.Fatalf("id %d counts %d", i, n)
		}
	}
	rows := 0
	err := x.Walk(func([PrefixBytes]byte, int64) error { rows++; return nil })
	if err == nil && rows != sampleIDs {
		t.Fatalf("%d rows", rows)
	}
	if (err != nil) != (met != nil) {
		t.Fatalf("look-ups met %v, and a walk %v", met, err)
	}
	return met
}

// TestFlips changes every byte of the list and many of the file. Whatever meets
// it says so, and all other counts are right.
func TestFlips(t *testing.T) {
	mem := newMem(t)
	sample(t, mem, "payload")
	must(t, checkSample(t, mem, "payload"))
	for name, step := range map[string]int64{naming.List(1): 1, naming.File(1): 61} {
		name = path.Join(dir, name)
		info, err := mem.Stat(name)
		must(t, err)
		for off := int64(0); off < info.Size; off += step {
			must(t, mem.Corrupt(name, off, 0x10))
			err := checkSample(t, mem, "payload")
			var d *DamageError
			if !errors.As(err, &d) || d.File != name {
				t.Errorf("%s, byte %d changed: got %v", name, off, err)
			}
			if block := off / blockBytes; name == path.Join(dir, naming.File(1)) && d != nil && d.Block != block {
				t.Errorf("byte %d changed: damage in block %d, want %d", off, d.Block, block)
			}
			must(t, mem.Corrupt(name, off, 0x10))
		}
	}
}

// TestUnreadable is a medium that gives errors rather than other bytes.
func TestUnreadable(t *testing.T) {
	mem := newMem(t)
	sample(t, mem, "payload")
	fsys := vfs.NewFaulty(mem)
	x := read(t, fsys, Options{})
	fsys.FailReads(path.Join(dir, "*.ref"), syscall.EIO)
	if _, err := x.Count(testID(1)); !errors.Is(err, ErrDamaged) || !errors.Is(err, syscall.EIO) {
		t.Errorf("count: got %v, want ErrDamaged and EIO", err)
	}
	must(t, x.Close())
	y := read(t, fsys, Options{})
	if err := y.Skipped(); !errors.Is(err, syscall.EIO) || y.Payload() != nil {
		t.Errorf("open: skipped %v, want EIO", err)
	}
	must(t, y.Close())
}

// TestSpoilt keeps an older list beside a newer one that is spoilt in every way
// there is: the older one is taken, by readers and by the owner.
func TestSpoilt(t *testing.T) {
	newFile := path.Join(dir, naming.File(2))
	newList := path.Join(dir, naming.List(2))
	for _, tc := range []struct {
		name  string
		spoil func(m *vfs.Mem) error
	}{
		{"list with a flipped bit", func(m *vfs.Mem) error { return m.Corrupt(newList, 20, 1) }},
		{"payload with a flipped bit", func(m *vfs.Mem) error { return m.Corrupt(newList, 61, 1) }},
		{"list cut short", func(m *vfs.Mem) error { return truncate(m, newList, 40) }},
		{"payload cut short", func(m *vfs.Mem) error { return truncate(m, newList, 62) }},
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
			sample(t, mem, "old")
			kept := []string{path.Join(dir, naming.List(1)), path.Join(dir, naming.File(1))}
			for _, name := range kept {
				must(t, copyFile(mem, name, path.Base(name)))
			}
			x := own(t, mem, Options{})
			must(t, x.Add(testID(1), 10))
			must(t, x.Commit([]byte("new")))
			must(t, x.Close())
			for _, name := range kept {
				if _, err := mem.Stat(name); err != nil {
					must(t, copyFile(mem, path.Base(name), name))
				}
			}
			must(t, tc.spoil(mem))
			must(t, checkSample(t, mem, "old"))
			y := own(t, mem, Options{})
			if y.Skipped() == nil {
				t.Error("nothing was skipped")
			}
			accounted(t, mem, y)
			must(t, y.Close())
			must(t, checkSample(t, mem, "old"))
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
// nothing, and after Reset everything is counted again.
func TestRebuild(t *testing.T) {
	mem := newMem(t)
	sample(t, mem, "old")
	name := path.Join(dir, naming.File(1))
	must(t, mem.Corrupt(name, 2*blockBytes, 1))
	x := own(t, mem, Options{})
	must(t, x.Add(testID(1), 1))
	wantErr(t, x.Commit([]byte("new")), ErrDamaged)
	if string(x.Payload()) != "old" {
		t.Errorf("payload %q after a commit that failed", x.Payload())
	}
	must(t, x.Reset())
	newModel().check(t, x, []chunk.ID{testID(1)})
	must(t, x.Rollback())
	if string(x.Payload()) != "old" {
		t.Errorf("payload %q after rollback", x.Payload())
	}
	must(t, x.Reset())
	for i := range sampleIDs {
		must(t, x.Add(testID(uint64(i)), int32(1+i%5)))
	}
	must(t, x.Commit([]byte("again")))
	accounted(t, mem, x)
	must(t, x.Close())
	must(t, checkSample(t, mem, "again"))
}

// TestForged opens files whose checksums are right and whose content is not.
func TestForged(t *testing.T) {
	mem := newMem(t)
	sample(t, mem, "")
	data, err := vfs.ReadFile(mem, path.Join(dir, naming.File(1)), 1<<20)
	must(t, err)
	const rows, fences = 1 * blockBytes, 4 * blockBytes
	for _, tc := range []struct {
		name  string
		forge func(p []byte)
		err   error
	}{
		{"rows out of order", func(p []byte) { swap(p[rows:], rowBytes) }, errOrder},
		{"a row twice", func(p []byte) { copy(p[rows+rowBytes:], p[rows:][:PrefixBytes]) }, errOrder},
		{"a row that changes nothing", func(p []byte) { copy(p[rows+PrefixBytes:], "\x00\x00\x00\x00") }, errZero},
		{"a row of another file", func(p []byte) { p[rows+PrefixBytes]++ }, blockfile.ErrSum},
		{"fences out of order", func(p []byte) { p[fences+blockfile.FenceBytes-1] = 0xff }, errFences},
		{"more rows than fit", func(p []byte) { p[16+7] = 0x7f }, errSize},
		{"fewer rows than blocks", func(p []byte) { p[16], p[17] = 1, 0 }, errSize},
		{"bytes that mean nothing", func(p []byte) { p[28] = 1 }, errHeader},
		{"a later version", func(p []byte) { p[4] = 2 }, errVersion},
		{"another magic", func(p []byte) { p[0] = 'h' }, errMagic},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := slices.Clone(data)
			tc.forge(p)
			reseal(p)
			err := readAll(p, []chunk.ID{testID(1), testID(2)})
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

// readAll does with a file all that a table does.
func readAll(p []byte, ids []chunk.ID) error {
	f, err := newFile(memFile{bytes.NewReader(p)}, "file", blockfile.NewCache(1<<16))
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := f.find(key(id[:PrefixBytes])); err != nil {
			return err
		}
	}
	m, err := newMerger(sorted(nil), []*file{f})
	if err != nil {
		return err
	}
	n := uint64(0)
	err = m.each(func(key, int64) error { n++; return nil })
	if err == nil && n != f.head.rows {
		return fmt.Errorf("%d of %d rows", n, f.head.rows)
	}
	return err
}

type memFile struct{ *bytes.Reader }

func (f memFile) Size() (int64, error) { return f.Reader.Size(), nil }
func (memFile) Close() error           { return nil }

var _ io.ReaderAt = memFile{}

// FuzzFile reads hostile files, with checksums as they are and made right. Each
// part of a file is padded to whole blocks, so that small inputs go deep.
func FuzzFile(f *testing.F) {
	p, err := os.ReadFile("testdata/" + naming.File(1))
	must(f, err)
	part := func(i int) []byte { return bytes.TrimRight(p[i*blockBytes:][:blockfile.PayloadBytes], "\x00") }
	f.Add(part(0), part(1), part(2), true)
	f.Add(part(0), part(1), part(2), false)
	f.Add(part(0), part(1), []byte{}, true)
	f.Fuzz(func(t *testing.T, head, rows, fences []byte, seal bool) {
		var p []byte
		for _, part := range [][]byte{head, rows, fences} {
			p = append(p, part...)
			p = append(p, make([]byte, (blockBytes-len(p)%blockBytes)%blockBytes)...)
		}
		if seal {
			reseal(p)
			if len(p) >= blockBytes { // the sum of sums, too
				var sums blockfile.SumOfSums
				for i := blockBytes; i < len(p); i += blockBytes {
					sums.Add((*block)(p[i:]).Sum())
				}
				binary.LittleEndian.PutUint32(p[24:], uint32(sums))
				(*block)(p).Seal(0)
			}
		}
		var own chunk.ID
		copy(own[:], rows)
		if err := readAll(p, []chunk.ID{testID(1), {}, own}); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
	})
}

// sealList makes the checksums of a list right, as far as there is one.
func sealList(p []byte) {
	le := binary.LittleEndian
	if len(p) < listFixed+4 {
		return
	}
	end := listFixed + blockfile.MemberBytes*uint64(le.Uint32(p[28:]))
	if end+4 > uint64(len(p)) {
		return
	}
	le.PutUint32(p[24:], blockfile.Checksum(p[end+4:]))
	le.PutUint32(p[end:], blockfile.Checksum(p[:end]))
}

// FuzzList holds that a list that is taken encodes as what it was.
func FuzzList(f *testing.F) {
	f.Add(goldenList().encode())
	f.Add((&list{number: 1}).encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		for range 2 {
			if l, err := parseList(p); err == nil && !slices.Equal(l.encode(), p) {
				t.Fatalf("%v encodes otherwise", l)
			}
			p = slices.Clone(p) // again with the right checksums
			sealList(p)
		}
	})
}
