package nfstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Host plays how a hypervisor locks a file: with a file beside it whose name
// holds the fileid, made by one host alone and written again every ten seconds.
// Who finds one that has not changed for 35 s takes it away.
type Host struct {
	C    *Client
	Name string
	Dir  Handle
	How  uint32           // Guarded or Exclusive, which is how locks are made
	Now  func() time.Time // the host's clock

	seen map[string]sighting
}

// sighting is when a lock of another host was first seen as it is.
type sighting struct {
	content string
	since   time.Time
}

// Lock is a lock held.
type Lock struct {
	host   *Host
	name   string
	handle Handle
	beat   uint64
}

// StaleAfter is how long a lock has to be unchanged to be broken.
const StaleAfter = 35 * time.Second

var (
	// ErrLocked is what a host gets that finds another's lock.
	ErrLocked = errors.New("nfstest: locked by another host")

	// ErrLost is what a host gets whose own lock is not its own any more.
	ErrLost = errors.New("nfstest: lock lost")
)

// LockName is the name of the lock of a file: the eight bytes of its fileid, the
// lowest first, in hex.
func LockName(fileid uint64) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], fileid)
	return fmt.Sprintf(".lck-%x", b)
}

// Lock tries to lock a file.
func (h *Host) Lock(file Handle) (*Lock, error) {
	a, err := h.C.GetAttr(file)
	if err != nil {
		return nil, err
	}
	name := LockName(a.FileID)
	l, err := h.create(name)
	if !errors.Is(err, Exist) {
		return l, err
	}
	if err := h.breakStale(name); err != nil {
		return nil, err
	}
	if l, err = h.create(name); errors.Is(err, Exist) {
		err = ErrLocked // another was faster
	}
	return l, err
}

func (h *Host) create(name string) (*Lock, error) {
	how := []any{h.Dir, name, h.How, NoAttr}
	if h.How == Exclusive {
		var verifier [8]byte
		copy(verifier[:], h.Name)
		how[3] = Fixed(verifier[:])
	}
	d, err := h.C.NFS(Create, how...)
	if err != nil {
		return nil, err
	}
	handle, _, _ := d.Made()
	l := &Lock{host: h, name: name, handle: handle}
	return l, l.Beat()
}

// breakStale takes away another's lock if it has been the same for long enough.
// It is moved first: of two who do that at once one finds it gone.
func (h *Host) breakStale(name string) error {
	handle, _, err := h.C.Lookup(h.Dir, name)
	if errors.Is(err, NoEnt) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := h.C.Read(handle, 0, 84)
	if err != nil {
		return err
	}
	now := h.Now()
	if s, ok := h.seen[name]; !ok || s.content != string(r.Data) {
		if h.seen == nil {
			h.seen = map[string]sighting{}
		}
		h.seen[name] = sighting{string(r.Data), now}
		return ErrLocked
	}
	if now.Sub(h.seen[name].since) < StaleAfter {
		return ErrLocked
	}
	delete(h.seen, name)
	aside := name + "-" + h.Name
	if err := h.C.Rename(h.Dir, name, h.Dir, aside); err != nil {
		return ErrLocked
	}
	return h.C.Remove(h.Dir, aside)
}

// Beat writes the lock again. ErrLost if it is gone, or another's.
func (l *Lock) Beat() error {
	h := l.host
	at, _, err := h.C.Lookup(h.Dir, l.name)
	if errors.Is(err, NoEnt) || (err == nil && string(at) != string(l.handle)) {
		return ErrLost
	}
	if err != nil {
		return err
	}
	l.beat++
	content := make([]byte, 84)
	binary.LittleEndian.PutUint64(content, l.beat)
	copy(content[8:], h.Name)
	_, err = h.C.Write(l.handle, 0, content, FileSync)
	if errors.Is(err, Stale) {
		return ErrLost
	}
	return err
}

// Unlock takes the lock away.
func (l *Lock) Unlock() error {
	if err := l.Beat(); err != nil {
		return err
	}
	return l.host.C.Remove(l.host.Dir, l.name)
}
