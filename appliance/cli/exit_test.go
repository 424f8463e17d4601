package cli

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	guestfs "holdfast/fs"
	"holdfast/fs/mount"
	"holdfast/repo"
	"holdfast/repo/retention"
)

func TestExitCode(t *testing.T) {
	tests := map[string]struct {
		err  error
		want int
	}{
		"none":             {nil, 0},
		"anything":         {io.ErrUnexpectedEOF, 1},
		"no such source":   {fs.ErrNotExist, 1},
		"no space":         {syscall.ENOSPC, 1},
		"difference":       {errDifference, 2},
		"interrupted":      {errInterrupted, 130},
		"cancelled":        {context.Canceled, 130},
		"usage":            {usagef("what?"), 64},
		"CorruptError":     {&repo.CorruptError{Err: io.EOF}, 1},
		"BusyError":        {&repo.BusyError{}, 4},
		"mounted already":  {mount.ErrBusy, 4},
		"no such file":     {fmt.Errorf("/etc/x: %w", guestfs.ErrNotFound), 3},
		"which volume":     {errAmbiguousPath, 3},
		"damaged file":     {guestfs.ErrDamaged, 1},
		"AmbiguousError":   {&repo.AmbiguousError{}, 3},
		"ErrNotRepository": {repo.ErrNotRepository, 6},
		"ErrExists":        {repo.ErrExists, 1},
		"ErrNewerFormat":   {repo.ErrNewerFormat, 6},
		"ErrFormat":        {repo.ErrFormat, 1},
		"ErrNeedKey":       {repo.ErrNeedKey, 5},
		"ErrWrongKey":      {repo.ErrWrongKey, 5},
		"ErrNotFound":      {repo.ErrNotFound, 3},
		"ErrName":          {repo.ErrName, 64},
		"ErrTime":          {repo.ErrTime, 64},
		"ErrMachine":       {repo.ErrMachine, 1},
		"ErrReadOnly":      {repo.ErrReadOnly, 1},
		"ErrNoSigner":      {repo.ErrNoSigner, 1},
		"ErrNotSealed":     {repo.ErrNotSealed, 1},
		"ErrLastKey":       {repo.ErrLastKey, 1},
		"ErrKeyLocked":     {repo.ErrKeyLocked, 1},
		"ErrPaper":         {repo.ErrPaper, 1},
		"ErrChanges":       {repo.ErrChanges, 1},
		"ErrMachineFiles":  {repo.ErrMachineFiles, 1},
		"ErrNoSpace":       {repo.ErrNoSpace, 1},
		"ErrShortSource":   {repo.ErrShortSource, 1},
		"ErrClosure":       {repo.ErrClosure, 1},
		"ErrClosed":        {repo.ErrClosed, 1},
		"ErrPinned":        {repo.ErrPinned, 1},
		"ErrExpired":       {repo.ErrExpired, 1},
		"retention rule":   {retention.ErrRule, 64},
		"ErrSweepFirst":    {repo.ErrSweepFirst, 1},
		"ErrTooLarge":      {repo.ErrTooLarge, 1},
		"ErrEmptied":       {repo.ErrEmptied, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.err
			if err != nil {
				// As deep as the layers wrap it.
				err = fmt.Errorf("repo: %w", errors.Join(withHint(fmt.Errorf("read: %w", err), "try"), nil))
			}
			if got := exitCode(err); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
		})
	}
	for _, name := range repoErrors(t) {
		if _, ok := tests[name]; !ok {
			t.Errorf("package repo exports the error %s, of which this table says nothing", name)
		}
	}
}

// repoErrors lists the sentinels and error types that package repo exports.
func repoErrors(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../repo/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, exportedErrors(f)...)
	}
	if len(names) < 10 {
		t.Fatalf("found only %q", names)
	}
	return names
}

func exportedErrors(f *ast.File) (names []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			return false
		case *ast.ValueSpec:
			for _, id := range n.Names {
				if strings.HasPrefix(id.Name, "Err") {
					names = append(names, id.Name)
				}
			}
		case *ast.TypeSpec:
			if n.Name.IsExported() && strings.HasSuffix(n.Name.Name, "Error") {
				names = append(names, n.Name.Name)
			}
		}
		return true
	})
	return names
}

func TestHint(t *testing.T) {
	tests := map[string]struct {
		err  error
		want string
	}{
		"of its kind":           {fmt.Errorf("x: %w", repo.ErrNewerFormat), "read it with a newer holdfast"},
		"of its place":          {fmt.Errorf("x: %w", withHint(repo.ErrNewerFormat, "do %s", "this")), "do this"},
		"none":                  {io.EOF, ""},
		"none beside its place": {withHint(io.EOF, "wait"), "wait"},
	}
	for name, tt := range tests {
		if _, got := judge(tt.err); got != tt.want {
			t.Errorf("%s: hint %q, want %q", name, got, tt.want)
		}
	}
}
