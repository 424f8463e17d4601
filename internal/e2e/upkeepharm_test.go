//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"

	"holdfast/repo/vfs"
	"holdfast/repo/vfs/vfstest"
)

// packFiles lists the packs, as paths below the repository.
func (u *upkeep) packFiles() (list []string) {
	u.t.Helper()
	names, err := filepath.Glob(filepath.Join(u.dir, "packs/*/*/*.pack"))
	if err != nil {
		u.t.Fatal(err)
	}
	for _, name := range names {
		list = append(list, strings.TrimPrefix(name, u.dir+"/"))
	}
	return list
}

// damage damages a few files: one block of each pack, which its parity heals, or
// one copy of a manifest.
func (u *upkeep) damage() {
	u.t.Helper()
	manifests, err := filepath.Glob(filepath.Join(u.dir, "points/*"))
	if err != nil {
		u.t.Fatal(err)
	}
	for range u.rng.IntN(4) {
		files := u.packFiles()
		if u.rng.IntN(4) == 0 {
			files = nil
			for _, name := range manifests {
				files = append(files, strings.TrimPrefix(name, u.dir+"/"))
			}
		}
		name := files[u.rng.IntN(len(files))]
		other := strings.TrimSuffix(name, ".twin")
		if u.damaged[name] || u.locked[name] || u.damaged[other] || u.damaged[other+".twin"] {
			continue
		}
		if u.flip(filepath.Join(u.dir, name)) {
			u.damaged[name] = true
			u.hurt++
		}
	}
}

// flip turns some bits of a file, within a block. The owner may just be removing
// the file.
func (u *upkeep) flip(name string) bool {
	u.t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return false
	}
	if err != nil {
		u.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		u.t.Fatal(err)
	}
	p := make([]byte, 1)
	off := u.rng.Int64N(info.Size())
	if _, err := f.ReadAt(p, off); err != nil {
		u.t.Fatal(err)
	}
	p[0] ^= byte(1 + u.rng.IntN(255))
	if _, err := f.WriteAt(p, off); err != nil {
		u.t.Fatal(err)
	}
	return true
}

// lockSome makes some packs immutable.
func (u *upkeep) lockSome() {
	u.t.Helper()
	files := u.packFiles()
	for range 4 {
		name := files[u.rng.IntN(len(files))]
		if err := u.setLocked(name, true); err != nil {
			u.t.Fatal(err)
		}
		u.locked[name] = true
		u.lockings++
	}
}

// unlock takes all locks away.
func (u *upkeep) unlock() {
	for name := range u.locked {
		if err := u.setLocked(name, false); err != nil {
			u.t.Error(err)
		}
	}
	clear(u.locked)
}

func (s *site) setLocked(name string, on bool) error {
	d, err := vfs.OS(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return vfstest.SetLocked(d, name, on)
}
