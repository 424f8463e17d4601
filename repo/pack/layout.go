package pack

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// MaxParity is the most parity blocks that a stripe can have.
const MaxParity = 20

// Limits of a pack, so that a reader knows what its memory must hold.
const (
	MaxBytes   = 1 << 30 // of the file
	MaxRecords = 1 << 18
)

const (
	stripeBlocks    = 100 // most data blocks of a stripe
	packHeaderBytes = 64
	trailerBytes    = 128
	packMagic       = "HFpk"
	trailerMagic    = "HFpt"
	packVersion     = 1
)

// A Layout says which block of a pack is what. The blocks of a file are, in
// order: data, tail A, parity, tail B. Data and parity blocks together are the
// shards, numbered without the tails between them.
type Layout struct {
	Data    int // N, blocks of header, records and record table
	Stripes int // S
	Parity  int // m, parity blocks per stripe
	Tail    int // T, blocks of one tail
}

// LayoutFor returns the layout of a pack whose records are recordBytes long
// together.
func LayoutFor(recordBytes int64, records, parity int) Layout {
	return layoutOf(blocks(packHeaderBytes+recordBytes+int64(tableBytes(records))), parity)
}

func layoutOf(data, parity int) Layout {
	l := Layout{Data: data, Parity: parity, Stripes: (data + stripeBlocks - 1) / stripeBlocks}
	l.Tail = blocks(int64(l.sumBytes() + trailerBytes))
	return l
}

// LayoutOf returns the layout of a pack whose file is fileBytes long, of so many
// parity blocks for each stripe; false if no such pack has that length.
func LayoutOf(fileBytes int64, parity int) (l Layout, ok bool) {
	data := sort.Search(int(min(max(fileBytes, 0), MaxBytes)/BlockBytes), func(data int) bool {
		return layoutOf(data, parity).Bytes() >= fileBytes
	})
	l = layoutOf(data, parity)
	return l, l.check() == nil && l.Bytes() == fileBytes
}

// Bytes returns the length of the file.
func (l Layout) Bytes() int64 { return int64(l.fileBlocks()) * BlockBytes }

// ParityBytes returns what the parity and the two tails take of Bytes.
func (l Layout) ParityBytes() int64 { return int64(l.fileBlocks()-l.Data) * BlockBytes }

func (l Layout) fileBlocks() int { return l.shards() + 2*l.Tail }

// shards is the number of data and parity blocks.
func (l Layout) shards() int { return l.Data + l.Parity*l.Stripes }

// rows is K, the number of data shards of a stripe.
func (l Layout) rows() int { return (l.Data + l.Stripes - 1) / l.Stripes }

// sumBytes is the length of the CRC table.
func (l Layout) sumBytes() int { return 4 * l.shards() }

// tailA and tailB are the blocks the tails start at.
func (l Layout) tailA() int { return l.Data }
func (l Layout) tailB() int { return l.shards() + l.Tail }

// fileBlock returns the block of the file that is shard number n.
func (l Layout) fileBlock(n int) int {
	if n < l.Data {
		return n
	}
	return n + l.Tail
}

// shard returns the shard number of a block of the file, -1 if it is a tail's.
func (l Layout) shard(block int) int {
	switch {
	case block < l.Data:
		return block
	case block >= l.tailA()+l.Tail && block < l.tailB():
		return block - l.Tail
	}
	return -1
}

// check returns ErrFormat unless l is the layout of a pack.
func (l Layout) check() error {
	if l.Data < 1 || l.Data > MaxBytes/BlockBytes || l.Parity < 0 || l.Parity > MaxParity ||
		l != layoutOf(l.Data, l.Parity) || l.Bytes() > MaxBytes {
		return fmt.Errorf("%w: pack of %d data blocks, %d stripes, %d parity blocks each, tails of %d", ErrFormat, l.Data, l.Stripes, l.Parity, l.Tail)
	}
	return nil
}

func blocks(n int64) int { return int((n + BlockBytes - 1) / BlockBytes) }

// A trailer ends both tails, equal but for Block and so the CRC.
type trailer struct {
	Layout
	Kind    Kind
	Name    Name
	Block   int   // of the file, the one this trailer ends
	Table   int64 // offset of the record table
	Records int
	SumCRC  uint32 // of the CRC table
}

