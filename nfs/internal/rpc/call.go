package rpc

import "holdfast/nfs/internal/xdr"

// What a message is and how a call fares. Source: RFC 5531 section 9.
const (
	msgCall  = 0
	msgReply = 1

	msgAccepted = 0
	msgDenied   = 1

	rpcMismatch = 0
	authError   = 1

	version = 2 // of RPC
)

// AcceptStat is what becomes of a call that was accepted.
type AcceptStat uint32

const (
	Success      AcceptStat = 0
	ProgUnavail  AcceptStat = 1
	ProgMismatch AcceptStat = 2
	ProcUnavail  AcceptStat = 3
	GarbageArgs  AcceptStat = 4
	SystemErr    AcceptStat = 5
)

// AuthStat is why credentials are no good.
type AuthStat uint32

const (
	AuthOK           AuthStat = 0
	AuthBadCred      AuthStat = 1
	AuthRejectedCred AuthStat = 2
	AuthBadVerf      AuthStat = 3
	AuthTooWeak      AuthStat = 5
)

// Flavours of credentials.
const (
	AuthNone  = 0
	AuthSys   = 1
	authShort = 2
)

const (
	maxAuthBytes    = 400
	maxMachineBytes = 255
	maxGroups       = 16
)

// Cred says who calls. Nobody has proved it.
type Cred struct {
	Flavor uint32
	UID    uint32 // of AuthSys, as are the groups
	GID    uint32
	groups [maxGroups]uint32
	n      int
}

// Groups are those beside GID.
func (c *Cred) Groups() []uint32 { return c.groups[:c.n] }

// Call is the header of a call.
type Call struct {
	XID  uint32
	Prog uint32
	Vers uint32
	Proc uint32
	Cred Cred
}

// Fault is why a header gets no further. It encodes the reply that says so.
type Fault struct {
	mismatch bool       // of the RPC version
	auth     AuthStat   // else of the credentials
	stat     AcceptStat // else of what follows
}

// Parse decodes the header of a call into c and returns a Reader of the
// arguments. If what comes isn't a call at all, ok is false and there is
// nobody to answer. A fault other than nil is to be answered.
func Parse(b []byte, c *Call) (args xdr.Reader, fault *Fault, ok bool) {
	r := xdr.NewReader(b)
	c.XID = r.Uint32()
	if r.Uint32() != msgCall || r.Bad() {
		return r, nil, false
	}
	vers := r.Uint32()
	if !r.Bad() && vers != version {
		return r, &Fault{mismatch: true}, true
	}
	c.Prog, c.Vers, c.Proc = r.Uint32(), r.Uint32(), r.Uint32()
	if r.Bad() {
		return r, &Fault{stat: GarbageArgs}, true
	}
	flavor, body := r.Uint32(), r.Opaque(maxAuthBytes)
	if r.Bad() {
		return r, &Fault{auth: AuthBadCred}, true
	}
	_, _ = r.Uint32(), r.Opaque(maxAuthBytes) // AUTH_SYS has no verifier worth a look
	if r.Bad() {
		return r, &Fault{auth: AuthBadVerf}, true
	}
	if s := c.Cred.parse(flavor, body); s != AuthOK {
		return r, &Fault{auth: s}, true
	}
	return r, nil, true
}

// parse decodes credentials. Source: RFC 5531 section 8.2 and appendix A.
func (c *Cred) parse(flavor uint32, body []byte) AuthStat {
	c.Flavor, c.UID, c.GID, c.n = flavor, 0, 0, 0
	switch flavor {
	case AuthNone:
		return AuthOK
	case authShort:
		return AuthRejectedCred
	case AuthSys:
	default:
		return AuthBadCred
	}
	r := xdr.NewReader(body)
	r.Uint32() // stamp
	r.Opaque(maxMachineBytes)
	c.UID, c.GID = r.Uint32(), r.Uint32()
	n := r.Uint32()
	if n > maxGroups {
		return AuthBadCred
	}
	for i := range int(n) {
		c.groups[i] = r.Uint32()
	}
	c.n = int(n)
	if !r.Done() {
		return AuthBadCred
	}
	return AuthOK
}

// markBytes is the length of a record mark, resultsAt of all that comes before
// the results of a successful call.
const (
	markBytes = 4
	resultsAt = markBytes + 24
)

// Begin appends the beginning of a reply, room for the record mark included,
// and returns where it begins. End completes it.
func Begin(w *xdr.Writer, xid uint32, stat AcceptStat) (start int) {
	start = len(w.B)
	w.Uint32(0)
	w.Uint32(xid)
	w.Uint32(msgReply)
	w.Uint32(msgAccepted)
	w.Uint32(AuthNone)
	w.Uint32(0)
	w.Uint32(uint32(stat))
	return start
}

// Results returns what a reply that begins at start says, without its header.
func Results(w *xdr.Writer, start int) []byte { return w.B[start+resultsAt:] }

// Rewind takes back the results of a reply that begins at start.
func Rewind(w *xdr.Writer, start int) { w.B = w.B[:start+resultsAt] }

// End completes the reply that begins at start and is the last in w; more is how
// many bytes will be sent behind those in w.
func End(w *xdr.Writer, start, more int) {
	w.SetUint32(start, lastFragment|uint32(len(w.B)-start-markBytes+more))
}

// Refuse appends a whole reply that says why a call was accepted and failed.
// For ProgMismatch, low and high are the versions that there are.
func Refuse(w *xdr.Writer, xid uint32, stat AcceptStat, low, high uint32) {
	start := Begin(w, xid, stat)
	if stat == ProgMismatch {
		w.Uint32(low)
		w.Uint32(high)
	}
	End(w, start, 0)
}

// Reply appends the whole reply to a call with this fault.
func (f *Fault) Reply(w *xdr.Writer, xid uint32) {
	if !f.mismatch && f.auth == AuthOK {
		Refuse(w, xid, f.stat, 0, 0)
		return
	}
	start := len(w.B)
	w.Uint32(0)
	w.Uint32(xid)
	w.Uint32(msgReply)
	w.Uint32(msgDenied)
	if f.mismatch {
		w.Uint32(rpcMismatch)
		w.Uint32(version)
		w.Uint32(version)
	} else {
		w.Uint32(authError)
		w.Uint32(uint32(f.auth))
	}
	End(w, start, 0)
}

// Datagram returns a reply without its record mark, as datagrams have it.
func Datagram(record []byte) []byte { return record[markBytes:] }
