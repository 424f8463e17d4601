package ntfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/fs/guest/ntfs"
	"holdfast/fs/treetest"
)

// metadata finds the boot sector, the records and the index blocks of a volume.
func metadata(b []byte) []treetest.Range {
	list := []treetest.Range{{Off: 0, Len: 512}}
	for off := 512; off+512 <= len(b); off += 512 {
		switch string(b[off : off+4]) {
		case "FILE":
			list = append(list, treetest.Range{Off: int64(off), Len: 1024})
		case "INDX":
			list = append(list, treetest.Range{Off: int64(off), Len: 4096})
		}
	}
	return list
}

func TestCorrupt(t *testing.T) {
	b, err := sample()
	must(t, err)
	n := 200
	if os.Getenv("HOLDFAST_LONG") != "" {
		n = 1000
	}
	open := func(dev io.ReaderAt, size int64) (fs.Tree, error) { return ntfs.Open(dev, size) }
	treetest.Corrupt(t, treetest.Corruption{
		Image: bytes.NewReader(b), Size: int64(len(b)), Meta: metadata(b), Seed: 1, N: n, Open: open,
		Limits: treetest.Limits{HeapBytes: 128 << 20},
	})
	treetest.Corrupt(t, treetest.Corruption{
		Image: bytes.NewReader(b), Size: int64(len(b)), Seed: 2, N: n / 10, Open: open,
		Limits: treetest.Limits{HeapBytes: 128 << 20},
	})
}

// patient is a copy of the sample volume to damage.
type patient struct {
	tb testing.TB
	b  []byte
}

func newPatient(tb testing.TB) *patient {
	b, err := sample()
	must(tb, err)
	return &patient{tb, bytes.Clone(b)}
}

// record returns record n.
func (p *patient) record(n uint64) []byte {
	p.tb.Helper()
	mft := int(binary.LittleEndian.Uint64(p.b[0x30:])) * 512
	for off := mft; off+1024 <= len(p.b); off += 1024 {
		if b := p.b[off : off+1024]; string(b[:4]) == "FILE" && uint64(binary.LittleEndian.Uint32(b[0x2c:])) == n {
			return b
		}
	}
	p.tb.Fatalf("no record %d", n)
	return nil
}

// attributesOf returns the attributes of a type in a record.
func attributesOf(record []byte, typ uint32) (list [][]byte) {
	for at := int(binary.LittleEndian.Uint16(record[0x14:])); at+8 < len(record); {
		if binary.LittleEndian.Uint32(record[at:]) == typ {
			list = append(list, record[at:])
		}
		at += max(8, int(binary.LittleEndian.Uint32(record[at+4:])))
	}
	return list
}

// attributeOf returns the first of them.
func attributeOf(tb testing.TB, record []byte, typ uint32) []byte {
	tb.Helper()
	list := attributesOf(record, typ)
	if len(list) == 0 {
		tb.Fatalf("no attribute of type %#x", typ)
	}
	return list[0]
}

// blocks returns the index blocks of the directory "many".
func (p *patient) blocks() (list [][]byte) {
	for _, r := range metadata(p.b) {
		b := p.b[r.Off : r.Off+r.Len]
		if string(b[:4]) == "INDX" && bytes.Contains(b, utf16le("file ")) {
			list = append(list, b)
		}
	}
	if len(list) < 3 {
		p.tb.Fatalf("%d index blocks", len(list))
	}
	return list
}

