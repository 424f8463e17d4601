package nfstest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Writer writes stamped blocks to its part of a file over and over, every time of
// another generation, some synced and some to be committed later. While the server
// is away it tries to come back to it, with the file handle that it had, and
// writes again what was not committed, as the protocol has it. It looks at what it
// finds: a block must be of the generation that was committed last or of one
// written since.
type Writer struct {
	Addr   string
	Dir    string // to mount
	Name   string // of the file in it
	First  int    // block of its part, and how many there are; nobody else writes there
	Blocks int
	Seed   uint64

	// Away is how long the server may be away; 0: a minute.
	Away time.Duration

	rng       *rand.Rand
	c         *Client
	handle    Handle
	fileID    uint64
	latest    []uint32 // generation of each block
	committed []uint32
	pending   map[int]bool // blocks whose latest generation is not committed
	unknown   map[int]bool // of these, blocks of which no reply said that it was written
	lost      bool         // a connection has ended since pending was written
	heard     time.Time    // when the server last answered
	verifier  uint64       // under which pending was written
	res       WriterResult
}

// WriterResult is what a Writer has done and seen.
type WriterResult struct {
	Writes, Commits, Replayed, Checked int
	Outages                            int           // connections that ended
	Longest                            time.Duration // from the end of one to the first reply of the next
}

const (
	writerMost  = 8  // blocks of one write
	writerEvery = 12 // writes between two commits
)

// Run writes until ctx ends, then commits and reads all of its part back. The
// first generation of every block has to be 0, of zeros, or 1.
func (w *Writer) Run(ctx context.Context) (WriterResult, error) {
	if w.Away == 0 {
		w.Away = time.Minute
	}
	w.rng = rand.New(rand.NewPCG(w.Seed, 11))
	w.latest, w.committed, w.pending = make([]uint32, w.Blocks), make([]uint32, w.Blocks), make(map[int]bool)
	w.unknown = make(map[int]bool)
	for i := range w.latest {
		w.latest[i] = 1 // as it may be in the base
	}
	if err := w.connect(); err != nil {
		return w.res, err
	}
	defer func() { w.c.Close() }()
	w.heard = time.Now()
	for n := 1; ctx.Err() == nil; n++ {
		if err := w.again(func() error { return w.step(n) }); err != nil {
			return w.res, err
		}
	}
	if err := w.again(w.commit); err != nil {
		return w.res, err
	}
	return w.res, w.again(func() error { return w.check(0, w.Blocks) })
}

// errWrong is what must not be, whatever the server was through.
var errWrong = errors.New("nfstest")

