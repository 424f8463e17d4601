package ntfs

import (
	"fmt"
	"math/bits"

	"holdfast/fs"
)

// chunkBytes is what a chunk of LZNT1 holds.
const chunkBytes = 4096

// unpackLZNT1 fills dst from src, which may hold more. Source: [MS-XCA] 2.5.
func unpackLZNT1(dst, src []byte) error {
	for len(dst) > 0 {
		if len(src) < 2 || le.Uint16(src) == 0 {
			return fmt.Errorf("LZNT1 ends %d bytes too early: %w", len(dst), fs.ErrDamaged)
		}
		header := le.Uint16(src)
		n := 2 + int(header&0xfff) + 1
		if n > len(src) || header>>12&7 != 3 {
			return fmt.Errorf("LZNT1 chunk header %#04x with %d bytes left: %w", header, len(src), fs.ErrDamaged)
		}
		want := min(chunkBytes, len(dst))
		var got int
		if header&0x8000 == 0 {
			got = copy(dst[:want], src[2:n])
		} else {
			var err error
			if got, err = unpackChunk(dst[:want], src[2:n]); err != nil {
				return err
			}
		}
		if got < want {
			return fmt.Errorf("LZNT1 chunk of %d bytes instead of %d: %w", got, want, fs.ErrDamaged)
		}
		dst, src = dst[want:], src[n:]
	}
	return nil
}

// unpackChunk unpacks one compressed chunk, as much of it as dst takes, and
// returns how much that was. A flag byte goes before eight tokens: literals, and
// references of 16 bits whose share for the distance grows with the position.
func unpackChunk(dst, src []byte) (int, error) {
	at := 0
	for len(src) > 0 {
		flags := src[0]
		src = src[1:]
		for range 8 {
			if len(src) == 0 || at == len(dst) {
				return at, nil
			}
			if flags&1 == 0 {
				dst[at] = src[0]
				src = src[1:]
				at++
			} else {
				if len(src) < 2 || at == 0 {
					return at, fmt.Errorf("LZNT1 reference at %d with %d bytes left: %w", at, len(src), fs.ErrDamaged)
				}
				token := int(le.Uint16(src))
				src = src[2:]
				lenBits := 16 - max(4, bits.Len(uint(at-1)))
				n, dist := token&(1<<lenBits-1)+3, token>>lenBits+1
				if dist > at {
					return at, fmt.Errorf("LZNT1 reference %d back at %d: %w", dist, at, fs.ErrDamaged)
				}
				for range min(n, len(dst)-at) {
					dst[at] = dst[at-dist]
					at++
				}
			}
			flags >>= 1
		}
	}
	return at, nil
}
