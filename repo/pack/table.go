package pack

import (
	"encoding/binary"
	"fmt"

	"holdfast/repo/chunk"
)

// An Entry says where a record lies in its pack, and what it needs besides.
type Entry struct {
	ID    chunk.ID
	Base  chunk.ID // null without HasBase; with it, the base's id is lost
	Kind  RecordKind
	Flags Flags
	Off   uint32 // from the pack's start
	Len   uint32 // of header and body
}

// EntryBytes is the length of an entry in a pack's record table, which leaves
// the base to the record's header.
const EntryBytes = 44

const (
	tableMagic = "HFrt"
	tableFixed = 12 // magic, count, CRC
)

// tableBytes is the length of the record table of a pack of so many records.
func tableBytes(records int) int { return tableFixed + records*EntryBytes }

func appendTable(dst []byte, entries []Entry) []byte {
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, tableMagic...)
	dst = le.AppendUint32(dst, uint32(len(entries)))
	for i := range entries {
		e := &entries[i]
		dst = append(dst, e.ID[:]...)
		dst = le.AppendUint32(dst, uint32(e.Kind)|uint32(e.Flags)<<8)
		dst = le.AppendUint32(dst, e.Off)
		dst = le.AppendUint32(dst, e.Len)
	}
	return le.AppendUint32(dst, crc(dst[start:]))
}

// parseTable reads a whole record table that starts at off of its pack. The
// records it lists fill the pack from the header to the table.
func parseTable(p []byte, off int64) ([]Entry, error) {
	bad := func(format string, a ...any) ([]Entry, error) {
		return nil, fmt.Errorf("%w: record table: %s", ErrFormat, fmt.Sprintf(format, a...))
	}
	le := binary.LittleEndian
	if len(p) < tableFixed || string(p[:4]) != tableMagic {
		return bad("no magic")
	}
	count := int64(le.Uint32(p[4:]))
	if tableFixed+count*EntryBytes != int64(len(p)) {
		return bad("%d entries in %d bytes", count, len(p))
	}
	if crc(p[:len(p)-4]) != le.Uint32(p[len(p)-4:]) {
		return bad("wrong CRC")
	}
	entries := make([]Entry, count)
	next := int64(packHeaderBytes)
	for i := range entries {
		q := p[8+i*EntryBytes:]
		word := le.Uint32(q[32:])
		e := Entry{
			ID:    chunk.ID(q[:32]),
			Kind:  RecordKind(word),
			Flags: Flags(word >> 8),
			Off:   le.Uint32(q[36:]),
			Len:   le.Uint32(q[40:]),
		}
		switch {
		case word>>16 != 0 || e.Kind < Chunk || e.Kind > Blob || e.Flags&^knownFlags != 0 || e.ID.IsNull():
			return bad("entry %d of %v, flags %#x", i, e.Kind, word>>8)
		case int64(e.Off) != next || e.Len <= headerFixed || e.Len > MaxRecordBytes:
			return bad("entry %d of %d bytes at %d, want %d", i, e.Len, e.Off, next)
		}
		next += int64(e.Len)
		entries[i] = e
	}
	if next != off {
		return bad("records end at %d, the table starts at %d", next, off)
	}
	return entries, nil
}

// tableCount returns the number of entries that the table starting with p says
// it has, p being at least 8 bytes.
func tableCount(p []byte) int { return int(binary.LittleEndian.Uint32(p[4:])) }
