package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
)

// Options of a Builder.
type Options struct {
	Parity      int // parity blocks per stripe, 0 to MaxParity
	PackBytes   int // the builder is full when records and table reach this
	RecordBytes int // the longest record that will be added; 0 means MaxRecordBytes
}

// A Builder makes one pack after the other in one buffer, allocated once: the
// longest pack of its Options with tails and parity. Records are copied in,
// and checksummed while they are in the processor's cache. Not safe for
// concurrent use.
type Builder struct {
	opt     Options
	kind    Kind
	name    Name
	buf     []byte // the file so far
	entries []Entry
	sums    []byte // the CRC table: of each whole block of buf, later of all shards
	sha     hash.Hash
	hashed  int // bytes of buf that sha has seen
	coder   *coder
}

// NewBuilder returns a builder whose first pack has the given kind and name.
// Options out of their limits are ErrFormat.
func NewBuilder(k Kind, n Name, opt Options) (*Builder, error) {
	if opt.RecordBytes == 0 {
		opt.RecordBytes = MaxRecordBytes
	}
	if !k.known() || opt.Parity < 0 || opt.Parity > MaxParity || opt.PackBytes < 1 || opt.PackBytes > MaxBytes/2 ||
		opt.RecordBytes < headerFixed || opt.RecordBytes > MaxRecordBytes {
		return nil, fmt.Errorf("%w: pack of %v with %+v", ErrFormat, k, opt)
	}
	// Before its last record, a pack and its table are shorter than PackBytes.
	longest := layoutOf(blocks(int64(opt.PackBytes+EntryBytes+opt.RecordBytes)), opt.Parity)
	b := &Builder{
		opt:   opt,
		kind:  k,
		buf:   make([]byte, 0, longest.Bytes()),
		sums:  make([]byte, 0, longest.sumBytes()),
		sha:   sha256.New(),
		coder: newCoder(opt.Parity),
	}
	b.Reset(n)
	return b, nil
}

// Reset drops what was added and starts a pack of the given name.
func (b *Builder) Reset(n Name) {
	b.name = n
	b.buf = appendPackHeader(b.buf[:0], b.kind, n)
	b.entries = b.entries[:0]
	b.sums = b.sums[:0]
	b.sha.Reset()
	b.hashed = 0
}

// Add copies a record, as Assembler.Finish returns it, to the end of the pack
// and returns its offset. ErrFull when the builder is full, ErrFormat when
// record is not one whole record or longer than Options say; the pack is then
// as before.
func (b *Builder) Add(record []byte) (off uint32, err error) {
	if b.Full() {
		return 0, fmt.Errorf("%w: %s", ErrFull, b.name)
	}
	n, ok := soundHeader(record)
	if !ok || len(record) > b.opt.RecordBytes || n+int(binary.LittleEndian.Uint32(record[12:])) != len(record) {
		return 0, fmt.Errorf("%w: no whole record of at most %d bytes", ErrFormat, b.opt.RecordBytes)
	}
	e := Entry{
		ID:    [32]byte(record[24:56]),
		Base:  headerBase(record),
		Kind:  RecordKind(record[5]),
		Flags: Flags(record[6]),
		Off:   uint32(len(b.buf)),
		Len:   uint32(len(record)),
	}
	b.buf = append(b.buf, record...)
	b.entries = append(b.entries, e)
	b.absorb()
	return e.Off, nil
}

// Name returns the name of the pack under construction.
func (b *Builder) Name() Name { return b.name }

// Kind returns what the builder's packs hold.
func (b *Builder) Kind() Kind { return b.kind }

// Records returns the number of records added.
func (b *Builder) Records() int { return len(b.entries) }

// Len returns the bytes of header, records and record table so far.
func (b *Builder) Len() int { return len(b.buf) + tableBytes(len(b.entries)) }

// Full reports whether the pack is to be finished: nothing more can be added.
func (b *Builder) Full() bool {
	return b.Len() >= b.opt.PackBytes || len(b.entries) >= MaxRecords
}

// Finish completes the pack and returns the file's bytes, their SHA-256 and
// the records in order. All three are the builder's and valid until Reset,
// which is the only call allowed after Finish.
func (b *Builder) Finish() (file []byte, sum [32]byte, table []Entry) {
	t := trailer{Kind: b.kind, Name: b.name, Table: int64(len(b.buf)), Records: len(b.entries)}
	b.buf = appendTable(b.buf, b.entries)
	t.Layout = layoutOf(blocks(int64(len(b.buf))), b.opt.Parity)
	b.grow(t.Data * BlockBytes)
	b.absorb()

	// The parity lies behind tail A, which holds its CRCs.
	file = b.buf[:t.Bytes()]
	parity := file[t.fileBlock(t.Data)*BlockBytes : t.tailB()*BlockBytes]
	b.coder.encode(t.Layout, b.buf, parity)
	for ; len(parity) > 0; parity = parity[BlockBytes:] {
		b.sums = binary.LittleEndian.AppendUint32(b.sums, crc(parity[:BlockBytes]))
	}
	t.SumCRC = crc(b.sums)
	for _, start := range []int{t.tailA(), t.tailB()} {
		t.putTail(file[start*BlockBytes:][:t.Tail*BlockBytes], start, b.sums)
	}
	b.buf = file
	b.sha.Write(file[b.hashed:])
	return file, [32]byte(b.sha.Sum(nil)), b.entries
}

// grow appends zeros up to size.
func (b *Builder) grow(size int) {
	old := len(b.buf)
	b.buf = b.buf[:size]
	clear(b.buf[old:])
}

// absorb takes the bytes added last into the file's digest, and the blocks
// they completed into the CRC table.
func (b *Builder) absorb() {
	b.sha.Write(b.buf[b.hashed:])
	b.hashed = len(b.buf)
	for at := len(b.sums) / 4 * BlockBytes; at+BlockBytes <= len(b.buf); at += BlockBytes {
		b.sums = binary.LittleEndian.AppendUint32(b.sums, crc(b.buf[at:at+BlockBytes]))
	}
}
