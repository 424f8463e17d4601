package recovery

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"holdfast/fs"
	"holdfast/image/redirect"
	"holdfast/repo"
)

// ErrNoServer says that nobody serves sessions out of a state directory.
var ErrNoServer = errors.New("no server is running")

// Client asks the process that serves sessions.
type Client struct {
	// Dial connects to its socket.
	Dial func(ctx context.Context) (net.Conn, error)
}

// Status says how what is published is reached.
func (c *Client) Status(ctx context.Context) (s Server, err error) {
	err = c.ask(ctx, "status", nil, &s, nil)
	return s, err
}

// List is Manager.List.
func (c *Client) List(ctx context.Context) (list []Session, err error) {
	err = c.ask(ctx, "list", nil, &list, nil)
	return list, err
}

// Publish is Manager.Publish.
func (c *Client) Publish(ctx context.Context, point string, opt PublishOptions) (s Session, err error) {
	err = c.ask(ctx, "publish", publishArgs{point, opt}, &s, nil)
	return s, err
}

// Stop is Manager.Stop.
func (c *Client) Stop(ctx context.Context, session string) error {
	return c.ask(ctx, "stop", sessionArgs{session}, &struct{}{}, nil)
}

// Keep is Manager.Keep. progress may be nil.
func (c *Client) Keep(ctx context.Context, session string, opt KeepOptions, progress func(Progress)) (k KeptRun, err error) {
	err = c.ask(ctx, "keep", keepArgs{session, opt.As, opt.Same, opt.Wait.Milliseconds()}, &k, progress)
	return k, err
}

// Migrate is Manager.Migrate. progress may be nil.
func (c *Client) Migrate(ctx context.Context, session string, to map[string]string, progress func(Progress)) (s Session, err error) {
	err = c.ask(ctx, "migrate", migrateArgs{session, to}, &s, progress)
	return s, err
}

// ask makes a request. Cancelling ctx gives it up, wherever it is.
func (c *Client) ask(ctx context.Context, verb string, args, result any, progress func(Progress)) error {
	conn, err := c.Dial(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoServer, err)
	}
	defer conn.Close()                                          //nolint:errcheck // all we wanted has been read
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // which gives it up
	req := controlRequest{Verb: verb}
	if args != nil {
		if req.Args, err = json.Marshal(args); err != nil {
			return err
		}
	}
	_ = conn.SetWriteDeadline(time.Now().Add(controlTimeout))
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return lost(ctx, err)
	}
	in := bufio.NewReader(conn)
	for {
		line, err := readLine(in, maxAnswerBytes)
		if err != nil {
			return lost(ctx, err)
		}
		var a controlAnswer
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("answer of the server: %w", err)
		}
		switch {
		case a.Error != "":
			return &askedError{a.Error, errorOf(a.Kind)}
		case a.Progress != nil:
			var p Progress
			if progress != nil && json.Unmarshal(a.Progress, &p) == nil {
				progress(p)
			}
		default:
			return json.Unmarshal(a.Result, result)
		}
	}
}

// lost is the error of a server that answers no more.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("the server went away, or refuses this user: %w", err)
}

// askedError is an error that the server met when it was asked.
type askedError struct {
	text string
	is   error
}

func (e *askedError) Error() string { return e.text }
func (e *askedError) Unwrap() error { return e.is }

// errorKinds names the errors that whoever asks must be able to tell apart. The
// first that an error is names it.
var errorKinds = []struct {
	kind string
	err  error
}{
	{"request", errRequest},
	{"cancelled", context.Canceled},
	{"noSession", ErrNoSession},
	{"exists", ErrExists},
	{"busy", ErrBusy},
	{"offline", ErrOffline},
	{"noRoom", ErrNoRoom},
	{"migrated", ErrMigrated},
	{"closed", ErrClosed},
	{"target", redirect.ErrTarget},
	{"layerBusy", redirect.ErrBusy},
	{"layerDamaged", redirect.ErrDamaged},
	{"notFound", repo.ErrNotFound},
	{"name", repo.ErrName},
	{"time", repo.ErrTime},
	{"needKey", repo.ErrNeedKey},
	{"wrongKey", repo.ErrWrongKey},
	{"machine", repo.ErrMachine},
	{"noSigner", repo.ErrNoSigner},
	{"readOnly", repo.ErrReadOnly},
	{"noSpace", repo.ErrNoSpace},
	{"full", syscall.ENOSPC},
	{"treeFull", fs.ErrNoSpace},
	{"expired", repo.ErrExpired},
}

const (
	kindAmbiguous = "ambiguous"
	kindOwned     = "owned"
)

func kindOf(err error) string {
	var ambiguous *repo.AmbiguousError
	var busy *repo.BusyError
	switch {
	case errors.As(err, &ambiguous):
		return kindAmbiguous
	case errors.As(err, &busy):
		return kindOwned
	}
	for _, k := range errorKinds {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	return ""
}

func errorOf(kind string) error {
	switch kind {
	case kindAmbiguous:
		return new(repo.AmbiguousError)
	case kindOwned:
		return new(repo.BusyError)
	}
	for _, k := range errorKinds {
		if k.kind == kind {
			return k.err
		}
	}
	return nil
}
