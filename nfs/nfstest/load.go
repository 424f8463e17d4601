package nfstest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// Load makes the same kind of request over and over.
type Load struct {
	Addr  string
	Cred  []byte // as in Client
	Proc  uint32 // GetAttr, Read, Write, Null; or Create, Lookup, Remove of Names
	File  []Handle
	From  int64 // where in each file, for Read and Write,
	Bytes int64 // and how many of its bytes

	Size   int    // of a Read or Write
	Stable uint32 // of a Write
	Random bool   // places instead of one after another
	Verify bool   // that what is read is stamped with Gen; writes always are
	Gen    uint32

	Conns    int // 0: 1
	InFlight int // of each connection, 0: 1
	Requests int // in all, 0: as many as there is time for
	Seed     uint64

	// For, if not 0, is after how long no more requests are begun.
	For time.Duration

	// Names is, for Create, Lookup and Remove in the directory File[0], the name of
	// request n.
	Names func(n int) string
}

// Result is what came of it.
type Result struct {
	Requests      int
	Bytes         int64
	Dur           time.Duration
	P50, P99, Max time.Duration
}

// PerSecond is the rate of requests.
func (r Result) PerSecond() float64 { return float64(r.Requests) / r.Dur.Seconds() }

// MiBPerSecond is the rate of bytes.
func (r Result) MiBPerSecond() float64 { return float64(r.Bytes) / (1 << 20) / r.Dur.Seconds() }

// Run makes the load. A status other than 0, or a byte that isn't as it should,
// ends it with an error.
func (l Load) Run(ctx context.Context) (Result, error) {
	if l.Requests == 0 && l.For == 0 {
		return Result{}, errors.New("nfstest: a load without an end")
	}
	conns := max(l.Conns, 1)
	results := make([]loadConn, conns)
	errs := make([]error, conns)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() { errs[i] = results[i].run(ctx, &l, i, l.Requests/conns) })
	}
	wg.Wait()
	res := Result{Dur: time.Since(began)}
	var times []time.Duration
	for i := range results {
		if errs[i] != nil {
			return res, errs[i]
		}
		res.Requests += len(results[i].times)
		res.Bytes += results[i].bytes
		times = append(times, results[i].times...)
	}
	slices.Sort(times)
	if n := len(times); n > 0 {
		res.P50, res.P99, res.Max = times[n/2], times[n*99/100], times[n-1]
	}
	return res, nil
}

// loadConn is one connection of a Load, one goroutine.
type loadConn struct {
	l     *Load
	out   []byte
	slots []slot
	rnd   *rand.Rand
	next  int64 // of the requests begun
	first int   // block of the first
	base  uint32
	shift int
	bytes int64
	times []time.Duration
	data  []byte
}

// slot is a request in flight: its number is the lowest bits of its transaction
// id. The others never come again, or the server would take one request for
// another repeated.
type slot struct {
	off   int64
	began time.Time
}

func (c *loadConn) run(ctx context.Context, l *Load, number, requests int) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", l.Addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	*c = loadConn{l: l, slots: make([]slot, max(l.InFlight, 1)), rnd: rand.New(rand.NewPCG(l.Seed, uint64(number))), data: make([]byte, l.Size+8)}
	c.base, c.shift = rand.Uint32(), bits.Len(uint(len(c.slots)-1))
	if l.Size > 0 {
		c.first = number * int(l.Bytes/int64(l.Size)) / max(l.Conns, 1)
	}
	end := time.Now().Add(l.For)
	more := func() bool {
		return (l.Requests == 0 || int(c.next) < requests) && (l.For == 0 || time.Now().Before(end))
	}
	waiting := 0
	for i := range c.slots {
		if more() {
			c.begin(i)
			waiting++
		}
	}
	r := bufio.NewReaderSize(nc, 256<<10)
	for waiting > 0 {
		if len(c.out) > 0 && (r.Buffered() == 0 || len(c.out) > 64<<10) {
			if _, err := nc.Write(c.out); err != nil {
				return err
			}
			c.out = c.out[:0]
		}
		i, err := c.reply(r)
		if err != nil {
			return err
		}
		c.times = append(c.times, time.Since(c.slots[i].began))
		waiting--
		if more() {
			c.begin(i)
			waiting++
		}
	}
	return nil
}

