package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"holdfast/repo/blockfile"
	"holdfast/repo/pack"
)

const (
	listMagic   = "HFil"
	listVersion = 2  // 1: the files have no rows of dependents
	listFixed   = 32 // bytes before the members
	hiddenBytes = 24

	// maxListBytes is the longest list: more than 43,000 members and hidden
	// packs.
	maxListBytes = 1 << 20
)

var (
	errListMagic   = errors.New("not an index list")
	errListVersion = errors.New("list is of another version")
	errList        = errors.New("list contradicts itself")
)

// list is what a file list-NNNNNNNN says: the files that make up the index, the
// ledger segment up to which they have every pack, and the packs of which they
// have entries that no longer count.
type list struct {
	number  uint64
	head    uint64
	members []member // ascending by number: oldest first
	hidden  []hidden // ascending by name
}

type member = blockfile.Member

var naming = blockfile.Names{ListPrefix: "list-", FileSuffix: ".idx"}

// hidden is a pack whose entries in files up to a number do not count.
type hidden struct {
	name   pack.Name
	number uint64
}

func (l *list) encode() []byte {
	le := binary.LittleEndian
	p := make([]byte, 0, listFixed+blockfile.MemberBytes*len(l.members)+hiddenBytes*len(l.hidden)+4)
	p = append(p, listMagic...)
	p = le.AppendUint16(p, listVersion)
	p = le.AppendUint16(p, 0)
	p = le.AppendUint64(p, l.number)
	p = le.AppendUint64(p, l.head)
	p = le.AppendUint32(p, uint32(len(l.members)))
	p = le.AppendUint32(p, uint32(len(l.hidden)))
	for _, m := range l.members {
		p = m.Append(p)
	}
	for _, h := range l.hidden {
		p = append(p, h.name[:]...)
		p = le.AppendUint64(p, h.number)
	}
	return le.AppendUint32(p, blockfile.Checksum(p))
}

// parseList reads what encode wrote, and nothing else.
func parseList(p []byte) (list, error) {
	le := binary.LittleEndian
	if len(p) < listFixed+4 || string(p[:4]) != listMagic {
		return list{}, errListMagic
	}
	if v := le.Uint16(p[4:]); v != listVersion {
		return list{}, fmt.Errorf("%w: %d, this program reads %d", errListVersion, v, listVersion)
	}
	end := len(p) - 4
	if blockfile.Checksum(p[:end]) != le.Uint32(p[end:]) {
		return list{}, blockfile.ErrSum
	}
	members, hiddens := uint64(le.Uint32(p[24:])), uint64(le.Uint32(p[28:]))
	if uint64(end) != listFixed+blockfile.MemberBytes*members+hiddenBytes*hiddens {
		return list{}, errList
	}
	l := list{number: le.Uint64(p[8:]), head: le.Uint64(p[16:])}
	rest := p[listFixed:end]
	for range members {
		l.members = append(l.members, blockfile.ParseMember(rest))
		rest = rest[blockfile.MemberBytes:]
	}
	for range hiddens {
		l.hidden = append(l.hidden, hidden{pack.Name(rest[:nameBytes]), le.Uint64(rest[nameBytes:])})
		rest = rest[hiddenBytes:]
	}
	if !l.ordered() || !slices.Equal(l.encode(), p) {
		return list{}, errList
	}
	return l, nil
}

// ordered reports whether numbers and names rise, and none is zero.
func (l *list) ordered() bool {
	for i := 1; i < len(l.hidden); i++ {
		if slices.Compare(l.hidden[i-1].name[:], l.hidden[i].name[:]) >= 0 {
			return false
		}
	}
	return l.number > 0 && blockfile.Ordered(l.members)
}
