//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// stale is for how long a name may stay that an expiry has taken: a second until
// the tree looks again, another until the kernel asks again, and the time of a
// process that gets none.
const stale = 20 * time.Second

// mountReader is one who reads what is mounted.
type mountReader struct {
	m   *mounted
	rng *rand.Rand
}

func (m *mounted) newReader(seed uint64) *mountReader {
	return &mountReader{m: m, rng: rand.New(rand.NewPCG(m.rng.Uint64(), seed))}
}

// look looks at one point. What goes wrong must have a reason: the server was
// killed meanwhile, or the point was about to go.
func (r *mountReader) look() {
	m := r.m
	m.mu.Lock()
	life, began := m.lives, time.Now()
	m.looks++
	m.mu.Unlock()
	if life%2 == 0 {
		time.Sleep(time.Millisecond)
		return
	}
	id, err := r.inPoint(began)
	m.mu.Lock()
	defer m.mu.Unlock()
	_, going := m.gone[id]
	passing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE)
	switch {
	case err == nil:
	case errors.Is(err, errWrong):
		m.t.Error(err) // whatever happened to the server
	case m.lives != life:
		m.cut++
	case passing && (going || id == ""):
		m.late++
	default:
		m.t.Errorf("point %q: %v", id, err)
	}
}

// errWrong is what no kill excuses.
var errWrong = errors.New("wrong")

// inPoint chooses a machine and a point, and compares what it shows.
func (r *mountReader) inPoint(began time.Time) (id string, err error) {
	machine := []string{"web", "box"}[r.rng.IntN(2)]
	dir := filepath.Join(r.m.dir, machine)
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "", fmt.Errorf("%s has no points: %w", machine, fs.ErrNotExist)
	}
	name := list[r.rng.IntN(len(list))].Name()
	at := filepath.Join(dir, name)
	if name == "latest" {
		return r.latest(at, machine, began)
	}
	if id, err = pointIn(at); err != nil {
		return "", err
	}
	p, err := r.known(filepath.Join(machine, name), id, began)
	if p == nil || err != nil {
		return id, err
	}
	if machine == "box" {
		return id, r.box(filepath.Join(at, "files", "disk", "whole"), p)
	}
	return id, r.disk(filepath.Join(at, "disks", "root.raw"), p)
}

// known holds a name to what it was before, and to what has expired. A point that
// nobody has been told of yet is nil.
func (r *mountReader) known(path, id string, began time.Time) (*shownPoint, error) {
	m := r.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if was := m.names[path]; was != "" && was != id {
		return nil, fmt.Errorf("%w: %s was point %s, and is %s", errWrong, path, was, id)
	}
	m.names[path] = id
	if since, gone := m.gone[id]; gone && !since.IsZero() && began.Sub(since) > stale {
		return nil, fmt.Errorf("%w: %s is there %v after it expired", errWrong, path, began.Sub(since))
	}
	return m.points[id], nil
}

// latest holds the link to the newest point, or to one that was made just now.
func (r *mountReader) latest(path, machine string, began time.Time) (string, error) {
	newest := func() newestPoint {
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		return r.m.newest[machine]
	}
	before := newest()
	id, err := pointIn(path)
	if err != nil {
		return "", err
	}
	// One that is not noted yet is newer: its backup is just telling of it. Ids
	// sort by time.
	if after := newest(); id < before.id && id != after.id && began.Sub(before.since) > stale {
		return "", fmt.Errorf("%w: %s leads to %s %v after %s was made", errWrong, path, id, began.Sub(before.since), before.id)
	}
	return id, nil
}

// pointIn tells which point a directory shows.
func pointIn(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "machine.json"))
	if err != nil {
		return "", err
	}
	var is struct{ Point string }
	if err := json.Unmarshal(text, &is); err != nil {
		return "", fmt.Errorf("%w: machine.json: %w: %q", errWrong, err, text)
	}
	return is.Point, nil
}

// disk compares stretches of a disk, and its size and inode.
func (r *mountReader) disk(path string, p *shownPoint) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != p.disk.Size() {
		return fmt.Errorf("%w: %s has %d bytes, want %d", errWrong, path, info.Size(), p.disk.Size())
	}
	if err := r.sameInode(path, info); err != nil {
		return err
	}
	for range 8 {
		got := make([]byte, 1+r.rng.IntN(1<<20))
		off := r.rng.Int64N(info.Size())
		n, err := f.ReadAt(got, off)
		if err != nil && err != io.EOF {
			return err
		}
		want := make([]byte, min(int64(len(got)), info.Size()-off))
		if _, err := p.disk.ReadAt(want, off); err != nil && err != io.EOF {
			return err
		}
		if !bytes.Equal(got[:n], want) {
			return fmt.Errorf("%w: %s: %d bytes from %d are not the point's", errWrong, path, n, off)
		}
		r.compared(n)
	}
	return nil
}

func (r *mountReader) compared(n int) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	r.m.bytes += int64(n)
}

// sameInode holds a file to the number it had before, in another process perhaps.
func (r *mountReader) sameInode(path string, info fs.FileInfo) error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	ino := info.Sys().(*syscall.Stat_t).Ino
	if was, ok := r.m.inodes[path]; ok && was != ino {
		return fmt.Errorf("%w: %s had inode %d, and has %d", errWrong, path, was, ino)
	}
	r.m.inodes[path] = ino
	return nil
}

// box compares a directory of a guest's files: its names, all of them, and one
// file.
func (r *mountReader) box(dir string, p *shownPoint) error {
	text, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil {
		return err
	}
	if string(text) != strconv.Itoa(p.version) {
		return fmt.Errorf("%w: %s is version %q, want %d", errWrong, dir, text, p.version)
	}
	one := r.rng.IntN(boxes)
	path, want := boxFile(p.version, one)
	list, err := os.ReadDir(filepath.Join(dir, filepath.Dir(path)))
	if err != nil {
		return err
	}
	var got, names []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	for i := one % 4; i < boxes; i += 4 {
		name, _ := boxFile(p.version, i)
		names = append(names, filepath.Base(name))
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		return fmt.Errorf("%w: %s has the names %q, want %q", errWrong, filepath.Dir(path), got, names)
	}
	data, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		return err
	}
	if !bytes.Equal(data, want) {
		return fmt.Errorf("%w: %s has other bytes", errWrong, path)
	}
	info, err := os.Stat(filepath.Join(dir, path))
	if err != nil {
		return err
	}
	r.compared(len(data))
	r.m.mu.Lock()
	r.m.inside++
	r.m.mu.Unlock()
	return r.sameInode(filepath.Join(dir, path), info)
}
