package pack

import (
	"bytes"
	"fmt"
	"testing"
)

// The functions below are FORMAT.md's Parity section word by word, and share
// nothing with the code that is tested.

// gfMul multiplies in GF(2⁸) with the polynomial 0x11D.
func gfMul(a, b byte) (p byte) {
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		carry := a & 0x80
		a <<= 1
		if carry != 0 {
			a ^= 0x1D
		}
	}
	return p
}

func gfInv(a byte) byte {
	for b := range 256 {
		if gfMul(a, byte(b)) == 1 {
			return byte(b)
		}
	}
	panic("0 has no inverse")
}

// codeRows returns the m parity rows of V·T⁻¹, V being the Vandermonde matrix of
// k + m rows and T its first k rows.
func codeRows(k, m int) [][]byte {
	v := make([][]byte, k+m)
	for r := range v {
		v[r] = make([]byte, k)
		x := byte(1)
		for c := range v[r] {
			v[r][c] = x
			x = gfMul(x, byte(r))
		}
	}
	// Column operations that make T the identity make V into V·T⁻¹.
	for i := range k {
		for c := i; v[i][i] == 0; c++ {
			for r := range v {
				v[r][i], v[r][c] = v[r][c], v[r][i]
			}
		}
		inv := gfInv(v[i][i])
		for r := range v {
			v[r][i] = gfMul(v[r][i], inv)
		}
		for c := range k {
			if f := v[i][c]; c != i && f != 0 {
				for r := range v {
					v[r][c] ^= gfMul(f, v[r][i])
				}
			}
		}
	}
	return v[k:]
}

func TestParityAsWritten(t *testing.T) {
	r := newRand(t, 50)
	for _, c := range []struct{ parity, size int }{{1, 500}, {2, 9000}, {3, 405 << 10}, {3, 830 << 10}, {20, 1200 << 10}} {
		t.Run(fmt.Sprintf("parity=%d/bytes=%d", c.parity, c.size), func(t *testing.T) {
			p := makePack(t, r, c.parity, c.size)
			l := p.layout(t)
			n, m := l.Data, l.Parity
			s := max(1, (n+99)/100)
			k := (n + s - 1) / s
			if l.Stripes != s {
				t.Fatalf("%d stripes, want %d", l.Stripes, s)
			}
			rows := codeRows(k, m)
			for j := range m * s {
				// A few bytes of each parity block tell as much as all.
				for _, at := range []int{0, 1, 2047, BlockBytes - 1} {
					var want byte
					for b := (n + j) % s; b < n; b += s {
						want ^= gfMul(rows[j/s][b/s], p.file[b*BlockBytes+at])
					}
					if got := p.file[(n+l.Tail+j)*BlockBytes+at]; got != want {
						t.Fatalf("parity block %d, byte %d: %#x, want %#x", j, at, got, want)
					}
				}
			}
			tailA, tailB := p.file[n*BlockBytes:][:l.Tail*BlockBytes], p.file[len(p.file)-l.Tail*BlockBytes:]
			same := len(tailA) - trailerBytes
			if !bytes.Equal(tailA[:same], tailB[:same]) || len(p.file) != (n+m*s+2*l.Tail)*BlockBytes {
				t.Error("tails differ before their trailers, or the file has other parts")
			}
		})
	}
}
