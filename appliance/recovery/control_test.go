package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

// controlled is a manager that answers at its socket.
func controlled(t *testing.T) (*world, *Manager, *Client) {
	w := newWorld(t, onDisk(t))
	m := w.opened(t)
	state := w.state.(*vfs.Dir)
	l, err := Listen(state)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- m.Control(ctx, l, Server{PID: os.Getpid(), Export: "/datastore", Allow: []string{"192.0.2.0/24"}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w, m, &Client{Dial: func(ctx context.Context) (net.Conn, error) { return Dial(ctx, state) }}
}

// TestControl does every verb through the socket.
func TestControl(t *testing.T) {
	w, m, c := controlled(t)
	ctx := t.Context()
	if s, err := c.Status(ctx); err != nil || s.Export != "/datastore" || s.PID != os.Getpid() {
		t.Errorf("%+v, %v", s, err)
	}
	s, err := c.Publish(ctx, string(w.point), PublishOptions{Name: "one", NoSwapRoom: true})
	if err != nil || s.Name != "one" {
		t.Fatalf("%+v, %v", s, err)
	}
	list, err := c.List(ctx)
	if err != nil || !reflect.DeepEqual(list, jsonTrip(t, m.List())) {
		t.Errorf("%+v, %v", list, err)
	}
	write(t, m, "one", "root-flat.vmdk", []byte("x"), 0)
	k, err := c.Keep(ctx, "one", KeepOptions{As: "kept"}, nil)
	if err != nil || k.Machine != "kept" || k.Parent != w.point || len(k.Disks) != 2 {
		t.Errorf("%+v, %v", k, err)
	}
	to := map[string]string{"root.vmdk": filepath.Join(t.TempDir(), "a"), "data": filepath.Join(t.TempDir(), "b")}
	reports := 0
	if s, err = c.Migrate(ctx, "one", to, func(Progress) { reports++ }); err != nil || !s.Disks[1].Migrated || reports == 0 {
		t.Errorf("%+v, %v, %d reports", s, err, reports)
	}
	if err := c.Stop(ctx, "one"); err != nil {
		t.Error(err)
	}
	if err := c.Stop(ctx, "one"); !errors.Is(err, ErrNoSession) {
		t.Errorf("stopped again: %v", err)
	}
	if _, err := c.Publish(ctx, "nobody@latest", PublishOptions{}); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("no such point: %v", err)
	}
	if _, err := c.Publish(ctx, string(w.point), PublishOptions{Name: "a/b"}); !errors.Is(err, repo.ErrName) {
		t.Errorf("a bad name: %v", err)
	}
	if err := c.ask(ctx, "sing", nil, nil, nil); !errors.Is(err, errRequest) {
		t.Errorf("an unknown verb: %v", err)
	}
	if err := c.ask(ctx, "stop", map[string]string{"sesion": "x"}, nil, nil); !errors.Is(err, errRequest) {
		t.Errorf("an unknown field: %v", err)
	}
	left(t, w)
}

func jsonTrip(t *testing.T, list []Session) (again []Session) {
	p, err := json.Marshal(list)
	if err == nil {
		err = json.Unmarshal(p, &again)
	}
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// TestControlGivenUp: whoever goes away gives up what it asked for.
func TestControlGivenUp(t *testing.T) {
	w, m, c := controlled(t)
	publish(t, m, w, PublishOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	to := map[string]string{"root.vmdk": filepath.Join(t.TempDir(), "a")}
	_, err := c.Migrate(ctx, "web1", to, func(Progress) { cancel() })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// The server has noticed when the session can be used again.
	if err := m.Stop(t.Context(), "web1"); err != nil {
		t.Error(err)
	}
	left(t, w)
}

func TestControlSocket(t *testing.T) {
	w, _, c := controlled(t)
	info, err := os.Stat(w.state.(*vfs.Dir).Path() + "/" + socketName)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	conn, err := c.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := checkPeer(conn); err != nil {
		t.Errorf("our own process: %v", err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if checkPeer(a) == nil {
		t.Error("who tells nothing of itself is let in")
	}
	if _, err := fmt.Fprintf(conn, "%s\n", strings.Repeat("x", maxRequestBytes+1)); err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
			t.Errorf("a request without end: %d, %v", n, err)
		}
	}
}

// TestErrorKinds: what the server meets is the same error for who asked.
func TestErrorKinds(t *testing.T) {
	for _, k := range errorKinds {
		err := fmt.Errorf("verb: %w", errors.Join(errors.New("other"), fmt.Errorf("deep: %w", k.err)))
		back := &askedError{err.Error(), errorOf(kindOf(err))}
		if !errors.Is(back, k.err) || back.Error() != err.Error() {
			t.Errorf("%s: %v", k.kind, back)
		}
	}
	var busy *repo.BusyError
	if !errors.As(&askedError{"", errorOf(kindOf(&repo.BusyError{}))}, &busy) {
		t.Error("an owner that is busy")
	}
	var many *repo.AmbiguousError
	if !errors.As(&askedError{"", errorOf(kindOf(&repo.AmbiguousError{}))}, &many) {
		t.Error("more than one point")
	}
	if errorOf(kindOf(errors.New("anything"))) != nil {
		t.Error("an error of no kind")
	}
}

// FuzzControl takes whatever comes in at the socket, but for what would have an
// effect.
func FuzzControl(f *testing.F) {
	f.Add([]byte(`{"verb":"list"}`))
	f.Add([]byte(`{"verb":"status"}`))
	f.Add([]byte(`{"verb":"keep","args":{"session":"x","as":"y","waitMs":1}}`))
	f.Add([]byte(`{"verb":"publish","args":{"point":"web1@latest","name":"\u0000"}}`))
	f.Add([]byte(`{"verb":"migrate","args":{"session":"x","to":{"a":"b"}}}`))
	f.Add([]byte(`{"verb":"stop","args":[1,2`))
	w := newWorld(f, inMemory)
	m := w.opened(f)
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.Contains(line, []byte("lat")) && bytes.Contains(line, []byte("publish")) {
			return
		}
		res, err := m.perform(t.Context(), line, Server{}, func(Progress) {})
		if err == nil {
			if _, err := json.Marshal(res); err != nil {
				t.Error(err)
			}
		}
	})
}
