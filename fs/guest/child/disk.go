package child

import (
	"container/list"
	"fmt"
	"io"
	"sync"

	"holdfast/fs"
)

const (
	// blockBytes is the unit in which the process asks for a disk and keeps it.
	blockBytes = 32 << 10

	// maxBlocks is how many it keeps, of all disks together: 32 MiB.
	maxBlocks = 1024

	// maxAhead is how many blocks are asked for at once, at most. Whoever reads
	// one block behind the other gets more each time.
	maxAhead = 16

	// largeRead is from what length on a read is not kept: metadata is smaller.
	largeRead = 512 << 10
)

// blocks is the cache of what was read of the parent's disks.
type blocks struct {
	fetch func(disk uint32, off int64, n int) ([]byte, error)
	slots chan struct{} // one in it for each read under way

	mu    sync.Mutex // guards the rest
	all   map[blockKey]*list.Element
	order list.List // of *block, the newest first
}

type blockKey struct {
	disk  uint32
	index int64
}

// block is one that was read, or is being read.
type block struct {
	key   blockKey
	ready chan struct{} // closed when data or err is there
	data  []byte
	err   error
}

func newBlocks(fetch func(uint32, int64, int) ([]byte, error)) *blocks {
	return &blocks{fetch: fetch, slots: make(chan struct{}, maxReads/2), all: map[blockKey]*list.Element{}}
}

// disk returns a disk of the parent's.
func (b *blocks) disk(number uint32, size int64) *disk {
	return &disk{b: b, number: number, size: size}
}

// forget drops what is kept of a disk.
func (b *blocks) forget(number uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, e := range b.all {
		if key.disk == number {
			b.order.Remove(e)
			delete(b.all, key)
		}
	}
}

// read reads from a disk, at most maxRead bytes.
func (b *blocks) read(number uint32, off int64, n int) ([]byte, error) {
	b.slots <- struct{}{}
	defer func() { <-b.slots }()
	return b.fetch(number, off, n)
}

// disk is a disk of the parent's, as a guest.Disk.
type disk struct {
	b      *blocks
	number uint32
	size   int64

	mu    sync.Mutex // guards the rest; taken before b.mu
	after [8]int64   // where the last readings ended, in blocks
	ahead [8]int     // how many blocks each asked for
	turn  int
}

func (d *disk) Size() int64 { return d.size }

// ReadAt reads len(p) bytes from byte off, as io.ReaderAt says. Safe for
// concurrent use.
func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read disk at %d: %w", off, fs.ErrInvalid)
	}
	if off >= d.size {
		return 0, io.EOF
	}
	whole := len(p)
	p = p[:min(int64(len(p)), d.size-off)]
	n, err := d.readAt(p, off)
	if err == nil && n < whole {
		err = io.EOF
	}
	return n, err
}

func (d *disk) readAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) && len(p)-done >= largeRead {
		data, err := d.b.read(d.number, off+int64(done), min(len(p)-done, maxRead))
		if err != nil {
			return done, err
		}
		done += copy(p[done:], data)
	}
	for done < len(p) {
		at := off + int64(done)
		data, err := d.block(at/blockBytes, (off+int64(len(p))-1)/blockBytes)
		if err == nil && at%blockBytes >= int64(len(data)) {
			err = io.ErrUnexpectedEOF // of another disk that once had the number
		}
		if err != nil {
			return done, err
		}
		done += copy(p[done:], data[at%blockBytes:])
	}
	return done, nil
}

// block returns a block. Those up to last are wanted next.
func (d *disk) block(index, last int64) ([]byte, error) {
	d.b.mu.Lock()
	if e := d.b.all[blockKey{d.number, index}]; e != nil {
		d.b.order.MoveToFront(e)
		d.b.mu.Unlock()
		k := e.Value.(*block)
		<-k.ready
		return k.data, k.err
	}
	d.b.mu.Unlock()
	run := d.claim(index, d.reach(index, last))
	if len(run) == 0 { // another was faster
		return d.block(index, last)
	}
	d.fill(run)
	return run[0].data, run[0].err
}

// reach says how many blocks to ask for from index on: as many as are wanted,
// or more if reading went on up to here.
func (d *disk) reach(index, last int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(last-index+1, maxAhead)
	slot := -1
	for i, after := range d.after {
		if after == index && index > 0 {
			slot = i
			n = max(n, int64(min(2*d.ahead[i], maxAhead)))
		}
	}
	if slot < 0 {
		slot = d.turn
		d.turn = (d.turn + 1) % len(d.after)
	}
	d.after[slot], d.ahead[slot] = index+n, int(n)
	return n
}

// claim makes blocks of those from index on, up to the first that is there or
// the disk's end. The caller has to fill them.
func (d *disk) claim(index, n int64) []*block {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	var run []*block
	for i := index; i < index+n && i*blockBytes < d.size; i++ {
		key := blockKey{d.number, i}
		if d.b.all[key] != nil {
			break
		}
		k := &block{key: key, ready: make(chan struct{})}
		d.b.all[key] = d.b.order.PushFront(k)
		run = append(run, k)
	}
	for d.b.order.Len() > maxBlocks {
		old := d.b.order.Remove(d.b.order.Back()).(*block)
		delete(d.b.all, old.key)
	}
	return run
}

// fill reads a run of blocks.
func (d *disk) fill(run []*block) {
	off := run[0].key.index * blockBytes
	n := min(int64(len(run))*blockBytes, d.size-off)
	data, err := d.b.read(d.number, off, int(n))
	if err != nil && len(run) > 1 { // what is wanted may be in order
		d.drop(run[1:], err)
		run = run[:1]
		data, err = d.b.read(d.number, off, int(min(blockBytes, n)))
	}
	if err != nil {
		d.drop(run, err)
		return
	}
	for i, k := range run {
		// A copy each, so that one block does not keep them all.
		k.data = append([]byte(nil), data[i*blockBytes:min((i+1)*blockBytes, len(data))]...)
		close(k.ready)
	}
}

// drop ends blocks that could not be read; they are tried again when wanted.
func (d *disk) drop(run []*block, err error) {
	d.b.mu.Lock()
	for _, k := range run {
		if e := d.b.all[k.key]; e != nil && e.Value.(*block) == k {
			d.b.order.Remove(e)
			delete(d.b.all, k.key)
		}
	}
	d.b.mu.Unlock()
	for _, k := range run {
		k.err = err
		close(k.ready)
	}
}
