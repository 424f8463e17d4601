package refcount

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"holdfast/repo/blockfile"
)

const (
	listMagic   = "HFrl"
	listVersion = 1
	listFixed   = 32 // bytes before the members
	maxMembers  = 1 << 16

	maxListBytes = listFixed + blockfile.MemberBytes*maxMembers + 4 + MaxPayloadBytes
)

var (
	errListMagic = errors.New("not a list of reference counts")
	errList      = errors.New("list contradicts itself")
)

// list is what a file refs-NNNNNNNN says: the files that count, and what they
// are valid for, which is the caller's.
type list struct {
	number  uint64
	members []member // ascending by number: oldest first
	payload []byte
}

type member = blockfile.Member

var naming = blockfile.Names{ListPrefix: "refs-", FileSuffix: ".ref"}

func (l *list) encode() []byte { return append(l.encodeHead(), l.payload...) }

// encodeHead returns all but the payload.
func (l *list) encodeHead() []byte {
	le := binary.LittleEndian
	p := make([]byte, 0, listFixed+blockfile.MemberBytes*len(l.members)+4)
	p = append(p, listMagic...)
	p = le.AppendUint16(p, listVersion)
	p = le.AppendUint16(p, 0)
	p = le.AppendUint64(p, l.number)
	p = le.AppendUint64(p, uint64(len(l.payload)))
	p = le.AppendUint32(p, blockfile.Checksum(l.payload))
	p = le.AppendUint32(p, uint32(len(l.members)))
	for _, m := range l.members {
		p = m.Append(p)
	}
	return le.AppendUint32(p, blockfile.Checksum(p))
}

// parseList reads what encode wrote, and nothing else. It keeps p.
func parseList(p []byte) (list, error) {
	le := binary.LittleEndian
	if len(p) < listFixed+4 || string(p[:4]) != listMagic {
		return list{}, errListMagic
	}
	if v := le.Uint16(p[4:]); v != listVersion {
		return list{}, fmt.Errorf("%w: %d, this program reads %d", errVersion, v, listVersion)
	}
	payload, members := le.Uint64(p[16:]), uint64(le.Uint32(p[28:]))
	end := listFixed + blockfile.MemberBytes*members
	if payload > MaxPayloadBytes || members > maxMembers || uint64(len(p)) != end+4+payload {
		return list{}, errList
	}
	if blockfile.Checksum(p[:end]) != le.Uint32(p[end:]) {
		return list{}, blockfile.ErrSum
	}
	l := list{number: le.Uint64(p[8:]), payload: p[end+4:]}
	if blockfile.Checksum(l.payload) != le.Uint32(p[24:]) {
		return list{}, blockfile.ErrSum
	}
	for rest := p[listFixed:end]; len(rest) > 0; rest = rest[blockfile.MemberBytes:] {
		l.members = append(l.members, blockfile.ParseMember(rest))
	}
	if l.number == 0 || !blockfile.Ordered(l.members) || !bytes.Equal(l.encodeHead(), p[:end+4]) {
		return list{}, errList
	}
	return l, nil
}
