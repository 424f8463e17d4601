package refcount

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

const (
	listMagic   = "HFrl"
	listVersion = 1
	listFixed   = 32 // bytes before the members
	memberBytes = 24
	maxMembers  = 1 << 16

	maxListBytes = listFixed + memberBytes*maxMembers + 4 + MaxPayloadBytes
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

// member names a file and all its bytes.
type member struct {
	number uint64
	bytes  int64
	mark   uint32 // checksum of the header
}

func (l *list) encode() []byte { return append(l.encodeHead(), l.payload...) }

// encodeHead returns all but the payload.
func (l *list) encodeHead() []byte {
	le := binary.LittleEndian
	p := make([]byte, 0, listFixed+memberBytes*len(l.members)+4)
	p = append(p, listMagic...)
	p = le.AppendUint16(p, listVersion)
	p = le.AppendUint16(p, 0)
	p = le.AppendUint64(p, l.number)
	p = le.AppendUint64(p, uint64(len(l.payload)))
	p = le.AppendUint32(p, crc32.Checksum(l.payload, castagnoli))
	p = le.AppendUint32(p, uint32(len(l.members)))
	for _, m := range l.members {
		p = le.AppendUint64(p, m.number)
		p = le.AppendUint64(p, uint64(m.bytes))
		p = le.AppendUint32(p, m.mark)
		p = le.AppendUint32(p, 0)
	}
	return le.AppendUint32(p, crc32.Checksum(p, castagnoli))
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
	end := listFixed + memberBytes*members
	if payload > MaxPayloadBytes || members > maxMembers || uint64(len(p)) != end+4+payload {
		return list{}, errList
	}
	if crc32.Checksum(p[:end], castagnoli) != le.Uint32(p[end:]) {
		return list{}, errSum
	}
	l := list{number: le.Uint64(p[8:]), payload: p[end+4:]}
	if crc32.Checksum(l.payload, castagnoli) != le.Uint32(p[24:]) {
		return list{}, errSum
	}
	for rest := p[listFixed:end]; len(rest) > 0; rest = rest[memberBytes:] {
		l.members = append(l.members, member{le.Uint64(rest), int64(le.Uint64(rest[8:])), le.Uint32(rest[16:])})
	}
	if !l.ordered() || !bytes.Equal(l.encodeHead(), p[:end+4]) {
		return list{}, errList
	}
	return l, nil
}

// ordered reports whether the numbers rise, and nothing is zero.
func (l *list) ordered() bool {
	var last uint64
	for _, m := range l.members {
		if m.number <= last || m.bytes <= 0 {
			return false
		}
		last = m.number
	}
	return l.number > 0
}

const (
	listPrefix = "refs-"
	fileSuffix = ".ref"
)

func listName(n uint64) string { return fmt.Sprintf("%s%08d", listPrefix, n) }
func fileName(n uint64) string { return fmt.Sprintf("%08d%s", n, fileSuffix) }

// parseNumber returns the number of a name in one of the two forms.
func parseNumber(name string, form func(uint64) string) (uint64, bool) {
	digits := strings.TrimSuffix(strings.TrimPrefix(name, listPrefix), fileSuffix)
	n, err := strconv.ParseUint(digits, 10, 62)
	return n, err == nil && n > 0 && form(n) == name
}
