package child

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"holdfast/fs"
	"holdfast/fs/guest"
)

// server is the process' side of the line: it answers questions by means of a
// guest.Reader, each in a goroutine of its own.
type server struct {
	line   io.ReadWriter
	reader guest.Reader
	blocks *blocks

	wmu sync.Mutex // orders frames

	mu      sync.Mutex // guards the rest
	cancels map[uint64]context.CancelFunc
	trees   map[uint32]*served
	reads   map[uint64]chan []byte // the answers they wait for
	next    uint64
	over    error
}

// served is an open tree. It is closed when nobody uses it any more.
type served struct {
	tree fs.Tree
	uses sync.WaitGroup
}

func newServer(line io.ReadWriter, reader guest.Reader) *server {
	s := &server{line: line, reader: reader, cancels: map[uint64]context.CancelFunc{}, trees: map[uint32]*served{}, reads: map[uint64]chan []byte{}}
	s.blocks = newBlocks(s.fetch)
	return s
}

// serve answers until the line ends.
func (s *server) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var asked sync.WaitGroup
	err := s.receive(ctx, &asked)
	cancel()
	s.mu.Lock()
	s.over = err
	for number, waiting := range s.reads {
		close(waiting)
		delete(s.reads, number)
	}
	s.mu.Unlock()
	asked.Wait()
	for _, t := range s.trees {
		t.tree.Close()
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func (s *server) receive(ctx context.Context, asked *sync.WaitGroup) error {
	r := bufio.NewReaderSize(s.line, 256<<10)
	for {
		kind, number, body, err := readFrame(r)
		if err != nil {
			return err
		}
		switch kind {
		case kindBlock:
			s.mu.Lock()
			if waiting := s.reads[number]; waiting != nil {
				delete(s.reads, number)
				waiting <- body
			}
			s.mu.Unlock()
		case kindCancel:
			s.mu.Lock()
			if cancel := s.cancels[number]; cancel != nil {
				cancel()
			}
			s.mu.Unlock()
		default:
			ctx, cancel := context.WithCancel(ctx)
			s.mu.Lock()
			s.cancels[number] = cancel
			s.mu.Unlock()
			asked.Add(1)
			go func() {
				defer asked.Done()
				s.reply(number, s.answer(ctx, kind, &cursor{b: body}))
				s.mu.Lock()
				delete(s.cancels, number)
				s.mu.Unlock()
				cancel()
			}()
		}
	}
}

func (s *server) reply(number uint64, f frame) {
	if len(f)-headerBytes > maxBody {
		f = newFrame(256).fault(fmt.Errorf("answer of %d bytes: %w", len(f)-headerBytes, fs.ErrUnsupported))
	}
	s.write(f.bytes(kindAnswer, number)) // a dead line ends receive
}

func (s *server) write(b []byte) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_, err := s.line.Write(b)
	return err
}

// fetch reads n bytes of a disk, by asking the parent.
func (s *server) fetch(disk uint32, off int64, n int) ([]byte, error) {
	waiting := make(chan []byte, 1)
	s.mu.Lock()
	if s.over != nil {
		s.mu.Unlock()
		return nil, s.over
	}
	s.next++
	number := s.next
	s.reads[number] = waiting
	s.mu.Unlock()
	if err := s.write(newFrame(16).u32(disk).i64(off).u32(uint32(n)).bytes(kindRead, number)); err != nil {
		return nil, err
	}
	body, ok := <-waiting
	if !ok {
		return nil, io.ErrUnexpectedEOF
	}
	c := &cursor{b: body}
	failed := cursor{b: body}
	if failed.u16(); failed.u64() != 0 {
		number := (&cursor{b: body[2:]}).u64()
		err := c.fault(nil)
		if c.bad {
			err = errProtocol
		}
		return nil, &diskError{number, err}
	}
	c.fault(nil)
	data := c.take(n)
	return data, c.end()
}

