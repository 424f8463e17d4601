package holdfast

import (
	"debug/buildinfo"
	"debug/elf"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"holdfast/internal/testreq"
)

const module = "holdfast"

// floor says what the packages of a tree may import of ours. In mayImport "x"
// is the package x alone and "x/..." is x and all below it.
type floor struct {
	tree      string
	mayImport []string
}

// floors is the table of import floors. The longest tree that holds a package
// decides; a package in none of them has no place and fails the test.
var floors = []floor{
	{"", nil}, // the map
	{"repo", []string{"repo/..."}},
	{"repo/retention", nil}, // pure decisions
	{"image", []string{"image/..."}},
	{"image/build", []string{"image/...", "configs"}},
	{"image/cmd/mkimage", []string{"image/...", "configs"}},
	{"image/redirect", []string{"image/...", "repo/vfs"}},
	{"fs", nil},
	{"fs/guest", []string{"fs", "image/...", "fs/guest/..."}},
	{"fs/guest/ext4", []string{"fs"}},
	{"fs/guest/xfs", []string{"fs"}},
	{"fs/guest/ntfs", []string{"fs"}},
	{"fs/guest/fat", []string{"fs"}},
	{"fs/treetest", []string{"fs"}},
	{"fs/extract", []string{"fs"}},
	{"fs/compare", []string{"fs"}},
	{"fs/content", []string{"fs", "image/...", "fs/content/...", "fs/guest/...", "repo/..."}},
	{"fs/datastore", []string{"fs", "image/...", "fs/datastore/...", "repo/vfs"}},
	{"fs/mount", []string{"fs", "fs/mount/..."}},
	{"nfs", []string{"fs", "nfs/..."}},
	{"agent", []string{"agent/...", "repo/chunk"}},
	{"configs", nil},
	{"appliance", []string{"repo/...", "image/...", "fs/...", "nfs/...", "agent/...", "configs", "appliance/..."}},
	{"internal/testreq", nil},
	{"internal/e2e", []string{"repo/...", "image/...", "fs/...", "nfs/...", "internal/..."}},
	{"internal/bench", []string{"repo/...", "image/...", "fs/...", "nfs/...", "internal/..."}},
}

// testsMayImport holds for tests of every package, beside their floor.
var testsMayImport = []string{"repo/repotest", "fs/treetest", "image/vmtest", "internal/testreq"}

// forTests says whether a package is part of no program: a suite, a fake, a
// benchmark. Only tests and its own kind import it.
func forTests(pkg string) bool {
	return strings.HasSuffix(pkg, "test") || strings.HasPrefix(pkg, "internal/")
}

// permitted says whether a file of pkg, a test or not, may import imp.
func permitted(pkg string, test bool, imp string) bool {
	allowed, _ := floorOf(pkg)
	test = test || forTests(pkg)
	switch {
	case imp == pkg: // an external test imports what it tests
		return test
	case forTests(imp):
		return test && (slices.Contains(testsMayImport, imp) || within(imp, allowed))
	}
	return within(imp, allowed)
}

func TestImportFloors(t *testing.T) {
	files := 0
	eachGoFile(t, func(name string) {
		files++
		pkg := path.Dir(name)
		if pkg == "." {
			pkg = ""
		}
		if _, ok := floorOf(pkg); !ok {
			t.Errorf("%s: package %s is in no tree of the floors", name, pkg)
			return
		}
		for _, imp := range ourImports(t, name) {
			if !permitted(pkg, strings.HasSuffix(name, "_test.go"), imp) {
				t.Errorf("%s: %s may not import %s", name, orRoot(pkg), imp)
			}
		}
	})
	if files < 10 {
		t.Fatalf("looked at %d files, the tree has more", files)
	}
}

