package child

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/fs"
	"holdfast/fs/guest"
)

// Options say how the process is started and what it may take. Zero means the
// default.
type Options struct {
	// Command starts the process, in which Main must run. Default: this program
	// with Verb. A program of tests has to say it, and to know it in its
	// TestMain: else it would begin its tests once more.
	Command []string

	MemoryBytes int64         // for the reading of all its volumes; default 512 MiB
	CPU         time.Duration // of processor time that one request may take; default 5 s
	Wall        time.Duration // that one request may take without reading the disk; default 60 s
	Idle        time.Duration // after which an unused process ends, until it is used again; default 5 min, < 0 never

	Logger *slog.Logger // default: none
}

// Verb is the hidden verb of the program that runs Main.
const Verb = "guest-child"

// self is this program, also when its file has been replaced.
const self = "/proc/self/exe"

func (o Options) withDefaults() Options {
	if len(o.Command) == 0 {
		o.Command = []string{self, Verb}
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = 512 << 20
	}
	if o.CPU == 0 {
		o.CPU = 5 * time.Second
	}
	if o.Wall == 0 {
		o.Wall = time.Minute
	}
	if o.Idle == 0 {
		o.Idle = 5 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Child is a guest.Reader whose reading is done by another process. It serves
// any number of disks and volumes, and any number of goroutines at once.
type Child struct {
	opt     Options
	numbers atomic.Uint32 // of disks and trees
	closing chan struct{} // closed by Close
	starter chan struct{} // holds the right to start a process
	alone   chan struct{} // holds the right to ask what was under way when a process died
	hashing maphash.Seed
	running sync.WaitGroup

	mu       sync.Mutex // guards the rest; never held while waiting
	closed   bool
	live     *conn
	pid      int
	warned   string
	deaths   int // one soon after the other
	died     time.Time
	suspects map[uint64]suspect
}

var _ guest.Reader = (*Child)(nil)

// Start starts the process and returns when it is confined and ready. ctx
// bounds that. What could not be had of the confinement is logged; only an
// error of the program itself or of the machine fails.
func Start(ctx context.Context, opt Options) (*Child, error) {
	if len(opt.Command) == 0 && strings.HasSuffix(os.Args[0], ".test") {
		return nil, fmt.Errorf("a program of tests, without a command for the reading process: %w", fs.ErrInvalid)
	}
	c := &Child{
		opt: opt.withDefaults(), closing: make(chan struct{}), starter: make(chan struct{}, 1), alone: make(chan struct{}, 1),
		hashing: maphash.MakeSeed(), suspects: map[uint64]suspect{},
	}
	if _, err := c.line(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the process. Trees that are still open answer nothing any more.
func (c *Child) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.closing)
	}
	c.mu.Unlock()
	c.starter <- struct{}{} // nothing is being started any more
	c.running.Wait()
	<-c.starter
	return nil
}

// errClosed is the use of what Close has ended.
var errClosed = fmt.Errorf("the reader of guest file systems is closed: %w", fs.ErrInvalid)

// Layout finds the volumes of a disk. See guest.Reader.
func (c *Child) Layout(ctx context.Context, d guest.Disk) (guest.Layout, error) {
	number, size := c.numbers.Add(1), d.Size()
	l, err := retry(ctx, c, func(k *conn) (guest.Layout, error) {
		k.attach(number, d)
		defer k.detach(number)
		cur, err := c.ask(ctx, k, kindLayout, newFrame(16).u32(number).i64(size))
		if err != nil {
			return guest.Layout{}, err
		}
		l, err := cur.layout(size)
		if err != nil {
			err = fmt.Errorf("layout of the disk: %w", err)
		}
		return l, err
	})
	if err != nil {
		return guest.Layout{}, lost("layout of the disk", err)
	}
	return l, nil
}

// Open opens the file system of a volume. See guest.Reader.
func (c *Child) Open(ctx context.Context, d guest.Disk, v guest.Volume) (fs.Tree, error) {
	if !onDisk(v, d.Size()) {
		return nil, fmt.Errorf("open volume %s: bytes %d to %d are not on a disk of %d: %w", v.Name, v.Off, v.Off+v.Size, d.Size(), fs.ErrInvalid)
	}
	t := newTree(c, d, v)
	if _, err := retry(ctx, c, func(k *conn) (struct{}, error) { return struct{}{}, t.openIn(ctx, k) }); err != nil {
		return nil, lost("open volume "+v.Name, err)
	}
	return t.withAbilities(), nil
}

// lost puts what was asked for before the error of a process that ended, which
// can't know. All other errors say it themselves.
func lost(what string, err error) error {
	var l *lostError
	if errors.As(err, &l) || errors.Is(err, errEnded) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// retry does something with the line to the process, and once more with the
// next line if this one was dead before it was asked anything.
func retry[T any](ctx context.Context, c *Child, do func(*conn) (T, error)) (T, error) {
	for try := 0; ; try++ {
		k, err := c.line(ctx)
		if err != nil {
			var none T
			return none, err
		}
		got, err := do(k)
		if try < 3 && errors.Is(err, errEnded) {
			continue
		}
		if errors.Is(err, errEnded) {
			err = fmt.Errorf("%w: %w", err, fs.ErrRetry)
		}
		if errors.Is(err, errProtocol) {
			err = fmt.Errorf("%w: %w", err, fs.ErrDamaged)
		}
		return got, err
	}
}

// line returns the line to the process, which is started if there is none.
func (c *Child) line(ctx context.Context) (*conn, error) {
	if k, err := c.current(); k != nil || err != nil {
		return k, err
	}
	select {
	case c.starter <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.starter }()
	if k, err := c.current(); k != nil || err != nil {
		return k, err
	}
	if err := c.pause(ctx); err != nil {
		return nil, err
	}
	return c.start(ctx)
}

// current returns the line if it is alive, nil if there is none.
func (c *Child) current() (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if c.live == nil {
		return nil, nil
	}
	select {
	case <-c.live.ended:
		return nil, nil
	default:
		return c.live, nil
	}
}

// patience is how long a request waits for a process to be started again.
const patience = 500 * time.Millisecond

// pause waits as long as is right after processes that died soon: not at all
// after one, then twice as long each time.
func (c *Child) pause(ctx context.Context) error {
	c.mu.Lock()
	wait := time.Duration(0)
	if c.deaths > 1 {
		wait = time.Until(c.died.Add(min(5*time.Second, 25*time.Millisecond<<min(c.deaths-1, 10))))
	}
	deaths := c.deaths
	c.mu.Unlock()
	if wait > patience {
		return fmt.Errorf("the reading process ended %d times; it is started again in %v: %w", deaths, wait.Round(100*time.Millisecond), fs.ErrRetry)
	}
	select {
	case <-time.After(max(wait, 0)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start starts the process, and what looks after it.
func (c *Child) start(ctx context.Context) (*conn, error) {
	p, lacks, err := startProcess(c.opt.Command)
	if err != nil {
		c.mourn(nil, 0)
		return nil, fmt.Errorf("%w: %w", err, fs.ErrRetry)
	}
	missing, err := greet(ctx, p, c.opt.MemoryBytes)
	if err != nil {
		p.kill()
		if ctx.Err() == nil {
			c.mourn(nil, 0)
			err = fmt.Errorf("the reading process (%s): %w: %w", p.state, err, fs.ErrRetry)
		}
		return nil, err
	}
	if lacks != "" {
		missing = append(missing, lacks)
	}
	k := newConn(p.line)
	c.mu.Lock()
	c.live, c.pid = k, p.cmd.Process.Pid
	warning := fmt.Sprint(missing)
	again := c.warned == warning
	c.warned = warning
	c.mu.Unlock()
	if len(missing) > 0 && !again {
		c.opt.Logger.Warn("guest file systems are read with less confinement than there is", "missing", missing)
	}
	c.running.Add(1)
	go c.attend(p, k)
	return k, nil
}

// greetTime is how long a process may take to be ready.
const greetTime = 30 * time.Second

// greet tells the process what it must know, and learns what it could not have.
func greet(ctx context.Context, p *process, memory int64) (missing []string, err error) {
	stop := context.AfterFunc(ctx, func() { p.line.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p.line.SetDeadline(time.Now().Add(greetTime))
	if _, err := p.line.Write(newFrame(12).u32(version).i64(memory).bytes(kindConfig, 0)); err != nil {
		return nil, err
	}
	kind, _, body, err := readFrame(p.line)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	cur := &cursor{b: body}
	if v := cur.u32(); kind != kindHello || v != version {
		return nil, fmt.Errorf("%v of version %d instead of hello of version %d: %w", kind, v, version, errProtocol)
	}
	cur.strs(maxText) // what it has
	missing = cur.strs(maxText)
	for i := range missing {
		missing[i] = printable(missing[i])
	}
	if err := cur.end(); err != nil {
		return nil, err
	}
	return missing, p.line.SetDeadline(time.Time{})
}

// lookEvery is how often the watchdog looks.
const lookEvery = 250 * time.Millisecond

// attend looks after a process until its end.
func (c *Child) attend(p *process, k *conn) {
	defer c.running.Done()
	began := time.Now()
	received := make(chan error, 1)
	go func() { received <- k.receive() }()
	w := &watch{k: k, cpu: p.cpu, cpuLimit: c.opt.CPU, waitLimit: c.opt.Wall, totalLimit: maxTotal, last: began}
	w.lastCPU, _ = p.cpu() // what it took to start is no request's
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var why error
		select {
		case why = <-received:
			p.kill()
			if !errors.Is(why, errProtocol) {
				why = errors.New(p.state)
			}
		case now := <-tick.C:
			why = w.look(now)
			if why == nil && !(c.opt.Idle > 0 && k.retire(c.opt.Idle)) {
				continue
			}
			p.kill()
			<-received
		case <-c.closing:
			p.kill()
			<-received
			k.end(errClosed)
			return
		}
		if why != nil {
			c.opt.Logger.Error("the process that reads guest file systems ended", "reason", why, "stderr", printable(p.stderr.text()))
			c.mourn(k, time.Since(began))
		}
		k.end(fmt.Errorf("the reading process ended (%v): %w", why, fs.ErrRetry))
		return
	}
}

// soon is how long a process lives that did not die soon.
const soon = 10 * time.Second

// mourn notes that a process died, and what was under way.
func (c *Child) mourn(k *conn, lived time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lived > soon {
		c.deaths = 0
	}
	c.deaths++
	c.died = time.Now()
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c.suspect(k.calls)
}
