package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/fs"
	"holdfast/fs/guest"
)

// conn is the parent's end of the line to one process. It asks, and serves the
// process' reads of disks, until the process or the line ends; then it is dead
// for good, and Child makes another.
type conn struct {
	line    net.Conn
	slots   chan struct{} // one in it for each call under way
	ended   chan struct{} // closed when the line is dead; err is then set
	reading atomic.Int32  // reads that a disk is busy with
	serving sync.WaitGroup

	wmu sync.Mutex // orders frames; taken last

	mu     sync.Mutex // guards the rest
	calls  map[uint64]*call
	next   uint64
	disks  map[uint32]guest.Disk
	reads  int // asked for and not yet answered
	errs   [64]error
	errSeq uint64
	used   time.Time // when the last call ended
	err    error
}

// call is a question under way.
type call struct {
	kind      kind
	key       uint64      // the same for the same question: see suspects
	answer    chan []byte // the body; never blocks
	abandoned bool        // nobody waits any more

	// What the watch counts: see watch.go.
	began   time.Time
	cpu     time.Duration
	waiting time.Duration
	guilty  error
}

// errEnded is a call on a line that was already dead: another may be tried.
var errEnded = errors.New("the reading process has ended")

// lostError is a call that got no answer because the process ended.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

func newConn(line net.Conn) *conn {
	return &conn{line: line, slots: make(chan struct{}, maxCalls), ended: make(chan struct{}), calls: map[uint64]*call{}, disks: map[uint32]guest.Disk{}, used: time.Now()}
}

// attach gives the process a disk to read, under a number.
func (k *conn) attach(number uint32, d guest.Disk) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.disks[number] = d
}

func (k *conn) detach(number uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.disks, number)
}

// call asks a question and waits for the answer, of which it returns what
// follows the error. The cursor is not nil whenever there was an answer.
func (k *conn) call(ctx context.Context, kind kind, f frame, key uint64) (*cursor, error) {
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-k.ended:
		return nil, errEnded
	}
	if err := ctx.Err(); err != nil {
		<-k.slots
		return nil, err
	}
	c := &call{kind: kind, key: key, answer: make(chan []byte, 1), began: time.Now()}
	k.mu.Lock()
	if k.err != nil {
		k.mu.Unlock()
		return nil, errEnded
	}
	k.next++
	number := k.next
	k.calls[number] = c
	k.mu.Unlock()
	if err := k.write(f.bytes(kind, number)); err != nil {
		k.line.Close() // receive then ends it
	}
	select {
	case body := <-c.answer:
		return k.answered(body)
	case <-ctx.Done():
		k.abandon(number)
		return nil, ctx.Err()
	case <-k.ended:
	}
	select {
	case body := <-c.answer: // just before the end
		return k.answered(body)
	default:
	}
	if c.guilty != nil {
		return nil, &lostError{c.guilty}
	}
	return nil, &lostError{k.err}
}

func (k *conn) answered(body []byte) (*cursor, error) {
	c := &cursor{b: body}
	err := c.fault(k.diskErr)
	if c.bad {
		return nil, damaged("answer of the reading process")
	}
	return c, err
}

// abandon tells the process that an answer is not needed any more. The call
// stays under watch until it comes.
func (k *conn) abandon(number uint64) {
	k.mu.Lock()
	c := k.calls[number]
	if c != nil {
		c.abandoned = true
	}
	k.mu.Unlock()
	if c != nil {
		// Not waited for: the process may be the one that does not listen.
		go k.write(newFrame(0).bytes(kindCancel, number))
	}
}

// writeTime is how long a process may not listen. It always does.
const writeTime = 30 * time.Second

func (k *conn) write(frame []byte) error {
	k.wmu.Lock()
	defer k.wmu.Unlock()
	k.line.SetWriteDeadline(time.Now().Add(writeTime))
	_, err := k.line.Write(frame)
	return err
}

