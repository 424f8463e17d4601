package redirect

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"

	"holdfast/repo/vfs"
)

// Session is the redirect layer of all disks of one machine. Its methods and
// those of its disks may be called by several goroutines at once.
type Session struct {
	fs   vfs.FS
	opt  Options
	id   [16]byte
	lock vfs.Unlocker

	disks []*Disk

	// gate is held shared by every read, write and commit and alone by what
	// must not meet one: a seal, a switch, a repair. It comes before all other
	// locks.
	gate sync.RWMutex

	// changing is held while layers are sealed or merged. It comes before gate.
	changing sync.Mutex

	// Order of the others: rounds.mu, log.mu, log.syncMu, dataMu, mu.
	rounds rounds
	log    wal
	dataMu sync.Mutex // syncs of data files, and what follows from one

	mu         sync.RWMutex // guards what follows, and tables and maps of the disks
	mode       mode
	queue      []*rec // not in the log file yet
	queueBytes int64
	loose      []looseRun // in data files, without a record
	looseBytes int64
	used       int64 // grains in data files
	verifier   uint64
	failure    error // a sync failed; repair is due
	readOnly   error
	lost       error // a repair could not read what is durable: nothing is to be had
	blocked    bool  // a checkpoint found no space
	reserved   bool  // the reserve is whole
	closed     bool
	failures   int
	failedData map[uint32]bool // layers whose data file must not be written again

	byQuota, byVolume gauge // guarded by mu

	closeOnce atomic.Int64

	m    mapLog // the keeper's
	kick chan struct{}
	// synced says that the log has been synced, to the keeper, who sees to marks.
	synced chan struct{}
	quit   chan struct{}
	done   sync.WaitGroup
}

// looseRun is some grains of a disk written to the data file alone.
type looseRun struct {
	d            *Disk
	first, count uint64
}

// Create makes a session in fsys, an empty directory, and opens it. The
// directory is a session once Create has returned; before, Open gives
// fs.ErrNotExist and Discard clears it.
func Create(fsys vfs.FS, disks []DiskSpec, opt Options) (*Session, error) {
	opt = opt.withDefaults()
	l, err := fsys.Lock(lockName, vfs.Exclusive) // the file is durable with the rest
	if err == nil {
		err = errors.Join(create(fsys, disks, opt), l.Unlock())
	}
	if err != nil {
		return nil, fmt.Errorf("create redirect session: %w", spaceError(err))
	}
	return Open(fsys, disks, opt)
}