func TestDamagedRecord(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, record []byte)
		says   string
		err    error
	}{
		{"marked as torn", func(_ *testing.T, r []byte) { copy(r, "BAAD") }, "BAAD", fs.ErrDamaged},
		{"other magic", func(_ *testing.T, r []byte) { r[0] = 'f' }, `"fILE"`, fs.ErrDamaged},
		{"torn in the first half", func(_ *testing.T, r []byte) { r[511]++ }, "part 1 of 2", fs.ErrDamaged},
		{"torn in the second half", func(_ *testing.T, r []byte) { r[1022]++ }, "part 2 of 2", fs.ErrDamaged},
		{"more in use than there is", func(_ *testing.T, r []byte) { r[0x19] = 9 }, "in use", fs.ErrDamaged},
		{"attribute without a length", func(_ *testing.T, r []byte) { r[0x38+4] = 0 }, "length 0", fs.ErrDamaged},
		{"encrypted", func(t *testing.T, r []byte) { attributeOf(t, r, 0x80)[13] |= 0x40 }, "EFS", fs.ErrUnsupported},
		{"runs behind the volume", func(t *testing.T, r []byte) { a := attributeOf(t, r, 0x80); a[a[32]+3] = 0x7f }, "mapping pairs", fs.ErrDamaged},
		{"runs too short", func(t *testing.T, r []byte) { a := attributeOf(t, r, 0x80); a[a[32]+1]-- }, "clusters left 1", fs.ErrDamaged},
		{"runs missing", func(t *testing.T, r []byte) { a := attributeOf(t, r, 0x80); a[a[32]] = 0 }, "clusters left", fs.ErrDamaged},
		{"size beyond the runs", func(t *testing.T, r []byte) { a := attributeOf(t, r, 0x80); a[48+2], a[56+2] = 9, 9 }, "LZNT1 chunk", fs.ErrDamaged},
		{"unknown compression", func(t *testing.T, r []byte) { attributeOf(t, r, 0x80)[12] = 2 }, "method 2", fs.ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPatient(t)
			id := find(t, openBytes(t, p.b), "packed/noise").ID
			tt.damage(t, p.record(id.Ino))
			f := openBytes(t, p.b)
			_, err := f.Attr(t.Context(), id)
			if err == nil {
				_, err = io.ReadAll(fs.File(t.Context(), f, find(t, f, "packed/noise")))
			}
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), fmt.Sprint("file record ", id.Ino)) {
				t.Errorf("error %v", err)
			}
			if _, err := contents(t, f, "a/noise"); err != nil {
				t.Errorf("another file: %v", err)
			}
			// It is still listed.
			names := 0
			must(t, f.ReadDir(t.Context(), find(t, f, "packed").ID, 0, func(fs.Entry) bool { names++; return true }))
			if names != 4 {
				t.Errorf("%d entries", names)
			}
		})
	}
}

func TestDamagedDirectory(t *testing.T) {
	list := func(f *ntfs.FS, stop int) (names []string, last uint64, err error) {
		dir := find(t, f, "many").ID
		for err == nil {
			n := 0
			err = f.ReadDir(t.Context(), dir, last, func(e fs.Entry) bool {
				names, last = append(names, e.Name), e.Cookie
				n++
				return n < stop
			})
			if n < stop {
				break
			}
		}
		return names, last, err
	}
	t.Run("whole", func(t *testing.T) {
		if names, _, err := list(openBytes(t, newPatient(t).b), 7); len(names) != 100 || err != nil {
			t.Errorf("%d names, %v", len(names), err)
		}
	})
	t.Run("torn block", func(t *testing.T) {
		for _, stop := range []int{1, 7, 1000} {
			p := newPatient(t)
			p.blocks()[1][1535]++
			names, _, err := list(openBytes(t, p.b), stop)
			if len(names) < 40 || len(names) >= 100 || !errors.Is(err, fs.ErrDamaged) {
				t.Errorf("in parts of %d: %d names, %v", stop, len(names), err)
			}
		}
	})
	t.Run("block that leads to itself", func(t *testing.T) {
		p := newPatient(t)
		for _, b := range p.blocks() {
			at := 24 + int(binary.LittleEndian.Uint32(b[24:]))
			for binary.LittleEndian.Uint16(b[at+12:])&2 == 0 {
				at += int(binary.LittleEndian.Uint16(b[at+8:]))
			}
			// The last entry, whose child would be behind all: 24 bytes are free there.
			copy(b[at:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 3, 0, 0, 0})
			copy(b[at+16:at+24], b[16:24])
			binary.LittleEndian.PutUint32(b[28:], uint32(at+24-24))
		}
		f := openBytes(t, p.b)
		if _, err := f.Lookup(t.Context(), find(t, f, "many").ID, "zzz"); !errors.Is(err, fs.ErrDamaged) || !strings.Contains(err.Error(), "again") {
			t.Errorf("look up: %v", err)
		}
	})
	t.Run("entry of a file that is gone", func(t *testing.T) {
		p := newPatient(t)
		id := find(t, openBytes(t, p.b), "packed/noise").ID
		binary.LittleEndian.PutUint16(p.record(id.Ino)[0x10:], 77)
		f := openBytes(t, p.b)
		dir := find(t, f, "packed").ID
		if _, err := f.Lookup(t.Context(), dir, "noise"); !errors.Is(err, fs.ErrDamaged) {
			t.Errorf("look up: %v", err)
		}
		seen := false
		must(t, f.ReadDir(t.Context(), dir, 0, func(e fs.Entry) bool {
			if e.Name == "noise" {
				seen = true
				if _, err := f.Attr(t.Context(), e.ID); !errors.Is(err, fs.ErrDamaged) {
					t.Errorf("Attr: %v", err)
				}
			}
			return true
		}))
		if !seen {
			t.Error("not listed")
		}
	})
}

