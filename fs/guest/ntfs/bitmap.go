package ntfs

import (
	"fmt"
	"math/bits"

	"holdfast/fs"
)

// bitmap reads a bitmap attribute a part at a time.
type bitmap struct {
	f    *FS
	a    *attribute
	part []byte
	off  int64 // of part
}

// next returns the first bit at or behind i that is set, or end.
func (m *bitmap) next(i, end int64) (int64, error) {
	if m.a == nil || m.a.bytes() < (end+7)/8 {
		return 0, fmt.Errorf("bitmap too short for %d bits: %w", end, fs.ErrDamaged)
	}
	for i < end {
		if at := i/8 - m.off; m.part == nil || at < 0 || at >= int64(len(m.part)) {
			if err := m.load(i / 8); err != nil {
				return 0, err
			}
		}
		b := m.part[i/8-m.off] >> (i % 8)
		if b != 0 {
			return min(i+int64(bits.TrailingZeros8(b)), end), nil
		}
		i += 8 - i%8
	}
	return end, nil
}

func (m *bitmap) load(off int64) error {
	const partBytes = 4096
	m.off = off - off%partBytes
	m.part = make([]byte, min(partBytes, m.a.bytes()-m.off))
	return m.f.readPart(m.a, m.part, m.off)
}