func create(fsys vfs.FS, disks []DiskSpec, opt Options) error {
	if _, err := fsys.Stat(headerName); err == nil {
		return fmt.Errorf("%s: %w", headerName, fs.ErrExist)
	}
	if len(disks) == 0 || len(disks) > maxDisks {
		return fmt.Errorf("%d disks", len(disks))
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	h := header{ID: hex.EncodeToString(id[:]), WALBytes: opt.WALBytes}
	for i, d := range disks {
		h.Disks = append(h.Disks, headerDisk{d.Name, d.Identity})
		if err := makeData(fsys, uint16(i), 0, d.Identity.Size); err != nil {
			return err
		}
	}
	for i := range 2 {
		if err := makeWAL(fsys, i, fileHeader{walMagic, id, uint64(i) + 1, uint64(opt.WALBytes / 2)}); err != nil {
			return err
		}
	}
	m := mapLog{fs: fsys, id: id}
	if err := m.rewrite(nil, mode{layers: []uint32{0}}, 0, opt.mapRoom()); err != nil {
		return err
	}
	if err := errors.Join(m.file.Close(), makeReserve(fsys, opt.ReserveBytes)); err != nil {
		return err
	}
	text, err := h.encode()
	if err != nil {
		return err
	}
	return writeDurably(fsys, headerName, text)
}

// createNew makes a file in place of one that nobody may miss.
func createNew(fsys vfs.FS, name string) (vfs.File, error) {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return fsys.Create(name)
}

// makeData makes the empty data file of one disk in one layer.
func makeData(fsys vfs.FS, disk uint16, lay uint32, size int64) error {
	f, err := createNew(fsys, dataName(disk, lay))
	if err != nil {
		return err
	}
	hintExtents(f)
	return errors.Join(f.Truncate(align(size, grainBytes)), f.Sync(), f.Close())
}

func makeReserve(fsys vfs.FS, n int64) error {
	f, err := createNew(fsys, reserveName)
	if err != nil {
		return err
	}
	return errors.Join(f.Preallocate(n), f.Sync(), f.Close())
}

// Open opens the session in fsys. The disks must be those it was created with,
// in the same order; another identity gives ErrMismatch. A session that another
// process holds open gives vfs.ErrLocked.
func Open(fsys vfs.FS, disks []DiskSpec, opt Options) (*Session, error) {
	s := &Session{
		fs: fsys, opt: opt.withDefaults(), kick: make(chan struct{}, 1), synced: make(chan struct{}, 1), quit: make(chan struct{}),
		failedData: make(map[uint32]bool),
	}
	s.log.cond.L = &s.log.mu
	if err := s.open(disks); err != nil {
		return nil, fmt.Errorf("open redirect session: %w", errors.Join(err, s.closeFiles()))
	}
	s.toMark() // of what was found, which counts from now on
	s.warn()
	s.done.Go(s.keep)
	s.wake()
	return s, nil
}

func (s *Session) open(specs []DiskSpec) error {
	text, err := readWhole(s.fs, headerName, maxHeader)
	if err != nil {
		return err
	}
	h, id, err := decodeHeader(text)
	if err != nil {
		return damaged(headerName, 0, "%v", err)
	}
	if s.lock, err = s.fs.Lock(lockName, vfs.Exclusive); err != nil {
		return err
	}
	s.id, s.opt.WALBytes = id, h.WALBytes
	if len(specs) != len(h.Disks) {
		return fmt.Errorf("%w: %d disks, not %d", ErrMismatch, len(h.Disks), len(specs))
	}
	for i, d := range specs {
		want := h.Disks[i]
		switch {
		case d.Name != want.Name || d.Identity != want.Identity:
			return fmt.Errorf("%w: disk %d is %s of %+v, not %s of %+v", ErrMismatch, i, want.Name, want.Identity, d.Name, d.Identity)
		case d.Base.Size() != want.Identity.Size:
			return fmt.Errorf("%w: disk %s has %d bytes, its base %d", ErrMismatch, d.Name, want.Identity.Size, d.Base.Size())
		}
		s.disks = append(s.disks, newDisk(s, uint16(i), d))
	}
	if err := s.load(nil); err != nil {
		return err
	}
	s.newVerifier()
	return s.settle()
}

// settle makes durable what load found, for it may come from the page cache of
// a process that was killed, and clears away what belongs to nobody. The map
// comes first, and its name: a log file that it has is used again.
func (s *Session) settle() error {
	if err := errors.Join(s.m.file.Sync(), s.fs.SyncDir(".")); err != nil {
		return err
	}
	for _, w := range []*walFile{s.log.active, s.log.sealed} {
		if w == nil {
			continue
		}
		if err := w.file.Sync(); err != nil {
			return err
		}
		w.durable.Store(w.end)
	}
	if err := s.recycleStale(); err != nil {
		return err
	}
	for _, d := range s.disks {
		if err := d.openLayers(); err != nil {
			return err
		}
		if err := d.openTarget(); err != nil {
			return err
		}
	}
	s.reserved = s.reserveWhole()
	return s.tidy(true)
}

// tidy removes files of layers that are gone, and those without a name if
// nobody can be making one.
func (s *Session) tidy(unnamed bool) error {
	list, err := s.fs.ReadDir(".")
	if err != nil {
		return err
	}
	s.mu.RLock()
	layers := s.mode.layers
	s.mu.RUnlock()
	wanted := make(map[string]bool)
	for _, d := range s.disks {
		for _, l := range layers {
			wanted[dataName(d.index, l)] = true
		}
	}
	for _, e := range list {
		if unnamed && strings.HasSuffix(e.Name, newSuffix) && ours(strings.TrimSuffix(e.Name, newSuffix)) || strings.HasPrefix(e.Name, "data.") && !wanted[e.Name] {
			if err := s.fs.Remove(e.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// ours tells whether a name in the directory is one of a session's files.
func ours(name string) bool {
	switch name {
	case headerName, mapName, reserveName, lockName, walName(0), walName(1):
		return true
	}
	return strings.HasPrefix(name, "data.")
}

// Discard removes a session, or what is left of one, that nobody has open. Other
// files in the directory stay.
func Discard(fsys vfs.FS) error {
	l, err := fsys.Lock(lockName, vfs.Exclusive)
	if err != nil {
		return fmt.Errorf("discard redirect session: %w", err)
	}
	err = discard(fsys)
	if err = errors.Join(err, l.Unlock()); err != nil {
		return fmt.Errorf("discard redirect session: %w", err)
	}
	return nil
}

func discard(fsys vfs.FS) error {
	// Without its header it is no session any more.
	if err := fsys.Remove(headerName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fsys.SyncDir("."); err != nil {
		return err
	}
	list, err := fsys.ReadDir(".")
	if err != nil {
		return err
	}
	for _, e := range list {
		if !e.Dir && ours(strings.TrimSuffix(e.Name, newSuffix)) && e.Name != lockName {
			err = errors.Join(err, fsys.Remove(e.Name))
		}
	}
	return errors.Join(err, fsys.Remove(lockName), fsys.SyncDir("."))
}

// Disk returns the disk of that name, or ErrNoDisk.
func (s *Session) Disk(name string) (*Disk, error) {
	for _, d := range s.disks {
		if d.name == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoDisk, name)
}

// Disks returns the disks in the order they were given.
func (s *Session) Disks() []*Disk { return s.disks }

// Verifier changes whenever unsynced writes may have been lost: at every
// opening and after a failed sync.
func (s *Session) Verifier() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.verifier
}

// newVerifier is called with mu held, or before anyone else knows s.
func (s *Session) newVerifier() {
	old := s.verifier
	for s.verifier == old {
		var p [8]byte
		_, _ = rand.Read(p[:]) // never fails
		s.verifier = binary.LittleEndian.Uint64(p[:])
	}
}

// usable gives the error of a session that can't be read, or with writes not be
// written.
func (s *Session) usable(writes bool) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.usableLocked(writes)
}

func (s *Session) usableLocked(writes bool) error {
	switch {
	case s.closed:
		return ErrClosed
	case s.failure != nil:
		return fmt.Errorf("%w: %w", ErrFailed, s.failure)
	case s.lost != nil:
		return fmt.Errorf("%w: %w", ErrFailed, s.lost)
	case writes && s.readOnly != nil:
		return fmt.Errorf("%w: %v", ErrReadOnly, s.readOnly) // not ErrFailed any more
	}
	return nil
}

// Close makes everything durable and closes the session. Nothing may be under
// way. When the last commit fails, its error comes out; the files are closed
// all the same.
func (s *Session) Close() error {
	if s.closeOnce.Add(1) > 1 {
		return ErrClosed
	}
	err := s.Commit()
	if err == nil {
		s.gate.RLock()
		_, err = s.mark()
		s.gate.RUnlock()
	}
	s.mu.Lock()
	if s.readOnly != nil && errors.Is(err, ErrReadOnly) {
		err = nil // nothing was accepted
	}
	s.closed = true
	s.mu.Unlock()
	s.log.mu.Lock()
	s.log.cond.Broadcast()
	s.log.mu.Unlock()
	close(s.quit)
	s.done.Wait()
	return errors.Join(err, s.closeFiles())
}

// closeFiles closes what is open.
func (s *Session) closeFiles() (err error) {
	closeFile := func(f vfs.File) {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	for _, w := range s.log.files {
		if w != nil {
			closeFile(w.file)
		}
	}
	closeFile(s.m.file)
	for _, d := range s.disks {
		for _, l := range d.layers {
			closeFile(l.file) // nil when a repair went wrong
		}
		if d.target != nil {
			err = errors.Join(err, d.target.Close())
		}
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Unlock())
	}
	return err
}