func (t *trailer) append(dst []byte) []byte {
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, trailerMagic...)
	dst = le.AppendUint16(dst, packVersion)
	dst = append(dst, byte(t.Kind), byte(t.Parity))
	for _, v := range []int{t.Data, t.Stripes, t.Tail, t.Block, int(t.Table), t.Records, int(t.SumCRC)} {
		dst = le.AppendUint32(dst, uint32(v))
	}
	dst = append(dst, t.Name[:]...)
	dst = append(dst, make([]byte, trailerBytes-4-(len(dst)-start))...)
	return le.AppendUint32(dst, crc(dst[start:]))
}

// parseTrailer reads the trailer in the last bytes of a block, which is the
// given one of its file.
func parseTrailer(p []byte, block int) (trailer, error) {
	le := binary.LittleEndian
	p = p[len(p)-trailerBytes:]
	if string(p[:4]) != trailerMagic || crc(p[:trailerBytes-4]) != le.Uint32(p[trailerBytes-4:]) {
		return trailer{}, fmt.Errorf("%w: no trailer in block %d", ErrFormat, block)
	}
	if v := le.Uint16(p[4:]); v != packVersion {
		return trailer{}, fmt.Errorf("%w: %d of a pack", ErrVersion, v)
	}
	t := trailer{
		Kind:    Kind(p[6]),
		Layout:  Layout{Parity: int(p[7]), Data: int(le.Uint32(p[8:])), Stripes: int(le.Uint32(p[12:])), Tail: int(le.Uint32(p[16:]))},
		Block:   int(le.Uint32(p[20:])),
		Table:   int64(le.Uint32(p[24:])),
		Records: int(le.Uint32(p[28:])),
		SumCRC:  le.Uint32(p[32:]),
		Name:    Name(p[36:52]),
	}
	if err := t.Layout.check(); err != nil {
		return trailer{}, err
	}
	end := t.Table + tableFixed + int64(t.Records)*EntryBytes
	switch {
	case !t.Kind.known(), [72]byte(p[52:124]) != [72]byte{}:
		return trailer{}, fmt.Errorf("%w: trailer of %v, or with reserved bytes set", ErrFormat, t.Kind)
	case t.Block != block || block != t.tailA()+t.Tail-1 && block != t.tailB()+t.Tail-1:
		return trailer{}, fmt.Errorf("%w: trailer of block %d in block %d", ErrFormat, t.Block, block)
	case t.Table < packHeaderBytes || t.Records > MaxRecords || blocks(end) != t.Data:
		return trailer{}, fmt.Errorf("%w: record table of %d records at %d in %d blocks", ErrFormat, t.Records, t.Table, t.Data)
	}
	return t, nil
}

// putTail makes tail, all of its blocks, the tail that starts at block start of
// its file, with sums as its CRC table.
func (t *trailer) putTail(tail []byte, start int, sums []byte) {
	clear(tail[copy(tail, sums):])
	t.Block = start + t.Tail - 1
	t.append(tail[:len(tail)-trailerBytes])
}

// appendPackHeader appends what a pack starts with.
func appendPackHeader(dst []byte, k Kind, n Name) []byte {
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, packMagic...)
	dst = le.AppendUint16(dst, packVersion)
	dst = append(dst, byte(k), 0)
	dst = le.AppendUint32(dst, n.Epoch())
	dst = append(dst, n[4:]...)
	dst = le.AppendUint32(dst, BlockBytes)
	dst = append(dst, make([]byte, 32)...)
	return le.AppendUint32(dst, crc(dst[start:]))
}

// parsePackHeader reads the start of a pack.
func parsePackHeader(p []byte) (Kind, Name, error) {
	le := binary.LittleEndian
	if len(p) < packHeaderBytes || string(p[:4]) != packMagic || crc(p[:packHeaderBytes-4]) != le.Uint32(p[packHeaderBytes-4:]) {
		return 0, Name{}, fmt.Errorf("%w: no pack header", ErrFormat)
	}
	if v := le.Uint16(p[4:]); v != packVersion {
		return 0, Name{}, fmt.Errorf("%w: %d of a pack", ErrVersion, v)
	}
	var n Name
	binary.BigEndian.PutUint32(n[:], le.Uint32(p[8:]))
	copy(n[4:], p[12:24])
	k := Kind(p[6])
	if !k.known() || string(appendPackHeader(nil, k, n)) != string(p[:packHeaderBytes]) {
		return 0, Name{}, fmt.Errorf("%w: pack header of %v, or with reserved bytes set", ErrFormat, k)
	}
	return k, n, nil
}
