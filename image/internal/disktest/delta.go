package disktest

import (
	"encoding/binary"
	"math/rand/v2"
)

// Hold is how a layer of a chain holds a block.
type Hold uint8

const (
	Absent Hold = iota // what lies below shows
	Zeros
	Stored
)

// Layer is what one file of a chain holds.
type Layer struct {
	Block int    // bytes
	Hold  []Hold // of every block
	Bytes []byte // of the whole disk; what is not stored is zeros
}

// RandomLayer is a layer of size bytes in blocks, each bit of which is held in a
// run of up to 40 blocks. The same seed gives the same layer.
func RandomLayer(size, block int, seed uint64) Layer {
	r := rand.New(rand.NewPCG(seed, 3))
	l := Layer{block, make([]Hold, (size+block-1)/block), make([]byte, size)}
	for i := 0; i < len(l.Hold); {
		h := Hold(r.IntN(3))
		for n := 1 + r.IntN(40); n > 0 && i < len(l.Hold); n-- {
			l.Hold[i] = h
			if h == Stored {
				noise(l.bytes(i), r)
			}
			i++
		}
	}
	return l
}

func (l Layer) bytes(i int) []byte { return l.Bytes[i*l.Block : min((i+1)*l.Block, len(l.Bytes))] }

// Over is the disk that the layer makes of what lies below it.
func (l Layer) Over(below []byte) []byte {
	b := make([]byte, len(l.Bytes))
	copy(b, l.Bytes)
	for i, h := range l.Hold {
		if at := i * l.Block; h == Absent && at < len(below) {
			copy(l.part(b, i), below[at:])
		}
	}
	return b
}

func (l Layer) part(b []byte, i int) []byte { return b[i*l.Block : min((i+1)*l.Block, len(b))] }

const sector = 512

// COWD writes the layer as a VMFSSPARSE extent of a VMDK, with grains of its
// blocks in the reverse order of the disk. It stores zeros as it does bytes.
func (l Layer) COWD() []byte {
	const perTable, directory = 4096, 4
	le := binary.LittleEndian
	tables := (len(l.Hold) + perTable - 1) / perTable
	first := directory + (tables*4+sector-1)/sector
	b := make([]byte, (first+tables*perTable*4/sector)*sector)
	copy(b, "COWD")
	for i, v := range []int{1, 3, len(l.Bytes) / sector, l.Block / sector, directory, tables} {
		le.PutUint32(b[4+4*i:], uint32(v))
	}
	for t := range tables {
		le.PutUint32(b[directory*sector+4*t:], uint32(first+t*perTable*4/sector))
	}
	for i := len(l.Hold) - 1; i >= 0; i-- {
		if l.Hold[i] != Absent {
			le.PutUint32(b[first*sector+4*i:], uint32(len(b)/sector))
			b = append(b, l.bytes(i)...)
		}
	}
	le.PutUint32(b[28:], uint32(len(b)/sector))
	return b
}

// SeSparse writes the layer, whose blocks have 4 KiB, as a SESPARSE extent of a
// VMDK. Its grains have the numbers from first on, in the reverse order of the
// disk; zeros are told as such, in both ways.
func (l Layer) SeSparse(first int) []byte {
	const perTable, tableSectors, directory = 4096, 64, 8
	le := binary.LittleEndian
	tables := (len(l.Hold) + perTable - 1) / perTable
	directorySectors := (tables*8 + sector - 1) / sector
	firstTable := directory + directorySectors
	grains := firstTable + tables*tableSectors
	stored := 0
	for _, h := range l.Hold {
		if h == Stored {
			stored++
		}
	}
	end := grains + (first+stored)*l.Block/sector
	b := make([]byte, end*sector)
	for i, v := range []int{0xcafebabe, 0x200000001, len(l.Bytes) / sector, l.Block / sector, tableSectors, 0,
		0, 0, 0, 0, 1, 1, 2, 2, 4, 4, directory, directorySectors, firstTable, tables * tableSectors,
		0, 0, 0, 0, grains, end - grains} {
		le.PutUint64(b[8*i:], uint64(v))
	}
	le.PutUint64(b[sector:], 0xcafecafe)
	for t := range tables {
		le.PutUint64(b[directory*sector+8*t:], 1<<60|uint64(t))
	}
	for i := len(l.Hold) - 1; i >= 0; i-- {
		var e uint64
		switch l.Hold[i] {
		case Zeros:
			e = uint64(1+i%2) << 60
		case Stored:
			e = 3<<60 | uint64(first&0xfff)<<48 | uint64(first>>12)
			copy(b[(grains*sector+first*l.Block):], l.bytes(i))
			first++
		}
		le.PutUint64(b[firstTable*sector+8*i:], e)
	}
	return b
}