// answer does what is asked. A reader that panics has met damage it should have
// seen; its process may go on.
func (s *server) answer(ctx context.Context, kind kind, c *cursor) (f frame) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "panic: %v: %v\n%s\n", kind, p, debug.Stack())
			f = newFrame(256).fault(fmt.Errorf("%v: the reader panicked: %v: %w", kind, p, fs.ErrDamaged))
		}
	}()
	f, err := s.do(ctx, kind, c)
	if c.bad {
		err = fmt.Errorf("%v: %w", kind, errProtocol)
	}
	if err != nil {
		return newFrame(256).fault(err)
	}
	return f
}

func (s *server) do(ctx context.Context, kind kind, c *cursor) (frame, error) {
	number := c.u32()
	switch kind {
	case kindLayout:
		l, err := s.reader.Layout(ctx, s.blocks.disk(number, c.i64()))
		if err != nil {
			return nil, err
		}
		return newFrame(4096).fault(nil).layout(&l), nil
	case kindOpen:
		return s.open(ctx, number, c)
	case kindClose:
		return newFrame(64).fault(nil), s.close(number)
	}
	t, err := s.use(number)
	if err != nil {
		return nil, err
	}
	defer t.uses.Done()
	return ask(ctx, t.tree, kind, fs.ID{Ino: c.u64()}, c)
}

