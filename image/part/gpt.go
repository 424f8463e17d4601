package part

import (
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

const (
	gptMagic       = "EFI PART"
	leastHeader    = 92
	leastEntry     = 128
	mostEntry      = 4096
	mostEntryBytes = 4 << 20 // of the whole array; 16 KiB is usual
)

// gpt is a header whose checksums and those of its entries are right.
type gpt struct {
	sector  int64
	lba     uint64 // where it is
	alt     uint64 // and the other one
	guid    string
	entries int64 // byte offset
	n, each int
	copied  string // why the first one was not used; "" if this is it
}

// findGPT finds a header to use: the one in sector 1, or else the copy.
func (r *reader) findGPT(m *mbr) (*gpt, error) {
	var first [2]*gpt
	var why [2]error
	sizes := [2]int64{sector512, sector4096}
	for i, sector := range sizes {
		first[i], why[i] = r.header(sector, 1)
	}
	if first[0] != nil && first[1] != nil && r.lonely(first[0]) && !r.lonely(first[1]) {
		first[0] = nil // left over from when the disk was another
	}
	for _, g := range first {
		if g != nil {
			return g, nil
		}
	}
	reasons := fmt.Sprintf("header in sector 1: %v", bestReason(why[:]))
	for i, sector := range sizes {
		last := uint64(r.size/sector) - 1
		for _, lba := range append(r.elsewhere(sector, m), last) {
			g, err := r.header(sector, lba)
			if err == nil {
				g.copied = bestReason(why[i:]).Error()
				return g, nil
			}
			if i == 0 || isFound(err) {
				reasons += fmt.Sprintf("; copy in sector %d: %v", lba, err)
			}
		}
	}
	return nil, fmt.Errorf("GPT: %s: %w", reasons, ErrDamaged)
}

// elsewhere lists where the copy may be on a disk that has grown: where the
// damaged first header says, and where the protecting MBR ends.
func (r *reader) elsewhere(sector int64, m *mbr) []uint64 {
	var list []uint64
	add := func(lba uint64) {
		if lba > 1 && lba < uint64(r.size/sector)-1 {
			list = append(list, lba)
		}
	}
	if b, err := r.at(sector, min(sector512, int(max(0, r.size-sector)))); err == nil && len(b) == sector512 && string(b[:8]) == gptMagic {
		add(le.Uint64(b[32:]))
	}
	for _, e := range m.entries {
		if m.signed && e.typ == typeProtective && e.count > 0 {
			add(uint64(e.first) + uint64(e.count) - 1)
		}
	}
	return list
}

// lonely says that the other header is not where g says it is.
func (r *reader) lonely(g *gpt) bool {
	_, err := r.header(g.sector, g.alt)
	return err != nil
}

// foundError is a reason not to use a header that is there.
type foundError struct{ error }

func isFound(err error) bool {
	_, ok := err.(foundError)
	return ok
}

// bestReason is that of a header that is there, rather than that there is none.
func bestReason(list []error) error {
	for _, err := range list {
		if isFound(err) {
			return err
		}
	}
	return list[0]
}

// header reads the header in sector lba and checks it and its entries.
func (r *reader) header(sector int64, lba uint64) (*gpt, error) {
	if lba >= uint64(r.size/sector) {
		return nil, fmt.Errorf("not on the disk")
	}
	b, err := r.at(int64(lba)*sector, int(sector))
	if err != nil {
		return nil, foundError{err}
	}
	if string(b[:8]) != gptMagic {
		return nil, fmt.Errorf("no %q", gptMagic)
	}
	g, err := r.parseHeader(b, sector, lba)
	if err != nil {
		return nil, foundError{err}
	}
	return g, nil
}

func (r *reader) parseHeader(b []byte, sector int64, lba uint64) (*gpt, error) {
	length := le.Uint32(b[12:])
	if length < leastHeader || int64(length) > sector {
		return nil, fmt.Errorf("a header of %d bytes", length)
	}
	sum := le.Uint32(b[16:])
	clear(b[16:20])
	if got := crc32.ChecksumIEEE(b[:length]); got != sum {
		return nil, fmt.Errorf("its checksum is %08x, its bytes have %08x", sum, got)
	}
	g := &gpt{sector: sector, lba: le.Uint64(b[24:]), alt: le.Uint64(b[32:]), guid: guid(b[56:72])}
	if g.lba != lba {
		return nil, fmt.Errorf("it belongs in sector %d", g.lba)
	}
	at, n, each := le.Uint64(b[72:]), le.Uint32(b[80:]), le.Uint32(b[84:])
	length64 := int64(n) * int64(each)
	switch {
	case each < leastEntry || each > mostEntry || each&(each-1) != 0:
		return nil, fmt.Errorf("entries of %d bytes", each)
	case length64 > mostEntryBytes:
		return nil, fmt.Errorf("%d entries of %d bytes are too many", n, each)
	case at >= uint64(r.size/sector) || length64 > r.size-int64(at)*sector:
		return nil, fmt.Errorf("%d entries from sector %d on are not on the disk", n, at)
	}
	g.entries, g.n, g.each = int64(at)*sector, int(n), int(each)
	h := crc32.NewIEEE()
	if _, err := io.Copy(h, io.NewSectionReader(r.dev, g.entries, length64)); err != nil {
		return nil, fmt.Errorf("its entries: %w", err)
	}
	if want := le.Uint32(b[88:]); h.Sum32() != want {
		return nil, fmt.Errorf("the checksum of its entries is %08x, their bytes have %08x", want, h.Sum32())
	}
	return g, nil
}

// useGPT takes the partitions from g.
func (r *reader) useGPT(g *gpt) error {
	r.t.Kind, r.t.SectorBytes, r.t.ID = "gpt", int(g.sector), g.guid
	r.noteCopy(g)
	b := make([]byte, g.each)
	in := io.NewSectionReader(r.dev, g.entries, int64(g.n)*int64(g.each))
	piece := make([]byte, 16<<10)
	for i := 0; i < g.n; {
		n := min(len(piece)/g.each, g.n-i)
		if _, err := in.ReadAt(piece[:n*g.each], int64(i)*int64(g.each)); err != nil && err != io.EOF {
			return fmt.Errorf("GPT entries: %w", err)
		}
		for k := range n {
			copy(b, piece[k*g.each:])
			r.gptEntry(i+k+1, b)
		}
		i += n
	}
	return nil
}

// noteCopy says which header was used, and what is wrong with the other.
func (r *reader) noteCopy(g *gpt) {
	last := uint64(r.size/g.sector) - 1
	if g.copied != "" {
		r.note("the GPT's first header can't be used (%s): the copy in sector %d was", g.copied, g.lba)
		return
	}
	other, err := r.header(g.sector, g.alt)
	switch {
	case err != nil:
		r.note("the copy of the GPT, in sector %d, can't be used: %v", g.alt, err)
	case !r.sameEntries(g, other):
		r.note("the copy of the GPT, in sector %d, has other partitions, which are not used", g.alt)
	}
	if g.alt != last {
		r.note("the copy of the GPT is in sector %d, but the disk's last one is %d: the disk was made larger or smaller", g.alt, last)
	}
}

// sameEntries compares the arrays of two headers by their checksums.
func (r *reader) sameEntries(a, b *gpt) bool {
	sum := func(g *gpt) uint32 {
		h := crc32.NewIEEE()
		_, _ = io.Copy(h, io.NewSectionReader(r.dev, g.entries, int64(g.n)*int64(g.each)))
		return h.Sum32()
	}
	return a.n == b.n && a.each == b.each && sum(a) == sum(b)
}

func (r *reader) gptEntry(number int, b []byte) {
	typ := guid(b[:16])
	if typ == "" {
		return
	}
	first, last := le.Uint64(b[32:]), le.Uint64(b[40:])
	count := uint64(0)
	if last >= first {
		count = last - first + 1
	}
	r.add(Partition{Number: number, Type: typ, ID: guid(b[16:32]), Name: utf16Name(b[56:128])}, first, count)
}

// guid writes a GUID as people do: its first three parts are little-endian. ""
// if it is zero.
func guid(b []byte) string {
	if [16]byte(b) == [16]byte{} {
		return ""
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// utf16Name decodes a name up to its first NUL. Halves of surrogate pairs become
// U+FFFD: such names are shown, not looked up.
func utf16Name(b []byte) string {
	var units []uint16
	for ; len(b) > 1; b = b[2:] {
		u := le.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
