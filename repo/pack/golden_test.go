package pack

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/seal"
)

var update = flag.Bool("update", false, "write the golden files again")

// golden returns the bytes of a golden file, which must equal got. They are the
// format: a change of any byte breaks every repository there is.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: not the bytes of the golden file", path)
	}
	return want
}

// goldenPack makes a pack of the record cases and a node with 255 children, so
// that its one stripe has three data blocks.
func goldenPack(tb testing.TB) []byte {
	b, err := NewBuilder(Data, Name{0, 0, 0, 7, 0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, Options{Parity: 2, PackBytes: 1 << 20, RecordBytes: 16 << 10})
	if err != nil {
		tb.Fatal(err)
	}
	cases := recordCases()
	var a Assembler
	a.Begin(nil, 1)
	a.Kind, a.ID, a.LogicalBytes = Node, chunk.ID{99}, nodeFixed+255*chunk.IDBytes
	payload := make([]byte, a.LogicalBytes)
	for i := range payload {
		payload[i] = byte(i*i>>3 + i)
	}
	a.Add(append(a.Bytes(), payload...), chunk.Digest{99}, seal.Raw)
	recs := [][]byte{cases["chunk"], cases["sealed"], cases["patch"], cases["node"], cases["leaf"], finish(&a)}
	for _, rec := range recs {
		if _, err := b.Add(rec); err != nil {
			tb.Fatal(err)
		}
	}
	file, _, _ := b.Finish()
	return file
}

func TestGoldenRecords(t *testing.T) {
	for name, rec := range recordCases() {
		if _, err := ParseRecord(golden(t, "record-"+name+".bin", rec)); err != nil {
			t.Error(err)
		}
	}
}

func TestGoldenPack(t *testing.T) {
	file := golden(t, "small.pack", goldenPack(t))
	entries, err := mustOpen(t, file).Records()
	if err != nil || len(entries) != 6 {
		t.Fatal(entries, err)
	}
	for i, want := range []chunk.ID{2: {1}, 4: {6}, 5: {}} {
		if entries[i].Base[0] != want[0] {
			t.Errorf("base of record %d is %s", i, entries[i].Base.Short())
		}
	}
}

// The examples in FORMAT.md are the golden files.
func TestFormatExamples(t *testing.T) {
	text, err := os.ReadFile("../FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	file := golden(t, "small.pack", goldenPack(t))
	for what, p := range map[string][]byte{
		"node record":  golden(t, "record-node.bin", recordCases()["node"]),
		"pack header":  file[:packHeaderBytes],
		"pack trailer": file[len(file)-trailerBytes:],
	} {
		if want := strings.TrimSpace(hex.Dump(p)); !strings.Contains(string(text), want) {
			t.Errorf("FORMAT.md lacks the %s:\n%s", what, want)
		}
	}
}
