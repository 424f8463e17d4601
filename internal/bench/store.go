//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A store is a site that takes long to make and is kept for the next bench, like
// a disk. Nobody works on it: runs get copies that share the files of its packs.
type store struct {
	Site  string
	Files int // in it, and their bytes: whether it is still as it was made
	Bytes int64
	IDs   []string // of its points, oldest first, as the tool calls them
}

// storeVersion is part of each store's key: another one makes all anew.
const storeVersion = 1

// store returns a store that is there from an earlier bench under the same key,
// or nil and the place where one is to be made.
func (b *runner) store(key string) (*store, site, error) {
	s := site{filepath.Join(b.opt.work, "stores", fmt.Sprintf("%016x", draw(b.opt.seed, fmt.Sprint(storeVersion, " ", key))))}
	var st store
	if p, err := os.ReadFile(s.dir + ".json"); err == nil && json.Unmarshal(p, &st) == nil && st.Site == s.dir {
		if files, n, err := countTree(s.dir); err == nil && files == st.Files && n == st.Bytes {
			return &st, s, nil
		}
		b.say("a store has changed since it was made: %s", key)
	}
	b.say("making the store: %s", key)
	return nil, s, errors.Join(unlock(s.dir), os.RemoveAll(s.dir), os.MkdirAll(s.dir, 0o755))
}

// keep notes that a store is made.
func (s site) keep(ids []string) (*store, error) {
	st := &store{Site: s.dir, IDs: ids}
	var err error
	if st.Files, st.Bytes, err = countTree(s.dir); err != nil {
		return nil, err
	}
	p, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	return st, os.WriteFile(s.dir+".json", p, 0o644)
}

func countTree(dir string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files++
			bytes += info.Size()
		}
		return err
	})
	return files, bytes, err
}

// siteOf makes a site of a store. The files in which a tool has its data, that
// none of them ever writes again, are linked, the others copied.
func (b *runner) siteOf(ctx context.Context, st *store) (site, error) {
	to := b.newSite()
	err := filepath.WalkDir(st.Site, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(st.Site, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to.dir, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case !d.Type().IsRegular():
			return nil
		case strings.HasPrefix(rel, "repo/packs/") || strings.HasPrefix(rel, "repo/data/"):
			return os.Link(path, target)
		}
		_, err = copyFile(target, path)
		return errors.Join(err, ctx.Err())
	})
	return to, err
}

// packs lists the pack files of one of our sites, with their sizes.
func (s site) packs() (map[string]int64, error) {
	packs := make(map[string]int64)
	err := filepath.WalkDir(filepath.Join(s.repo(), "packs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			packs[path] = info.Size()
		}
		return err
	})
	return packs, err
}

// lock makes all packs of one of our sites immutable; false where the system
// doesn't let us.
func (s site) lock() (bool, error) {
	packs, err := s.packs()
	if err != nil {
		return false, err
	}
	for path := range packs {
		err := setImmutable(path, true)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
			return false, unlock(s.dir)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// unlock takes the immutable flag from all files below dir, which needn't be there.
func unlock(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		err = setImmutable(path, false)
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
			return fs.SkipAll // no such flag, so none is set
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h, which package unix lacks.
const immutableFlag = 0x10

// setImmutable sets a file's immutable flag, or takes it away.
func setImmutable(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	want := flags &^ immutableFlag
	if on {
		want |= immutableFlag
	}
	if want == flags {
		return nil
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(want))
}

// ids lists the points of a site, oldest first, as the tool calls them.
func (b *runner) ids(ctx context.Context, t tool, s site) (ids []string, err error) {
	switch t := t.(type) {
	case *holdfast:
		_, out, err := t.command(s, "points", s.repo(), "--json").run(ctx)
		if err != nil {
			return nil, err
		}
		var list struct{ Points []struct{ ID string } }
		err = json.Unmarshal(out, &list)
		for _, p := range list.Points {
			ids = append(ids, p.ID)
		}
		return ids, err
	case *restic:
		_, out, err := t.command(s, "snapshots", "--json").run(ctx)
		if err != nil {
			return nil, err
		}
		var list []struct{ Time, ID string }
		err = json.Unmarshal(out, &list)
		slices.SortFunc(list, func(a, b struct{ Time, ID string }) int { return strings.Compare(a.Time, b.Time) })
		for _, p := range list {
			ids = append(ids, p.ID)
		}
		return ids, err
	case *borg:
		_, out, err := t.command(s, "list", "--short", s.repo()).run(ctx)
		return strings.Fields(string(out)), err
	}
	return nil, fmt.Errorf("%s: no list of points", t.label())
}

// packsRead counts the packs that were read since neverRead.
func (s site) packsRead() (n int64, err error) {
	packs, err := s.packs()
	if err != nil {
		return 0, err
	}
	for path := range packs {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return 0, err
		}
		if st.Atim.Sec != longAgo.Unix() {
			n++
		}
	}
	return n, nil
}
