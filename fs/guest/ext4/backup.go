package ext4

import (
	"fmt"
	"io"
)

// findSuper reads the first super block or, if that is damaged, the best of the
// copies, and then says so.
func findSuper(dev io.ReaderAt, size int64) (s *super, note string, err error) {
	s, err = readSuper(dev, size, superAt)
	if (err == nil && !s.stray) || (err != nil && !isDamaged(err)) {
		return s, "", err
	}
	why := err
	if err == nil {
		why = damaged("a checksum where there are said to be none")
	}
	for blockLog := uint(10); blockLog <= 10+maxBlockLog; blockLog++ {
		for _, group := range []uint32{1, 3, 5, 7, 9, 25, 27, 49} {
			b := backupSuper(dev, size, blockLog, group)
			if b == nil || (err == nil && (!b.csum() || b.uuid != s.uuid)) {
				continue
			}
			note = fmt.Sprintf("The super block is damaged (%v); the copy in group %d is used instead.", why, group)
			return b, note, nil
		}
	}
	return s, "", err
}

// backupSuper reads the copy of the super block in a group as large as a group
// of such blocks can be, or nil.
func backupSuper(dev io.ReaderAt, size int64, blockLog uint, group uint32) *super {
	at := int64(group) * (8 << (2 * blockLog))
	if blockLog == 10 {
		at += 1024
	}
	if at > size-superBytes {
		return nil
	}
	b := make([]byte, superBytes)
	if readFull(dev, b, at) != nil || le.Uint16(b[90:]) != uint16(group) {
		return nil
	}
	s, err := decodeSuper(b)
	if err != nil || s.blockLog != blockLog || int64(s.groupStart(group))<<blockLog != at {
		return nil
	}
	s.at = s.groupStart(group)
	return s
}
