package repo

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"holdfast/repo/vfs"
)

// The owner listens on a socket in the repository's directory. A request is
// one line of JSON, the answer another:
//
//	{"verb":"status"}  →  {"holder":{…},"runs":["web1"]}
//	anything else      →  {"error":"unknown verb …"}
//
// It is for processes on the same host that find the repository owned.

// OwnerStatus is what the owner says of itself.
type OwnerStatus struct {
	Holder Holder   `json:"holder"`
	Runs   []string `json:"runs"` // machines with a run under way
}

type ownerRequest struct {
	Verb string `json:"verb"`
}

type ownerAnswer struct {
	*OwnerStatus
	Error string `json:"error,omitempty"`
}

const (
	maxRequestBytes = 4096
	socketTimeout   = 5 * time.Second
	acceptPause     = 100 * time.Millisecond
)

// ownerSocket is a listening socket and those it talks to.
type ownerSocket struct {
	fsys  vfs.FS
	l     net.Listener
	o     *Owner
	conns sync.WaitGroup
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
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		o.log.Warn("other processes can't ask what this one is doing", "err", err)
		return nil
	}
	s := &ownerSocket{fsys: fsys, l: l, o: o}
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
	defer c.Close() //nolint:errcheck // nothing was promised yet
	_ = c.SetDeadline(time.Now().Add(socketTimeout))
	line, err := bufio.NewReaderSize(c, maxRequestBytes).ReadSlice('\n')
	if err != nil {
		return
	}
	var req ownerRequest
	var ans ownerAnswer
	switch err := json.Unmarshal(line, &req); {
	case err != nil:
		ans.Error = "not a request"
	case req.Verb == "status":
		ans.OwnerStatus = s.o.status()
	default:
		ans.Error = fmt.Sprintf("unknown verb %.40q", req.Verb)
	}
	_ = json.NewEncoder(c).Encode(ans) // the other side sees a short answer
}

func (s *ownerSocket) close() error {
	err := s.l.Close() // removes the socket
	s.conns.Wait()
	return err
}

func (o *Owner) status() *OwnerStatus {
	st := &OwnerStatus{Holder: readHolder(o.fsys)}
	o.mu.Lock()
	defer o.mu.Unlock()
	st.Runs = slices.Sorted(maps.Values(o.busy))
	return st
}

// AskOwner asks the owner of the repository in a directory what it is doing.
// ErrNotFound when there is none.
func AskOwner(fsys vfs.FS) (OwnerStatus, error) {
	d, ok := fsys.(fdHolder)
	if !ok {
		return OwnerStatus{}, fmt.Errorf("owner: %w", ErrNotFound)
	}
	c, err := net.DialTimeout("unix", socketPath(d), socketTimeout)
	if err != nil {
		return OwnerStatus{}, fmt.Errorf("owner: %w: %w", ErrNotFound, err)
	}
	defer c.Close() //nolint:errcheck // all we wanted has been read
	_ = c.SetDeadline(time.Now().Add(socketTimeout))
	if err := json.NewEncoder(c).Encode(ownerRequest{Verb: "status"}); err != nil {
		return OwnerStatus{}, fmt.Errorf("ask owner: %w", err)
	}
	ans := ownerAnswer{OwnerStatus: new(OwnerStatus)}
	if err := json.NewDecoder(c).Decode(&ans); err != nil {
		return OwnerStatus{}, fmt.Errorf("ask owner: %w", err)
	}
	if ans.Error != "" {
		return OwnerStatus{}, fmt.Errorf("ask owner: %s", ans.Error)
	}
	return *ans.OwnerStatus, nil
}
