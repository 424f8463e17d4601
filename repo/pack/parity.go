package pack

import (
	"github.com/klauspost/reedsolomon"
)

// A coder keeps the Reed–Solomon matrices of one number of parity shards, one
// per number of data shards: making one takes longer than coding a stripe. Not
// safe for concurrent use.
type coder struct {
	parity int
	byRows map[int]reedsolomon.Encoder
}

func newCoder(parity int) *coder {
	return &coder{parity: parity, byRows: map[int]reedsolomon.Encoder{}}
}

func (c *coder) encoder(rows int) reedsolomon.Encoder {
	enc := c.byRows[rows]
	if enc == nil {
		var err error
		// Pack builders run beside each other, so one goroutine each. Damage
		// seldom repeats its pattern, so inverted matrices are not kept.
		enc, err = reedsolomon.New(rows, c.parity, reedsolomon.WithMaxGoroutines(1), reedsolomon.WithInversionCache(false))
		if err != nil {
			panic(err) // rows and parity are within the limits of every layout
		}
		c.byRows[rows] = enc
	}
	return enc
}

// encodeColumns is how many stripes are encoded at once. Neighbouring blocks
// belong to neighbouring stripes, so the same shard of that many stripes is one
// run of memory.
const encodeColumns = 8

// zeroShards stands for the last shard of stripes that lack it.
var zeroShards [encodeColumns * BlockBytes]byte

// encode computes the parity of data, which is l.Data blocks, into parity,
// which is l.Parity × l.Stripes blocks.
func (c *coder) encode(l Layout, data, parity []byte) {
	if l.Parity == 0 {
		return
	}
	rows := l.rows()
	enc := c.encoder(rows)
	shards := make([][]byte, rows+l.Parity)
	for _, g := range l.groups(0, l.Stripes, encodeColumns) {
		n := g.n * BlockBytes
		for r := range shards {
			mem := data
			at := l.at(r, g.col)
			switch {
			case at < 0:
				shards[r] = zeroShards[:n]
				continue
			case at >= l.Data:
				at -= l.Data
				mem = parity
			}
			shards[r] = mem[at*BlockBytes:][:n:n]
		}
		if err := enc.Encode(shards); err != nil {
			panic(err) // all shards are there and of one length
		}
	}
}

// A group is a run of neighbouring stripes whose shards of one row are
// neighbours in the file, too.
type group struct{ col, n int }

// groups cuts the stripes from a up to b into groups of at most most. The last
// data row ends, and the parity rows begin, at stripe Data mod Stripes, so
// no group crosses it.
func (l Layout) groups(a, b, most int) []group {
	var out []group
	edge := l.Data % l.Stripes
	for a < b {
		end := min(b, a+most)
		if a < edge {
			end = min(end, edge)
		}
		out = append(out, group{a, end - a})
		a = end
	}
	return out
}

// at returns the shard number of row r of stripe col, or -1 where a stripe
// lacks its last data shard. Rows count data first, then parity.
func (l Layout) at(r, col int) int {
	if r < l.rows() {
		if n := r*l.Stripes + col; n < l.Data {
			return n
		}
		return -1
	}
	j := (col - l.Data%l.Stripes + l.Stripes) % l.Stripes
	return l.Data + (r-l.rows())*l.Stripes + j
}