// TestDamagedVolume damages what the volume needs as a whole.
func TestDamagedVolume(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(p *patient)
		note   string // "": the volume does not open
	}{
		{"boot sector", func(p *patient) { clear(p.b[:512]) }, "boot sector is damaged"},
		{"boot sector and its copy", func(p *patient) { clear(p.b[:512]); clear(p.b[len(p.b)-512:]) }, ""},
		{"first record", func(p *patient) { copy(p.record(0), "BAAD") }, "first record of the MFT is damaged"},
		{"dirty", func(p *patient) { r := attributeOf(p.tb, p.record(3), 0x70); r[r[20]+10] |= 1 }, "marked dirty"},
		{"label", func(p *patient) { copy(p.record(3), "BAAD") }, "can't be read"},
		{"journal in use", func(p *patient) { p.restart(0, 0, 1) }, "was in use"},
		{"journal in use, newer than clean", func(p *patient) { p.restart(0, 0xffff, 1); p.restart(1, 0, 2) }, "was in use"},
		{"journal overwritten", func(p *patient) { clear(p.log()[:8192]) }, "no restart page"},
		{"table of capitals", func(p *patient) { copy(p.record(10), "BAAD") }, "by reading whole directories"},
		{"root directory", func(p *patient) { copy(p.record(5), "BAAD") }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPatient(t)
			tt.damage(p)
			f, err := ntfs.Open(bytes.NewReader(p.b), int64(len(p.b)))
			if tt.note == "" {
				if !errors.Is(err, fs.ErrDamaged) {
					t.Errorf("error %v", err)
				}
				return
			}
			must(t, err)
			if notes := strings.Join(f.Notes(), "\n"); !strings.Contains(notes, tt.note) {
				t.Errorf("notes %q", notes)
			}
			if got, err := contents(t, f, "packed/text"); err != nil || len(got) != 60_000 {
				t.Errorf("a file: %d bytes, %v", len(got), err)
			}
		})
	}
}

// log returns the first run of the journal.
func (p *patient) log() []byte {
	a := attributeOf(p.tb, p.record(2), 0x80)
	pairs := a[a[32]:]
	number := func(b []byte) (n int) {
		for i, c := range b {
			n |= int(c) << (8 * i)
		}
		return n
	}
	lenBytes, offBytes := int(pairs[0]&15), int(pairs[0]>>4)
	n, at := number(pairs[1:1+lenBytes]), number(pairs[1+lenBytes:1+lenBytes+offBytes])
	return p.b[at*512 : (at+n)*512]
}

// restart writes a restart page: with a client, unless that is 0xffff, and not
// clean.
func (p *patient) restart(i int, client uint16, lsn byte) {
	page := p.log()[i*4096:][:4096]
	clear(page)
	copy(page, "RSTR\x1e\x00\x09\x00")
	page[17], page[21], page[24], page[28] = 16, 16, 0x30, 1
	for i := 512; i <= 4096; i += 512 {
		page[i-2] = 7
	}
	page[0x1e] = 7
	page[0x30] = lsn
	binary.LittleEndian.PutUint16(page[0x30+12:], client)
}

func TestJournalClean(t *testing.T) {
	for name, damage := range map[string]func(p *patient){
		"wiped":                  func(*patient) {},
		"no client":              func(p *patient) { p.restart(0, 0xffff, 1); p.restart(1, 0xffff, 2) },
		"clean, newer than used": func(p *patient) { p.restart(0, 0xffff, 2); p.restart(1, 0, 1) },
		"marked clean":           func(p *patient) { p.restart(0, 0, 1); p.log()[0x30+14] |= 2 },
		"dealt with by chkdsk":   func(p *patient) { p.restart(0, 0, 1); copy(p.log(), "CHKD") },
	} {
		p := newPatient(t)
		damage(p)
		if notes := openBytes(t, p.b).Notes(); len(notes) > 0 {
			t.Errorf("%s: notes %q", name, notes)
		}
	}
}

