package index

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// writer writes an index file from front to back: names, entries, fences, and
// at last the header. It keeps one block, a write buffer and the fences.
type writer struct {
	f      vfs.File
	out    *bufio.Writer
	b      block
	rows   int // in b
	number uint32
	sums   sumOfSums
	fences []uint64
	head   header
}

const writeBytes = 256 << 10

func newWriter(f vfs.File, number uint64) (*writer, error) {
	w := &writer{f: f, out: bufio.NewWriterSize(f, writeBytes), head: header{number: number}, number: 1}
	_, err := w.out.Write(w.b[:]) // the place of the header
	return w, err
}

// name adds the next pack of the table. All names come before the first entry.
func (w *writer) name(name pack.Name) error {
	if w.rows == 0 {
		w.fences = append(w.fences, binary.BigEndian.Uint64(name[:]))
	}
	copy(w.b[w.rows*nameBytes:], name[:])
	w.head.packs++
	return w.row(namesPerBlock)
}

// entry adds the next entry.
func (w *writer) entry(e entry) error {
	if w.head.entries == 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.rows == 0 {
		w.fences = append(w.fences, e.hi)
	}
	w.b.putEntry(w.rows, e)
	w.head.entries++
	return w.row(entriesPerBlock)
}

// row counts a row that was put into the block.
func (w *writer) row(perBlock int) error {
	if w.rows++; w.rows < perBlock {
		return nil
	}
	return w.flush()
}

// flush seals the block and writes it, if there is a row in it.
func (w *writer) flush() error {
	if w.rows == 0 {
		return nil
	}
	w.sums.add(w.b.seal(w.number))
	_, err := w.out.Write(w.b[:])
	w.b, w.rows = block{}, 0
	w.number++
	return err
}

// finish writes fences and header and syncs the file.
func (w *writer) finish() (member, error) {
	if err := w.flush(); err != nil {
		return member{}, err
	}
	for _, v := range w.fences {
		binary.LittleEndian.PutUint64(w.b[w.rows*fenceBytes:], v)
		if err := w.row(fencesPerBlock); err != nil {
			return member{}, err
		}
	}
	if err := errors.Join(w.flush(), w.out.Flush()); err != nil {
		return member{}, err
	}
	w.head.sum = uint32(w.sums)
	b := w.head.encode()
	if _, err := w.f.WriteAt(b[:], 0); err != nil {
		return member{}, err
	}
	return member{number: w.head.number, bytes: w.head.bytes(), mark: b.sum()}, w.f.Sync()
}

// sumOfSums is the CRC of the CRCs of blocks.
type sumOfSums uint32

func (s *sumOfSums) add(sum uint32) {
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], sum)
	*s = sumOfSums(crc32.Update(uint32(*s), castagnoli, p[:]))
}