func (s *server) open(ctx context.Context, number uint32, c *cursor) (frame, error) {
	d := s.blocks.disk(number, c.i64())
	v := c.volume()
	if c.bad {
		return nil, errProtocol
	}
	t, err := s.reader.Open(ctx, d, v)
	if err != nil {
		return nil, err
	}
	can, notes := uint8(0), []string(nil)
	if _, ok := t.(fs.XattrTree); ok {
		can |= canXattrs
	}
	if _, ok := t.(fs.StreamTree); ok {
		can |= canStreams
	}
	if nt, ok := t.(fs.NotedTree); ok {
		can |= canNotes
		for _, n := range nt.Notes() {
			notes = append(notes, n[:min(len(n), maxText)])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trees[number] != nil {
		t.Close()
		return nil, fmt.Errorf("tree %d is open: %w", number, fs.ErrInvalid)
	}
	s.trees[number] = &served{tree: t}
	return newFrame(256).fault(nil).u64(t.Root().Ino).u8(can).strs(notes[:min(len(notes), maxNotes)]), nil
}

func (s *server) use(number uint32) (*served, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.trees[number]
	if t == nil {
		return nil, fmt.Errorf("tree %d: %w", number, fs.ErrStale)
	}
	t.uses.Add(1)
	return t, nil
}

func (s *server) close(number uint32) error {
	s.mu.Lock()
	t := s.trees[number]
	delete(s.trees, number)
	s.mu.Unlock()
	if t == nil {
		return nil
	}
	t.uses.Wait()
	s.blocks.forget(number)
	return t.tree.Close()
}

// ask asks a tree about an inode.
func ask(ctx context.Context, t fs.Tree, kind kind, id fs.ID, c *cursor) (frame, error) {
	f := newFrame(256).fault(nil)
	switch kind {
	case kindAttr:
		a, err := t.Attr(ctx, id)
		return f.attr(&a), err
	case kindLookup:
		a, err := t.Lookup(ctx, id, c.str(maxName))
		return f.attr(&a), err
	case kindReadDir:
		return askDir(ctx, t, id, c.u64(), int(c.u32()), c.flag())
	case kindReadLink:
		target, err := t.ReadLink(ctx, id)
		if len(target) > maxLink {
			err = fmt.Errorf("inode %d: target of %d bytes: %w", id.Ino, len(target), fs.ErrUnsupported)
		}
		return f.str(target), err
	case kindReadAt:
		return askBytes(ctx, t, id, c.i64(), int(min(c.u32(), maxRead)))
	case kindExtents:
		return askExtents(ctx, t, id, c.i64(), int(min(c.u32(), nextExtents)))
	case kindAhead:
		list, err := c.inodes(id)
		if err != nil {
			return nil, err
		}
		return askSpans(ctx, t, newFrame(4096).fault(nil), list, nil), nil
	case kindStatFS:
		st, err := t.StatFS(ctx, id)
		return f.statfs(&st), err
	case kindXattrs:
		if xt, ok := t.(fs.XattrTree); ok {
			names, err := xt.Xattrs(ctx, id)
			return f.strs(names), err
		}
	case kindXattr:
		if xt, ok := t.(fs.XattrTree); ok {
			value, err := xt.Xattr(ctx, id, c.str(maxName))
			return f.str(string(value)), err
		}
	case kindStreams:
		if st, ok := t.(fs.StreamTree); ok {
			list, err := st.Streams(ctx, id)
			return f.streams(list), err
		}
	}
	return nil, fmt.Errorf("%v: %w", kind, errProtocol)
}

// pageBytes is about how long a part of a directory may be, as a body.
const pageBytes = 256 << 10

// askDir reads up to n entries, and asks about each what whoever lists a
// directory wants to know next: what it is and, with ahead, where its bytes lie.
func askDir(ctx context.Context, t fs.Tree, dir fs.ID, cookie uint64, n int, ahead bool) (frame, error) {
	n = min(n, nextPage)
	entries, names, full := make([]fs.Entry, 0, n), 0, false
	err := t.ReadDir(ctx, dir, cookie, func(e fs.Entry) bool {
		entries = append(entries, e)
		names += len(e.Name) + entryBytes + attrBytes
		full = len(entries) >= n || names > pageBytes
		return !full
	})
	if err != nil && len(entries) == 0 {
		return nil, err
	}
	// After an error the part ends before it; the next one begins with it.
	f := newFrame(names + 64).fault(nil).flag(!full && err == nil).u32(uint32(len(entries)))
	for i := range entries {
		e := &entries[i]
		if e.Attr == nil {
			if a, err := t.Attr(ctx, e.ID); err == nil {
				e.Attr = &a
			}
		}
		f = f.entry(e)
	}
	if !ahead {
		return f.u32(0), nil
	}
	return askSpans(ctx, t, f, ids(entries), func(i int) *fs.Attr { return entries[i].Attr }), nil
}

// aheadExtents is how many extents of a file come with its directory: most
// files have no more, and a file with many is asked about when it is read.
const aheadExtents = 4

// askSpans appends the extents of the files in list, as far as they fit. known
// tells what an inode is, if that is known.
func askSpans(ctx context.Context, t fs.Tree, f frame, ids []fs.ID, known func(i int) *fs.Attr) frame {
	at, n := len(f), uint32(0)
	f = f.u32(0)
	for i, id := range ids {
		if len(f) > maxBody-4096 || ctx.Err() != nil {
			break
		}
		var a *fs.Attr
		if known != nil {
			a = known(i)
		} else if got, err := t.Attr(ctx, id); err == nil {
			a = &got
		}
		if a == nil || a.Type != fs.TypeFile || a.Size == 0 {
			continue
		}
		list, err := t.Extents(ctx, a.ID, 0, aheadExtents)
		if err != nil || len(list) == 0 { // whoever reads it is told why
			continue
		}
		f = f.u32(uint32(i)).ahead(list, endOf(list) == a.Size)
		n++
	}
	binary.LittleEndian.PutUint32(f[at:], n)
	return f
}

// askExtents lists up to n extents, and says whether they reach the end.
func askExtents(ctx context.Context, t fs.Tree, id fs.ID, off int64, n int) (frame, error) {
	var all []fs.Extent
	last := false
	for len(all) < n && !last {
		list, err := t.Extents(ctx, id, off, n-len(all))
		switch {
		case err == io.EOF:
			last = true
		case err != nil && len(all) == 0:
			return nil, err
		case err != nil || len(list) == 0: // the next question meets it
			return newFrame(len(all)*extentBytes + 64).fault(nil).flag(false).extents(all), nil
		default:
			all = append(all, list...)
			e := list[len(list)-1]
			off = e.Off + e.Len
		}
	}
	return newFrame(len(all)*extentBytes + 64).fault(nil).flag(last).extents(all), nil
}

// askBytes reads n bytes, all of which there are.
func askBytes(ctx context.Context, t fs.Tree, id fs.ID, off int64, n int) (frame, error) {
	f := newFrame(n + 64).fault(nil)
	f = f[:len(f)+n]
	got, err := t.ReadAt(ctx, id, f[len(f)-n:], off)
	if got == n {
		return f, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("inode %d: %d of %d bytes at %d: %w", id.Ino, got, n, off, fs.ErrDamaged)
	}
	return nil, err
}
