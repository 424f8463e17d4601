package datastore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"syscall"

	treefs "holdfast/fs"
	"holdfast/repo/vfs"
)

// Layout of a journal file. All numbers are little-endian; FORMAT.md draws it.
const (
	headerBytes = 512 // one sector, so that it is never torn
	headerMagic = "HFDSJ001"

	batchAlign = 512        // so that no sector is written twice
	batchBytes = 40         // of a batch, before its records
	batchMagic = 0x42444648 // "HFDB"

	// minJournal is what a journal file has at least, maxJournal at most.
	minJournal = 1 << 20
	maxJournal = 256 << 20
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// errJournal says that a file is no journal that could be written to.
var errJournal = errors.New("damaged journal")

// header begins a journal file.
type header struct {
	id     [16]byte // of the store
	number uint32   // of the session
	live   bool     // no later file was begun when this was written
	gen    uint64   // grows with every turn; 0: never used
	snap   uint32   // length of the snapshot behind the header
	sum    uint32   // its checksum
}

func (h header) encode() []byte {
	p := make([]byte, headerBytes)
	copy(p, headerMagic)
	copy(p[8:], h.id[:])
	le.PutUint32(p[24:], h.number)
	if h.live {
		p[28] = 1
	}
	le.PutUint64(p[32:], h.gen)
	le.PutUint32(p[40:], h.snap)
	le.PutUint32(p[44:], h.sum)
	le.PutUint32(p[headerBytes-4:], crc32.Checksum(p[:headerBytes-4], castagnoli))
	return p
}

func decodeHeader(p []byte) (h header, err error) {
	switch {
	case len(p) < headerBytes || string(p[:5]) != headerMagic[:5]:
		return h, fmt.Errorf("%w: no header", errJournal)
	case crc32.Checksum(p[:headerBytes-4], castagnoli) != le.Uint32(p[headerBytes-4:]):
		return h, fmt.Errorf("%w: checksum of the header", errJournal)
	case string(p[:8]) != headerMagic:
		return h, fmt.Errorf("%w: %q", ErrFormat, p[:8])
	}
	copy(h.id[:], p[8:])
	h.number, h.live = le.Uint32(p[24:]), p[28] == 1
	h.gen, h.snap, h.sum = le.Uint64(p[32:]), le.Uint32(p[40:]), le.Uint32(p[44:])
	return h, nil
}

// sumOf is the checksum of a batch, which nobody can make who does not know the
// id of the store: what clients write is in the journal too.
func sumOf(id *[16]byte, p []byte) uint32 {
	return crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, p)
}

// batch is how records follow a snapshot: all of them, or none.
type batch struct {
	gen, seq uint64
	at       int64 // in the file
}

func (b batch) encode(id *[16]byte, records []byte) []byte {
	p := make([]byte, align(int64(batchBytes+len(records)), batchAlign))
	le.PutUint32(p, batchMagic)
	le.PutUint64(p[8:], b.gen)
	le.PutUint64(p[16:], b.seq)
	le.PutUint64(p[24:], uint64(b.at))
	le.PutUint32(p[32:], uint32(len(records)))
	copy(p[batchBytes:], records)
	le.PutUint32(p[4:], sumOf(id, p[8:batchBytes+len(records)]))
	return p
}

// decodeBatch returns the batch at the begin of p and its records.
func decodeBatch(id *[16]byte, p []byte) (b batch, records []byte, ok bool) {
	if len(p) < batchBytes || le.Uint32(p) != batchMagic || int64(le.Uint32(p[32:])) > int64(len(p)-batchBytes) {
		return b, nil, false
	}
	end := batchBytes + int(le.Uint32(p[32:]))
	if sumOf(id, p[8:end]) != le.Uint32(p[4:]) {
		return b, nil, false
	}
	return batch{le.Uint64(p[8:]), le.Uint64(p[16:]), int64(le.Uint64(p[24:]))}, p[batchBytes:end], true
}

