package datastore

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

const childDir = "HOLDFAST_DATASTORE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, workForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// workForEver makes, writes, moves and removes files, and says of each change on
// standard output when it is answered.
func workForEver(dir string) error {
	fsys, err := vfs.OS(dir)
	if err != nil {
		return err
	}
	s, err := Open(fsys, Options{})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	root := SessionRoot(1)
	for gen := time.Now().UnixNano(); ; gen++ {
		name := fmt.Sprintf("f%d", rng.IntN(60))
		fmt.Println("begin", name, gen)
		a, err := s.Lookup(ctx, root, name)
		switch op := rng.IntN(8); {
		case errors.Is(err, fs.ErrNotFound):
			var c fs.Change
			c, err = s.Create(ctx, root, name, fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{}, nil)
			a = c.Object
			fallthrough
		case op < 6 && err == nil:
			// Small ones and large ones, synced and committed.
			p := bytes.Repeat(fmt.Appendf(nil, "%020d\n", gen), 1+rng.IntN(5000)*rng.IntN(2))
			sync := rng.IntN(2) == 0
			if err == nil {
				_, err = s.SetAttr(ctx, a.ID, fs.SetAttr{Set: fs.SetSize})
			}
			if err == nil {
				_, err = s.WriteAt(ctx, a.ID, p, 0, sync)
			}
			if err == nil && !sync {
				_, err = s.Commit(ctx, a.ID, 0, 0)
			}
			if err == nil {
				fmt.Println("wrote", name, gen, len(p), a.ID.Ino)
			}
		case err == nil:
			if _, err = s.Remove(ctx, root, name, nil); err == nil {
				fmt.Println("removed", name, gen)
			}
		}
		if err != nil {
			return err
		}
	}
}

// promise is what the child said last of a name.
type promise struct {
	gone, open bool // it was removed; a change had begun when the child died
	gen        int64
	size       int
	ino        uint64
}

// TestKilled kills a working process again and again: what it was answered is
// there, with the same IDs.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	fsys, err := vfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	if err := Create(fsys, Options{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(fsys, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddSession(SessionSpec{Name: "vm"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	promises := make(map[string]promise)
	rng := rand.New(rand.NewPCG(4, 4))
	answered := 0
	for range steps(4) {
		answered += killOne(t, dir, promises, 20+rng.IntN(300))
		s, err := Open(fsys, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for name, p := range promises {
			if err := p.check(s, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d changes were answered", answered)
}

// killOne runs a child until it has made so many changes, and kills it.
func killOne(t *testing.T, dir string, promises map[string]promise, changes int) (answered int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for in := bufio.NewScanner(out); in.Scan(); {
		var name string
		var p promise
		line := in.Text()
		switch {
		case strings.HasPrefix(line, "begin "):
			if _, err := fmt.Sscanf(line, "begin %s %d", &name, &p.gen); err == nil {
				old := promises[name]
				old.open = true
				promises[name] = old
			}
			continue
		case strings.HasPrefix(line, "wrote "):
			if _, err := fmt.Sscanf(line, "wrote %s %d %d %d", &name, &p.gen, &p.size, &p.ino); err != nil {
				continue // cut off
			}
		default:
			if _, err := fmt.Sscanf(line, "removed %s %d", &name, &p.gen); err != nil {
				continue
			}
			p.gone = true
		}
		promises[name] = p
		if answered++; answered == changes {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait() // killed
	if answered < changes {
		t.Errorf("the child made %d of %d changes", answered, changes)
	}
	return answered
}

// check compares a name with what was promised. One that was being changed may
// be as before, as afterwards, or be written to in part.
func (p promise) check(s *Store, name string) error {
	if p.open {
		return nil
	}
	a, err := s.Lookup(ctx, SessionRoot(1), name)
	if p.gone {
		if !errors.Is(err, fs.ErrNotFound) {
			return fmt.Errorf("it was removed, and is %v, %v", a.ID, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if a.ID.Ino != p.ino || a.Size != int64(p.size) {
		return fmt.Errorf("it is %v with %d bytes, want %#x with %d", a.ID, a.Size, p.ino, p.size)
	}
	got := make([]byte, p.size)
	if n, err := s.ReadAt(ctx, a.ID, got, 0); n != p.size {
		return fmt.Errorf("%d bytes, %w", n, err)
	}
	if want := bytes.Repeat(fmt.Appendf(nil, "%020d\n", p.gen), p.size/21); !bytes.Equal(got, want) {
		return fmt.Errorf("it has %.30q, want %.30q", got, want)
	}
	return nil
}
