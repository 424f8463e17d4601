package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"holdfast/repo/ledger"
	"holdfast/repo/retention"
	"holdfast/repo/vfs"
)

// A verb is what an owner does for whoever asks it through its socket, in JSON.
type verb func(ctx context.Context, o *Owner, args json.RawMessage, progress func(json.RawMessage)) (json.RawMessage, error)

// verbs lists what an owner can be asked for. What a backup reads the other
// process lends (lend.go).
func verbs() map[string]verb {
	return map[string]verb{
		"status": verbOf(func(_ context.Context, o *Owner, _ struct{}, _ func(any)) (OwnerStatus, error) {
			return o.status(), nil
		}),
		"expire": verbOf(func(ctx context.Context, o *Owner, list []Expiry, _ func(any)) (ExpireResult, error) {
			return o.ExpireAll(ctx, list)
		}),
		"recall": verbOf(func(ctx context.Context, o *Owner, id PointID, _ func(any)) (ledger.Head, error) {
			return o.Recall(ctx, id)
		}),
		"retain": verbOf(func(ctx context.Context, o *Owner, opt RetainOptions, _ func(any)) (RetainResult, error) {
			return o.Retain(ctx, opt)
		}),
		"sweep": verbOf(func(ctx context.Context, o *Owner, _ struct{}, progress func(any)) (SweepResult, error) {
			return o.Sweep(ctx, SweepOptions{Progress: func(p SweepProgress) { progress(p) }})
		}),
		"compact": verbOf(func(ctx context.Context, o *Owner, opt CompactOptions, progress func(any)) (CompactResult, error) {
			opt.Progress = func(p CompactProgress) { progress(p) }
			return o.Compact(ctx, opt)
		}),
		"evacuate": verbOf(func(ctx context.Context, o *Owner, opt CompactOptions, progress func(any)) (CompactResult, error) {
			opt.Progress = func(p CompactProgress) { progress(p) }
			return o.Evacuate(ctx, opt)
		}),
		"synthesize": verbOf(func(ctx context.Context, o *Owner, id PointID, progress func(any)) (SynthesizePlan, error) {
			return o.Synthesize(ctx, id, SynthesizeOptions{Progress: func(p SynthesizeProgress) { progress(p) }})
		}),
		"scrub": verbOf(func(ctx context.Context, o *Owner, opt ScrubOptions, progress func(any)) (*ScrubReport, error) {
			opt.Progress = func(p ScrubProgress) { progress(p) }
			return o.Scrub(ctx, opt)
		}),
		"repair": verbOf(func(ctx context.Context, o *Owner, opt RepairOptions, progress func(any)) (*RepairReport, error) {
			opt.Scrub.Progress = func(p ScrubProgress) { progress(p) }
			return o.Repair(ctx, opt)
		}),
		"reindex": verbOf(func(ctx context.Context, o *Owner, _ struct{}, _ func(any)) (*ReindexReport, error) {
			return o.Reindex(ctx)
		}),
		"abandon": verbOf(func(_ context.Context, o *Owner, machineID string, _ func(any)) (int, error) {
			return o.AbandonRuns(machineID)
		}),
		"backup": verbOf(func(ctx context.Context, o *Owner, b lentBackup, progress func(any)) (*Run, error) {
			return o.backupLent(ctx, b, func(p Progress) { progress(p) })
		}),
	}
}

// verbOf makes a verb of a function of Go values, whose exported fields make the
// JSON.
func verbOf[A, R any](do func(ctx context.Context, o *Owner, args A, progress func(any)) (R, error)) verb {
	return func(ctx context.Context, o *Owner, text json.RawMessage, progress func(json.RawMessage)) (json.RawMessage, error) {
		var args A
		if len(text) > 0 {
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields() // said by a newer program, and not to be passed over
			if err := d.Decode(&args); err != nil {
				return nil, fmt.Errorf("%w: %w", errRequest, err)
			}
		}
		res, err := do(ctx, o, args, paced(func(v any) {
			if p, err := json.Marshal(v); err == nil && progress != nil {
				progress(p)
			}
		}))
		if err != nil {
			return nil, err
		}
		return json.Marshal(res)
	}
}

// reportEvery is the least time between two reports of progress.
const reportEvery = 100 * time.Millisecond

// paced passes a report on unless there was one a moment ago. It may be called
// by several goroutines at once.
func paced(report func(any)) func(any) {
	var mu sync.Mutex
	var last time.Time
	return func(v any) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= reportEvery {
			last = now
			report(v)
		}
	}
}

// perform does what is asked for by name.
func (o *Owner) perform(ctx context.Context, name string, args json.RawMessage, progress func(json.RawMessage)) (json.RawMessage, error) {
	do, known := verbs()[name]
	if !known {
		return nil, fmt.Errorf("%w: unknown verb %.40q", errRequest, name)
	}
	return do(ctx, o, args, progress)
}

// Perform does one of an owner's verbs: it asks the owner of the repository, if
// there is one, and else is it, for which it waits at most wait; then
// *BusyError. args, what result points to, and what progress gets unless it is
// nil, are what the verb takes, returns and reports:
//
//	expire      []Expiry        ExpireResult
//	recall      PointID         ledger.Head
//	retain      RetainOptions   RetainResult
//	sweep       nothing         SweepResult      SweepProgress
//	compact     CompactOptions  CompactResult    CompactProgress
//	evacuate    CompactOptions  CompactResult    CompactProgress
//	synthesize  PointID         SynthesizePlan   SynthesizeProgress
//	scrub       ScrubOptions    ScrubReport      ScrubProgress
//	repair      RepairOptions   RepairReport     ScrubProgress
//	reindex     nothing         ReindexReport
//	abandon     a machine's id  how many runs
//
// PerformBackup does that for a backup.
//
// Cancelling ctx cancels the verb, wherever it runs.
func Perform(ctx context.Context, fsys vfs.FS, opt Options, wait time.Duration, verb string, args, result any, progress func(json.RawMessage)) error {
	opt.defaults()
	return throughOwner(ctx, fsys, wait,
		func() error { return askOwner(ctx, fsys, verb, args, result, progress) },
		func() error { return performAlone(ctx, fsys, opt, verb, args, result, progress) })
}

