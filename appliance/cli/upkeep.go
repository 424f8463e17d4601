package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"holdfast/repo"
)

// What the verbs that change a repository have in common: whoever owns it does the
// work if somebody does, and stored bytes need no key.

// byOwner has the owner of the repository in dir do a verb, or becomes the owner
// for it, for which it waits at most wait. A verb that needs no key does without
// where none was given, which is enough for what is stored. An owner that ends
// before the verb does is replaced.
func (a *app) byOwner(ctx context.Context, dir, verb string, wait time.Duration, key needsKey, args, result any, progress func(json.RawMessage)) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // whoever owned it has synced what it wrote
	state, err := openState()
	if err != nil {
		return err
	}
	defer state.Close() //nolint:errcheck // the same
	_, err = a.withStored(key, func(opt repo.Options) (struct{}, error) {
		opt.State, opt.Doing = state, verb
		for {
			err := repo.Perform(ctx, d, opt, wait, verb, args, result, progress)
			if !errors.Is(err, repo.ErrClosed) || ctx.Err() != nil {
				return struct{}{}, err
			}
			select { // it is closing
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	})
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// needsKey says whether a verb needs the key of a sealed repository, or does
// what it can without.
type needsKey bool

// withStored is withKeys for verbs that may do without.
func (a *app) withStored(key needsKey, open func(repo.Options) (struct{}, error)) (struct{}, error) {
	return withKeys(a, func(opt repo.Options) (struct{}, error) {
		opt.Keyless = !bool(key) && len(opt.Passphrase) == 0 && len(opt.Identities) == 0
		return open(opt)
	})
}

// hint tells the person what may be done next.
func (a *app) hint(text string) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.err, "hint: %s\n", text)
	}
}

// reports passes what a verb reports on to fn. What isn't understood comes from
// an owner of another version, and is only progress.
func reports[P any](fn func(P)) func(json.RawMessage) {
	return func(text json.RawMessage) {
		var p P
		if json.Unmarshal(text, &p) == nil {
			fn(p)
		}
	}
}

// packBar is the meter of work on packs, which knows its total from the first
// report on.
type packBar struct {
	app   *app
	what  string
	meter *meter
}

func (b *packBar) at(p repo.ScrubProgress) {
	if b.meter == nil {
		b.meter = b.app.progress(b.what, p.TotalBytes)
	}
	b.meter.at(p.DoneBytes)
}

func (b *packBar) told(text json.RawMessage) {
	var p repo.ScrubProgress
	if json.Unmarshal(text, &p) == nil {
		b.at(p)
	}
}

func (b *packBar) end(complete bool) { b.meter.end(complete) }

// ageFlag is a flag that holds a span of time, in days or as Go has it: 30d, 12h.
type ageFlag time.Duration

func (f *ageFlag) Set(s string) error {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !(n >= 0) || n > math.MaxInt64/float64(24*time.Hour) {
			return fmt.Errorf("%q is not a number of days", s)
		}
		*f = ageFlag(n * float64(24*time.Hour))
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a span of time: want 30d or 12h", s)
	}
	*f = ageFlag(d)
	return nil
}

func (f *ageFlag) String() string {
	switch {
	case *f == 0:
		return ""
	case time.Duration(*f)%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", time.Duration(*f)/(24*time.Hour))
	}
	return time.Duration(*f).String()
}

func (f *ageFlag) Type() string { return "age" }

// shareFlag is a flag that holds a part of the whole: 5% or 0.05.
type shareFlag float64

func (f *shareFlag) Set(s string) error {
	text, percent := strings.CutSuffix(s, "%")
	n, err := strconv.ParseFloat(text, 64)
	if percent {
		n /= 100
	}
	if err != nil || !(n > 0 && n <= 1) {
		return fmt.Errorf("%q is not a share: want 5%% or 0.05, up to 100%%", s)
	}
	*f = shareFlag(n)
	return nil
}

func (f *shareFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*f)*100, 'g', -1, 64) + "%"
}

func (f *shareFlag) Type() string { return "share" }