// TestFloorsCatch shows that the table refuses what it should.
func TestFloorsCatch(t *testing.T) {
	tests := []struct {
		pkg  string
		test bool
		imp  string
		want bool
	}{
		{"repo/pack", false, "repo/chunk", true},
		{"repo/pack", false, "image", false},
		{"repo/pack", false, "repo/repotest", false},
		{"repo/pack", true, "repo/repotest", true},
		{"repo/repotest", false, "repo", true},
		{"image", false, "repo", false},
		{"image", true, "repo", false},
		{"image/redirect", false, "repo/vfs", true},
		{"image/redirect", false, "repo", false},
		{"image/vmdk", false, "appliance/cli", false},
		{"image/vmdk", true, "internal/testreq", true},
		{"image/vmdk", false, "internal/testreq", false},
		{"appliance/cli", false, "repo", true},
		{"appliance/cli", true, "internal/bench", false},
		{"agent/track", false, "repo/chunk", true},
		{"agent/track", false, "repo", false},
		{"repository", false, "repo", false}, // a tree is more than a prefix
	}
	for _, tt := range tests {
		if got := permitted(tt.pkg, tt.test, tt.imp); got != tt.want {
			t.Errorf("%s (test %v) imports %s: permitted %v, want %v", tt.pkg, tt.test, tt.imp, got, tt.want)
		}
	}
}

func TestPackageNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "type", "types", "model", "models", "misc", "base"}
	eachGoFile(t, func(name string) {
		if dir := path.Base(path.Dir(name)); slices.Contains(vague, dir) {
			t.Errorf("%s: the package name %q says nothing", name, dir)
		}
	})
}

// TestShippedWithoutCgo builds every program as "make build" does, and looks at
// the result.
func TestShippedWithoutCgo(t *testing.T) {
	testreq.Need(t, "make")
	bin := t.TempDir()
	out, err := exec.Command("make", "-s", "build", "BIN="+bin, "VERSION=1.2.3-test").CombinedOutput()
	if err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	for _, dir := range programs(t) {
		t.Run(dir, func(t *testing.T) {
			file := filepath.Join(bin, path.Base(dir))
			info, err := buildinfo.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			settings := make(map[string]string)
			for _, s := range info.Settings {
				settings[s.Key] = s.Value
			}
			if settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" {
				t.Errorf("CGO_ENABLED=%s -trimpath=%s, want 0 and true", settings["CGO_ENABLED"], settings["-trimpath"])
			}
			e, err := elf.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if libs, err := e.ImportedLibraries(); err != nil || len(libs) > 0 {
				t.Errorf("linked against %q (%v), want none", libs, err)
			}
		})
	}
	text, err := exec.Command(filepath.Join(bin, "holdfast"), "version").Output()
	if err != nil || !strings.HasPrefix(string(text), "holdfast 1.2.3-test ") {
		t.Errorf("holdfast version: %v\n%s", err, text)
	}
}

// programs lists the directories of commands.
func programs(t *testing.T) []string {
	t.Helper()
	var dirs []string
	eachGoFile(t, func(name string) {
		if dir := path.Dir(name); path.Base(path.Dir(dir)) == "cmd" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	})
	if len(dirs) == 0 {
		t.Fatal("found no program")
	}
	return dirs
}

// floorOf returns what the package may import, and false when no tree holds it.
func floorOf(pkg string) ([]string, bool) {
	best, found := floor{}, false
	for _, f := range floors {
		if f.tree == pkg || (f.tree != "" && strings.HasPrefix(pkg, f.tree+"/")) {
			if !found || len(f.tree) > len(best.tree) {
				best, found = f, true
			}
		}
	}
	return best.mayImport, found
}

// within says whether one of the patterns holds the package.
func within(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		tree, all := strings.CutSuffix(p, "/...")
		return pkg == tree || (all && strings.HasPrefix(pkg, tree+"/"))
	})
}

func orRoot(pkg string) string {
	if pkg == "" {
		return "the root"
	}
	return pkg
}

// ourImports returns the packages of this module that a file imports, whatever
// system it is for, relative to the module.
func ourImports(t *testing.T, name string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, imp := range f.Imports {
		p, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if rel, ok := strings.CutPrefix(p, module+"/"); ok {
			ours = append(ours, rel)
		} else if p == module {
			ours = append(ours, "")
		}
	}
	return ours
}

// eachGoFile calls fn with each Go file of the module, by its slash path.
func eachGoFile(t *testing.T, fn func(name string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := len(name) > 1 && strings.HasPrefix(d.Name(), ".")
			if hidden || d.Name() == "testdata" || name == "bin" || name == "var" {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") {
			fn(filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
