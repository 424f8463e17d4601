// Package part reads partition tables: GPT, and MBR with logical partitions, on
// disks with sectors of 512 or 4,096 bytes.
//
//	MBR   sector 0: boot code, four entries of 16 bytes at 446, 0x55AA at 510.
//	      An entry of type 5, 15 or 133 is a box of logical partitions: a chain
//	      of sectors like it, each with one partition and where the next one is.
//	GPT   sector 0: an MBR whose one entry, of type 0xEE, protects the disk;
//	      sector 1: header; behind it an array of entries of 128 bytes or more;
//	      the array again before the last sector, and the header in it.
//
// Nothing on the disk says how long a sector is; the place of a GPT's header
// does, and for an MBR whoever can tell where a file system begins.
//
// Damage is noted and worked around where what is left is certain: a GPT is
// taken from its copy, a partition that leaves the disk is cut, one that is not
// on it gets a reason instead of bytes. Partitions are numbered as Linux does.
//
// Sources: UEFI Specification 2.10, chapter 5, "GUID Partition Table (GPT) Disk
// Layout"; for the order of logical partitions, Linux block/partitions/msdos.c.
package part

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"holdfast/image/internal/fault"
)

// ErrDamaged says that there is a table which can't be used.
var ErrDamaged = fault.ErrDamaged

// Table is what was found.
type Table struct {
	Kind        string // "gpt", "mbr", or "" for none
	SectorBytes int    // that the table counts in: 512 or 4096
	ID          string // a GPT's GUID, an MBR's signature in eight hex digits; "" if zero
	Partitions  []Partition
	Notes       []string // what is wrong or odd, for people
}

// Partition is an entry of a table.
type Partition struct {
	Number    int    // as Linux counts
	Off, Size int64  // in bytes; within the disk unless Why is set
	Type      string // a GUID in lower case, or "0x83" in an MBR; see TypeName
	ID        string // a GUID, or "1234abcd-01" in an MBR; "" if there is none
	Name      string // in a GPT
	Why       string // why its bytes can't be had; "" if they can
}

// Options help to read a table. The zero value is good.
type Options struct {
	// Known says whether something that is no partition table, such as a file
	// system, begins at byte off and may be size bytes long. It decides between
	// two ways to read the same bytes. nil: nothing is known.
	Known func(off, size int64) bool
}

// Read reads the partition table of a disk of size bytes. A disk without one
// gives a Table without Kind; one whose table is there but can't be used gives
// ErrDamaged, with all that was tried; an error of dev is passed on.
func Read(dev io.ReaderAt, size int64, opt Options) (*Table, error) {
	r := &reader{dev: dev, size: size, known: opt.Known, t: &Table{SectorBytes: sector512}}
	if r.known == nil {
		r.known = func(int64, int64) bool { return false }
	}
	if err := r.read(); err != nil {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	slices.SortStableFunc(r.t.Partitions, func(a, b Partition) int { return cmp.Compare(a.Number, b.Number) })
	r.noteOverlaps()
	return r.t, nil
}

const (
	sector512  = 512
	sector4096 = 4096
)

var le = binary.LittleEndian

// reader is one run.
type reader struct {
	dev   io.ReaderAt
	size  int64
	known func(off, size int64) bool
	t     *Table
	muted int // notes that were too many
}

func (r *reader) read() error {
	if r.size < sector512 {
		return nil
	}
	b, err := r.at(0, sector512)
	if err != nil {
		return err
	}
	m := parseMBR(b)
	switch {
	case m.protective():
		return r.protected(m)
	case m.plausible(r.size):
		return r.readMBR(m)
	case r.known(0, r.size):
		return nil
	}
	// Sector 0 tells nothing, and nothing else begins there: perhaps it was
	// overwritten. A GPT has another copy.
	if g, err := r.findGPT(m); err == nil {
		r.note("there is a GPT, but no MBR before it that protects it")
		return r.useGPT(g)
	}
	switch {
	case m.signed && m.empty():
		return r.readMBR(m)
	case m.signed:
		r.note("sector 0 ends as an MBR does, but its entries can't be partitions of this disk")
	}
	return nil
}

// protected reads the GPT that an MBR says is there.
func (r *reader) protected(m *mbr) error {
	g, err := r.findGPT(m)
	if err == nil {
		if n := m.others(); n > 0 {
			r.note("the MBR beside the GPT has %d entries of its own (hybrid MBR), which are not used", n)
		}
		return r.useGPT(g)
	}
	if m.others() == 0 {
		return err
	}
	r.note("the GPT can't be used (%v): these are the entries of the MBR beside it", err)
	return r.readMBR(m)
}

// at reads n bytes from off, all on the disk.
func (r *reader) at(off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if got, err := r.dev.ReadAt(b, off); got < n {
		if err == io.EOF {
			return nil, fmt.Errorf("the disk ends at byte %d, not %d: %w", off+int64(got), r.size, ErrDamaged)
		}
		return nil, err
	}
	return b, nil
}

// maxNotes bounds what a hostile table can make us say.
const maxNotes = 50

func (r *reader) note(format string, args ...any) {
	if len(r.t.Notes) < maxNotes {
		r.t.Notes = append(r.t.Notes, fmt.Sprintf(format, args...))
	} else if r.muted++; r.muted == 1 {
		r.t.Notes = append(r.t.Notes, "and more like these")
	}
}

// add enters a partition of count sectors from first on, as far as it is on the
// disk.
func (r *reader) add(p Partition, first, count uint64) {
	sector := uint64(r.t.SectorBytes)
	total := uint64(r.size) / sector
	switch {
	case count == 0:
		p.Why = "ends before it begins"
	case first >= total:
		p.Why = fmt.Sprintf("begins in sector %d, but the disk has only %d", first, total)
	case count > total-first:
		r.note("partition %d ends %d sectors behind the disk's end and was cut", p.Number, count-(total-first))
		count = total - first
	}
	if p.Why == "" {
		p.Off, p.Size = int64(first*sector), int64(count*sector)
	}
	r.t.Partitions = append(r.t.Partitions, p)
}

// noteOverlaps notes partitions that share sectors.
func (r *reader) noteOverlaps() {
	var list []Partition
	for _, p := range r.t.Partitions {
		if p.Why == "" {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b Partition) int { return cmp.Compare(a.Off, b.Off) })
	for i := 1; i < len(list); i++ {
		before, p := list[i-1], list[i]
		if p.Off < before.Off+before.Size {
			r.note("partitions %d and %d overlap", before.Number, p.Number)
		}
		if before.Off+before.Size > p.Off+p.Size { // compare the next with the one that goes on
			list[i] = before
		}
	}
}