// again does something until the server has answered it.
func (w *Writer) again(do func() error) error {
	for {
		var err error
		if w.lost {
			err = w.resume()
		}
		if err == nil {
			err = do()
		}
		switch {
		case err == nil || errors.Is(err, errWrong):
			return err
		case errors.Is(err, Jukebox):
		case isStatus(err):
			return fmt.Errorf("%w: part at block %d: %w", errWrong, w.First, err)
		default:
			if err := w.reconnect(); err != nil {
				return err
			}
		}
		if time.Since(w.heard) > w.Away {
			return fmt.Errorf("%w: no answer for %s: %w", errWrong, w.Away, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func isStatus(err error) bool {
	var s Status
	return errors.As(err, &s)
}

// connect makes the first connection and asks for the handle.
func (w *Writer) connect() (err error) {
	if w.c, err = Dial(context.Background(), w.Addr); err != nil {
		return err
	}
	dir, err := w.c.Mount(w.Dir)
	if err != nil {
		return err
	}
	var a *Attr
	if w.handle, a, err = w.c.Lookup(dir, w.Name); err == nil {
		w.fileID = a.FileID
	}
	return err
}

// reconnect goes on with a server that was away, by the handle from before.
func (w *Writer) reconnect() error {
	w.c.Close()
	w.res.Outages++
	began := time.Now()
	for {
		c, err := Dial(context.Background(), w.Addr)
		if err == nil {
			var a Attr
			if a, err = c.GetAttr(w.handle); err == nil {
				w.c, w.heard = c, time.Now()
				w.res.Longest = max(w.res.Longest, time.Since(began))
				if a.FileID != w.fileID {
					return fmt.Errorf("%w: the file's number was %x and is %x", errWrong, w.fileID, a.FileID)
				}
				break
			}
			c.Close()
		}
		if isStatus(err) && !errors.Is(err, Jukebox) {
			return fmt.Errorf("%w: the handle from before: %w", errWrong, err)
		}
		if time.Since(began) > w.Away {
			return fmt.Errorf("%w: the server is away for %s: %w", errWrong, w.Away, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.lost = true
	return nil
}

// resume looks at all that was not committed when a connection ended, and at some
// that was, and writes the former again. What it has done is not done again when
// this connection ends, too.
func (w *Writer) resume() error {
	for b := range w.pending {
		if err := w.check(b, 1); err != nil {
			return err
		}
		w.res.Replayed++
		if err := w.write(b, 1, FileSync); err != nil {
			return err
		}
	}
	first := w.rng.IntN(w.Blocks)
	if err := w.check(first, min(16, w.Blocks-first)); err != nil {
		return err
	}
	w.lost = false
	return nil
}

// step makes the n-th write, and what follows from it.
func (w *Writer) step(n int) error {
	if n%writerEvery == 0 {
		if err := w.commit(); err != nil {
			return err
		}
	}
	first := w.rng.IntN(w.Blocks)
	count := 1 + w.rng.IntN(min(writerMost, w.Blocks-first))
	how := uint32(Unstable)
	if w.rng.IntN(3) == 0 {
		how = FileSync
	}
	for b := first; b < first+count; b++ {
		w.latest[b]++
		w.pending[b], w.unknown[b] = true, true
	}
	if err := w.write(first, count, how); err != nil {
		return err
	}
	if w.rng.IntN(4) == 0 {
		return w.check(w.rng.IntN(w.Blocks), 1)
	}
	return nil
}

// write writes the latest generation of some blocks.
func (w *Writer) write(first, count int, how uint32) error {
	p := make([]byte, count*BlockBytes)
	for i := range count {
		Stamp(p[i*BlockBytes:(i+1)*BlockBytes], w.off(first+i), w.latest[first+i])
	}
	res, err := w.c.Write(w.handle, uint64(w.off(first)), p, how)
	if err != nil {
		return err
	}
	w.heard = time.Now()
	w.res.Writes++
	if res.Count != uint32(len(p)) {
		return fmt.Errorf("%w: %d of %d bytes written", errWrong, res.Count, len(p))
	}
	for b := first; b < first+count; b++ {
		delete(w.unknown, b)
	}
	if res.Committed != Unstable {
		w.done(first, count)
	}
	if w.verifier == 0 {
		w.verifier = res.Verifier
	}
	if res.Verifier != w.verifier { // what was written before may be lost
		return w.replay(res.Verifier)
	}
	return nil
}

// commit makes all that was written durable.
func (w *Writer) commit() error {
	for b := range w.unknown {
		if err := w.write(b, 1, Unstable); err != nil {
			return err
		}
	}
	v, err := w.c.Commit(w.handle)
	if err != nil {
		return err
	}
	w.heard = time.Now()
	w.res.Commits++
	if v != w.verifier {
		return w.replay(v)
	}
	for b := range w.pending {
		w.done(b, 1)
	}
	return nil
}

// replay writes again, durably, what was not committed under a former verifier.
func (w *Writer) replay(v uint64) error {
	w.verifier = v
	for b := range w.pending {
		w.res.Replayed++
		if err := w.write(b, 1, FileSync); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) done(first, count int) {
	for b := first; b < first+count; b++ {
		w.committed[b] = w.latest[b]
		delete(w.pending, b)
	}
}

// check reads blocks and looks at their generations.
func (w *Writer) check(first, count int) error {
	for b := first; b < first+count; {
		n := min(16, first+count-b)
		res, err := w.c.Read(w.handle, uint64(w.off(b)), uint32(n*BlockBytes))
		if err != nil {
			return err
		}
		w.heard = time.Now()
		if len(res.Data) != n*BlockBytes {
			return fmt.Errorf("%w: %d bytes read at %d, want %d", errWrong, len(res.Data), w.off(b), n*BlockBytes)
		}
		for i := range n {
			gen, err := Generation(res.Data[i*BlockBytes:(i+1)*BlockBytes], w.off(b+i), w.latest[b+i])
			if err != nil {
				return fmt.Errorf("%w: %w", errWrong, err)
			}
			if gen < w.committed[b+i] {
				return fmt.Errorf("%w: block at %d is of generation %d, and %d was committed", errWrong, w.off(b+i), gen, w.committed[b+i])
			}
		}
		w.res.Checked += n
		b += n
	}
	return nil
}

func (w *Writer) off(block int) int64 { return int64(w.First+block) * BlockBytes }
