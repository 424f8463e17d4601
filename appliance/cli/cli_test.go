package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/repo"
)

// holdfast runs a command line in this process.
func holdfast(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, err strings.Builder
	code = Run(ctx, args, os.Stdin, &out, &err)
	return code, out.String(), err.String()
}

// newRepository makes a repository and the disk that is machine m in it.
func newRepository(tb testing.TB) (dir, disk string) {
	tb.Helper()
	tb.Setenv(envState, tb.TempDir())
	dir, disk = filepath.Join(tb.TempDir(), "r"), filepath.Join(tb.TempDir(), "disk")
	if err := os.WriteFile(disk, []byte(strings.Repeat("holdfast", 1<<17)), 0o600); err != nil {
		tb.Fatal(err)
	}
	for _, args := range [][]string{{"repo", "init", dir}, {"repo", "backup", dir, "--machine", "m", disk}} {
		if code, _, stderr := holdfast(tb.Context(), args...); code != 0 {
			tb.Fatalf("%q: exit code %d, %s", args, code, stderr)
		}
	}
	return dir, disk
}

func TestInterruptedWait(t *testing.T) {
	dir, disk := newRepository(t)
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	code, _, stderr := holdfast(ctx, "repo", "backup", dir, "--machine", "m", disk, "--wait", "1h")
	if code != exitInterrupted || stderr != "holdfast: repo backup: interrupted\n" {
		t.Errorf("exit code %d, %q; want %d, interrupted", code, stderr, exitInterrupted)
	}
}

// TestInterruptedRestore interrupts a restore that has its targets ready, and
// looks for what it left.
func TestInterruptedRestore(t *testing.T) {
	dir, _ := newRepository(t)
	for _, format := range targetFormats {
		t.Run(format.name, func(t *testing.T) {
			to := t.TempDir()
			a := &app{in: os.Stdin, out: io.Discard, err: io.Discard, quiet: true, logLevel: "error", logFormat: "text"}
			err := a.reading(t.Context(), dir, func(r *repo.Repository) error {
				p, err := r.Find(t.Context(), "m@latest", time.UTC)
				if err != nil {
					return err
				}
				reader, err := r.OpenPoint(p.ID)
				if err != nil {
					return err
				}
				defer reader.Close()
				tasks, _, err := restoreTasks(reader, restoreOptions{to: filepath.Join(to, "x")}, format)
				if err != nil {
					return err
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				return a.runRestore(ctx, p, tasks, format, false)
			})
			if exitCode(err) != exitInterrupted {
				t.Errorf("restore: %v, want the interruption", err)
			}
			if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestOneLine(t *testing.T) {
	err := fmt.Errorf("read pack: %w", errors.Join(io.EOF, errors.New("other"), io.EOF))
	if got, want := oneLine(err), "read pack: EOF; other"; got != want {
		t.Errorf("oneLine = %q, want %q", got, want)
	}
}
