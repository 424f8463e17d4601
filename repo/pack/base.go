package pack

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"holdfast/repo/chunk"
)

// The record table says that a record has a base, its header says which. So
// whoever lists a pack reads a header for each patch, and for each leaf whose
// frame table has a base; these stand close together, and are read in runs.
const (
	baseGapBytes = 32 << 10  // read over rather than begin another read
	baseRunBytes = 256 << 10 // read at once
)

// headerBase returns the base of a sound header.
func headerBase(header []byte) chunk.ID { return chunk.ID(header[80:112]) }

// fillBases reads the bases that entries lack. What cannot be read as it is, is
// read healed. The error is ErrBase and names the first that stays null.
func (f *File) fillBases(entries []Entry) error {
	readBases(f.r, f.size, entries)
	if !slices.ContainsFunc(entries, Entry.lacksBase) {
		return nil
	}
	r, size := f.mended()
	readBases(r, size, entries)
	i := slices.IndexFunc(entries, Entry.lacksBase)
	if i < 0 {
		return nil
	}
	e := entries[i]
	return f.corrupt(int64(e.Off), fmt.Errorf("header of %v %s: %w: %w", e.Kind, e.ID.Short(), ErrBase, ErrDamaged))
}

// readBases fills in the bases it can read.
func readBases(r io.ReaderAt, size int64, entries []Entry) {
	w := window{r: r, size: size}
	for len(entries) > 0 {
		n, end := baseRun(entries)
		for i := range entries[:n] {
			e := &entries[i]
			if off := int64(e.Off); e.lacksBase() && off < size {
				if p := w.at(off, e.headerMost(), int(end-off)); e.isHeader(p) {
					e.Base = headerBase(p)
				}
			}
		}
		entries = entries[n:]
	}
}

// baseRun returns how many of the first entries go together: one that has its
// base, or those whose headers are read at once. These lie before end.
func baseRun(entries []Entry) (n int, end int64) {
	n, end = 1, entries[0].headerEnd()
	if !entries[0].lacksBase() {
		return n, end
	}
	for i, e := range entries {
		if int64(e.Off) > end+baseGapBytes || e.headerEnd() > int64(entries[0].Off)+baseRunBytes {
			break
		}
		if e.lacksBase() {
			n, end = i+1, e.headerEnd()
		}
	}
	return n, end
}

func (e Entry) lacksBase() bool { return e.Flags&HasBase != 0 && e.Base.IsNull() }

// headerMost is the most that the record's header can take, in bytes.
func (e Entry) headerMost() int { return min(int(e.Len), MaxHeaderBytes) }

func (e Entry) headerEnd() int64 { return int64(e.Off) + int64(e.headerMost()) }

// isHeader reports whether p starts with the sound header of the record that e
// lists, with a base.
func (e Entry) isHeader(p []byte) bool {
	n, ok := soundHeader(p)
	return ok && p[4] == recordVersion && n+int(binary.LittleEndian.Uint32(p[12:])) == int(e.Len) &&
		chunk.ID(p[24:56]) == e.ID && RecordKind(p[5]) == e.Kind && Flags(p[6]) == e.Flags && !headerBase(p).IsNull()
}