// begin encodes the next request of slot i.
func (c *loadConn) begin(i int) {
	l := c.l
	s := &c.slots[i]
	n := c.next
	c.next++
	file := Handle{}
	if len(l.File) > 0 {
		file = l.File[int(n)%len(l.File)]
	}
	if l.Size > 0 {
		blocks := l.Bytes / int64(l.Size)
		block := (int64(c.first) + n/int64(len(l.File))) % blocks
		if l.Random {
			block = c.rnd.Int64N(blocks)
		}
		s.off = l.From + block*int64(l.Size)
	}
	at := len(c.out)
	c.out = append(c.out, 0, 0, 0, 0)
	client := Client{Cred: l.Cred}
	c.out = append(c.out, client.Header((c.base+uint32(n))<<c.shift|uint32(i), NFS, 3, l.Proc)...)
	if l.Proc != Null {
		c.out = appendOpaque(c.out, file)
	}
	switch l.Proc {
	case Create:
		c.out = appendOpaque(c.out, []byte(l.Names(int(n))))
		c.out = append(c.out, Words(Guarded, NoAttr)...)
	case Lookup, Remove:
		c.out = appendOpaque(c.out, []byte(l.Names(int(n))))
	case Read:
		c.out = binary.BigEndian.AppendUint64(c.out, uint64(s.off))
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(l.Size))
	case Write:
		c.out = binary.BigEndian.AppendUint64(c.out, uint64(s.off))
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(l.Size))
		c.out = binary.BigEndian.AppendUint32(c.out, l.Stable)
		Stamp(c.data[:l.Size], s.off, l.Gen)
		c.out = appendOpaque(c.out, c.data[:l.Size])
		c.bytes += int64(l.Size)
	}
	binary.BigEndian.PutUint32(c.out[at:], 1<<31|uint32(len(c.out)-at-4))
	s.began = time.Now()
}

// reply reads a reply and says whose it is.
func (c *loadConn) reply(r *bufio.Reader) (int, error) {
	var head [4 + 24 + 4]byte
	short := 0
	if c.l.Proc == Null {
		short = 4
	}
	if _, err := io.ReadFull(r, head[:len(head)-short]); err != nil {
		return 0, err
	}
	word := func(at int) uint32 { return binary.BigEndian.Uint32(head[at:]) }
	rest := int(word(0)&(1<<31-1)) - (len(head) - 4 - short)
	i := int(word(4) & (1<<c.shift - 1))
	if i >= len(c.slots) || rest < 0 || word(24) != 0 || word(28) != 0 {
		return 0, fmt.Errorf("nfstest: reply %x", head)
	}
	if c.l.Proc != Read {
		_, err := r.Discard(rest)
		return i, err
	}
	return i, c.readReply(r, i, rest)
}

// readReply reads the rest of the results of a READ.
func (c *loadConn) readReply(r *bufio.Reader, i, rest int) error {
	const before = 4 + 84 + 4 + 4 + 4
	var head [before]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(head[before-4:]))
	if n != c.l.Size || rest-before != n+(-n&3) {
		return fmt.Errorf("nfstest: %d bytes of %d at %d", n, c.l.Size, c.slots[i].off)
	}
	c.bytes += int64(n)
	if !c.l.Verify {
		_, err := r.Discard(rest - before)
		return err
	}
	if _, err := io.ReadFull(r, c.data[:rest-before]); err != nil {
		return err
	}
	return CheckStamp(c.data[:n], c.slots[i].off, c.l.Gen)
}
