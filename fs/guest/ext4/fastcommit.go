package ext4

import (
	"fmt"
	"maps"
	"slices"
)

// Fast commits say what changed since the last transaction in terms of names,
// inodes and extents. They are tags of type, length and value, little-endian,
// none across the end of a block; a tail with the CRC-32C of the tags before it
// ends each commit.
const (
	fastAddRange = 1 + iota
	fastDelRange
	fastCreate
	fastLink
	fastUnlink
	fastInode
	fastPad
	fastTail
	fastHead
)

// fastTag is a tag of a finished fast commit.
type fastTag struct {
	kind  uint16
	value []byte
}

// validLength says whether a tag's value is as long as it may be.
func (f *FS) validLength(kind uint16, n int) bool {
	switch kind {
	case fastAddRange:
		return n == 16
	case fastDelRange:
		return n == 12
	case fastCreate, fastLink, fastUnlink:
		return n > 8 && n <= 8+maxName
	case fastInode:
		return n >= 4+inodeOldBytes && n <= 4+f.sb.inodeBytes
	case fastTail:
		return n >= 8
	case fastHead:
		return n == 8
	}
	return kind == fastPad
}

// fastScan reads the area of fast commits.
type fastScan struct {
	f       *FS
	tid     uint32    // of the transaction that the commits belong to
	done    []fastTag // of finished commits
	open    []fastTag // of the one that is being read
	sum     uint32
	commits int
	broken  bool // the last one fails its checksum
}

// readFast returns the tags of all finished fast commits that follow a
// transaction. Behind them is what was left over from an earlier one.
func (f *FS) readFast(j *journal, tid uint32) (fastScan, error) {
	s := fastScan{f: f, tid: tid}
	for n := j.fastFrom; n < j.length; n++ {
		b, err := j.read(n)
		if err != nil {
			return s, err
		}
		if n == j.fastFrom && (le.Uint16(b) != fastHead || !f.validLength(fastHead, int(le.Uint16(b[2:])))) {
			return s, nil
		}
		more, err := s.block(b)
		if err != nil || !more {
			return s, err
		}
	}
	return s, nil
}

// block reads the tags of a block. more is false where the commits end.
func (s *fastScan) block(b []byte) (more bool, err error) {
	for len(b) >= 4 {
		t := fastTag{kind: le.Uint16(b)}
		n := int(le.Uint16(b[2:]))
		if n > len(b)-4 || !s.f.validLength(t.kind, n) {
			return false, nil
		}
		t.value = b[4 : 4+n]
		whole := b[:4+n]
		switch t.kind {
		case fastTail:
			sum := crc32c(s.sum, b[:8])
			if le.Uint32(t.value) != s.tid {
				return false, nil
			}
			if s.broken = le.Uint32(t.value[4:]) != sum; s.broken {
				return false, nil
			}
			s.done, s.open, s.sum = append(s.done, s.open...), nil, 0
			s.commits++
			b = b[len(whole):]
			continue
		case fastHead:
			if features := le.Uint32(t.value); features != 0 {
				return false, unsupported("fast commits with the features %#x", features)
			}
			if le.Uint32(t.value[4:]) != s.tid {
				return false, nil
			}
		}
		s.sum = crc32c(s.sum, whole)
		s.open = append(s.open, t)
		b = b[len(whole):]
	}
	return true, nil
}

// replayFast applies the fast commits behind the last transaction.
func (f *FS) replayFast(j *journal, tid uint32) error {
	if !j.has(journalFastCommits) || j.fastFrom >= j.length {
		return nil
	}
	s, err := f.readFast(j, tid)
	if err != nil {
		return fmt.Errorf("fast commits: %w", err)
	}
	if s.broken {
		f.notes = append(f.notes, "The last fast commit of the journal is not complete; it was not replayed.")
	}
	if len(s.done) == 0 {
		return nil
	}
	f.fast = fastCommits{inodes: make(map[uint32]*fastInodeState), dirs: make(map[uint32]*dirChanges)}
	for _, t := range s.done {
		if err := f.applyFast(t); err != nil {
			return fmt.Errorf("fast commits: %w", err)
		}
	}
	f.notes = append(f.notes, fmt.Sprintf("%d fast commits of the journal were replayed in memory.", s.commits))
	for _, ino := range slices.Sorted(maps.Keys(f.fast.inodes)) {
		if err := f.fast.inodes[ino].err; err != nil {
			f.notes = append(f.notes, fmt.Sprintf("What a fast commit changed could not be replayed: %v", err))
		}
	}
	return nil
}
