package ext4

import "fmt"

// inodeTable returns the first block of a group's inode table, from the group's
// descriptor or, if that is damaged, from one of its copies.
func (f *FS) inodeTable(group uint32) (uint64, error) {
	d, err := f.descriptor(group, f.descriptorBlock(group))
	if err == nil || !isDamaged(err) {
		return d.inodeTable, err
	}
	for _, at := range f.descriptorCopies(group) {
		if d, cerr := f.descriptor(group, at); cerr == nil {
			return d.inodeTable, nil
		}
	}
	return 0, err
}

// descriptor is what we use of a group descriptor.
type descriptor struct {
	inodeTable             uint64 // its first block
	freeBlocks, freeInodes uint32 // the former in clusters
}

// descriptor reads the descriptor of a group from block at, and checks it.
func (f *FS) descriptor(group uint32, at uint64) (descriptor, error) {
	b, err := f.block(at)
	if err != nil {
		return descriptor{}, fmt.Errorf("descriptor of group %d: %w", group, err)
	}
	s := &f.sb
	perBlock := uint32(s.blockBytes()) / uint32(s.descBytes)
	raw := b[int(group%perBlock)*s.descBytes:][:s.descBytes]
	if err := s.checkDescriptor(group, raw); err != nil {
		return descriptor{}, err
	}
	d := descriptor{
		inodeTable: uint64(le.Uint32(raw[8:])),
		freeBlocks: uint32(le.Uint16(raw[12:])),
		freeInodes: uint32(le.Uint16(raw[14:])),
	}
	if s.has(incompat64bit) {
		d.inodeTable |= uint64(le.Uint32(raw[40:])) << 32
		d.freeBlocks |= uint32(le.Uint16(raw[44:])) << 16
		d.freeInodes |= uint32(le.Uint16(raw[46:])) << 16
	}
	tableBlocks := (uint64(s.groupInodes)*uint64(s.inodeBytes) + uint64(s.blockBytes()) - 1) >> s.blockLog
	if d.inodeTable <= s.firstData || d.inodeTable > s.blocks || s.blocks-d.inodeTable < tableBlocks {
		return descriptor{}, damaged("descriptor of group %d: inode table at block %d", group, d.inodeTable)
	}
	return d, nil
}

func (s *super) checkDescriptor(group uint32, d []byte) error {
	var sum uint16
	switch {
	case s.csum():
		c := crc32cLE(s.seed, group)
		c = crc32c(c, d[:30])
		c = crc32c(c, zeroes[:2])
		sum = uint16(crc32c(c, d[32:]))
	case s.ro&roGdtCsum != 0:
		c := crc16(^uint16(0), s.uuid[:])
		c = crc16(c, []byte{byte(group), byte(group >> 8), byte(group >> 16), byte(group >> 24)})
		c = crc16(c, d[:30])
		sum = crc16(c, d[32:])
	default:
		return nil
	}
	if want := le.Uint16(d[30:]); sum != want {
		return damaged("descriptor of group %d: checksum %04x, want %04x", group, sum, want)
	}
	return nil
}

// descriptorBlock is where the descriptor of a group is.
func (f *FS) descriptorBlock(group uint32) uint64 {
	s := &f.sb
	perBlock := uint32(s.blockBytes()) / uint32(s.descBytes)
	nr := group / perBlock
	if !s.has(incompatMetaBG) || nr < s.firstMetaBG {
		return s.at + 1 + uint64(nr)
	}
	first := nr * perBlock
	at := s.groupStart(first)
	if s.hasBackup(first) {
		at++
	}
	if first == 0 && s.blockLog == 10 && s.firstData == 0 {
		at++ // the super block is in block 1, though groups begin at 0
	}
	return at
}

// descriptorCopies is where copies of the descriptor of a group may be.
func (f *FS) descriptorCopies(group uint32) []uint64 {
	s := &f.sb
	perBlock := uint32(s.blockBytes()) / uint32(s.descBytes)
	nr := group / perBlock
	var copies []uint64
	if !s.has(incompatMetaBG) || nr < s.firstMetaBG {
		candidates := []uint32{1, 3, 5, 7, 9}
		if s.compat&compatSparseSuper2 != 0 {
			candidates = s.backupGroups[:]
		}
		for _, g := range candidates {
			if g > 0 && g < s.groups {
				copies = append(copies, s.groupStart(g)+1+uint64(nr))
			}
		}
		return copies
	}
	for _, g := range []uint64{uint64(nr)*uint64(perBlock) + 1, uint64(nr+1)*uint64(perBlock) - 1} {
		if g < uint64(s.groups) {
			at := s.groupStart(uint32(g))
			if s.hasBackup(uint32(g)) {
				at++
			}
			copies = append(copies, at)
		}
	}
	return copies
}

// free is how many blocks and inodes are free.
func (f *FS) free() (blocks, inodes uint64) {
	blocks, inodes = min(f.sb.freeBlocks, f.sb.blocks), uint64(min(f.sb.freeInodes, f.sb.inodes))
	if len(f.overlay.blocks) == 0 {
		return blocks, inodes
	}
	var sumBlocks, sumInodes uint64
	for group := range f.sb.groups {
		d, err := f.descriptor(group, f.descriptorBlock(group))
		if err != nil {
			return blocks, inodes
		}
		sumBlocks += uint64(d.freeBlocks) << (f.sb.clusterLog - f.sb.blockLog)
		sumInodes += uint64(d.freeInodes)
	}
	return min(sumBlocks, f.sb.blocks), min(sumInodes, uint64(f.sb.inodes))
}