// replay reads the bytes of a journal file: the snapshot, then batch after
// batch. It returns the last batch, and where the next one goes. The last may have been torn by a power cut; one that is followed by
// a good one is damage.
func replay(h header, p []byte) (st *state, last, next batch, err error) {
	if int64(h.snap) > int64(len(p)-headerBytes) {
		return nil, last, next, fmt.Errorf("%w: the snapshot of %d bytes is cut short", errJournal, h.snap)
	}
	snap := p[headerBytes : headerBytes+int(h.snap)]
	if sumOf(&h.id, snap) != h.sum {
		return nil, last, next, fmt.Errorf("%w: checksum of the snapshot", errJournal)
	}
	st = newState()
	if err := st.applyAll(snap); err != nil {
		return nil, last, next, fmt.Errorf("%w: snapshot: %w", errJournal, err)
	}
	next = batch{gen: h.gen, seq: 1, at: align(headerBytes+int64(h.snap), batchAlign)}
	last = next
	for next.at < int64(len(p)) {
		b, records, ok := decodeBatch(&h.id, p[next.at:])
		if !ok || b != next {
			break
		}
		if err := st.applyAll(records); err != nil {
			return nil, last, next, fmt.Errorf("%w: batch at %d: %w", errJournal, next.at, err)
		}
		last = next
		next.seq++
		next.at += align(int64(batchBytes+len(records)), batchAlign)
	}
	for at := next.at + batchAlign; at < int64(len(p)); at += batchAlign {
		if b, _, ok := decodeBatch(&h.id, p[at:]); ok && b.gen == h.gen && b.at == at && b.seq > next.seq {
			return nil, last, next, fmt.Errorf("%w: batch at %d is not whole, but a later one is", errJournal, next.at)
		}
	}
	if err := st.check(); err != nil {
		return nil, last, next, fmt.Errorf("%w: %w", errJournal, err)
	}
	return st, last, next, nil
}

