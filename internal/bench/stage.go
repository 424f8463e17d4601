//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A staged tree holds copies of files of the machine, for mke2fs.
type staged struct {
	dir   string
	files []stagedFile
	bytes int64 // their sizes
	dirs  map[string]bool
}

// blocks are what the files take in blocks of 4 KiB, each directory with one.
func (t *staged) blocks() int64 {
	n := int64(len(t.dirs))
	for _, f := range t.files {
		n += (f.size + 4095) / 4096
	}
	return n
}

// inodes are what the tree takes, and what a file system has of its own.
func (t *staged) inodes() int { return len(t.files) + len(t.dirs) + 16 }

type stagedFile struct {
	name string // relative to the tree
	size int64
}

// maxFileShare keeps one huge file from being the disk.
const maxFileShare = 8

// stage copies about want bytes of the files below the roots to dir. Whole
// directories are taken or left, by a seeded hash of their names: the same
// machine gives the same tree.
func stage(ctx context.Context, dir string, roots []string, want int64, seed uint64) (*staged, error) {
	type directory struct {
		path  string
		draw  uint64
		files []stagedFile
	}
	var all []*directory
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
					return nil // removed meanwhile, or not for us
				}
				return err
			}
			if d.IsDir() {
				all = append(all, &directory{path: path, draw: draw(seed, path)})
				return ctx.Err()
			}
			if info, err := d.Info(); err == nil && d.Type().IsRegular() && info.Size() > 0 && info.Size() <= want/maxFileShare && plainName(path) {
				last := len(all) - 1
				for all[last].path != filepath.Dir(path) {
					last--
				}
				all[last].files = append(all[last].files, stagedFile{path, info.Size()})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(all, func(a, b *directory) int {
		switch {
		case a.draw < b.draw:
			return -1
		case a.draw > b.draw:
			return 1
		}
		return strings.Compare(a.path, b.path)
	})
	t := &staged{dir: dir, dirs: make(map[string]bool)}
	for _, d := range all {
		if t.bytes >= want {
			break
		}
		for _, f := range d.files {
			name := strings.TrimPrefix(f.name, "/")
			n, err := copyFile(filepath.Join(dir, name), f.name)
			if errors.Is(err, fs.ErrPermission) {
				continue
			}
			if err != nil {
				return nil, err
			}
			t.files = append(t.files, stagedFile{name, n})
			t.bytes += n
			for parent := filepath.Dir(name); !t.dirs[parent] && parent != "."; parent = filepath.Dir(parent) {
				t.dirs[parent] = true
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if t.bytes < want/2 {
		return nil, fmt.Errorf("%s hold %s of files, want %s: name other directories with -from", strings.Join(roots, ", "), size(t.bytes), size(want))
	}
	slices.SortFunc(t.files, func(a, b stagedFile) int { return strings.Compare(a.name, b.name) })
	return t, nil
}

// plainName leaves out names that the command language of debugfs can't say.
func plainName(path string) bool {
	return !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' })
}

// draw is a number that a seed gives a name.
func draw(seed uint64, name string) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", seed, name))
	return binary.BigEndian.Uint64(sum[:])
}

func copyFile(to, from string) (int64, error) {
	src, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(dst, src)
	return n, errors.Join(err, dst.Close(), os.Chtimes(to, info.ModTime(), info.ModTime()))
}

// roots are the directories that files are taken from.
func (b *runner) roots(ctx context.Context) ([]string, error) {
	if b.opt.from != "" {
		return strings.Split(b.opt.from, ","), nil
	}
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	return []string{strings.TrimSpace(string(out)), "/usr/lib", "/usr/share", "/usr/bin"}, nil
}
