package nfs

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"sync"
)

// A client that hears nothing asks again, on a new connection, with the same
// transaction id. replies is the duplicate-request cache: what changes
// something is done once, and whoever asks the same meanwhile or later gets the
// same reply. A request is told by its client's address (not the port), its
// transaction id, its procedure and the checksum of its arguments.
type replies struct {
	mu      sync.Mutex // guards all below and every entry
	entries map[replyKey]*entry
	clients map[netip.Addr]*history
	clock   uint64 // counts requests
	hits    uint64
}

type replyKey struct {
	peer netip.Addr
	xid  uint32
	proc uint32
	sum  uint32
	len  uint32
}

// entry is a request that is under way or was answered.
type entry struct {
	key     replyKey
	waiters []*conn // while it is under way
	reply   []byte  // the whole record, once it is not
}

// history is what is remembered of a client's requests, oldest first. Writes
// come so often that they have one of their own.
type history struct {
	names, writes []*entry
	used          uint64 // the clock when it was last
}

const (
	perClient  = 512 // answered requests remembered, of either kind
	maxClients = 128
	maxWaiters = 8
)

func newReplies() *replies {
	return &replies{entries: map[replyKey]*entry{}, clients: map[netip.Addr]*history{}}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func keyOf(rq *request) replyKey {
	args := rq.args.Rest()
	// Who asks counts as an argument: another user's answer is not for him.
	var who [12]byte
	binary.BigEndian.PutUint32(who[:], rq.call.Cred.Flavor)
	binary.BigEndian.PutUint32(who[4:], rq.call.Cred.UID)
	binary.BigEndian.PutUint32(who[8:], rq.call.Cred.GID)
	sum := crc32.Update(crc32.Checksum(args, castagnoli), castagnoli, who[:])
	return replyKey{rq.peer, rq.call.XID, rq.call.Proc, sum, uint32(len(args))}
}

// begin gives rq an entry if it is to be done. Otherwise it has been before,
// and is to be answered with what is returned, or it is under way, and its
// connection will be answered with the others that wait for it.
func (r *replies) begin(rq *request) (reply []byte) {
	key := keyOf(rq)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[key]
	switch {
	case e == nil:
		rq.entry = &entry{key: key, waiters: []*conn{rq.conn}}
		r.entries[key] = rq.entry
		return nil
	case e.reply != nil:
		r.hits++
		return e.reply
	}
	r.hits++
	for _, c := range e.waiters {
		if c == rq.conn {
			return nil
		}
	}
	if len(e.waiters) >= maxWaiters {
		e.waiters = append(e.waiters[:0], e.waiters[1:]...) // the oldest is surely gone
	}
	e.waiters = append(e.waiters, rq.conn)
	return nil
}

// drop forgets a request that nobody has begun and nobody waits for any more.
func (r *replies) drop(e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range e.waiters {
		if !c.gone.Load() {
			return false
		}
	}
	delete(r.entries, e.key)
	return true
}

// end remembers the reply of a request and returns who waits for it. Without a
// reply the request is forgotten: it failed in a way that asking again may mend.
func (r *replies) end(e *entry, reply []byte, keep bool) []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiters := e.waiters
	e.waiters = nil
	if !keep {
		delete(r.entries, e.key)
		return waiters
	}
	e.reply = append(make([]byte, 0, len(reply)), reply...)
	r.remember(e)
	return waiters
}

func (r *replies) remember(e *entry) {
	h := r.clients[e.key.peer]
	if h == nil {
		r.makeRoom()
		h = &history{}
		r.clients[e.key.peer] = h
	}
	r.clock++
	h.used = r.clock
	list := &h.names
	if e.key.proc == procWrite || e.key.proc == procCommit {
		list = &h.writes
	}
	if *list = append(*list, e); len(*list) > perClient {
		r.forget((*list)[0])
		(*list)[0] = nil
		*list = (*list)[1:]
	}
}

func (r *replies) forget(e *entry) {
	if r.entries[e.key] == e {
		delete(r.entries, e.key)
	}
}

// makeRoom forgets the client that has been quiet longest.
func (r *replies) makeRoom() {
	if len(r.clients) < maxClients {
		return
	}
	var oldest netip.Addr
	used := r.clock + 1
	for peer, h := range r.clients {
		if h.used < used {
			oldest, used = peer, h.used
		}
	}
	h := r.clients[oldest]
	for _, e := range append(h.names, h.writes...) {
		r.forget(e)
	}
	delete(r.clients, oldest)
}

// A note, journalled with a change of names, is the request's key and its reply:
//
//	0   version, 1
//	1   client address, 16 bytes, IPv4 mapped
//	17  transaction id, procedure, checksum and length of the arguments: 4 bytes each, big-endian
//	33  the reply's record
const (
	noteVersion = 1
	noteHeader  = 33
)

func appendNote(b []byte, k *replyKey, reply []byte) []byte {
	b = append(b, noteVersion)
	peer := k.peer.As16()
	b = append(b, peer[:]...)
	for _, v := range []uint32{k.xid, k.proc, k.sum, k.len} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, reply...)
}

// recall remembers a note of a server before this one. What it can't read it
// passes over: another version wrote it, and the client merely does worse.
func (r *replies) recall(note []byte) {
	if len(note) <= noteHeader || note[0] != noteVersion {
		return
	}
	word := func(at int) uint32 { return binary.BigEndian.Uint32(note[at:]) }
	e := &entry{key: replyKey{netip.AddrFrom16([16]byte(note[1:17])).Unmap(), word(17), word(21), word(25), word(29)}}
	e.reply = append(e.reply, note[noteHeader:]...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[e.key] == nil {
		r.entries[e.key] = e
		r.remember(e)
	}
}
