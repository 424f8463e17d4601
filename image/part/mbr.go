package part

import "fmt"

const typeProtective = 0xee

// mbr is a sector with four entries, the disk's first or one of a chain.
type mbr struct {
	signed  bool
	id      uint32
	entries [4]entry
}

type entry struct {
	boot, typ    byte
	first, count uint32 // sectors
}

func parseMBR(b []byte) *mbr {
	m := &mbr{signed: b[510] == 0x55 && b[511] == 0xaa, id: le.Uint32(b[440:])}
	for i := range m.entries {
		e := b[446+16*i:]
		m.entries[i] = entry{boot: e[0], typ: e[4], first: le.Uint32(e[8:]), count: le.Uint32(e[12:])}
	}
	return m
}

// extended says whether an entry is a box of logical partitions.
func (e entry) extended() bool { return e.typ == 0x05 || e.typ == 0x0f || e.typ == 0x85 }

// protective says whether the disk has a GPT by what its MBR says.
func (m *mbr) protective() bool {
	for _, e := range m.entries {
		if e.typ == typeProtective && e.count > 0 {
			return m.signed
		}
	}
	return false
}

// others counts entries that are not there for a GPT.
func (m *mbr) others() int {
	n := 0
	for _, e := range m.entries {
		if e.count > 0 && e.typ != typeProtective {
			n++
		}
	}
	return n
}

func (m *mbr) empty() bool { return m.others() == 0 && !m.protective() }

// plausible tells an MBR from the boot sector of a file system, whose bytes in
// the same place are code, text, or the one entry that mkfs.vfat puts there: a
// partition that begins with that very sector.
func (m *mbr) plausible(size int64) bool {
	on := false
	for _, e := range m.entries {
		switch {
		case e.boot != 0 && e.boot != 0x80:
			return false
		case e.count == 0:
			continue
		case e.first == 0:
			return false
		}
		on = on || int64(e.first) < size/sector512
	}
	return m.signed && on
}

// readMBR takes the partitions from m and what it leads to.
func (r *reader) readMBR(m *mbr) error {
	r.t.Kind = "mbr"
	if m.id != 0 {
		r.t.ID = fmt.Sprintf("%08x", m.id)
	}
	if r.largeSectors(m) {
		r.t.SectorBytes = sector4096
	}
	logical := 5
	for i, e := range m.entries {
		switch {
		case e.count == 0 || e.typ == typeProtective:
		case e.extended():
			var err error
			if logical, err = r.readLogical(e, logical); err != nil {
				return err
			}
		default:
			r.addEntry(i+1, e, uint64(e.first))
		}
	}
	if r.known(0, r.size) && len(r.t.Partitions) > 0 {
		r.note("the disk as a whole looks like a file system too; its partitions are what counts")
	}
	return nil
}

func (r *reader) addEntry(number int, e entry, first uint64) {
	p := Partition{Number: number, Type: fmt.Sprintf("%#x", e.typ)}
	if r.t.ID != "" {
		p.ID = fmt.Sprintf("%s-%02x", r.t.ID, number)
	}
	r.add(p, first, uint64(e.count))
}

// largeSectors says whether an MBR counts in 4,096 bytes: all of it must fit
// the disk that way, and more of its partitions begin with something known, a
// box of logical ones with the 0x55AA of its first link.
func (r *reader) largeSectors(m *mbr) bool {
	if r.size%sector4096 != 0 {
		return false
	}
	small, large := 0, 0
	for _, e := range m.entries {
		if e.count == 0 {
			continue
		}
		if int64(e.first)+int64(e.count) > r.size/sector4096 {
			return false
		}
		small += r.begins(e, sector512)
		large += r.begins(e, sector4096)
	}
	return large > small
}

func (r *reader) begins(e entry, sector int64) int {
	off, size := int64(e.first)*sector, int64(e.count)*sector
	if !e.extended() {
		if r.known(off, size) {
			return 1
		}
		return 0
	}
	if b, err := r.at(off, sector512); err == nil && parseMBR(b).signed {
		return 1
	}
	return 0
}
