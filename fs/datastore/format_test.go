package datastore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"holdfast/fs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var sampleID = [16]byte([]byte("0123456789abcdef"))

// sampleRecords have every kind of record.
func sampleRecords() []record {
	at := func(sec int64) fs.Time { return fs.Time{Sec: sec, Nsec: 5} }
	times := inode{perm: 0o644, uid: 1, gid: 2, atime: at(1), mtime: at(2), ctime: at(3), btime: at(4)}
	node := func(ino uint64, nlink uint32, fn func(i *inode)) *inode {
		i := times
		i.ino, i.nlink = ino, nlink
		fn(&i)
		return &i
	}
	var units unitPage
	units[0] = 0b101
	return []record{
		treeRec{"vm", 1 << 30},
		countersRec{ino: 9, cookie: 9, session: 3, clock: at(4), until: at(6)},
		diskRec{0, "vm-flat.vmdk", 10 << 40},
		node(1, 2, func(i *inode) { i.typ, i.parent = fs.TypeDir, 1 }),
		node(2, 1, func(i *inode) {
			i.typ, i.keep, i.size, i.exclusive, i.verifier = fs.TypeFile, keepInline, 7, true, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
		}),
		node(3, 1, func(i *inode) { i.typ, i.keep, i.size, i.marked = fs.TypeFile, keepLarge, 1<<20, true }),
		node(4, 1, func(i *inode) { i.typ, i.keep, i.size, i.used = fs.TypeFile, keepDisk, 10<<40, 4096 }),
		node(5, 1, func(i *inode) { i.typ, i.target = fs.TypeSymlink, "../target" }),
		node(6, 1, func(i *inode) { i.typ, i.major, i.minor = fs.TypeCharDevice, 1, 3 }),
		node(7, 1, func(i *inode) { i.typ = fs.TypeFIFO }),
		bytesRec{2, 0, []byte("vm.vmx\n")},
		unitsRec{3, 4, 2},
		pageRec{3, 0, &units},
		entryRec{1, 1, 2, false, "vm.vmx"},
		entryRec{1, 2, 3, false, "vm.log"},
		entryRec{1, 3, 4, false, "vm-flat.vmdk"},
		entryRec{1, 4, 5, false, "link"},
		entryRec{1, 5, 6, false, "null"},
		entryRec{1, 6, 7, false, "pipe"},
		entryRec{1, 7, 3, true, "session"},
		goneRec{1, 6},
		forgetRec{7},
		noteRec{at(4), []byte("a note")},
		node(1, 3, func(i *inode) { i.typ, i.parent = fs.TypeDir, 1 }),
	}
}

func encodeAll(list []record) (p []byte) {
	for _, r := range list {
		p = r.encode(p)
	}
	return p
}

// sampleFile is a journal: a snapshot of what the first records say, the rest in
// a batch.
func sampleFile(t testing.TB) []byte {
	list := sampleRecords()
	st := newState()
	for _, r := range list[:20] {
		if err := st.apply(r); err != nil {
			t.Fatal(err)
		}
	}
	snap := st.snapshot(nil)
	j := journal{id: sampleID, number: 3}
	file := append(j.header(true, 7, snap).encode(), snap...)
	file = append(file, make([]byte, align(int64(len(file)), batchAlign)-int64(len(file)))...)
	return append(file, batch{7, 1, int64(len(file))}.encode(&sampleID, encodeAll(list[20:]))...)
}

func short(dump string) string {
	var out []string
	last, skipped := "", false
	for line := range strings.Lines(dump) {
		if text := line[10:]; text != last {
			out, skipped = append(out, line), false
			last = text
		} else if !skipped {
			out, skipped = append(out, "*\n"), true
		}
	}
	return strings.Join(out, "")
}

func TestGolden(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "journal.golden")
	got := short(hex.Dump(sampleFile(t)))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the format has changed:\n%s", got)
	}
	if !strings.Contains(string(doc), got) {
		t.Errorf("FORMAT.md does not show the sample as it is:\n%s", got)
	}
}

// TestRecords reads back every kind of record, and refuses all that is cut.
func TestRecords(t *testing.T) {
	for _, want := range sampleRecords() {
		p := want.encode(nil)
		d := decoder{p: append(p[:len(p):len(p)], 0xff)}
		got, err := d.record()
		if err != nil || len(d.p) != 1 || !reflect.DeepEqual(got, want) {
			t.Errorf("%#v reads as %#v, %v, %d bytes left", want, got, err, len(d.p)-1)
		}
		for n := range p {
			if r, err := (&decoder{p: p[:n]}).record(); !errors.Is(err, errRecord) {
				t.Errorf("%#v cut to %d bytes reads as %#v, %v", want, n, r, err)
			}
		}
	}
}

