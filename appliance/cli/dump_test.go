package cli

import (
	"os"
	"path/filepath"
	"testing"

	"holdfast/repo/pack"
)

// sample returns a seed: the start of a file of a repository, as long as length
// says, kept in testdata so that fuzzing starts at once.
func sample(f *testing.F, name, pattern string, from int, length func(p []byte) int) []byte {
	f.Helper()
	file := filepath.Join("testdata", "sample", name)
	if *update {
		dir, _ := newRepository(f)
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			f.Fatalf("%s: %q, %v", pattern, names, err)
		}
		p, err := os.ReadFile(names[0])
		if err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(file, p[from:from+length(p[from:])], 0o644); err != nil {
			f.Fatal(err)
		}
	}
	p, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	return p
}

func FuzzParseManifest(f *testing.F) {
	seed := sample(f, "manifest", "points/*.twin", 0, func(p []byte) int { return len(p) })
	if l, err := parseManifest(seed); err != nil || !l.Whole {
		f.Fatalf("the sample: %+v, %v", l, err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, p []byte) {
		if l, err := parseManifest(p); err == nil && len(l.Public) == 0 {
			t.Error("a manifest without public part")
		}
	})
}

func FuzzListNode(f *testing.F) {
	seed := sample(f, "node", "packs/meta/*/*.pack", 64, func(p []byte) int {
		h, _, err := pack.ParseHeader(p)
		if err != nil {
			f.Fatal(err)
		}
		return h.RecordBytes()
	})
	h, err := pack.ParseRecord(seed)
	if err != nil {
		f.Fatal(err)
	}
	if l, err := listNode(&h, seed); err != nil || len(l.Children) != 1 || l.Table != "read" {
		f.Fatalf("the sample: %+v, %v", l, err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := pack.ParseRecord(p)
		if err != nil {
			return
		}
		if l, err := listNode(&h, p); err == nil && len(l.Children) == 0 {
			t.Error("a node without children")
		}
	})
}
