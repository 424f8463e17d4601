package blockmap

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
)

// An Entry says where the frames of one chunk are stored, as the header of its
// record does. It saves reading that header and decides nothing: if a frame
// read by it does not verify, the header is right.
type Entry struct {
	Patch    bool                 // some frames lie in the record of Base
	Salt     [pack.SaltBytes]byte // of the chunk's record; zeros unless sealed
	Base     chunk.ID             // of a patch, else Null
	BaseSalt [pack.SaltBytes]byte // of the base's record; zeros unless sealed
	Frames   []pack.Frame
}

// A Layout is what a repository's settings say of all its frame tables.
type Layout struct {
	Frames int  // frames in a chunk, 1 to pack.MaxFrames
	Sealed bool // entries carry salts
}

const (
	tableVersion = 1
	tableHead    = 8
	entryHead    = 4
	entryPatch   = 1 // flag: the record is a patch
)

// entryBytes is the length of an entry, of a patch or not.
func (lay Layout) entryBytes(patch bool) int {
	n := entryHead + lay.Frames*pack.FrameEntryBytes
	if lay.Sealed {
		n += pack.SaltBytes
	}
	if patch {
		n += lay.patchBytes()
	}
	return n
}

// patchBytes is how much longer the entry of a patch is.
func (lay Layout) patchBytes() int {
	if lay.Sealed {
		return chunk.IDBytes + pack.SaltBytes
	}
	return chunk.IDBytes
}

// A Table is the frame table of a leaf: entries by child number. It keeps the
// bytes of the file and reads an entry from them when asked, so that a leaf of
// 256 chunks of 8 frames takes 80 KiB and not four times as much. A table that
// is not appended to is safe for concurrent use.
type Table struct {
	lay   Layout
	raw   []byte
	have  childSet // children with an entry
	patch childSet // those of them whose record is a patch
}

// NewTable returns an empty table.
func NewTable(lay Layout) *Table {
	return &Table{lay: lay, raw: []byte{tableVersion, byte(lay.Frames), 0, 0, 0, 0, 0, 0}}
}

// ParseTable reads a frame table and keeps p, which must not be changed
// afterwards. Every table it accepts is one that Append writes; all others give
// ErrFormat.
func ParseTable(p []byte, lay Layout) (*Table, error) {
	bad := func(format string, args ...any) (*Table, error) {
		return nil, fmt.Errorf("%w: frame table "+format, append([]any{ErrFormat}, args...)...)
	}
	if len(p) < tableHead {
		return bad("of %d bytes", len(p))
	}
	if p[0] != tableVersion {
		return bad("of version %d, this program reads %d", p[0], tableVersion)
	}
	if int(p[1]) != lay.Frames {
		return bad("with %d frames a chunk, want %d", p[1], lay.Frames)
	}
	if binary.LittleEndian.Uint32(p[4:]) != 0 {
		return bad("with reserved bytes set")
	}
	t := &Table{lay: lay, raw: p}
	rest, last := p[tableHead:], -1
	for range binary.LittleEndian.Uint16(p[2:]) {
		if len(rest) < entryHead {
			return bad("that ends within an entry")
		}
		child, flags := int(rest[0]), rest[1]
		if child <= last || flags&^entryPatch != 0 || rest[2]|rest[3] != 0 {
			return bad("with child %d, flags %#x after child %d", child, flags, last)
		}
		n := lay.entryBytes(flags&entryPatch != 0)
		if len(rest) < n {
			return bad("that ends within child %d", child)
		}
		if err := lay.checkEntry(rest[:n]); err != nil {
			return bad("child %d: %w", child, err)
		}
		t.mark(child, flags)
		rest, last = rest[n:], child
	}
	if len(rest) != 0 {
		return bad("with %d bytes after its end", len(rest))
	}
	return t, nil
}

// checkEntry applies the rules of record headers to the entry p: a patch has a
// base and frames on both sides, and what is not a patch has neither.
func (lay Layout) checkEntry(p []byte) error {
	patch := p[1]&entryPatch != 0
	inBase := 0
	for at := len(p) - lay.Frames*pack.FrameEntryBytes; at < len(p); at += pack.FrameEntryBytes {
		f, err := pack.ParseFrame(p[at:])
		if err != nil {
			return err
		}
		if f.InBase {
			inBase++
		}
	}
	switch {
	case !patch && inBase != 0:
		return fmt.Errorf("%d frames in the base of what is not a patch", inBase)
	case patch && (inBase == 0 || inBase == lay.Frames):
		return fmt.Errorf("a patch with %d of %d frames in its base", inBase, lay.Frames)
	case patch && lay.base(p).IsNull():
		return fmt.Errorf("a patch without base")
	}
	return nil
}

