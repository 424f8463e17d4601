package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/repo/retention"
	"holdfast/repo/vfs"
)

// A realDir knows where it is.
type realDir struct {
	*vfs.Dir
	path string
}

// onDisk is a repository in a real directory with some points, and its owner.
func onDisk(t *testing.T, points int) (l *long, dir realDir, o *Owner) {
	t.Helper()
	l = newLong(t, false)
	l.own(func(o *Owner) { l.commit(o, points, 1) })
	dir.path = t.TempDir()
	var err error
	if dir.Dir, err = vfs.OS(dir.path); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(dir, l.mem); err != nil {
		t.Fatal(err)
	}
	l.opt.Doing = "a test"
	o, err = Own(t.Context(), dir, l.opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(o.Close(), dir.Close()); err != nil {
			t.Error(err)
		}
	})
	return l, dir, o
}

// perform is Perform by another process, as far as files can tell.
func (l *long) perform(t *testing.T, ctx context.Context, dir realDir, verb string, args, result any) error {
	t.Helper()
	other, err := vfs.OS(dir.path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close() //nolint:errcheck // nothing was written through it
	return Perform(ctx, other, l.opt, 0, verb, args, result, nil)
}

// TestPerform asks the owner there is, and becomes it when there is none.
func TestPerform(t *testing.T) {
	l, dir, o := onDisk(t, 4)
	points, err := o.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, owner := range []bool{true, false} {
		var res ExpireResult
		id := points[0].ID
		if err := l.perform(t, t.Context(), dir, "expire", []Expiry{{Point: id, Reason: "asked"}}, &res); err != nil || len(res.Expired) != 1 || res.Head.Number == 0 {
			t.Errorf("owned %t: %+v, %v", owner, res, err)
		}
		var kept RetainResult
		if err := l.perform(t, t.Context(), dir, "retain", RetainOptions{Rule: retention.Rule{Within: retention.Span{Count: 9, Unit: retention.Year}}}, &kept); err != nil || len(kept.Decisions) != len(points)-1 {
			t.Errorf("owned %t: %+v, %v", owner, kept, err)
		}
		err := l.perform(t, t.Context(), dir, "recall", id, &res.Head)
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "manifest is gone") {
			t.Errorf("owned %t: %v", owner, err)
		}
		err = l.perform(t, t.Context(), dir, "sing", nil, nil)
		if !errors.Is(err, errRequest) {
			t.Errorf("owned %t: %v", owner, err)
		}
		err = l.perform(t, t.Context(), dir, "expire", []map[string]string{{"Pint": "x"}}, nil)
		if !errors.Is(err, errRequest) {
			t.Errorf("owned %t: %v", owner, err)
		}
		points = points[1:]
		if owner {
			if st, err := AskOwner(dir); err != nil || st.Holder.PID != os.Getpid() || st.Holder.Doing != "a test" {
				t.Errorf("%+v, %v", st, err)
			}
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			_, err := AskOwner(dir)
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("without an owner: %v", err)
			}
		}
	}
	r, err := Open(t.Context(), dir, l.opt)
	if err != nil {
		t.Fatal(err)
	}
	left, err := r.Points(t.Context())
	if err = errors.Join(err, r.Close()); err != nil || len(left) != len(points) {
		t.Errorf("%d points are left, want %d, %v", len(left), len(points), err)
	}
}

