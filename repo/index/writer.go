package index

import (
	"encoding/binary"

	"holdfast/repo/blockfile"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// writer writes an index file from front to back: names, entries, fences, and
// at last the header.
type writer struct {
	f    vfs.File
	out  *blockfile.Writer
	head header
}

const writeBytes = 256 << 10

func newWriter(f vfs.File, number uint64) (*writer, error) {
	out, err := blockfile.NewWriter(f, writeBytes)
	return &writer{f: f, out: out, head: header{number: number}}, err
}

// name adds the next pack of the table. All names come before the first entry.
func (w *writer) name(name pack.Name) error {
	b, i := w.out.Place(binary.BigEndian.Uint64(name[:]))
	copy(b[i*nameBytes:], name[:])
	w.head.packs++
	return w.out.Placed(namesPerBlock)
}

// entry adds the next entry.
func (w *writer) entry(e entry) error {
	if w.head.entries == 0 {
		if err := w.out.Flush(); err != nil {
			return err
		}
	}
	b, i := w.out.Place(e.hi)
	putEntry(b, i, e)
	w.head.entries++
	return w.out.Placed(entriesPerBlock)
}

// finish writes fences and header and syncs the file.
func (w *writer) finish() (member, error) {
	sums, err := w.out.Finish()
	if err != nil {
		return member{}, err
	}
	w.head.sum = uint32(sums)
	b := w.head.encode()
	if _, err := w.f.WriteAt(b[:], 0); err != nil {
		return member{}, err
	}
	return member{Number: w.head.number, Bytes: w.head.bytes(), Mark: b.Sum()}, w.f.Sync()
}
