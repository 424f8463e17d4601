package repotest

import (
	"math/rand/v2"

	"holdfast/repo"
)

// Kind says what is on a generated disk.
type Kind int

// The kinds of disks. All but Dense have holes.
const (
	Dense  Kind = iota // bytes that do not compress, everywhere
	Sparse             // a few islands of such bytes
	Text               // bytes that compress
	Zeros              // stretches of data, of written zeros and of holes
	Shared             // blocks that other disks of this kind have too
	kinds
)

// Kinds is the number of kinds, to choose one at random.
const Kinds = int(kinds)

// New makes a disk of that kind.
func New(rng *rand.Rand, kind Kind, size int64) *Disk {
	d := NewDisk(size)
	switch kind {
	case Dense:
		d.Write(noise(rng, int(size)), 0)
	case Sparse:
		for range 1 + size>>19 {
			island(rng, d, noise(rng, 1+rng.IntN(96<<10)))
		}
	case Text:
		d.Write(text(rng, int(size)), 0)
	case Zeros:
		for off := int64(0); off < size; {
			n := min(size-off, 1+rng.Int64N(300<<10))
			switch rng.IntN(3) {
			case 0:
				d.Write(noise(rng, int(n)), off)
			case 1:
				d.Write(make([]byte, n), off)
			}
			off += n
		}
	case Shared:
		// The pool is the same whatever the seed, and so are the places: blocks
		// that meet in a chunk meet in it on every disk.
		const block = 256 << 10
		for off := int64(0); off < size; off += block {
			pool := rand.New(rand.NewPCG(uint64(rng.IntN(4)), 7))
			d.Write(noise(pool, block)[:min(block, size-off)], off)
		}
	}
	return d
}

// noise is bytes that do not compress.
func noise(rng *rand.Rand, n int) []byte {
	p := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := rng.Uint64()
		for j := range 8 {
			p[i+j] = byte(v >> (8 * j))
		}
	}
	return p[:n]
}

// text is bytes that compress about three to one.
func text(rng *rand.Rand, n int) []byte {
	words := []string{"the ", "backup ", "that ", "comes ", "back ", "at ", "night\n", "when ", "called "}
	p := make([]byte, 0, n+16)
	for len(p) < n {
		p = append(p, words[rng.IntN(len(words))]...)
		if rng.IntN(4) == 0 {
			p = append(p, byte(rng.Uint32()))
		}
	}
	return p[:n]
}

// island puts bytes somewhere on the disk, cut to what there is room for.
func island(rng *rand.Rand, d *Disk, p []byte) repo.Range {
	if d.size == 0 {
		return repo.Range{}
	}
	off := rng.Int64N(d.size)
	p = p[:min(int64(len(p)), d.size-off)]
	d.Write(p, off)
	return repo.Range{Off: off, Len: int64(len(p))}
}

// Change does to a disk what machines do: small writes, blocks moved, stretches
// trimmed, growing, shrinking, and pages written here and there as databases
// write them. It returns a new disk and what may differ from the old one, up to
// the shorter one's end.
func Change(rng *rand.Rand, old *Disk) (*Disk, []repo.Range) {
	d := old.Clone()
	var changed []repo.Range
	for range 1 + rng.IntN(3) {
		changed = append(changed, change(rng, d)...)
	}
	return d, within(changed, min(d.size, old.size))
}

func change(rng *rand.Rand, d *Disk) (changed []repo.Range) {
	switch rng.IntN(6) {
	case 0: // small writes
		for range 1 + rng.IntN(8) {
			changed = append(changed, island(rng, d, noise(rng, 1+rng.IntN(2000))))
		}
	case 1: // a block moved
		if d.size == 0 {
			break
		}
		p := make([]byte, min(d.size, 1+rng.Int64N(200<<10)))
		_, _ = d.ReadAt(p, rng.Int64N(d.size-int64(len(p))+1)) // lies within
		changed = append(changed, island(rng, d, p))
	case 2: // trim
		if d.size == 0 {
			break
		}
		r := repo.Range{Off: rng.Int64N(d.size), Len: 1 + rng.Int64N(400<<10)}
		d.Trim(r.Off, r.Len)
		changed = append(changed, r)
	case 3: // grow, and use some of it
		before := d.size
		d.Resize(before + rng.Int64N(400<<10))
		if n := d.size - before; n > 0 && rng.IntN(2) == 0 {
			d.Write(text(rng, int(n)), before)
		}
	case 4: // shrink; what goes is changed if the disk grows again
		before := d.size
		d.Resize(before - rng.Int64N(min(before, 300<<10)+1))
		changed = append(changed, repo.Range{Off: d.size, Len: before - d.size})
	case 5: // a database
		for range 1 + rng.IntN(6) {
			if pages := d.size / pageBytes; pages > 0 {
				r := repo.Range{Off: rng.Int64N(pages) * pageBytes, Len: pageBytes}
				d.Write(noise(rng, pageBytes), r.Off)
				changed = append(changed, r)
			}
		}
	}
	return changed
}

// within cuts ranges to what lies before end.
func within(rs []repo.Range, end int64) []repo.Range {
	var out []repo.Range
	for _, r := range rs {
		if r.Len = min(r.Len, end-r.Off); r.Len > 0 {
			out = append(out, r)
		}
	}
	return out
}

// Scramble changes a byte in every stretch of step bytes, so that nothing a
// list calls unchanged is.
func Scramble(old *Disk, step int64) *Disk {
	d := old.Clone()
	for off := int64(0); off < d.size; off += step {
		var b [1]byte
		_, _ = d.ReadAt(b[:], off) // lies within
		b[0] ^= 0x55
		d.Write(b[:], off)
	}
	return d
}
