package repo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"holdfast/repo/vfs"
)

// The owner listens on a socket in the repository's directory, which its user
// alone may connect to. A request is one line of JSON; the answers are lines
// too, the last of which has a result or an error:
//
//	{"verb":"status"}              →  {"taken":true} {"result":{"holder":{…},"runs":["web1"],"runIds":["…"]}}
//	{"verb":"sweep"}               →  {"taken":true} {"progress":{…}} … {"result":{…}}
//	{"verb":"expire","args":[…]}   →  {"taken":true} {"error":"point … pinned by …","kind":"pinned"}
//
// The first line comes at once: an owner that is stopped does not send it, and
// when it goes on it drops what nobody waits for any more. Whoever closes the connection cancels the verb. It is for processes on the
// same host that find the repository owned.

// OwnerStatus is what the owner says of itself.
type OwnerStatus struct {
	Holder Holder   `json:"holder"`
	Runs   []string `json:"runs"`   // machines with a run under way
	RunIDs []RunID  `json:"runIds"` // of these runs
}

type ownerRequest struct {
	Verb string          `json:"verb"`
	Args json.RawMessage `json:"args,omitempty"`
}

type ownerAnswer struct {
	Taken    bool            `json:"taken,omitempty"`
	Progress json.RawMessage `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    string          `json:"error,omitempty"`
	Kind     string          `json:"kind,omitempty"`
	Detail   json.RawMessage `json:"detail,omitempty"`
}

const (
	maxRequestBytes = 4 << 20 // thousands of points to expire
	maxAnswerBytes  = 64 << 20
	socketTimeout   = 5 * time.Second
	acceptPause     = 100 * time.Millisecond
)

// ownerSocket is a listening socket and those it talks to.
type ownerSocket struct {
	l     net.Listener
	o     *Owner
	conns sync.WaitGroup

	mu      sync.Mutex // guards closing
	closing bool
}

// fdHolder is what a real directory offers and a simulated one doesn't. Binding
// through the descriptor has no limit on the length of the directory's path.
type fdHolder interface{ Fd() int }

func socketPath(d fdHolder) string { return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), sockName) }

// listenOwner starts to listen, if the file system can have sockets. A socket
// that is left over belongs to a dead owner, since we have the lock. An owner
// that can't be asked, for lack of an inode on a full volume, is one all the
// same: nil then, and a warning.
func listenOwner(fsys vfs.FS, o *Owner) *ownerSocket {
	d, ok := fsys.(fdHolder)
	if !ok {
		return nil
	}
	path := socketPath(d)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	var l net.Listener
	if err == nil {
		l, err = (&net.ListenConfig{Control: ownSocket}).Listen(context.Background(), "unix", path)
	}
	if err != nil {
		o.log.Warn("other processes can't ask what this one is doing", "err", err)
		return nil
	}
	s := &ownerSocket{l: l, o: o}
	s.conns.Go(s.accept)
	return s
}

func (s *ownerSocket) accept() {
	for {
		c, err := s.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause) // out of descriptors, say
			continue
		}
		s.conns.Go(func() { s.serve(c) })
	}
}

// serve answers one request. Whoever asks badly or slowly gets nothing.
func (s *ownerSocket) serve(c net.Conn) {
	var watching sync.WaitGroup
	defer watching.Wait()
	defer c.Close() //nolint:errcheck // the other side sees a short answer
	_ = c.SetReadDeadline(time.Now().Add(socketTimeout))
	in := bufio.NewReader(c)
	line, err := readLine(in, maxRequestBytes)
	if err != nil {
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watching.Go(func() { // until the connection ends, on either side
		_, _ = in.ReadByte()
		cancel()
	})
	var writing sync.Mutex // verbs may report from several goroutines
	send := func(a ownerAnswer) bool {
		writing.Lock()
		defer writing.Unlock()
		_ = c.SetWriteDeadline(time.Now().Add(socketTimeout))
		err := json.NewEncoder(c).Encode(a)
		if err != nil {
			cancel() // nobody listens any more
		}
		return err == nil
	}
	var req ownerRequest
	if err := json.Unmarshal(line, &req); err != nil {
		send(ownerAnswer{Error: "not a request", Kind: kindRequest})
		return
	}
	s.mu.Lock()
	closing := s.closing
	s.mu.Unlock()
	if closing {
		send(ownerAnswer{Error: "the owner is about to end", Kind: kindClosing})
		return
	}
	if !send(ownerAnswer{Taken: true}) {
		return
	}
	res, err := s.o.perform(ctx, req.Verb, req.Args, func(p json.RawMessage) { send(ownerAnswer{Progress: p}) })
	if err != nil {
		send(answerOf(err))
		return
	}
	send(ownerAnswer{Result: res})
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

// close lets the verbs under way end, and begins no other.
func (s *ownerSocket) close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	err := s.l.Close() // removes the socket
	s.conns.Wait()
	return err
}

func (o *Owner) status() OwnerStatus {
	st := OwnerStatus{Holder: readHolder(o.fsys)}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range o.busy {
		st.Runs, st.RunIDs = append(st.Runs, b.machine), append(st.RunIDs, b.id)
	}
	slices.Sort(st.Runs)
	slices.Sort(st.RunIDs)
	return st
}

// AskOwner asks the owner of the repository in a directory what it is doing.
// ErrNotFound when there is none.
func AskOwner(fsys vfs.FS) (OwnerStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), socketTimeout)
	defer cancel()
	var st OwnerStatus
	err := askOwner(ctx, fsys, "status", nil, &st, nil)
	if err != nil && !errors.Is(err, errNoOwner) {
		err = fmt.Errorf("ask owner: %w", err)
	}
	return st, err
}

// errNoOwner says that there is no owner who could be asked, or that it is about
// to end.
var errNoOwner = fmt.Errorf("owner: %w", ErrNotFound)

// askOwner lets the owner perform a verb. errNoOwner when there is none.
func askOwner(ctx context.Context, fsys vfs.FS, verb string, args, result any, progress func(json.RawMessage)) error {
	d, ok := fsys.(fdHolder)
	if !ok {
		return errNoOwner
	}
	var dial net.Dialer
	c, err := dial.DialContext(ctx, "unix", socketPath(d))
	if err != nil {
		return fmt.Errorf("%w: %w", errNoOwner, err)
	}
	defer c.Close()                                          //nolint:errcheck // all we wanted has been read
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // which cancels the verb
	req := ownerRequest{Verb: verb}
	if req.Args, err = json.Marshal(args); err != nil {
		return err
	}
	_ = c.SetWriteDeadline(time.Now().Add(socketTimeout))
	if err := json.NewEncoder(c).Encode(req); err != nil {
		return noOwner(ctx, err)
	}
	in := bufio.NewReader(c)
	_ = c.SetReadDeadline(time.Now().Add(socketTimeout))
	taken := false
	for {
		line, err := readLine(in, maxAnswerBytes)
		if err != nil && !taken {
			return noOwner(ctx, err)
		}
		if err != nil {
			return lostOwner(ctx, err)
		}
		var ans ownerAnswer
		if err := json.Unmarshal(line, &ans); err != nil {
			return fmt.Errorf("answer of the owner: %w", err)
		}
		switch {
		case ans.Taken:
			taken = true
			_ = c.SetReadDeadline(time.Time{})
		case ans.Kind == kindClosing:
			return errNoOwner
		case ans.Error != "":
			return ans.err()
		case ans.Progress != nil:
			if progress != nil {
				progress(ans.Progress)
			}
		default:
			return json.Unmarshal(ans.Result, result)
		}
	}
}

// noOwner is the error of an owner that has not taken a request, and so has not
// begun with it: one that ended meanwhile, or is stopped.
func noOwner(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: it does not answer: %w", errNoOwner, err)
}

// lostOwner is the error of an owner that answers no more.
func lostOwner(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("the owner went away before it had answered: %w", err)
}