// throughOwner asks the owner of the repository for something, if there is one,
// and else does it alone, for which it waits at most wait; then *BusyError.
func throughOwner(ctx context.Context, fsys vfs.FS, wait time.Duration, ask, alone func() error) error {
	for deadline := time.Now().Add(wait); ; {
		err := ask()
		if !errors.Is(err, errNoOwner) {
			return err
		}
		// It may not listen yet, or no more, or be on another host.
		busy := ownerBusy(fsys)
		if busy == nil {
			err := alone()
			var late *BusyError
			if !errors.As(err, &late) {
				return err
			}
			busy = late
		}
		if !time.Now().Before(deadline) {
			return fmt.Errorf("open repository for writing: %w", busy)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(lockPoll, time.Until(deadline))):
		}
	}
}

// ownerBusy returns who owns the repository, or nil. A lock that can't be asked
// for another reason is for Own to complain about.
func ownerBusy(fsys vfs.FS) error {
	if _, err := fsys.Stat(lockName); err != nil {
		return nil // no lock, no owner; nor will there be a file for asking
	}
	l, err := fsys.Lock(lockName, vfs.Shared)
	if errors.Is(err, vfs.ErrLocked) {
		return &BusyError{Holder: readHolder(fsys)}
	}
	if err == nil {
		_ = l.Unlock() // dies with us in any case
	}
	return nil
}

// performAlone becomes the owner for one verb.
func performAlone(ctx context.Context, fsys vfs.FS, opt Options, verb string, args, result any, progress func(json.RawMessage)) error {
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	o, err := Own(ctx, fsys, opt, 0)
	if err != nil {
		return err
	}
	res, err := o.perform(ctx, verb, text, progress)
	if err = errors.Join(err, o.Close()); err != nil {
		return err
	}
	return json.Unmarshal(res, result)
}

// errRequest says that the owner was asked for what it doesn't know.
var errRequest = errors.New("bad request")

const (
	kindRequest = "request"
	kindClosing = "closing"
	kindBusy    = "busy"
	kindCorrupt = "corrupt"
)

// errorKinds names the errors that whoever asks the owner must be able to tell
// apart. The first that an error is names it.
var errorKinds = []struct {
	kind string
	err  error
}{
	{kindRequest, errRequest},
	{"cancelled", context.Canceled},
	{"notRepository", ErrNotRepository},
	{"exists", ErrExists},
	{"newerFormat", ErrNewerFormat},
	{"needKey", ErrNeedKey},
	{"wrongKey", ErrWrongKey},
	{"pinned", ErrPinned},
	{"expired", ErrExpired},
	{"notFound", ErrNotFound},
	{"name", ErrName},
	{"time", ErrTime},
	{"machine", ErrMachine},
	{"readOnly", ErrReadOnly},
	{"noSigner", ErrNoSigner},
	{"changes", ErrChanges},
	{"shortSource", ErrShortSource},
	{"closure", ErrClosure},
	{"closed", ErrClosed},
	{"full", syscall.ENOSPC},
	{"noSpace", ErrNoSpace},
	{"sweepFirst", ErrSweepFirst},
	{"tooLarge", ErrTooLarge},
	{"notSealed", ErrNotSealed},
	{"lastKey", ErrLastKey},
	{"keyLocked", ErrKeyLocked},
	{"paper", ErrPaper},
	{"emptied", ErrEmptied},
	{"rule", retention.ErrRule},
	{"machineFiles", ErrMachineFiles},
	{"format", ErrFormat},
}

// answerOf is how an error goes to the other side.
func answerOf(err error) ownerAnswer {
	a := ownerAnswer{Error: err.Error()}
	var busy *BusyError
	var corrupt *CorruptError
	switch {
	case errors.As(err, &busy):
		a.Kind = kindBusy
		a.Detail, _ = json.Marshal(busy)
		return a
	case errors.As(err, &corrupt):
		a.Kind = kindCorrupt
		c := *corrupt
		c.Err = nil
		a.Detail, _ = json.Marshal(c)
		return a
	}
	for _, k := range errorKinds {
		if errors.Is(err, k.err) {
			a.Kind = k.kind
			break
		}
	}
	return a
}

// err is the error again, as far as it was told.
func (a *ownerAnswer) err() error {
	e := &askedError{text: a.Error}
	switch a.Kind {
	case kindBusy:
		busy := new(BusyError)
		if json.Unmarshal(a.Detail, busy) == nil {
			e.is = busy
		}
	case kindCorrupt:
		corrupt := new(CorruptError)
		if json.Unmarshal(a.Detail, corrupt) == nil {
			corrupt.Err = errors.New(a.Error)
			e.is = corrupt
		}
	}
	for _, k := range errorKinds {
		if k.kind == a.Kind {
			e.is = k.err
		}
	}
	return e
}

// askedError is an error that the owner met when it was asked.
type askedError struct {
	text string
	is   error
}

func (e *askedError) Error() string { return e.text }
func (e *askedError) Unwrap() error { return e.is }
