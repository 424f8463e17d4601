package repo

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/pack"
)

// What a scrub or a repair found damaged stands in index/damage-NNNNNNNN, so
// that a run asks for it again and readers try other copies first. See
// FORMAT.md, "Known damage".

const (
	damageMagic   = "HFdm"
	damageVersion = 1
	damageHead    = 4 + 2 + 2 + 8 + 8 + 4
	damagePackLen = 16 + 4 + 4
	damageRowLen  = index.PrefixBytes + 4 + 4

	maxDamageBytes = 256 << 20
	maxDamageRows  = maxDamageBytes / 2 / damageRowLen
)

// A PackFault says what is wrong with a pack.
type PackFault uint8

// The faults of packs.
const (
	FaultNone       PackFault = iota // itself sound; records of it need a lost one
	FaultMissing                     // the file is not there
	FaultUnreadable                  // the disk can't read it, or a part of it
	FaultBytes                       // bytes, or its length, are not as written
	FaultForeign                     // it is another file, or whole but not the one recorded
)

// String returns what a person reads.
func (f PackFault) String() string {
	switch f {
	case FaultNone:
		return "needs a lost record"
	case FaultMissing:
		return "missing"
	case FaultUnreadable:
		return "can't be read"
	case FaultBytes:
		return "damaged"
	case FaultForeign:
		return "not the file recorded"
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

const (
	damageHealable = 1 << 0 // parity gives the pack back as it was
	damageBase     = 0x80   // in a row's kind: the record is whole, its base is lost
)

// A badRecord is a record that can't be had from its pack.
type badRecord struct {
	key  [index.PrefixBytes]byte // of its id
	off  uint32
	len  uint32
	kind pack.RecordKind
	base bool // it is whole, and what it leans on is lost
}

// knownBad is what is known of one pack.
type knownBad struct {
	name     pack.Name
	kind     pack.Kind
	fault    PackFault
	healable bool
	records  []badRecord // ascending by offset
}

func (k *knownBad) has(off uint32) bool {
	_, found := slices.BinarySearchFunc(k.records, off, func(r badRecord, off uint32) int { return cmp.Compare(r.off, off) })
	return found
}

// A damageList is all damage that is known. It is not changed once made.
type damageList struct {
	number uint64
	at     time.Time  // when it was found
	packs  []knownBad // ascending by name
}

// pack returns what is known of a pack, nil for nothing.
func (d *damageList) pack(name pack.Name) *knownBad {
	i, found := slices.BinarySearchFunc(d.packs, name, func(k knownBad, n pack.Name) int { return bytes.Compare(k.name[:], n[:]) })
	if !found {
		return nil
	}
	return &d.packs[i]
}

// bad reports whether the record there is known to be lost.
func (d *damageList) bad(loc *index.Location) bool {
	k := d.pack(loc.Pack)
	return k != nil && k.has(loc.Off)
}

func (d *damageList) sort() {
	slices.SortFunc(d.packs, func(a, b knownBad) int { return bytes.Compare(a.name[:], b.name[:]) })
	for i := range d.packs {
		slices.SortFunc(d.packs[i].records, func(a, b badRecord) int { return cmp.Compare(a.off, b.off) })
	}
}

func (d *damageList) rows() (n int) {
	for i := range d.packs {
		n += len(d.packs[i].records)
	}
	return n
}

func (d *damageList) encode() []byte {
	p := make([]byte, 0, damageHead+len(d.packs)*damagePackLen+d.rows()*damageRowLen+4)
	p = append(p, damageMagic...)
	p = le.AppendUint16(p, damageVersion)
	p = le.AppendUint16(p, 0)
	p = le.AppendUint64(p, d.number)
	p = le.AppendUint64(p, uint64(d.at.Unix()))
	p = le.AppendUint32(p, uint32(len(d.packs)))
	for i := range d.packs {
		k := &d.packs[i]
		flags := byte(0)
		if k.healable {
			flags = damageHealable
		}
		p = append(p, k.name[:]...)
		p = append(p, byte(k.kind), byte(k.fault), flags, 0)
		p = le.AppendUint32(p, uint32(len(k.records)))
		for _, r := range k.records {
			kind := uint32(r.kind)
			if r.base {
				kind |= damageBase
			}
			p = append(p, r.key[:]...)
			p = le.AppendUint32(p, r.off)
			p = le.AppendUint32(p, r.len|kind<<24)
		}
	}
	return p
}

// parseDamage reads what encode wrote, and nothing else.
func parseDamage(number uint64, p []byte) (*damageList, error) {
	bad := func(what string) (*damageList, error) {
		return nil, fmt.Errorf("%w: list of known damage %s", ErrFormat, what)
	}
	if len(p) < damageHead || string(p[:4]) != damageMagic {
		return bad("without its magic")
	}
	if v := le.Uint16(p[4:]); v != damageVersion {
		return nil, fmt.Errorf("%w: list of known damage of version %d, this program reads %d", ErrNewerFormat, v, damageVersion)
	}
	d := &damageList{number: le.Uint64(p[8:]), at: time.Unix(int64(le.Uint64(p[16:])), 0).UTC()}
	if d.number != number {
		return bad("of another number")
	}
	rest := p[damageHead:]
	for range le.Uint32(p[24:]) {
		if len(rest) < damagePackLen {
			return bad("that ends early")
		}
		k := knownBad{
			name: pack.Name(rest[:16]), kind: pack.Kind(rest[16]), fault: PackFault(rest[17]), healable: rest[18] == damageHealable,
		}
		n := int64(le.Uint32(rest[20:]))
		if rest = rest[damagePackLen:]; n*damageRowLen > int64(len(rest)) {
			return bad("that ends early")
		}
		for range n {
			word := le.Uint32(rest[20:])
			k.records = append(k.records, badRecord{
				key: [index.PrefixBytes]byte(rest[:16]), off: le.Uint32(rest[16:]), len: word & (1<<24 - 1),
				kind: pack.RecordKind(word >> 24 &^ damageBase), base: word>>24&damageBase != 0,
			})
			rest = rest[damageRowLen:]
		}
		d.packs = append(d.packs, k)
	}
	if len(rest) > 0 {
		return bad("with bytes behind it")
	}
	again := damageList{number: d.number, at: d.at, packs: slices.Clone(d.packs)}
	if again.sort(); !bytes.Equal(again.encode(), p) {
		return bad("out of order, or with reserved bits set")
	}
	return d, nil
}

func damageFiles(s *store) saved { return saved{s.fsys, "damage", maxDamageBytes} }

// loadDamage takes the list that is there. Without one nothing is known to be
// damaged; one that can't be read is as good as none, and a warning.
func (s *store) loadDamage() {
	var d *damageList
	n, err := damageFiles(s).read(func(n uint64, p []byte) (err error) {
		d, err = parseDamage(n, p)
		return err
	})
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		s.log.Warn("what is damaged is not known: scrub again", "err", err)
	case n == 0 || err == nil && len(d.packs) == 0:
		d = nil
	}
	s.damage.Store(d)
}

// ownDamage is loadDamage for the owner, who removes what a list has outlived.
func (s *store) ownDamage() error {
	s.loadDamage()
	files := damageFiles(s)
	list, err := files.numbers()
	if err != nil || len(list) < 2 {
		return err
	}
	return files.remove(list[1:])
}

// saveDamage makes a list the one that is known, durably. A list of nothing is
// no file.
func (s *store) saveDamage(d *damageList) error {
	d.sort()
	files := damageFiles(s)
	old, err := files.numbers()
	if err == nil && len(d.packs) == 0 {
		s.damage.Store(nil)
		return files.remove(old)
	}
	d.number = 1
	if len(old) > 0 {
		d.number = old[0] + 1
	}
	for i := 0; d.rows() > maxDamageRows && i < len(d.packs); i++ {
		d.packs[i].records = nil // a repository that has lost terabytes
	}
	if err == nil {
		err = files.write(d.encode())
	}
	if err != nil {
		return fmt.Errorf("note what is damaged: %w", err)
	}
	s.damage.Store(d)
	return nil
}

// damaged is where a store keeps the list: nil while nothing is known.
type damaged = atomic.Pointer[damageList]

// sound returns those of the places that are not known to be damaged. The order
// stays.
func (s *store) sound(locs []index.Location) []index.Location {
	d := s.damage.Load()
	if d == nil {
		return locs
	}
	return slices.DeleteFunc(slices.Clone(locs), func(l index.Location) bool { return d.bad(&l) })
}

// soundFirst puts places that are known to be damaged behind the others.
func (s *store) soundFirst(locs []index.Location) []index.Location {
	if d := s.damage.Load(); d != nil && len(locs) > 1 {
		slices.SortStableFunc(locs, func(a, b index.Location) int {
			return cmp.Compare(badness(d, &a), badness(d, &b))
		})
	}
	return locs
}

func badness(d *damageList, l *index.Location) int {
	if d.bad(l) {
		return 1
	}
	return 0
}

// isLost reports whether a record is stored and every copy of it is known to be
// damaged. It costs next to nothing while no damage is known.
func (s *store) isLost(id chunk.ID) (bool, error) {
	if s.damage.Load() == nil || id.IsNull() {
		return false, nil
	}
	locs, err := s.lookup(id)
	return err == nil && len(locs) > 0 && len(s.sound(locs)) == 0, err
}