// receive takes what the process sends until the line ends, and returns why.
func (k *conn) receive() error {
	r := bufio.NewReaderSize(k.line, 64<<10)
	for {
		kind, number, body, err := readFrame(r)
		if err != nil {
			return err
		}
		switch kind {
		case kindAnswer:
			err = k.settle(number, body)
		case kindRead:
			err = k.serve(number, body)
		default:
			err = fmt.Errorf("%v from the reading process: %w", kind, errProtocol)
		}
		if err != nil {
			return err
		}
	}
}

func (k *conn) settle(number uint64, body []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.calls[number]
	if c == nil {
		return fmt.Errorf("answer to nothing: %w", errProtocol)
	}
	delete(k.calls, number)
	<-k.slots
	k.used = time.Now()
	c.answer <- body
	return nil
}

// serve begins a read of a disk.
func (k *conn) serve(number uint64, body []byte) error {
	c := &cursor{b: body}
	diskNumber, off, n := c.u32(), c.i64(), int64(c.u32())
	if err := c.end(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.disks[diskNumber]
	if d == nil { // closed while its tree was still being read
		d = noDisk{}
	}
	size := d.Size()
	if n == 0 || n > maxRead || off < 0 || d != (noDisk{}) && (off > size || n > size-off) {
		return fmt.Errorf("read of %d bytes at %d of a disk of %d: %w", n, off, size, errProtocol)
	}
	if k.reads++; k.reads > maxReads {
		return fmt.Errorf("%d reads at once: %w", k.reads, errProtocol)
	}
	k.serving.Add(1)
	go k.read(number, d, off, int(n))
	return nil
}

// noDisk is a disk that is not there any more.
type noDisk struct{}

func (noDisk) Size() int64                       { return 0 }
func (noDisk) ReadAt([]byte, int64) (int, error) { return 0, fs.ErrStale }

// blockHead is what precedes the bytes in the body of a block without an error.
const blockHead = 2 + 8 + 4

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func (k *conn) read(number uint64, d guest.Disk, off int64, n int) {
	defer k.serving.Done()
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	if cap(*b) < headerBytes+blockHead+n {
		*b = make([]byte, headerBytes+blockHead+n)
	}
	f := frame((*b)[:headerBytes]).fault(nil)
	f = f[:len(f)+n]
	k.reading.Add(1)
	got, err := d.ReadAt(f[len(f)-n:], off)
	k.reading.Add(-1)
	if got == n {
		err = nil
	} else {
		f = frame(make([]byte, headerBytes)).fault(&diskError{k.keep(shortOf(err, off)), shortOf(err, off)})
	}
	k.mu.Lock()
	k.reads--
	k.mu.Unlock()
	if k.write(f.bytes(kindBlock, number)) != nil {
		k.line.Close()
	}
}

func shortOf(err error, off int64) error {
	if err == nil || err == io.EOF {
		return fmt.Errorf("read disk at %d: %w", off, io.ErrUnexpectedEOF)
	}
	return err
}

// keep notes an error of a disk, and returns its number.
func (k *conn) keep(err error) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.errSeq++
	k.errs[k.errSeq%uint64(len(k.errs))] = err
	return k.errSeq
}

// diskErr returns the error of a disk with a number, if it is still there.
func (k *conn) diskErr(number uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if number > k.errSeq || number+uint64(len(k.errs)) <= k.errSeq {
		return nil
	}
	return k.errs[number%uint64(len(k.errs))]
}

// end makes the line dead: every call under way fails with err.
func (k *conn) end(err error) {
	k.line.Close()
	k.mu.Lock()
	if k.err == nil {
		k.err = err
		close(k.ended)
	}
	k.mu.Unlock()
	k.serving.Wait()
}

// retire ends a line that nobody uses and nobody has used for a while.
func (k *conn) retire(idle time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil || len(k.calls) > 0 || time.Since(k.used) < idle {
		return false
	}
	k.err = errEnded
	close(k.ended)
	return true
}
