package redirect

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"holdfast/repo/vfs"
)

// walStart is where the first batch of a log file begins.
const walStart = grainBytes

// maxEntries is how many records a log file takes at most, so that there is a
// bound to what its checkpoint adds to the map.
func (o Options) maxEntries() int { return int(min(8192, o.WALBytes/1024)) }

// mapRoom is that bound, in bytes: a record for each, and one for what it was
// taken out of.
func (o Options) mapRoom() int64 { return int64(o.maxEntries())*2*recordBytes + 2*grainBytes }

// wal is the log: two files that take turns. The active one takes records; the
// sealed one is being checkpointed and then becomes the spare.
type wal struct {
	mu     sync.Mutex // appending, and turns
	cond   sync.Cond  // spare came, or a failure
	syncMu sync.Mutex // one sync at a time: a second one on the same file would not hear of a failure

	files [2]*walFile // by name

	// Changed with mu and Session.mu held, read with either.
	active, sealed, spare *walFile

	buf []byte // a batch being encoded
}

// walFile is one file of the log.
type walFile struct {
	name    string
	file    vfs.File
	id      [16]byte // of the session
	gen     uint64
	size    int64
	end     int64        // where the next batch goes
	durable atomic.Int64 // bytes that are synced; changed with syncMu held
	told    int64        // a batch says that the bytes before this are synced; changed with wal.mu held
	prev    uint32       // checksum of the last batch
	prior   int64        // where the log before this one ended
	given   int          // how often it became the spare one; changed with wal.mu held
	mode    mode         // all records are for its write layer

	// Guarded by Session.mu. A file that is spare has none.
	tables  []table
	mapped  []looseRun // grains that the log says are in the data file
	targets []*rec     // disks that were switched
	entries int

	// users is held shared while bytes are read, alone for giving the file
	// back.
	users sync.RWMutex
}

// table is the newest record of each grain of a disk.
type table map[uint64]cell

// cell is grain i of a record.
type cell struct {
	r       *rec
	i       uint32
	hadData bool // this or an earlier record of the table has bytes
}

// rec is a record on its way.
type rec struct {
	kind   kind
	d      *Disk
	first  uint64
	count  uint32
	buf    []byte // bytes; nil once they are in the log
	name   []byte // kindTarget
	inData bool   // the data file has the bytes as well, nothing else has been written there
	w      *walFile
	off    int64 // of the bytes in w
}

func (r *rec) record(lay uint32) record {
	out := record{kind: r.kind, disk: r.d.index, layer: lay, first: r.first, count: r.count, payload: r.buf}
	if r.kind == kindTarget {
		out.payload, out.count = r.name, uint32(len(r.name))
	}
	return out
}

func (w *walFile) row(limit int64) row {
	return row{name: w.name, r: w.file, from: origin{w.id, w.gen}, start: walStart, size: limit, unit: grainBytes, wal: true}
}

// reset makes w an empty file of a new generation, in memory.
func (w *walFile) reset(gen uint64, disks int) {
	w.gen, w.end, w.told, w.prev, w.prior, w.mode = gen, walStart, walStart, 0, 0, mode{}
	w.durable.Store(walStart)
	w.tables, w.mapped, w.targets, w.entries = make([]table, disks), nil, nil, 0
	for i := range w.tables {
		w.tables[i] = make(table)
	}
}

