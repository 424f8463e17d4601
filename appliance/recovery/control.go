package recovery

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"holdfast/repo"
)

// Whoever serves sessions listens on a socket in its state directory, which its
// user alone may connect to, and root. A request is one line of JSON; the answers
// are lines too, the last of which has a result or an error:
//
//	{"verb":"list"}                                    →  {"result":[…]}
//	{"verb":"keep","args":{"session":"web1"}}          →  {"progress":{…}} … {"result":{…}}
//	{"verb":"stop","args":{"session":"web2"}}          →  {"error":"…","kind":"noSession"}
//
// Whoever closes the connection gives up what is under way.

// Server says how what is published is reached.
type Server struct {
	PID     int      `json:"pid"`
	Host    string   `json:"host"`              // to mount from, as far as that is known
	Listen  []string `json:"listen"`            // address and port of NFS and MOUNT
	Port    int      `json:"port"`              // of them
	Portmap string   `json:"portmap"`           // own, registered or none
	Export  string   `json:"export"`            // path of the datastore
	Content string   `json:"content,omitempty"` // path of the backups as files
	Allow   []string `json:"allow"`             // networks
}

type keepArgs struct {
	Session string `json:"session"`
	As      string `json:"as,omitempty"`
	Same    bool   `json:"same,omitempty"`
	WaitMS  int64  `json:"waitMs,omitempty"`
}

type publishArgs struct {
	Point string `json:"point"`
	PublishOptions
}

type sessionArgs struct {
	Session string `json:"session"`
}

type migrateArgs struct {
	Session string            `json:"session"`
	To      map[string]string `json:"to"`
}

// KeptRun is what a keep did.
type KeptRun struct {
	Kept
	Parent   repo.PointID `json:"parent"`
	Disks    []KeptDisk   `json:"disks"`
	Seconds  float64      `json:"seconds"`
	Warnings []string     `json:"warnings,omitempty"`
}

// KeptDisk is what was read and stored of a disk.
type KeptDisk struct {
	Name      string `json:"name"`
	Mode      string `json:"mode"` // as repo.ReadMode
	ReadBytes int64  `json:"readBytes"`
	NewBytes  int64  `json:"newBytes"`
}

func keptRun(run *repo.Run) KeptRun {
	k := KeptRun{
		Kept:   Kept{run.Point.ID, run.Point.Machine, run.Point.Time.UTC()},
		Parent: run.Point.Parent, Seconds: run.Duration.Seconds(), Warnings: run.Warnings, Disks: []KeptDisk{},
	}
	for _, d := range run.Disks {
		k.Disks = append(k.Disks, KeptDisk{d.Name, string(d.Mode), d.Counters.ReadBytes, d.Counters.NewBytes})
	}
	return k
}

// Progress says how far a keep or a migration is.
type Progress struct {
	Disk      string `json:"disk"`
	DoneBytes int64  `json:"doneBytes"`
	Total     int64  `json:"totalBytes"`
}

type controlRequest struct {
	Verb string          `json:"verb"`
	Args json.RawMessage `json:"args,omitempty"`
}

type controlAnswer struct {
	Progress json.RawMessage `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    string          `json:"error,omitempty"`
	Kind     string          `json:"kind,omitempty"`
}

const (
	maxRequestBytes = 1 << 20
	maxAnswerBytes  = 64 << 20
	controlTimeout  = 5 * time.Second
	acceptPause     = 100 * time.Millisecond
	reportEvery     = 200 * time.Millisecond
)

// Control answers the requests that come in over l until ctx ends, and returns
// when none is under way.
func (m *Manager) Control(ctx context.Context, l net.Listener, info Server) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(acceptPause): // out of descriptors, say
			}
			continue
		}
		conns.Go(func() { m.answer(ctx, c, info) })
	}
}

// answer serves one connection.
func (m *Manager) answer(ctx context.Context, c net.Conn, info Server) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer c.Close() //nolint:errcheck // the other side sees a short answer
	defer cancel()
	if err := checkPeer(c); err != nil {
		m.log.Warn("a request was refused", "err", err)
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(controlTimeout))
	in := bufio.NewReader(c)
	line, err := readLine(in, maxRequestBytes)
	if err != nil {
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	watching.Go(func() { // until the connection ends, on either side
		_, _ = in.ReadByte()
		cancel()
	})
	var writing sync.Mutex
	send := func(a controlAnswer) {
		writing.Lock()
		defer writing.Unlock()
		_ = c.SetWriteDeadline(time.Now().Add(controlTimeout))
		if json.NewEncoder(c).Encode(a) != nil {
			cancel()
		}
	}
	result, err := m.perform(ctx, line, info, func(p Progress) {
		if text, err := json.Marshal(p); err == nil {
			send(controlAnswer{Progress: text})
		}
	})
	var text []byte
	if err == nil {
		text, err = json.Marshal(result)
	}
	if err != nil {
		send(controlAnswer{Error: err.Error(), Kind: kindOf(err)})
		return
	}
	send(controlAnswer{Result: text})
}

// perform does what a request asks for.
func (m *Manager) perform(ctx context.Context, line []byte, info Server, progress func(Progress)) (any, error) {
	var req controlRequest
	if err := strictly(line, &req); err != nil {
		return nil, err
	}
	progress = paced(progress)
	switch req.Verb {
	case "status":
		return info, nil
	case "list":
		return m.List(), nil
	case "publish":
		var a publishArgs
		if err := strictly(req.Args, &a); err != nil {
			return nil, err
		}
		return m.Publish(ctx, a.Point, a.PublishOptions)
	case "stop":
		var a sessionArgs
		if err := strictly(req.Args, &a); err != nil {
			return nil, err
		}
		return struct{}{}, m.Stop(ctx, a.Session)
	case "keep":
		var a keepArgs
		if err := strictly(req.Args, &a); err != nil {
			return nil, err
		}
		run, err := m.Keep(ctx, a.Session, KeepOptions{
			As: a.As, Same: a.Same, Wait: time.Duration(a.WaitMS) * time.Millisecond,
			Progress: func(p repo.Progress) { progress(Progress{p.Disk, p.DoneBytes, p.Total}) },
		})
		if err != nil {
			return nil, err
		}
		return keptRun(run), nil
	case "migrate":
		var a migrateArgs
		if err := strictly(req.Args, &a); err != nil {
			return nil, err
		}
		return m.Migrate(ctx, a.Session, MigrateOptions{To: a.To, Progress: progress})
	}
	return nil, fmt.Errorf("%w: unknown verb %.40q", errRequest, req.Verb)
}

var errRequest = errors.New("bad request")

// strictly decodes what has to be understood whole.
func strictly(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", errRequest, err)
	}
	return nil
}

// paced passes a report on unless there was one a moment ago.
func paced(report func(Progress)) func(Progress) {
	var mu sync.Mutex
	var last time.Time
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= reportEvery {
			last = now
			report(p)
		}
	}
}

// readLine reads one line of at most limit bytes.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); len(line) > limit {
			return nil, bufio.ErrTooLong
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
