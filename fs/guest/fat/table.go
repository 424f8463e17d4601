package fat

import (
	"bytes"
	"container/list"
	"fmt"
	"io"
	"sync"

	"holdfast/fs"
)

// The file allocation table has an entry per cluster: which comes next, or one
// of these, as they are in 32 bits.
const (
	entryFree = 0
	entryBad  = 0x0ffffff7
	entryEnd  = 0x0ffffff8 // and above
)

const (
	pageBytes = 64 << 10 // a whole FAT12, so that no entry straddles two
	maxPages  = 64
)

// table reads the entries of the FAT through a few pages of it. Each page is
// compared with the second copy. Where the two differ the first one counts,
// except for entries that can't be: those are taken from the second.
// Safe for concurrent use.
type table struct {
	g    *geometry
	dev  io.ReaderAt
	note func(string)

	mu    sync.Mutex // guards the following
	pages map[int64]*list.Element
	used  *list.List // of *page, the latest first
}

type page struct {
	no     int64
	first  []byte
	second []byte // nil: the same, or there is none
}

func newTable(g *geometry, dev io.ReaderAt, note func(string)) *table {
	return &table{g: g, dev: dev, note: note, pages: map[int64]*list.Element{}, used: list.New()}
}

// walker follows chains, and holds on to the page it is on.
type walker struct {
	t *table
	p *page
}

// next returns what the entry of cluster c says, the marks widened to 32 bits.
func (w *walker) next(c uint32) (uint32, error) {
	at := int64(c) * int64(w.t.g.bits) / 8
	if no := at / pageBytes; w.p == nil || w.p.no != no {
		p, err := w.t.page(no)
		if err != nil {
			return 0, fmt.Errorf("FAT entry of cluster %d: %w", c, err)
		}
		w.p = p
	}
	v := w.t.g.entry(w.p.first, int(at%pageBytes), c)
	if w.p.second != nil && !w.t.g.possible(v) {
		if other := w.t.g.entry(w.p.second, int(at%pageBytes), c); w.t.g.possible(other) {
			return other, nil
		}
	}
	return v, nil
}

// entry decodes the entry of cluster c, which begins at byte at of a page.
func (g *geometry) entry(page []byte, at int, c uint32) uint32 {
	switch g.bits {
	case 12:
		v := uint32(le.Uint16(page[at:])) >> (4 * (c & 1)) & 0xfff
		return widen(v, 0xff7)
	case 16:
		return widen(uint32(le.Uint16(page[at:])), 0xfff7)
	}
	return le.Uint32(page[at:]) & 0x0fffffff
}

// widen makes the marks of a narrow FAT, from bad on, those of 32 bits.
func widen(v, bad uint32) uint32 {
	if v >= bad {
		return v - bad + entryBad
	}
	return v
}

// possible says whether v can stand in a FAT.
func (g *geometry) possible(v uint32) bool {
	return v == entryFree || v >= entryBad || g.valid(v)
}

// page returns page no of the FAT.
func (t *table) page(no int64) (*page, error) {
	t.mu.Lock()
	if e := t.pages[no]; e != nil {
		t.used.MoveToFront(e)
		t.mu.Unlock()
		return e.Value.(*page), nil
	}
	t.mu.Unlock()
	p, err := t.read(no)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.pages[no]; e != nil { // another was faster
		return e.Value.(*page), nil
	}
	t.pages[no] = t.used.PushFront(p)
	for t.used.Len() > maxPages {
		old := t.used.Remove(t.used.Back()).(*page)
		delete(t.pages, old.no)
	}
	return p, nil
}

func (t *table) read(no int64) (*page, error) {
	copies := []int{0, 1}[:min(t.g.fats, 2)]
	if t.g.activeFAT >= 0 {
		copies = []int{t.g.activeFAT}
	}
	var got [][]byte
	var failed error
	for _, c := range copies {
		b, err := t.copy(c, no)
		if err != nil {
			t.note(fmt.Sprintf("FAT %d can't be read at byte %d of it: %v", c+1, no*pageBytes, err))
			failed = err
			continue
		}
		got = append(got, b)
	}
	switch {
	case len(got) == 0:
		return nil, failed
	case len(got) == 1 || bytes.Equal(got[0], got[1]):
		return &page{no: no, first: got[0]}, nil
	}
	if no == 0 && !t.g.begins(got[0]) && t.g.begins(got[1]) {
		t.note("the first FAT does not begin as one, the second does and is used")
		got[0], got[1] = got[1], got[0]
	} else {
		t.note("the two FATs differ: the first is used where its entries make sense")
	}
	return &page{no: no, first: got[0], second: got[1]}, nil
}

// begins says whether a FAT begins with what must be there: the media byte with
// ones above it.
func (g *geometry) begins(fat []byte) bool {
	switch g.bits {
	case 12:
		return fat[0] == g.media && fat[1]&0x0f == 0x0f
	case 16:
		return fat[0] == g.media && fat[1] == 0xff
	}
	return fat[0] == g.media && fat[1] == 0xff && fat[2] == 0xff && fat[3]&0x0f == 0x0f
}

// copy reads a page of one copy of the FAT, with two bytes of zeros behind the
// end so that a last entry of 12 bits can be taken as two bytes.
func (t *table) copy(c int, no int64) ([]byte, error) {
	off := no * pageBytes
	n := min(pageBytes, t.g.fatBytes-off)
	if n <= 0 {
		return nil, fmt.Errorf("behind the FAT's end: %w", fs.ErrDamaged)
	}
	b := make([]byte, n+2)
	at := t.g.fatOff + int64(c)*t.g.fatBytes + off
	if got, err := t.dev.ReadAt(b[:n], at); got < int(n) {
		if err == io.EOF {
			return nil, fmt.Errorf("the device ends at byte %d, before the FAT does: %w", at+int64(got), fs.ErrDamaged)
		}
		return nil, err
	}
	return b, nil
}

// clean says whether the FAT's second entry has the mark of a clean unmount, or
// has no place for it.
func (t *table) clean() bool {
	if t.g.bits == 12 {
		return true
	}
	p, err := t.page(0)
	if err != nil {
		return false
	}
	if t.g.bits == 16 {
		return le.Uint16(p.first[2:])&0x8000 != 0
	}
	return le.Uint32(p.first[4:])&0x08000000 != 0
}
