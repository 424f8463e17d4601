package redirect

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// All numbers are little-endian. FORMAT.md draws what follows.

const (
	headerBytes = 512 // of a file; one sector, so that it is never torn
	batchBytes  = 88  // of a batch, before its records
	recordBytes = 32

	walMagic   = "HFRWAL01"
	mapMagic   = "HFRMAP01"
	batchMagic = 0x42524648 // "HFRB"

	// maxBatch is the most that one batch takes in a file.
	maxBatch = 4 * mib
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// origin is the file that a batch is of: the session's id, which is not in the
// batch but in its checksum, and the generation. Space is used again without
// being cleared, and guests choose the bytes that lie there: who doesn't know the
// id can't write what looks like a batch.
type origin struct {
	id  [16]byte
	gen uint64
}

func (o origin) checksum(p []byte) uint32 { return crc32.Update(checksum(o.id[:]), castagnoli, p) }

// fileHeader begins a log file and a map file.
type fileHeader struct {
	magic string
	id    [16]byte // of the session
	gen   uint64   // of the log file; grows with every reuse
	size  uint64   // of the log file; of the map file, what it began with
}

func (h fileHeader) encode() []byte {
	p := make([]byte, headerBytes)
	copy(p, h.magic)
	copy(p[8:], h.id[:])
	le.PutUint64(p[24:], h.gen)
	le.PutUint64(p[32:], h.size)
	le.PutUint32(p[headerBytes-4:], checksum(p[:headerBytes-4]))
	return p
}

func decodeFileHeader(p []byte, magic string) (h fileHeader, err error) {
	switch {
	case len(p) < headerBytes:
		return h, errors.New("shorter than its header")
	case string(p[:8]) != magic:
		return h, errors.New("no " + magic + " at its begin")
	case le.Uint32(p[headerBytes-4:]) != checksum(p[:headerBytes-4]):
		return h, errors.New("header does not match its checksum")
	}
	h = fileHeader{magic: magic, gen: le.Uint64(p[24:]), size: le.Uint64(p[32:])}
	copy(h.id[:], p[8:24])
	return h, nil
}

// kind says what a record is about.
type kind uint8

const (
	kindData   kind = 1 // grains and their bytes; in the map: grains in the data file
	kindZero   kind = 2 // grains that read as zeros
	kindMapped kind = 3 // grains whose bytes are in the data file already
	kindTarget kind = 4 // the disk was switched to a migration target; its name
	kindPage   kind = 5 // a page of the map as it stands
)

// record is one entry of a batch.
type record struct {
	kind    kind
	disk    uint16
	layer   uint32
	first   uint64 // grain; number of the page for kindPage
	count   uint32 // grains; bytes of the name for kindTarget
	payload []byte // kindData in a log file, kindTarget, kindPage
}

// payloadBytes is how long the payload of a record must be.
func (r *record) payloadBytes(wal bool) int {
	switch {
	case r.kind == kindData && wal:
		return int(r.count) * grainBytes
	case r.kind == kindTarget || r.kind == kindPage:
		return grainBytes
	}
	return 0
}

// mode says which layers there are, bottom first, which one is written to, and
// up to which one they are sealed.
type mode struct {
	layers []uint32
	write  uint32
	sealed int // number of layers sealed, from the bottom; 0: none
}

func (m mode) valid() bool {
	if len(m.layers) == 0 || len(m.layers) > maxLayers || m.sealed < 0 || m.sealed >= max(len(m.layers), 1) {
		return false
	}
	found := false
	for i, l := range m.layers {
		found = found || l == m.write
		if i > 0 && l <= m.layers[i-1] {
			return false
		}
	}
	return found
}

// batchHead is what stands before the records of a batch.
type batchHead struct {
	origin
	off     uint64 // where in the file the batch begins
	length  uint32 // bytes of the batch in the file
	prev    uint32 // checksum of the batch before; 0 for the first
	durable uint64 // bytes of the file that were synced before this was written
	applied uint64 // map: log files up to this generation are in it
	prior   uint64 // first batch of a log file: where the log before it ends
	mode    mode
}

// batch is a group of records that becomes durable together.
type batch struct {
	batchHead
	records []record
	sum     uint32 // its own checksum
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

// headBytes is where the payloads of a batch of n records begin.
func headBytes(n int, unit int64) int64 { return align(batchBytes+int64(n)*recordBytes, unit) }

// encode appends the batch to dst. unit is the alignment in the file; wal says
// whether data records carry their bytes.
func (b *batch) encode(dst []byte, unit int64, wal bool) []byte {
	start := len(dst)
	head := int(headBytes(len(b.records), unit))
	total := head
	for i := range b.records {
		total += b.records[i].payloadBytes(wal)
	}
	total = int(align(int64(total), unit))
	b.length = uint32(total)
	dst = append(dst, make([]byte, head)...)
	at := head
	for i := range b.records {
		r := &b.records[i]
		n := r.payloadBytes(wal)
		p := dst[start+batchBytes+i*recordBytes:]
		p[0] = byte(r.kind)
		le.PutUint16(p[2:], r.disk)
		le.PutUint32(p[4:], r.count)
		le.PutUint64(p[8:], r.first)
		le.PutUint32(p[16:], r.layer)
		if n > 0 {
			le.PutUint32(p[20:], uint32(at))
			dst = append(dst, r.payload...)
			if pad := n - len(r.payload); pad > 0 {
				dst = append(dst, make([]byte, pad)...)
			}
			le.PutUint32(dst[start+batchBytes+i*recordBytes+24:], checksum(dst[start+at:start+at+n]))
			at += n
		}
	}
	if pad := total - at; pad > 0 {
		dst = append(dst, make([]byte, pad)...)
	}
	p := dst[start:]
	le.PutUint32(p[0:], batchMagic)
	le.PutUint64(p[8:], b.gen)
	le.PutUint64(p[16:], b.off)
	le.PutUint32(p[24:], b.length)
	le.PutUint32(p[28:], uint32(len(b.records)))
	le.PutUint64(p[32:], b.durable)
	le.PutUint64(p[40:], b.applied)
	le.PutUint64(p[48:], b.prior)
	le.PutUint32(p[56:], b.prev)
	le.PutUint32(p[60:], b.mode.write)
	p[64] = byte(len(b.mode.layers))
	p[65] = byte(b.mode.sealed)
	for i, l := range b.mode.layers {
		le.PutUint32(p[68+4*i:], l)
	}
	b.sum = b.checksum(p[8:head])
	le.PutUint32(p[4:], b.sum)
	return dst
}

var errNoBatch = errors.New("no batch")

// decodeHead reads the head of a batch that stands at off in its file, from at
// least batchBytes bytes, without its checksum.
func decodeHead(p []byte, from origin, off, left, unit int64) (h batchHead, records int, err error) {
	if len(p) < batchBytes || le.Uint32(p) != batchMagic || le.Uint64(p[8:]) != from.gen || le.Uint64(p[16:]) != uint64(off) {
		return h, 0, errNoBatch
	}
	h = batchHead{
		origin: from, off: uint64(off), length: le.Uint32(p[24:]), prev: le.Uint32(p[56:]),
		durable: le.Uint64(p[32:]), applied: le.Uint64(p[40:]), prior: le.Uint64(p[48:]),
	}
	n := int64(le.Uint32(p[28:]))
	length := int64(h.length)
	layers := int(p[64])
	if length > left || length > maxBatch || length%unit != 0 || n > maxBatch/recordBytes || headBytes(int(n), unit) > length || layers > maxLayers {
		return h, 0, errNoBatch
	}
	h.mode = mode{write: le.Uint32(p[60:]), sealed: int(p[65])}
	for i := range layers {
		h.mode.layers = append(h.mode.layers, le.Uint32(p[68+4*i:]))
	}
	return h, int(n), nil
}

// decodeBatch reads a batch from p, which holds all of it. The payloads are
// parts of p. Anything that is not exactly what encode makes of sane records is
// errNoBatch.
func decodeBatch(p []byte, from origin, off, unit int64, wal bool) (b batch, err error) {
	h, n, err := decodeHead(p, from, off, int64(len(p)), unit)
	if err != nil {
		return b, err
	}
	head := headBytes(n, unit)
	b = batch{batchHead: h, sum: le.Uint32(p[4:])}
	if b.sum != from.checksum(p[8:head]) || !h.mode.valid() {
		return b, errNoBatch
	}
	p = p[:h.length]
	b.records = make([]record, n)
	at := int(head)
	for i := range b.records {
		q := p[batchBytes+i*recordBytes:]
		r := record{kind: kind(q[0]), disk: le.Uint16(q[2:]), count: le.Uint32(q[4:]), first: le.Uint64(q[8:]), layer: le.Uint32(q[16:])}
		if r.kind < kindData || r.kind > kindPage || r.disk >= maxDisks ||
			r.kind == kindData && wal && r.count > maxChunk/grainBytes || r.kind == kindTarget && r.count > grainBytes {
			return b, errNoBatch
		}
		if size := r.payloadBytes(wal); size > 0 {
			if int(le.Uint32(q[20:])) != at || size > len(p)-at || le.Uint32(q[24:]) != checksum(p[at:at+size]) {
				return b, errNoBatch
			}
			r.payload = p[at : at+size]
			at += size
		}
		b.records[i] = r
	}
	return b, nil
}
