package ext4

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c continues a CRC-32C as ext4 uses it, without the inversions at both
// ends that the library makes.
func crc32c(seed uint32, p []byte) uint32 { return ^crc32.Update(^seed, castagnoli, p) }

// crc32cLE continues a CRC-32C with a number of 32 bits.
func crc32cLE(seed, v uint32) uint32 {
	return crc32c(seed, []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}

var zeroes [8]byte

// crc16 continues the CRC-16 of the group descriptors of uninit_bg.
func crc16(crc uint16, p []byte) uint16 {
	for _, b := range p {
		crc ^= uint16(b)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low != 0 {
				crc ^= 0xa001
			}
		}
	}
	return crc
}

// crc32be continues the big-endian CRC-32, without inversions, that the first
// checksums of the journal used.
func crc32be(crc uint32, p []byte) uint32 {
	for _, b := range p {
		crc = crc<<8 ^ crc32beTable[byte(crc>>24)^b]
	}
	return crc
}

var crc32beTable = func() (t [256]uint32) {
	for i := range t {
		c := uint32(i) << 24
		for range 8 {
			high := c & (1 << 31)
			c <<= 1
			if high != 0 {
				c ^= 0x04c11db7
			}
		}
		t[i] = c
	}
	return t
}()
