package index

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"holdfast/repo/blockfile"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

func goldenList() *list {
	return &list{
		number:  3,
		head:    0x1122,
		members: []member{{Number: 1, Bytes: 16384, Mark: 0xa1b2c3d4}, {Number: 4, Bytes: 4096, Mark: 1}},
		hidden:  []hidden{{testPack(1, 1), 1}, {testPack(2, 1), 4}},
	}
}

// sealList makes the checksum right.
func sealList(p []byte) {
	end := len(p) - 4
	binary.LittleEndian.PutUint32(p[end:], blockfile.Checksum(p[:end]))
}

func TestGoldenList(t *testing.T) {
	p := goldenList().encode()
	golden(t, "list", p)
	l, err := parseList(p)
	must(t, err)
	if fmt.Sprint(l) != fmt.Sprint(*goldenList()) {
		t.Errorf("got %v, want %v", l, *goldenList())
	}
	for i := range p {
		for _, forged := range []bool{false, true} {
			q := slices.Clone(p)
			q[i] ^= 0x80
			if forged {
				sealList(q)
			}
			if l, err := parseList(q); err == nil && (!forged || !slices.Equal(l.encode(), q)) {
				t.Errorf("a list with byte %d changed is taken as %v", i, l)
			}
		}
		if _, err := parseList(p[:i]); err == nil {
			t.Errorf("a list cut at %d is taken", i)
		}
	}
}

// TestGoldenFiles writes a small index and compares every file of it; then
// opens those of testdata and looks in them.
func TestGoldenFiles(t *testing.T) {
	mem := newMem(t)
	x := own(t, mem, Options{})
	id := testID(1)
	a, b := testPack(1, 1), testPack(2, 1)
	must(t, x.Add(a, []pack.Entry{chunkAt(id, 64, 1000), chunkAt(testID(2), 1064, 2000)}))
	must(t, x.Add(b, []pack.Entry{{ID: id, Base: testID(2), Kind: pack.Patch, Flags: pack.HasBase, Off: 64, Len: 300}, {ID: testID(3), Kind: pack.Node, Off: 364, Len: 400}}))
	must(t, x.Flush(0x1122))
	must(t, x.Close())
	names := []string{naming.File(1), naming.List(1)}
	for _, name := range names {
		p, err := vfs.ReadFile(mem, path.Join(dir, name), 1<<20)
		must(t, err)
		golden(t, name, p)
	}

	old := newMem(t)
	must(t, old.Mkdir(dir))
	for _, name := range names {
		p, err := os.ReadFile("testdata/" + name)
		must(t, err)
		must(t, vfs.WriteFile(old, path.Join(dir, name), p))
	}
	x = read(t, old, Options{})
	must(t, x.Skipped())
	want := []Location{{b, 64, 300, pack.Patch}, {a, 64, 1000, pack.Chunk}}
	if got := lookup(t, x, id); !slices.Equal(got, want) || x.Covers() != 0x1122 || x.Count() != 5 {
		t.Errorf("got %v, want %v; covers %d, %d entries", got, want, x.Covers(), x.Count())
	}
	got, err := x.Dependents(testID(2))
	if err != nil || !slices.Equal(got, want[:1]) {
		t.Errorf("dependents: got %v, %v, want %v", got, err, want[:1])
	}
	must(t, x.Close())
}

// TestFormatExample holds the example in FORMAT.md to the golden file.
func TestFormatExample(t *testing.T) {
	p, err := os.ReadFile("testdata/" + naming.File(1))
	must(t, err)
	doc, err := os.ReadFile("../FORMAT.md")
	must(t, err)
	row := func(off, n int) {
		want := fmt.Sprintf("%04x  %s ", off, spaced(p[off:][:n]))
		if !strings.Contains(string(doc), want) {
			t.Errorf("FORMAT.md lacks the line\n%s", want)
		}
	}
	row(0, headerUsed)
	row(blockfile.PayloadBytes, 8)
	for i := range 2 {
		row(1*blockBytes+i*nameBytes, nameBytes)
		row(3*blockBytes+i*blockfile.FenceBytes, blockfile.FenceBytes)
	}
	for i := range 5 {
		row(2*blockBytes+i*entryBytes, entryBytes)
	}
}

// spaced is hexadecimal in groups of four bytes.
func spaced(p []byte) string {
	var groups []string
	for g := range slices.Chunk(p, 4) {
		groups = append(groups, hex.EncodeToString(g))
	}
	return strings.Join(groups, " ")
}
