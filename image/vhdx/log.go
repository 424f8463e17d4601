package vhdx

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	entryMagic = "loge"
	zeroMagic  = "zero"
	descMagic  = "desc"
	dataMagic  = "data"

	logSector        = 4 * kib
	entryHeaderBytes = 64
	descriptorBytes  = 32

	// maxLog bounds the log we replay; Hyper-V and QEMU make it 1 MiB.
	maxLog = 256 * mib
)

// ring is the log as a stretch of bytes that begins again at its end.
type ring struct {
	ra io.ReaderAt
	extent
	guid GUID
}

// read fills p, at most the whole ring, from byte off of the ring.
func (g *ring) read(p []byte, off int64) error {
	off %= g.len
	n := min(int64(len(p)), g.len-off)
	if err := layer.ReadFull(g.ra, p[:n], g.off+off); err != nil {
		return err
	}
	return layer.ReadFull(g.ra, p[n:], g.off)
}

// entry is a valid log entry.
//
// Source: [MS-VHDX] 2.3.1.1.
type entry struct {
	at          int64 // of the entry in the ring
	len         int64 // at 8
	tail        int64 // 12: the entry, as a place in the ring, where this one's sequence begins
	sequence    uint64
	descriptors int64 // 24
	flushed     int64 // 48: the file has at least so many bytes
	last        int64 // 56: and is to have so many

	next int // the entry that follows in its sequence, an index; -1 none
	head int // the last of those that follow
}

func (e *entry) descriptorsEnd() int64 {
	return (entryHeaderBytes + e.descriptors*descriptorBytes + logSector - 1) / logSector * logSector
}

// activeSequence returns the entries to replay, in order: none when nothing was
// ever logged under the GUID.
//
// Source: [MS-VHDX] 2.3.3. The entries and what follows each are found first,
// so that the work is linear in the log.
func (g *ring) activeSequence() ([]entry, error) {
	entries, seen, err := g.entries()
	if err != nil {
		return nil, err
	}
	head, tail := g.active(entries)
	if head < 0 {
		if !seen {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: the VHDX log has no valid sequence of entries", fault.ErrDamaged)
	}
	var sequence []entry
	for i := tail; ; i = entries[i].next {
		sequence = append(sequence, entries[i])
		if i == head {
			return sequence, nil
		}
	}
}

// active links entries to sequences and returns head and tail of the newest
// that is whole, -1 if there is none.
func (g *ring) active(entries []entry) (head, tail int) {
	at := make(map[int64]int, len(entries))
	order := make([]int, len(entries)) // the newest first
	for i, e := range entries {
		at[e.at], order[i] = i, i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(entries[b].sequence, entries[a].sequence) })
	for _, i := range order {
		e := &entries[i]
		e.next, e.head = -1, i
		if k, ok := at[(e.at+e.len)%g.len]; ok && entries[k].sequence == e.sequence+1 {
			e.next, e.head = k, entries[k].head
		}
	}
	for _, i := range order {
		if entries[i].next >= 0 {
			continue
		}
		if t, ok := at[entries[i].tail]; ok && entries[t].head == i {
			return i, t
		}
	}
	return -1, -1
}

// entries returns all valid entries in the order of their places, and whether
// there was anything that claims to be one.
func (g *ring) entries() (valid []entry, seen bool, err error) {
	// Entries that lie over each other could each claim the whole log.
	budget := 4 * g.len
	piece := make([]byte, mib)
	for start := int64(0); start < g.len; start += mib {
		if err := g.read(piece, start); err != nil {
			return nil, false, err
		}
		for in := int64(0); in < mib; in += logSector {
			b := piece[in:][:entryHeaderBytes]
			if string(b[:4]) != entryMagic || GUID(b[32:48]) != g.guid {
				continue
			}
			seen = true
			e, ok := g.decode(b, start+in)
			if !ok {
				continue
			}
			checked, ok, err := g.verify(&e)
			if err != nil {
				return nil, false, err
			}
			if ok {
				valid = append(valid, e)
			}
			if budget -= checked; budget < 0 {
				return nil, false, fmt.Errorf("%w: entries of the VHDX log lie over each other", fault.ErrDamaged)
			}
		}
	}
	return valid, seen, nil
}