func TestCutShort(t *testing.T) {
	p := newPatient(t)
	whole := openBytes(t, p.b)
	ends := int64(0)
	must(t, fs.Walk(t.Context(), whole, whole.Root(), func(path string, a fs.Attr, err error) error {
		if err != nil || a.Type != fs.TypeFile {
			return err
		}
		list, err := whole.Extents(t.Context(), a.ID, 0, 1)
		if err == nil && list[0].Kind == fs.Stored {
			ends = max(ends, list[0].At+list[0].Len)
		}
		return nil
	}))
	cut := openBytes(t, p.b[:ends-600])
	if notes := strings.Join(cut.Notes(), "\n"); !strings.Contains(notes, "the device only") {
		t.Errorf("notes %q", notes)
	}
	bad := 0
	must(t, fs.Walk(t.Context(), cut, cut.Root(), func(path string, a fs.Attr, err error) error {
		must(t, err)
		if a.Type != fs.TypeFile {
			return nil
		}
		got, err := io.ReadAll(fs.File(t.Context(), cut, a))
		want, werr := io.ReadAll(fs.File(t.Context(), whole, a))
		must(t, werr)
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes", path)
		}
		if err != nil {
			bad++
			if !errors.Is(err, fs.ErrDamaged) || !bytes.HasPrefix(want, got) {
				t.Errorf("%s: %d bytes, %v", path, len(got), err)
			}
		}
		return nil
	}))
	if bad == 0 {
		t.Error("all files could be read")
	}
}

var errBroken = errors.New("broken wire")

// failing fails every read from some place on.
type failing struct {
	io.ReaderAt
	from int64
}

func (r failing) ReadAt(p []byte, off int64) (int, error) {
	if n := r.from - off; n < int64(len(p)) {
		n, _ := r.ReaderAt.ReadAt(p[:max(n, 0)], off)
		return n, errBroken
	}
	return r.ReaderAt.ReadAt(p, off)
}

// TestDeviceErrors sees that an error of the device is passed on as it is, at
// whatever place, and nothing is made of it.
func TestDeviceErrors(t *testing.T) {
	p := newPatient(t)
	want := treetest.Snap(t, openBytes(t, p.b), fs.ID{Ino: 5})
	for from := int64(0); from < int64(len(p.b)); from += 32 << 10 {
		f, err := ntfs.Open(failing{bytes.NewReader(p.b), from}, int64(len(p.b)))
		if err != nil {
			if !errors.Is(err, errBroken) {
				t.Errorf("from %d: open: %v", from, err)
			}
			continue
		}
		must(t, fs.Walk(t.Context(), f, f.Root(), func(path string, a fs.Attr, err error) error {
			if err == nil && a.Type == fs.TypeFile {
				var got []byte
				got, err = io.ReadAll(fs.File(t.Context(), f, a))
				if n := want.Nodes[path]; n == nil || err == nil && int64(len(got)) != n.Size {
					t.Errorf("from %d: %q: %d bytes", from, path, len(got))
				}
			}
			if err != nil && !errors.Is(err, errBroken) {
				t.Errorf("from %d: %q: %v", from, path, err)
			}
			return nil
		}))
	}
}

// TestSameNumber reads streams whose attributes have the same number, as has
// been seen on volumes of Windows.
func TestSameNumber(t *testing.T) {
	p := newPatient(t)
	want := treetest.Snap(t, openBytes(t, p.b), fs.ID{Ino: 5})
	for _, path := range []string{"a/noise", "packed/text"} {
		list := attributesOf(p.record(find(t, openBytes(t, p.b), path).ID.Ino), 0x80)
		if len(list) < 2 {
			t.Fatalf("%s has %d streams", path, len(list))
		}
		for _, a := range list {
			copy(a[14:16], "\x07\x00")
		}
	}
	f := openBytes(t, p.b)
	for _, d := range treetest.Diff(want, treetest.Snap(t, f, f.Root()), 0) {
		t.Error(d)
	}
}

func TestMFTWithoutClusters(t *testing.T) {
	p := newPatient(t)
	a := attributeOf(t, p.record(0), 0x80)
	binary.LittleEndian.PutUint64(a[24:], ^uint64(0)) // the last one
	a[a[32]] = 0
	if _, err := ntfs.Open(bytes.NewReader(p.b), int64(len(p.b))); !errors.Is(err, fs.ErrDamaged) || !strings.Contains(err.Error(), "no clusters") {
		t.Errorf("open: %v", err)
	}
}