// TestFlips flips every bit of a journal: only the last batch, which may be
// torn, goes unseen, and then it counts for nothing.
func TestFlips(t *testing.T) {
	file := sampleFile(t)
	h, err := decodeHeader(file)
	if err != nil {
		t.Fatal(err)
	}
	whole, last, _, err := replay(h, file)
	if err != nil {
		t.Fatal(err)
	}
	cut, _, _, err := replay(h, file[:last.at])
	if err == nil {
		t.Error("without its batch the sample's links are wrong, and nobody saw")
	}
	_ = cut
	if len(whole.notes) != 1 || whole.nodes[7] != nil {
		t.Error("the batch was not read")
	}
	more := append(bytes.Clone(file), batch{7, 2, int64(len(file))}.encode(&sampleID, noteRec{p: []byte("n")}.encode(nil))...)
	if st, _, next, err := replay(h, more); err != nil || len(st.notes) != 2 || next.seq != 3 {
		t.Errorf("two batches: %v", err)
	}
	used := func(i int) bool { // not between the parts
		return i < 48 || i >= 508 && i < headerBytes+int(h.snap) || i >= int(last.at) && i < int(last.at)+batchBytes+int(le.Uint32(file[last.at+32:]))
	}
	for i := range file {
		bad := bytes.Clone(more)
		bad[i] ^= 0x10
		h, err := decodeHeader(bad)
		if err == nil {
			_, _, _, err = replay(h, bad)
		}
		if err == nil && used(i) {
			t.Fatalf("a flipped bit at %d went unseen", i)
		}
	}
}

// TestLostDirectories has directories whose links are right and that no way from
// the root leads to.
func TestLostDirectories(t *testing.T) {
	dir := func(ino, parent uint64, nlink uint32) record {
		return &inode{ino: ino, typ: fs.TypeDir, nlink: nlink, parent: parent}
	}
	tests := map[string][]record{
		"in each other": {dir(2, 3, 3), dir(3, 2, 3), entryRec{2, 1, 3, false, "a"}, entryRec{3, 2, 2, false, "b"}},
		"in nothing":    {dir(2, 9, 4), dir(3, 2, 2), dir(4, 2, 2), entryRec{2, 1, 3, false, "a"}, entryRec{2, 2, 4, false, "b"}, dir(2, 9, 2)},
		"without links": {dir(2, 9, 2)},
	}
	for name, list := range tests {
		st := newStateWithRoot()
		for _, r := range list {
			if err := st.apply(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := st.check(); !errors.Is(err, errState) {
			t.Errorf("%s: %v", name, err)
		}
		if err := st.checkReached(); !errors.Is(err, errState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzJournal replays snapshots and batches that are whole and say anything.
func FuzzJournal(f *testing.F) {
	list := sampleRecords()
	f.Add(encodeAll(list[:20]), encodeAll(list[20:]))
	f.Add(encodeAll(list[:4]), []byte{})
	f.Add(newStateWithRoot().snapshot(nil), encodeAll([]record{entryRec{1, 1, 2, true, "s"}, goneRec{1, 1}, forgetRec{1}}))
	f.Fuzz(func(t *testing.T, snap, records []byte) {
		if len(snap)+len(records) > 2<<10 { // each may say of millions of units
			return
		}
		j := journal{id: sampleID, number: 3}
		file := append(j.header(true, 7, snap).encode(), snap...)
		file = append(file, make([]byte, align(int64(len(file)), batchAlign)-int64(len(file)))...)
		file = append(file, batch{7, 1, int64(len(file))}.encode(&sampleID, records)...)
		h, err := decodeHeader(file)
		if err != nil {
			t.Fatal(err)
		}
		st, _, _, err := replay(h, file)
		if err != nil {
			return
		}
		// What can be read can be written, and is the same then.
		p := st.snapshot(nil)
		if int64(len(p)) > st.live+4096+maxNotesLive {
			t.Fatalf("a snapshot of %d bytes, %d were counted", len(p), st.live)
		}
		again := newState()
		if err := again.applyAll(p); err != nil {
			t.Fatalf("the snapshot can't be read back: %v", err)
		}
		if q := again.snapshot(nil); !bytes.Equal(p, q) {
			t.Fatal("the snapshot of the snapshot is another one")
		}
		if again.used != st.used || again.live > st.live {
			t.Fatalf("counted %d and %d bytes, %d and %d after reading back", st.used, st.live, again.used, again.live)
		}
	})
}

func newStateWithRoot() *state {
	st := newState()
	if err := st.apply(&inode{ino: rootIno, typ: fs.TypeDir, nlink: 2, parent: rootIno}); err != nil {
		panic(err)
	}
	return st
}

// FuzzHeader opens files whose first bytes are anything.
func FuzzHeader(f *testing.F) {
	f.Add(sampleFile(f)[:headerBytes])
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodeHeader(p)
		if err == nil {
			_, _, _, _ = replay(h, p) // must come back
		}
		_, _, _ = decodeBatch(&sampleID, p)
	})
}