// decode reads an entry header; ok says that it can be one.
func (g *ring) decode(b []byte, at int64) (e entry, ok bool) {
	le := binary.LittleEndian
	e = entry{
		at:          at,
		len:         int64(le.Uint32(b[8:])),
		tail:        int64(le.Uint32(b[12:])),
		sequence:    le.Uint64(b[16:]),
		descriptors: int64(le.Uint32(b[24:])),
		flushed:     int64(min(le.Uint64(b[48:]), maxFileSize)),
		last:        int64(min(le.Uint64(b[56:]), maxFileSize)),
	}
	return e, e.len%logSector == 0 && e.len <= g.len && e.descriptorsEnd() <= e.len &&
		e.tail%logSector == 0 && e.tail < g.len && e.sequence > 0
}

// verify reads the entry: its descriptors and data sectors carry its sequence
// number, and the checksum holds. It gives up at the first sector that does not
// belong, after checked bytes.
func (g *ring) verify(e *entry) (checked int64, ok bool, err error) {
	var sum, want uint32
	var data int64 // sectors of it
	b := make([]byte, min(e.len, 64*kib))
	for checked < e.len {
		b = b[:min(int64(len(b)), e.len-checked)]
		if err := g.read(b, e.at+checked); err != nil {
			return checked, false, err
		}
		for in := 0; in < len(b); in += logSector {
			sector, at := b[in:][:logSector], checked+int64(in)
			if at < e.descriptorsEnd() {
				n, ok := e.verifyDescriptors(sector, at)
				if !ok {
					return at, false, nil
				}
				data += n
			} else if at < e.descriptorsEnd()+data*logSector && !e.isData(sector) {
				return at, false, nil
			}
		}
		if checked == 0 {
			want = binary.LittleEndian.Uint32(b[4:])
			clear(b[4:8])
		}
		sum = crc32.Update(sum, castagnoli, b)
		checked += int64(len(b))
	}
	return checked, sum == want && e.descriptorsEnd()+data*logSector <= e.len, nil
}

// verifyDescriptors checks the descriptors in a sector, which begins at byte at
// of the entry, and counts those of data.
func (e *entry) verifyDescriptors(sector []byte, at int64) (data int64, ok bool) {
	first := int64(0)
	if at == 0 {
		first = entryHeaderBytes
	}
	for in := first; in < logSector && at+in < entryHeaderBytes+e.descriptors*descriptorBytes; in += descriptorBytes {
		d := decodeDescriptor(sector[in:])
		if d.sequence != e.sequence || d.off%logSector != 0 || d.len%logSector != 0 {
			return 0, false
		}
		switch d.magic {
		case descMagic:
			data++
		case zeroMagic:
		default:
			return 0, false
		}
	}
	return data, true
}

// isData checks what a data sector keeps of the sequence number.
//
// Source: [MS-VHDX] 2.3.1.4.
func (e *entry) isData(b []byte) bool {
	le := binary.LittleEndian
	return string(b[:4]) == dataMagic && le.Uint32(b[4:]) == uint32(e.sequence>>32) && le.Uint32(b[logSector-4:]) == uint32(e.sequence)
}

// descriptor says of one write where it goes.
//
// Source: [MS-VHDX] 2.3.1.2 and 2.3.1.3.
type descriptor struct {
	magic    string
	trailing [4]byte // of the data, which its sector has not
	leading  [8]byte
	len      int64
	off      int64 // in the file
	sequence uint64
}

func decodeDescriptor(b []byte) descriptor {
	const tooFar = maxFileSize + 1 // on no border of a sector, so it is refused
	le := binary.LittleEndian
	d := descriptor{
		magic:    string(b[:4]),
		len:      logSector,
		off:      int64(min(le.Uint64(b[16:]), tooFar)),
		sequence: le.Uint64(b[24:]),
	}
	if d.magic == zeroMagic {
		d.len = int64(min(le.Uint64(b[8:]), tooFar))
		return d
	}
	copy(d.trailing[:], b[4:8])
	copy(d.leading[:], b[8:16])
	return d
}