// makeWAL makes log file i, durably but for its name.
func makeWAL(fsys vfs.FS, i int, h fileHeader) error {
	f, err := createNew(fsys, walName(i)+newSuffix)
	if err != nil {
		return err
	}
	err = f.Preallocate(int64(h.size))
	if err == nil {
		_, err = f.WriteAt(h.encode(), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fsys.Rename(walName(i)+newSuffix, walName(i))
}

// openWAL opens log file i and reads its header.
func (s *Session) openWAL(i int) (*walFile, error) {
	w := &walFile{name: walName(i), id: s.id}
	var err error
	if w.file, err = s.fs.OpenWrite(w.name); err != nil {
		return nil, err
	}
	s.log.files[i] = w
	p := make([]byte, headerBytes)
	if err := w.row(headerBytes).read(p, 0); err != nil {
		return nil, err
	}
	h, err := decodeFileHeader(p, walMagic)
	size, sizeErr := w.file.Size()
	switch {
	case sizeErr != nil:
		return nil, sizeErr
	case err != nil:
		return nil, damaged(w.name, 0, "%v", err)
	case h.id != s.id:
		return nil, damaged(w.name, 8, "belongs to another session")
	case h.size != uint64(s.opt.WALBytes/2) || size < int64(h.size):
		return nil, damaged(w.name, 32, "is %d bytes long and says %d, the session has logs of %d", size, h.size, s.opt.WALBytes/2)
	}
	w.size = int64(h.size)
	w.reset(h.gen, len(s.disks))
	return w, nil
}

// append writes records as one batch to the active file. log.mu is held; the
// batch fits.
func (s *Session) append(recs []*rec) error {
	w := s.log.active
	s.mu.RLock()
	m := s.mode
	s.mu.RUnlock()
	b := batch{batchHead: batchHead{origin: origin{w.id, w.gen}, off: uint64(w.end), prev: w.prev, durable: uint64(w.durable.Load()), mode: m}}
	if w.end == walStart {
		b.prior = uint64(w.prior)
		w.mode = m
	}
	b.records = make([]record, len(recs))
	for i, r := range recs {
		b.records[i] = r.record(m.write)
	}
	s.log.buf = b.encode(s.log.buf[:0], grainBytes, true)
	if _, err := w.file.WriteAt(s.log.buf, w.end); err != nil {
		return s.fail(fmt.Errorf("append to %s: %w", w.name, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := w.end + headBytes(len(recs), grainBytes)
	for _, r := range recs {
		r.w, r.off = w, at
		if r.kind == kindData {
			at += int64(r.count) * grainBytes
		}
		w.add(r, true)
		r.buf = nil
	}
	w.end += int64(len(s.log.buf))
	w.prev, w.told = b.sum, b.tells()
	return nil
}

// tells returns up to where losing bytes of the file does no harm unseen: what
// the batch says is synced, and itself when it has no records.
func (b *batch) tells() int64 {
	if len(b.records) == 0 && b.durable == b.off {
		return int64(b.off) + int64(b.length)
	}
	return int64(b.durable)
}

// add notes a record of w in its tables. Session.mu is held.
func (w *walFile) add(r *rec, queued bool) {
	w.entries++
	switch r.kind {
	case kindTarget:
		w.targets = append(w.targets, r)
	case kindMapped:
		w.mapped = append(w.mapped, looseRun{r.d, r.first, uint64(r.count)})
	case kindData, kindZero:
		t := w.tables[r.d.index]
		for i := range r.count {
			g := r.first + uint64(i)
			c := cell{r, i, r.kind == kindData || t[g].hadData}
			t[g] = c
			if queued && r.d.pending[g].r == r {
				delete(r.d.pending, g)
			}
		}
	}
}

// turn makes the spare file the active one, or waits for a spare: the caller
// must look at everything again. log.mu is held, and given up while waiting.
func (s *Session) turn() error {
	l := &s.log
	if l.spare == nil {
		return s.wait()
	}
	if err := s.syncLog(l.active); err != nil {
		return err
	}
	s.mu.Lock()
	l.sealed, l.active, l.spare = l.active, l.spare, nil
	l.active.prior = l.sealed.end
	s.mu.Unlock()
	s.wake()
	s.toMark()
	return nil
}

// wait waits until there may be a spare file, or gives the reason why there will
// be none. log.mu is held, and given up meanwhile.
func (s *Session) wait() error {
	s.mu.RLock()
	err := s.usableLocked(true)
	if err == nil && s.blocked {
		err = fmt.Errorf("checkpoint: %w", ErrNoSpace)
	}
	s.mu.RUnlock()
	if err == nil {
		s.wake()
		s.log.cond.Wait()
	}
	return err
}

// syncLog makes the log file durable up to its end. log.mu is held.
func (s *Session) syncLog(w *walFile) error {
	s.log.syncMu.Lock()
	defer s.log.syncMu.Unlock()
	if err := s.usable(false); err != nil || w.durable.Load() == w.end {
		return err
	}
	if err := syncData(w.file); err != nil {
		return s.fail(err)
	}
	w.durable.Store(w.end)
	return nil
}

// bytes is how much memory a queued record takes.
func (r *rec) bytes() int64 {
	if r.kind == kindData {
		return int64(r.count) * grainBytes
	}
	return recordBytes
}