// TestPerformBusy: an owner that can't be asked is waited for.
func TestPerformBusy(t *testing.T) {
	l, dir, o := onDisk(t, 1)
	if err := o.socket.close(); err != nil {
		t.Fatal(err)
	}
	o.socket = nil
	var busy *BusyError
	if err := l.perform(t, t.Context(), dir, "expire", []Expiry{}, nil); !errors.As(err, &busy) || busy.Holder.Doing != "a test" {
		t.Errorf("%v", err)
	}
	done := make(chan error, 1)
	go func() {
		done <- Perform(t.Context(), dir, l.opt, time.Minute, "expire", []Expiry{}, new(ExpireResult), nil)
	}()
	time.Sleep(lockPoll / 2)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPerformCancel hangs up while a verb waits: it is not done.
func TestPerformCancel(t *testing.T) {
	l, dir, o := onDisk(t, 2)
	points, err := o.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.commit.Lock() // a commit that takes long
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.perform(t, ctx, dir, "expire", []Expiry{{Point: points[0].ID}}, new(ExpireResult)) }()
	time.Sleep(50 * time.Millisecond)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	time.Sleep(50 * time.Millisecond)
	o.commit.Unlock()

	// And one that is under way when the owner closes is waited for.
	o.commit.Lock()
	go func() {
		done <- l.perform(t, t.Context(), dir, "expire", []Expiry{{Point: points[1].ID}}, new(ExpireResult))
	}()
	time.Sleep(50 * time.Millisecond)
	closed := make(chan error, 1)
	go func() { closed <- o.Close() }()
	select {
	case err := <-closed:
		t.Errorf("closed during a verb: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	o.commit.Unlock()
	if err := errors.Join(<-done, <-closed); err != nil {
		t.Error(err)
	}
	r, err := Open(t.Context(), dir, l.opt)
	if err != nil {
		t.Fatal(err)
	}
	left, err := r.Points(t.Context())
	if err = errors.Join(err, r.Close()); err != nil || len(left) != 1 || left[0].ID != points[0].ID {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestSocketIsOurs: nobody else may connect, whatever the umask.
func TestSocketIsOurs(t *testing.T) {
	old := syscall.Umask(0)
	_, dir, _ := onDisk(t, 1)
	syscall.Umask(old)
	info, err := os.Lstat(filepath.Join(dir.path, sockName))
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestSocketNonsense sends what is no request.
func TestSocketNonsense(t *testing.T) {
	_, dir, o := onDisk(t, 1)
	for _, line := range []string{"\n", "nonsense\n", "[]\n", `{"verb":"expire","args":3}` + "\n", `{"verb":"expire"` + "\n"} {
		c, err := net.Dial("unix", socketPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprint(c, line)
		var ans ownerAnswer
		for d := json.NewDecoder(c); err == nil && ans.Error == ""; {
			err = d.Decode(&ans)
		}
		if err != nil || ans.Kind != kindRequest {
			t.Errorf("%q: %+v, %v", line, ans, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if points, err := o.Points(t.Context()); err != nil || len(points) != 1 {
		t.Errorf("%v, %v", points, err)
	}
}

// TestErrorKinds sends every error that the package names to the other side.
func TestErrorKinds(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Err") {
			names++
		}
		return true
	})
	ours := 0
	for _, k := range errorKinds {
		err := fmt.Errorf("do: %w", errors.Join(k.err, nil))
		a := answerOf(err)
		if got := a.err(); !errors.Is(got, k.err) || got.Error() != err.Error() {
			t.Errorf("%v comes as %v", err, got)
		}
		switch k.err {
		case errRequest, context.Canceled, syscall.ENOSPC, retention.ErrRule:
		default:
			ours++
		}
	}
	if ours != names {
		t.Errorf("%d of %d named errors have a kind", ours, names)
	}
	a := answerOf(fmt.Errorf("do: %w", &BusyError{Holder{PID: 7}}))
	var busy *BusyError
	if !errors.As(a.err(), &busy) || busy.Holder.PID != 7 {
		t.Errorf("%+v", a)
	}
	a = answerOf(fmt.Errorf("do: %w", &CorruptError{Pack: "packs/x", Err: errors.New("torn")}))
	var corrupt *CorruptError
	if err := a.err(); !errors.As(err, &corrupt) || corrupt.Pack != "packs/x" || err.Error() != "do: damaged, in packs/x: torn" {
		t.Errorf("%+v, %v", a, err)
	}
	if err := (&ownerAnswer{Error: "x", Kind: "new"}).err(); err.Error() != "x" {
		t.Errorf("an unknown kind: %v", err)
	}
}

// FuzzVerb asks an owner for anything.
func FuzzVerb(f *testing.F) {
	l := newLong(f, false)
	o, err := Own(f.Context(), l.mem, l.opt, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := o.Close(); err != nil {
			f.Error(err)
		}
	})
	l.commit(o, 1, 1)
	for _, seed := range [][2]string{
		{"status", "{}"}, {"expire", `[{"Point":"aaaaaaaaaaaaaaaaaaaa","Reason":"x"}]`}, {"recall", `"aaaaaaaaaaaaaaaaaaaa"`},
		{"retain", `{"Rule":{"Last":3,"Within":{"Count":3,"Unit":100}},"Zone":"UTC"}`}, {"retain", `{"Zone":"../x"}`},
	} {
		f.Add(seed[0], []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, verb string, args []byte) {
		if verb == "retain" || verb == "expire" || verb == "recall" || verb == "status" {
			if res, err := o.perform(t.Context(), verb, args, nil); err == nil && !json.Valid(res) {
				t.Errorf("%q", res)
			}
		}
		var ans ownerAnswer
		if json.Unmarshal(args, &ans) == nil && ans.err() == nil {
			t.Error("no error")
		}
	})
}
