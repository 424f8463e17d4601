package refcount

import (
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"holdfast/repo/blockfile"
	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

func goldenList() *list {
	return &list{
		number:  3,
		members: []member{{Number: 1, Bytes: 16384, Mark: 0xa1b2c3d4}, {Number: 4, Bytes: 12288, Mark: 1}},
		payload: []byte("head 17"),
	}
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

// TestGoldenFiles writes a small table and compares every file of it; then
// opens those of testdata and counts in them.
func TestGoldenFiles(t *testing.T) {
	mem := newMem(t)
	x := own(t, mem, Options{})
	must(t, x.Add(testID(1), 3))
	must(t, x.Add(testID(2), 1))
	must(t, x.Add(testID(3), 300))
	must(t, x.Commit([]byte("head 17")))
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
	want := newModel()
	for i, n := range []int32{3, 1, 300} {
		want.add(testID(uint64(i)+1), n)
	}
	want.committed([]byte("head 17")).check(t, x, []chunk.ID{testID(1), testID(2), testID(3), testID(4)})
	must(t, x.Close())
}

// TestFormatExample holds the examples in FORMAT.md to the golden files.
func TestFormatExample(t *testing.T) {
	doc, err := os.ReadFile("../FORMAT.md")
	must(t, err)
	l, err := os.ReadFile("testdata/list")
	must(t, err)
	if !strings.Contains(string(doc), hex.Dump(l)) {
		t.Errorf("FORMAT.md lacks the list\n%s", hex.Dump(l))
	}
	p, err := os.ReadFile("testdata/" + naming.File(1))
	must(t, err)
	line := func(off, n int) {
		want := fmt.Sprintf("%04x  %s ", off, spaced(p[off:][:n]))
		if !strings.Contains(string(doc), want) {
			t.Errorf("FORMAT.md lacks the line\n%s", want)
		}
	}
	line(0, 28)
	line(blockfile.PayloadBytes, 8)
	for i := range 3 {
		line(1*blockBytes+i*rowBytes, rowBytes)
	}
	line(2*blockBytes, blockfile.FenceBytes)
}

// spaced is hexadecimal in groups of four bytes.
func spaced(p []byte) string {
	var groups []string
	for g := range slices.Chunk(p, 4) {
		groups = append(groups, hex.EncodeToString(g))
	}
	return strings.Join(groups, " ")
}