// applyAll applies all records of p.
func (st *state) applyAll(p []byte) error {
	for d := (decoder{p: p}); len(d.p) > 0; {
		r, err := d.record()
		if err == nil {
			err = st.apply(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// journal is the two files of a tree that take turns. One goroutine at a time
// calls its methods.
type journal struct {
	fs     vfs.FS
	dir    string
	id     [16]byte
	number uint32
	files  [2]vfs.File
	active int
	next   batch
	size   int64  // of both files
	tail   []byte // the last batch, until it is settled
	tailAt int64
}

func (j *journal) name(i int) string { return fmt.Sprintf("%s/journal.%d", j.dir, i) }

func (j *journal) header(live bool, gen uint64, snap []byte) header {
	return header{j.id, j.number, live, gen, uint32(len(snap)), sumOf(&j.id, snap)}
}

// createJournal makes both files in an empty directory. They are durable with
// their names; the name of the directory is not.
func createJournal(fsys vfs.FS, dir string, id [16]byte, number uint32, snap []byte) (*journal, error) {
	j := &journal{fs: fsys, dir: dir, id: id, number: number, size: sizeFor(int64(len(snap)))}
	err := j.make(1, false, 0, nil)
	if err == nil {
		err = j.make(0, true, 1, snap)
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, j.close())
	}
	j.began(0, 1, len(snap))
	return j, nil
}

// sizeFor is how long journal files are that are to hold such a snapshot.
func sizeFor(snap int64) int64 {
	size := int64(minJournal)
	for size/2 < snap+maxNotesLive+reserveBytes {
		size *= 2
	}
	return size
}

// make makes a file of the journal, in place of one that nobody may miss.
func (j *journal) make(i int, live bool, gen uint64, snap []byte) (err error) {
	if f := j.files[i]; f != nil {
		j.files[i] = nil
		err = f.Close()
	}
	if rerr := j.fs.Remove(j.name(i)); !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if err != nil {
		return err
	}
	f, err := j.fs.Create(j.name(i))
	if err != nil {
		return err
	}
	j.files[i] = f
	if err := f.Preallocate(j.size); err != nil {
		return err
	}
	return j.begin(i, live, gen, snap)
}

// begin writes a snapshot and then the header that makes it count.
func (j *journal) begin(i int, live bool, gen uint64, snap []byte) error {
	f := j.files[i]
	if len(snap) > 0 {
		if _, err := f.WriteAt(snap, headerBytes); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(j.header(live, gen, snap).encode(), 0); err != nil {
		return err
	}
	return f.Sync()
}

func (j *journal) began(i int, gen uint64, snap int) {
	j.active = i
	j.next = batch{gen: gen, seq: 1, at: align(int64(headerBytes+snap), batchAlign)}
}

// fits says whether records of so many bytes can be appended.
func (j *journal) fits(n int) bool {
	return j.next.at+align(int64(batchBytes+n), batchAlign) <= j.size
}

// append makes records durable.
func (j *journal) append(records []byte) error {
	p := j.next.encode(&j.id, records)
	f := j.files[j.active]
	if _, err := f.WriteAt(p, j.next.at); err != nil {
		return err
	}
	if err := vfs.SyncData(f); err != nil {
		return err
	}
	j.next.seq++
	j.next.at += int64(len(p))
	return nil
}

// turn begins the other file with a snapshot that has all batches in it. With
// trouble that is so, and the file before it had to be made anew.
func (j *journal) turn(snap []byte) (trouble, err error) {
	old, gen := j.active, j.next.gen
	if int64(headerBytes+len(snap)) > j.size {
		return nil, fmt.Errorf("snapshot of %d bytes in a journal of %d", len(snap), j.size) // a mistake of ours: fits and room see to it
	}
	if err := j.begin(1-old, true, gen+1, snap); err != nil {
		return nil, err
	}
	j.began(1-old, gen+1, len(snap))
	if trouble = j.retire(old, gen); trouble == nil {
		return nil, nil
	}
	// All is durable in the new file: nothing of it may be told to be lost.
	if err = j.make(old, false, 0, nil); err == nil {
		err = j.fs.SyncDir(j.dir)
	}
	return trouble, err
}

// retire says in a file's header that there is a later one.
func (j *journal) retire(i int, gen uint64) error {
	if _, err := j.files[i].WriteAt(j.header(false, gen, nil).encode(), 0); err != nil {
		return err
	}
	return vfs.SyncData(j.files[i])
}

// renew begins again in new files, after one of them has failed.
func (j *journal) renew(snap []byte) error {
	old, gen := j.active, j.next.gen
	if err := j.make(1-old, true, gen+1, snap); err != nil {
		return err
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		return err
	}
	j.began(1-old, gen+1, len(snap))
	if err := j.make(old, false, 0, nil); err != nil {
		return err
	}
	return j.fs.SyncDir(j.dir)
}

// grow makes both files longer. When there is no space they stay as they were.
func (j *journal) grow(size int64) error {
	for _, f := range j.files {
		err := f.Preallocate(size)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			for _, f := range j.files {
				err = errors.Join(err, cutTo(f, j.size))
			}
			return err
		}
	}
	j.size = size
	return nil
}

// load reads back what is durable.
func (j *journal) load() (*state, error) {
	p := make([]byte, j.next.at)
	if n, err := j.files[j.active].ReadAt(p, 0); n < len(p) {
		return nil, err
	}
	h, err := decodeHeader(p)
	if err != nil {
		return nil, err
	}
	st, _, _, err := replay(h, p)
	return st, err
}

// cutTo gives back what a file has beyond size.
func cutTo(f vfs.File, size int64) error {
	have, err := f.Size()
	if err == nil && have > size {
		err = f.Truncate(size)
	}
	return err
}

func (j *journal) close() (err error) {
	for _, f := range j.files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// openJournal opens the journal in a directory and replays it.
func openJournal(fsys vfs.FS, dir string, number uint32) (*journal, *state, error) {
	j := &journal{fs: fsys, dir: dir, number: number}
	st, err := j.open()
	if err != nil {
		return nil, nil, errors.Join(err, j.close())
	}
	return j, st, nil
}

func (j *journal) open() (*state, error) {
	var contents [2][]byte
	var headers [2]header
	var errs [2]error
	for i := range j.files {
		if contents[i], errs[i] = j.read(i); errs[i] == nil {
			headers[i], errs[i] = decodeHeader(contents[i])
		}
		if errs[i] == nil && headers[i].number != j.number {
			errs[i] = fmt.Errorf("%w: it is of session %d", errJournal, headers[i].number)
		}
		if errs[i] != nil {
			errs[i] = fmt.Errorf("%s: %w", j.name(i), errs[i])
			headers[i] = header{}
		}
	}
	active, err := choose(headers, errs)
	if err != nil {
		return nil, err
	}
	h := headers[active]
	st, last, next, err := replay(h, contents[active])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", j.name(active), err)
	}
	j.id, j.active, j.next = h.id, active, next
	all := int64(len(contents[active]))
	j.tail = contents[active][min(last.at, all):min(next.at, all)]
	j.tailAt = last.at
	other := 1 - active
	j.size = max(minJournal, int64(len(contents[active])), int64(len(contents[other])))
	if errs[other] != nil || len(contents[other]) != len(contents[active]) || j.size > int64(len(contents[active])) {
		err = j.complete([2]int64{int64(len(contents[0])), int64(len(contents[1]))}, errs[other] != nil)
	}
	if err == nil && headers[other].live {
		err = j.retire(other, headers[other].gen)
	}
	return st, err
}

// choose says which of the files is the one to go on with. Two that are live
// come from a crash between the begin of one and the end of the other; one
// alone from a crash in the begin of the other one.
func choose(h [2]header, errs [2]error) (int, error) {
	for i := range h {
		if errors.Is(errs[i], ErrFormat) {
			return 0, errs[i]
		}
	}
	switch {
	case h[0].live && h[1].live:
		if h[0].id != h[1].id || h[0].gen+1 != h[1].gen && h[1].gen+1 != h[0].gen {
			return 0, fmt.Errorf("%w: generations %d and %d are both live", errJournal, h[0].gen, h[1].gen)
		}
		if h[0].gen > h[1].gen {
			return 0, nil
		}
		return 1, nil
	case h[0].live && h[0].gen > h[1].gen:
		return 0, nil
	case h[1].live && h[1].gen > h[0].gen:
		return 1, nil
	}
	return 0, fmt.Errorf("%w: no file has the latest state: %w", errJournal, errors.Join(errs[:]...))
}

// complete makes the files what they should be: both there, both as long. Where
// there is no space for that, they are as long as the shorter one.
func (j *journal) complete(sizes [2]int64, missing bool) error {
	if missing {
		sizes[1-j.active] = 0
		if err := j.make(1-j.active, false, 0, nil); err != nil {
			return err
		}
		if err := j.fs.SyncDir(j.dir); err != nil {
			return err
		}
	}
	err := j.grow(j.size)
	if least := min(sizes[0], sizes[1]); errors.Is(spaceError(err), treefs.ErrNoSpace) && least >= max(minJournal, j.next.at) {
		j.size, err = least, nil
	}
	return err
}

// read opens a file of the journal and reads all of it.
func (j *journal) read(i int) ([]byte, error) {
	f, err := j.fs.OpenWrite(j.name(i))
	if err != nil {
		return nil, err
	}
	j.files[i] = f
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > 2*maxJournal {
		return nil, fmt.Errorf("%w: %d bytes", errJournal, size)
	}
	p := make([]byte, size)
	if n, err := f.ReadAt(p, 0); n < len(p) {
		return nil, err
	}
	return p, nil
}

// settle makes what was found at the end of the journal durable: it may come
// from the page cache of a process that was killed, or whose sync had failed. So
// it is written once more.
func (j *journal) settle() error {
	f := j.files[j.active]
	if _, err := f.WriteAt(j.tail, j.tailAt); err != nil {
		return err
	}
	j.tail = nil
	return f.Sync()
}

// spaceError gives errors of a full volume their name.
func spaceError(err error) error {
	if err != nil && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && !errors.Is(err, treefs.ErrNoSpace) {
		return fmt.Errorf("%w: %w", treefs.ErrNoSpace, err)
	}
	return err
}