// base is the base in the entry p of a patch.
func (lay Layout) base(p []byte) chunk.ID {
	at := entryHead
	if lay.Sealed {
		at += pack.SaltBytes
	}
	return chunk.ID(p[at : at+chunk.IDBytes])
}

// Bytes returns the table as it is stored. The caller must not change it.
func (t *Table) Bytes() []byte { return t.raw }

// Layout returns the shape of the table's entries.
func (t *Table) Layout() Layout { return t.lay }

// Len is the number of entries.
func (t *Table) Len() int { return t.have.before(Fanout) }

// Has reports whether there is an entry for a child.
func (t *Table) Has(child int) bool { return t.have.has(child) }

// Entry reads a child's entry into e, whose Frames are used again if they have
// room, and reports whether there is one.
func (t *Table) Entry(child int, e *Entry) bool {
	p := t.entry(child)
	if p == nil {
		return false
	}
	*e = Entry{Patch: p[1]&entryPatch != 0, Frames: e.Frames[:0]}
	p = p[entryHead:]
	if t.lay.Sealed {
		p = p[copy(e.Salt[:], p):]
	}
	if e.Patch {
		p = p[copy(e.Base[:], p):]
		if t.lay.Sealed {
			p = p[copy(e.BaseSalt[:], p):]
		}
	}
	for range t.lay.Frames {
		f, _ := pack.ParseFrame(p) // checked when the entry came in
		e.Frames = append(e.Frames, f)
		p = p[pack.FrameEntryBytes:]
	}
	return true
}

// entry returns the bytes of a child's entry, nil if there is none.
func (t *Table) entry(child int) []byte {
	if !t.have.has(child) {
		return nil
	}
	at := tableHead + t.have.before(child)*t.lay.entryBytes(false) + t.patch.before(child)*t.lay.patchBytes()
	return t.raw[at : at+t.lay.entryBytes(t.patch.has(child))]
}

// Append adds the entry of a child, which must come after those that are there.
// An entry that does not fit the layout, or that no record header could hold,
// gives ErrFormat.
func (t *Table) Append(child int, e *Entry) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: entry of child %d "+format, append([]any{ErrFormat, child}, args...)...)
	}
	var none [pack.SaltBytes]byte
	switch {
	case child < 0 || child >= Fanout || t.have.before(Fanout) != t.have.before(child):
		return bad("out of order")
	case len(e.Frames) != t.lay.Frames:
		return bad("has %d frames, want %d", len(e.Frames), t.lay.Frames)
	case !t.lay.Sealed && (e.Salt != none || e.BaseSalt != none):
		return bad("has a salt in a repository that does not seal")
	case !e.Patch && (!e.Base.IsNull() || e.BaseSalt != none):
		return bad("has a base and is not a patch")
	}
	start, flags := len(t.raw), byte(0)
	if e.Patch {
		flags = entryPatch
	}
	p := append(t.raw, byte(child), flags, 0, 0)
	if t.lay.Sealed {
		p = append(p, e.Salt[:]...)
	}
	if e.Patch {
		p = append(p, e.Base[:]...)
		if t.lay.Sealed {
			p = append(p, e.BaseSalt[:]...)
		}
	}
	for i := range e.Frames {
		p = pack.AppendFrame(p, &e.Frames[i])
	}
	if err := t.lay.checkEntry(p[start:]); err != nil {
		return bad("%w", err)
	}
	t.take(p)
	t.mark(child, flags)
	return nil
}

// appendRaw adds an entry of another table of the same layout, as entry gives it.
func (t *Table) appendRaw(p []byte) {
	t.take(append(t.raw, p...))
	t.mark(int(p[0]), p[1])
}

// take makes p, the table with one more entry, the table's bytes.
func (t *Table) take(p []byte) {
	t.raw = p
	binary.LittleEndian.PutUint16(p[2:], uint16(t.Len()+1))
}

func (t *Table) mark(child int, flags byte) {
	t.have.add(child)
	if flags&entryPatch != 0 {
		t.patch.add(child)
	}
}

// A childSet is a set of child numbers.
type childSet [Fanout / 64]uint64

func (s *childSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *childSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// before is the number of members below i.
func (s *childSet) before(i int) int {
	n := 0
	for w := range i / 64 {
		n += bits.OnesCount64(s[w])
	}
	if i%64 != 0 {
		n += bits.OnesCount64(s[i/64] & (1<<(i%64) - 1))
	}
	return n
}
