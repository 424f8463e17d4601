package ext4

import "math/bits"

// Hashes of names, as the root of an index has them. Those from hashUnsigned on
// take bytes above 127 as they are, the others as negative.
const (
	hashLegacy   = 0
	hashHalfMD4  = 1
	hashTEA      = 2
	hashUnsigned = 3

	hashEnd = 0x7fffffff << 1 // stands for the end of a directory
)

// indexHash returns the hash of a name as a directory's index has it. ok is
// false if that can't be told.
func (f *FS) indexHash(in *inode, name string) (h uint32, ok bool) {
	b, _, err := f.fileBlock(in, 0)
	if err != nil || le.Uint32(b[24:]) != 0 || b[29] != 8 || b[31]&1 != 0 || in.has(flagCasefold) {
		return 0, false
	}
	version := b[28]
	if version < hashUnsigned {
		switch {
		case f.sb.flags&flagUnsignedHash != 0:
			version += hashUnsigned
		case f.sb.flags&flagSignedHash == 0 && !isASCII(name):
			return 0, false // it was made where nobody wrote down which
		}
	}
	if version >= 2*hashUnsigned {
		return 0, false
	}
	return hashName(version, f.sb.hashSeed, name), true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] > 127 {
			return false
		}
	}
	return true
}

// hashName is the major hash of a name. version is below 2 * hashUnsigned.
func hashName(version byte, seed [4]uint32, name string) uint32 {
	char := func(i int) uint32 { return uint32(int32(int8(name[i]))) }
	if version >= hashUnsigned {
		version -= hashUnsigned
		char = func(i int) uint32 { return uint32(name[i]) }
	}
	state := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	if seed != ([4]uint32{}) {
		state = seed
	}
	var h uint32
	switch version {
	case hashLegacy:
		h = legacyHash(len(name), char)
	case hashHalfMD4:
		for at := 0; at < len(name); at += 32 {
			var in [8]uint32
			hashWords(in[:], at, len(name), char)
			halfMD4(&state, &in)
		}
		h = state[1]
	default:
		for at := 0; at < len(name); at += 16 {
			var in [4]uint32
			hashWords(in[:], at, len(name), char)
			tea(&state, &in)
		}
		h = state[0]
	}
	if h &^= 1; h == hashEnd {
		h = hashEnd - 2
	}
	return h
}

func legacyHash(n int, char func(int) uint32) uint32 {
	h0, h1 := uint32(0x12a3fe2d), uint32(0x37abe8f9)
	for i := range n {
		h := h1 + (h0 ^ char(i)*7152373)
		if h&(1<<31) != 0 {
			h -= 0x7fffffff
		}
		h0, h1 = h, h0
	}
	return h0 << 1
}

// hashWords packs the bytes of a name from at on into words, filled up with
// what is left of its length.
func hashWords(words []uint32, at, n int, char func(int) uint32) {
	left := n - at
	pad := uint32(left) | uint32(left)<<8
	pad |= pad << 16
	for w := range words {
		v := pad
		for i := range 4 {
			if j := 4*w + i; j < left {
				v = char(at+j) + v<<8
			}
		}
		words[w] = v
	}
}

// halfMD4 mixes eight words into the state: MD4 with three rounds of eight
// steps.
func halfMD4(state *[4]uint32, in *[8]uint32) {
	a, b, c, d := state[0], state[1], state[2], state[3]
	step := func(mix, x uint32, shift int) {
		a, b, c, d = d, bits.RotateLeft32(a+mix+x, shift), b, c
	}
	for _, i := range [8]int{0, 1, 2, 3, 4, 5, 6, 7} {
		step(d^(b&(c^d)), in[i], [4]int{3, 7, 11, 19}[i%4])
	}
	for k, i := range [8]int{1, 3, 5, 7, 0, 2, 4, 6} {
		step((b&c)+((b^c)&d), in[i]+0x5a827999, [4]int{3, 5, 9, 13}[k%4])
	}
	for k, i := range [8]int{3, 7, 2, 6, 1, 5, 0, 4} {
		step(b^c^d, in[i]+0x6ed9eba1, [4]int{3, 9, 11, 15}[k%4])
	}
	state[0] += a
	state[1] += b
	state[2] += c
	state[3] += d
}

// tea mixes four words into the state with the Tiny Encryption Algorithm.
func tea(state *[4]uint32, in *[4]uint32) {
	b0, b1 := state[0], state[1]
	var sum uint32
	for range 16 {
		sum += 0x9e3779b9
		b0 += (b1<<4 + in[0]) ^ (b1 + sum) ^ (b1>>5 + in[1])
		b1 += (b0<<4 + in[2]) ^ (b0 + sum) ^ (b0>>5 + in[3])
	}
	state[0] += b0
	state[1] += b1
}
