package cli

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"holdfast/appliance/recovery"
	"holdfast/fs"
	"holdfast/fs/mount"
	"holdfast/image"
	"holdfast/image/redirect"
	"holdfast/repo"
	"holdfast/repo/retention"
)

// Exit codes. They are part of the interface: documented in README.md, never
// reused for something else.
const (
	exitDone        = 0
	exitFailed      = 1   // whatever has no code of its own
	exitDifference  = 2   // what was compared differs
	exitNotFound    = 3   // no such restore point or disk, or more than one
	exitBusy        = 4   // another process owns the repository, or has mounted there
	exitWrongKey    = 5   // no passphrase or identity given opens it
	exitNotRepo     = 6   // not a repository, or one of a newer format
	exitUsage       = 64  // the command line is wrong, names in it too
	exitInterrupted = 130 // SIGINT, SIGTERM or SIGHUP
)

var (
	// errDifference ends a verb that has printed the difference it found.
	errDifference = errors.New("difference found")

	// errInterrupted stands for whatever a signal made of the verb.
	errInterrupted = errors.New("interrupted")
)

// usageError is a command line that cannot be run.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// reportedError is the failure of another process, which has told of it.
type reportedError struct{ code int }

func (e *reportedError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// hintError is an error with a way out that only its place knows.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

// withHint adds the line that says what to do about err.
func withHint(err error, format string, args ...any) error {
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// outcome is one kind of error, its exit code, and the hint that helps when the
// error brings none of its own.
type outcome struct {
	is   func(error) bool
	code int
	hint string
}

// outcomes is the border where errors become exit codes: the first that matches
// wins, and an error that matches none has failed.
var outcomes = []outcome{
	{wraps(errDifference), exitDifference, ""},
	{wraps(errInterrupted), exitInterrupted, ""},
	{wraps(context.Canceled), exitInterrupted, ""},
	{kind[*usageError], exitUsage, ""},
	{wraps(retention.ErrRule), exitUsage, "holdfast repo retain --help explains the rule"},
	{wraps(repo.ErrPinned), exitFailed, `"holdfast repo unpin DIR POINT" takes a pin away`},
	{wraps(repo.ErrExpired), exitFailed, `"holdfast repo recall DIR POINT" keeps it after all, while it is there`},
	{wraps(repo.ErrName), exitUsage, "names have 1 to 255 bytes of UTF-8, no slash and no control characters; NAME=PATH names a disk"},
	{wraps(repo.ErrTime), exitUsage, ""},
	{wraps(recovery.ErrNoServer), exitFailed, `"holdfast nfs serve" runs one; --state DIR finds it elsewhere`},
	{wraps(recovery.ErrNoSession), exitNotFound, `"holdfast nfs list" shows what is published`},
	{wraps(recovery.ErrExists), exitFailed, "give another --name"},
	{wraps(recovery.ErrBusy), exitBusy, `"holdfast nfs list" shows what is being done; stop ends it`},
	{wraps(recovery.ErrNoRoom), exitFailed, "make room on the redirect volume; --swap-dir puts the swap file elsewhere, --no-swap-room does without, as QEMU does"},
	{wraps(recovery.ErrDamagedRoot), exitFailed, `"holdfast nfs serve --rebuild" makes it anew; sessions, their disks and file handles stay, files beside them are lost`},
	{wraps(recovery.ErrOffline), exitFailed, `"holdfast nfs list" says why; it is tried again on its own`},
	{wraps(redirect.ErrTarget), exitFailed, "the machine goes on as before; the same command begins again"},
	{kind[*portTakenError], exitBusy, "end it, or --listen ADDRESS:PORT and --portmap none for clients that are told the port"},
	{wraps(repo.ErrNotFound), exitNotFound, `"holdfast repo points DIR" lists the restore points`},
	{wraps(fs.ErrNotFound), exitNotFound, ""},
	{wraps(errAmbiguousPath), exitNotFound, ""},
	{kind[*repo.AmbiguousError], exitNotFound, "give more of the id"},
	{wraps(mount.ErrBusy), exitBusy, `"umount MOUNTPOINT" unmounts it`},
	{kind[*repo.BusyError], exitBusy, "--wait DURATION waits for it"},
	{wraps(repo.ErrNeedKey), exitWrongKey, "give --passphrase-file or --identity-file"},
	{wraps(repo.ErrWrongKey), exitWrongKey, ""},
	{wraps(repo.ErrNotRepository), exitNotRepo, `"holdfast repo init DIR" makes one`},
	{wraps(repo.ErrNewerFormat), exitNotRepo, "read it with a newer holdfast"},
	{wraps(repo.ErrExists), exitFailed, "a repository goes into a new or an empty directory"},
	{wraps(repo.ErrSweepFirst), exitFailed, `"holdfast repo sweep DIR" brings the counts up`},
	{wraps(repo.ErrTooLarge), exitFailed, "ask about fewer points at a time"},
	{wraps(repo.ErrReadOnly), exitFailed, "points, restore, diff, stats and dump work there"},
	{wraps(repo.ErrMachine), exitFailed, "--adopt continues the machine's points under its new identity"},
	{wraps(repo.ErrEmptied), exitFailed, "look what became of it; --force lets copies expire all the same"},
	{wraps(repo.ErrNoSigner), exitFailed, `set HOLDFAST_STATE to the directory that has it; if it is lost, "holdfast repo key adopt DIR" goes on with a new one`},
	{wraps(repo.ErrNotSealed), exitFailed, "a repository is sealed when it is made, by repo init --encrypt or --recipient"},
	{wraps(repo.ErrLastKey), exitFailed, "add another one first, or rotate this one"},
	{wraps(repo.ErrKeyLocked), exitFailed, "it can be removed when its lock has ended"},
	{wraps(repo.ErrPaper), exitFailed, "look at that line of the sheet again"},
	{wraps(image.ErrOutside), exitFailed, "what a disk is made of must lie in the directory of the file given, or below it"},
	{wraps(repo.ErrNoSpace), exitFailed, "make room, or let points expire and sweep, and run it again"},
	{wraps(syscall.ENOSPC), exitFailed, "make room and run it again; a backup stores nothing twice"},
	{wraps(repo.ErrMachineFiles), exitFailed, "--file is for small files: at most 64 with 1 MiB in all, each name once"},
	{wraps(repo.ErrChanges), exitFailed, "without --require-changed everything is read instead"},
}

// exitCode turns an error into an exit code.
func exitCode(err error) int {
	code, _ := judge(err)
	return code
}

// judge returns the exit code of err and the hint for it, "" for none.
func judge(err error) (code int, hint string) {
	if err == nil {
		return exitDone, ""
	}
	code = exitFailed
	for _, o := range outcomes {
		if o.is(err) {
			code, hint = o.code, o.hint
			break
		}
	}
	var h *hintError
	if errors.As(err, &h) {
		hint = h.hint
	}
	return code, hint
}

func wraps(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func kind[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}
