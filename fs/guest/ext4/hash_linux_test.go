package ext4

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/internal/testreq"
)

// TestHashes looks up, by the kernel's own indexes alone, names hashed in every
// way.
func TestHashes(t *testing.T) {
	testreq.Need(t, "loop", "mke2fs", "tune2fs", "debugfs")
	for _, hash := range []string{"legacy", "half_md4", "tea"} {
		for _, flags := range []int{flagSignedHash, flagUnsignedHash} {
			t.Run(fmt.Sprintf("%s, flags %d", hash, flags), func(t *testing.T) {
				image := makeImage(t, 16, "-b", "1024", "-O", "none,filetype,extent,dir_index,sparse_super")
				run(t, "tune2fs", "-E", "hash_alg="+hash, image)
				debugfs(t, image, fmt.Sprintf("ssv flags %d", flags))
				m := mount(t, image, "noatime")
				var names []string
				for i := range 400 {
					name := fmt.Sprintf("%d-\xe4\xff\u00fc%s", i, strings.Repeat("x\xf0", i%60))
					names = append(names, name)
					if err := os.WriteFile(filepath.Join(m.dir, name), nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				m.unmount()
				f, _ := openImage(t, image)
				root, err := f.inode(rootIno)
				if err != nil || !f.indexed(&root) {
					t.Fatalf("the root is not indexed: %v", err)
				}
				for _, name := range names {
					if ino, ok := f.findHashed(&root, name); ino == 0 || !ok {
						t.Fatalf("%q: %d, %v", name, ino, ok)
					}
				}
				if ino, ok := f.findHashed(&root, "not there"); ino != 0 || !ok {
					t.Errorf("a name that is not there: %d, %v", ino, ok)
				}
				debugfs(t, image, "ssv flags 0") // as before anybody wrote it down
				f, _ = openImage(t, image)
				if _, ok := f.findHashed(&root, names[0]); ok {
					t.Error("hashed by a sign that nobody told")
				}
				lookup(t, f, names[0])
			})
		}
	}
}

// TestHashCollisions looks up names of one hash that fill several blocks.
func TestHashCollisions(t *testing.T) {
	testreq.Need(t, "loop", "mke2fs", "tune2fs")
	image := makeImage(t, 16, "-b", "1024", "-O", "none,filetype,extent,dir_index,sparse_super,metadata_csum")
	run(t, "tune2fs", "-E", "hash_alg=legacy", image)
	m := mount(t, image, "noatime")
	create := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(m.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		create(fmt.Sprintf("%0200d", i))
	}
	// After so many p, the legacy hash of each of these is the same.
	var names []string
	for _, end := range strings.Fields("aaaaaa bQlAt5 bRh02r ho9CGq jQlwM3 mtc6JP puLDjK pFwVr8 p5ofvw u9FDaV vE5w5t CFixHz DXuge3 D1nZYS") {
		names = append(names, strings.Repeat("p", 240)+end)
		create(names[len(names)-1])
	}
	m.unmount()
	f, _ := openImage(t, image)
	root, err := f.inode(rootIno)
	if err != nil {
		t.Fatal(err)
	}
	hash := hashName(hashLegacy, f.sb.hashSeed, names[0])
	for _, name := range names {
		if h := hashName(hashLegacy, f.sb.hashSeed, name); h != hash {
			t.Errorf("%q: hash %08x, want %08x", name, h, hash)
		}
		if ino, ok := f.findHashed(&root, name); ino == 0 || !ok {
			t.Errorf("%q: %d, %v", name, ino, ok)
		}
	}
}
