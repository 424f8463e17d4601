package nfstest

import (
	"encoding/binary"
	"fmt"
)

// BlockBytes is how much of a file carries one address and generation.
const BlockBytes = 4096

// word is the eight bytes of a stamped file at byte at, a multiple of eight, in
// generation gen. Each tells its place, so that bytes that are moved, old or
// torn are seen.
func word(at int64, gen uint32) uint64 {
	x := (uint64(at)>>3 + 1) * 0x9e3779b97f4a7c15
	return (x ^ x>>29) + uint64(gen)*0xbf58476d1ce4e5b9
}

// Stamp fills p with what a stamped file has from off on in generation gen. off
// and the length are multiples of eight.
func Stamp(p []byte, off int64, gen uint32) {
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], word(off+int64(i), gen))
	}
}

// CheckStamp says where p, read at off, is not as Stamp made it.
func CheckStamp(p []byte, off int64, gen uint32) error {
	for i := 0; i+8 <= len(p); i += 8 {
		if got := binary.LittleEndian.Uint64(p[i:]); got != word(off+int64(i), gen) {
			return fmt.Errorf("nfstest: byte %d is not of generation %d: %x", off+int64(i), gen, got)
		}
	}
	return nil
}

// Generation returns which of the generations up to most the block p, read at
// off, is of as a whole; an error if it is of none. Zeros are generation 0.
func Generation(p []byte, off int64, most uint32) (uint32, error) {
	first := binary.LittleEndian.Uint64(p)
	zero := true
	for _, b := range p {
		zero = zero && b == 0
	}
	if zero {
		return 0, nil
	}
	for gen := uint32(1); gen <= most; gen++ {
		if word(off, gen) == first {
			return gen, CheckStamp(p, off, gen)
		}
	}
	return 0, fmt.Errorf("nfstest: block at %d is of no generation up to %d", off, most)
}
