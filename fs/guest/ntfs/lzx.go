package ntfs

import (
	"fmt"

	"holdfast/fs"
)

const (
	lzxWindow    = 32 << 10
	lzxSlots     = 30 // of distances, in a window of that size
	lzxMain      = 256 + 8*lzxSlots
	lzxLengths   = 249
	lzxCallLimit = 12_000_000
)

// unpackLZX fills dst, at most a window, from src, one chunk of LZX as in WIM
// files: blocks, each with its codes, whose lengths are given as differences to
// the block before. Source: [MS-PATCH] 2 for the blocks; WIM and WOF differ from it
// in the size of a block (16 bits, or one for 32 KiB) and in that calls are always
// translated.
func unpackLZX(dst, src []byte) error {
	u := lzx{r: newBitReader(src), dst: dst, recent: [3]int{1, 1, 1}}
	for u.at < len(dst) {
		if err := u.block(); err != nil {
			return fmt.Errorf("LZX at %d of %d: %w", u.at, len(dst), err)
		}
		if u.r.over {
			return fmt.Errorf("LZX ends too early: %w", fs.ErrDamaged)
		}
	}
	untranslateCalls(dst)
	return nil
}

// lzx is the unpacking of one chunk.
type lzx struct {
	r      bitReader
	dst    []byte
	at     int
	recent [3]int // distances

	mainLengths   [lzxMain]byte
	lengthLengths [lzxLengths]byte
	main, length  *huffman
	aligned       *huffman // nil in a block without
}

func (u *lzx) block() error {
	kind := u.r.take(3)
	size := lzxWindow
	if u.r.take(1) == 0 {
		size = u.r.take(16)
	}
	if size == 0 || size > len(u.dst)-u.at {
		return fmt.Errorf("block of %d bytes: %w", size, fs.ErrDamaged)
	}
	switch kind {
	case 1, 2:
		if err := u.codes(kind == 2); err != nil {
			return err
		}
		return u.matches(u.at + size)
	case 3:
		return u.plain(size)
	}
	return fmt.Errorf("block of kind %d: %w", kind, fs.ErrDamaged)
}

// codes reads the codes of a block.
func (u *lzx) codes(aligned bool) (err error) {
	u.aligned = nil
	if aligned {
		var lengths [8]byte
		for i := range lengths {
			lengths[i] = byte(u.r.take(3))
		}
		if u.aligned, err = newHuffman(lengths[:]); err != nil {
			return err
		}
	}
	for _, part := range [][]byte{u.mainLengths[:256], u.mainLengths[256:], u.lengthLengths[:]} {
		if err := u.lengths(part); err != nil {
			return err
		}
	}
	if u.main, err = newHuffman(u.mainLengths[:]); err == nil {
		u.length, err = newHuffman(u.lengthLengths[:])
	}
	return err
}

// lengths reads lengths of codes over those of the block before, themselves in
// a code.
func (u *lzx) lengths(list []byte) error {
	var pre [20]byte
	for i := range pre {
		pre[i] = byte(u.r.take(4))
	}
	code, err := newHuffman(pre[:])
	if err != nil {
		return err
	}
	for i := 0; i < len(list) && !u.r.over; {
		symbol, n, value := code.read(&u.r), 1, byte(0)
		switch symbol {
		case 17:
			n = 4 + u.r.take(4)
		case 18:
			n = 20 + u.r.take(5)
		case 19:
			n = 4 + u.r.take(1)
			symbol = code.read(&u.r)
			fallthrough
		default:
			if symbol > 16 {
				return fmt.Errorf("length of a code: symbol %d: %w", symbol, fs.ErrDamaged)
			}
			value = byte((int(list[i]) - symbol + 17) % 17)
		}
		if n > len(list)-i {
			return fmt.Errorf("%d lengths of codes too many: %w", n-len(list)+i, fs.ErrDamaged)
		}
		for ; n > 0; n-- {
			list[i] = value
			i++
		}
	}
	return nil
}

// matches unpacks up to end.
func (u *lzx) matches(end int) error {
	for u.at < end && !u.r.over {
		symbol := u.main.read(&u.r)
		if symbol < 256 {
			u.dst[u.at] = byte(symbol)
			u.at++
			continue
		}
		n, slot := symbol&7+2, (symbol-256)>>3
		if n == 9 {
			n += u.length.read(&u.r)
		}
		dist := u.distance(slot)
		if n > end-u.at {
			return fmt.Errorf("match of %d bytes at %d of a block up to %d: %w", n, u.at, end, fs.ErrDamaged)
		}
		if err := copyMatch(u.dst, u.at, dist, n); err != nil {
			return err
		}
		u.at += n
	}
	return nil
}

// distance reads what a slot leaves open, and remembers.
func (u *lzx) distance(slot int) int {
	if slot < 3 {
		d := u.recent[slot]
		u.recent[slot], u.recent[0] = u.recent[0], d
		return d
	}
	d := slot
	if slot >= 4 {
		extra := slot/2 - 1
		d = (2 + slot&1) << extra
		if u.aligned != nil && extra >= 3 {
			d += u.r.take(extra-3)<<3 + u.aligned.read(&u.r)
		} else {
			d += u.r.take(extra)
		}
	}
	d -= 2
	u.recent[2], u.recent[1], u.recent[0] = u.recent[1], u.recent[0], d
	return d
}

// plain copies a block that is not compressed. It begins at the next word, a
// whole word on if this is the beginning of one.
func (u *lzx) plain(size int) error {
	r := &u.r
	at := r.pos - r.have/16*2
	if r.have%16 == 0 {
		at += 2
	}
	if at+12+size > len(r.src) {
		return fmt.Errorf("plain block of %d bytes: %w", size, fs.ErrDamaged)
	}
	for i := range u.recent {
		u.recent[i] = int(le.Uint32(r.src[at+4*i:]))
	}
	at += 12
	copy(u.dst[u.at:u.at+size], r.src[at:])
	u.at += size
	*r = newBitReader(r.src[min(at+size+size&1, len(r.src)):])
	return nil
}

// untranslateCalls makes the targets of x86 calls relative again, which were
// made absolute to compress better.
func untranslateCalls(b []byte) {
	for i := 0; i < len(b)-10; i++ {
		if b[i] != 0xe8 {
			continue
		}
		target := int32(le.Uint32(b[i+1:]))
		switch {
		case target >= 0 && target < lzxCallLimit:
			le.PutUint32(b[i+1:], uint32(target-int32(i)))
		case target < 0 && target >= -int32(i):
			le.PutUint32(b[i+1:], uint32(target+lzxCallLimit))
		}
		i += 4
	}
}
