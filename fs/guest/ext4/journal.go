package ext4

import (
	"context"
	"encoding/binary"
	"fmt"

	"holdfast/fs"
)

// The journal is a file of blocks, all numbers big-endian. Its first block is
// its super block; behind it transactions follow one another in a ring:
//
//	descriptor   the blocks that follow it, and where they belong
//	blocks
//	revoke       blocks of which no older transaction counts any more
//	commit       the end of the transaction
//
// Each of those but the blocks begins with magic, type and the number of the
// transaction. Behind the ring is the area of fast commits.
var be = binary.BigEndian

const (
	journalMagic = 0xc03b3998

	journalDescriptor = 1
	journalCommit     = 2
	journalSuperV1    = 3
	journalSuperV2    = 4
	journalRevoke     = 5

	journalIno = 8 // where a super block does not say

	// defaultFastBlocks is how long the area of fast commits is where the
	// journal does not say.
	defaultFastBlocks = 256
	minJournalBlocks  = 1024
)

// Features of the journal.
const (
	journalCompatChecksum = 0x1

	journalRevokes     = 0x1
	journal64bit       = 0x2
	journalAsync       = 0x4
	journalCsumV2      = 0x8
	journalCsumV3      = 0x10
	journalFastCommits = 0x20

	journalKnown = journalRevokes | journal64bit | journalAsync | journalCsumV2 | journalCsumV3 | journalFastCommits
)

// journal is an open journal.
type journal struct {
	f        *FS
	extents  []extent // of the file
	length   uint32   // in blocks
	first    uint32   // block of the ring
	last     uint32   // behind the ring
	fastFrom uint32   // the area of fast commits, up to length
	sequence uint32   // of the first transaction that counts
	start    uint32   // block that it begins at; 0: all is in place
	compat   uint32
	incompat uint32
	seed     uint32
}

func (j *journal) has(incompat uint32) bool { return j.incompat&incompat != 0 }
func (j *journal) summed() bool             { return j.has(journalCsumV2 | journalCsumV3) }

// replay makes the overlay of what the journal holds, if there is something that
// counts. backup says that the super block is a copy, which does not tell.
func (f *FS) replay(backup bool) error {
	if f.sb.compat&compatHasJournal == 0 || (!f.sb.has(incompatRecover) && !backup) {
		return nil
	}
	if f.sb.journalIno == 0 && f.sb.journalDev != 0 {
		if backup {
			f.notes = append(f.notes, "The journal is on another device; whether it was replayed can't be told.")
			return nil
		}
		return unsupported("it must be replayed but is on another device, with the UUID %x, which", f.sb.journalUUID)
	}
	j, err := f.openJournal()
	if err != nil {
		return err
	}
	if j.start == 0 {
		return nil
	}
	r := recovery{j: j, revoked: make(map[uint64]uint32)}
	if err := r.run(); err != nil {
		return err
	}
	f.overlay = overlay{blocks: r.blocks, seed: j.seed}
	f.overlay.settle()
	f.cache = newCache(f.cache.max) // what it has is from before
	if err := f.rereadSuper(); err != nil {
		return err
	}
	if r.transactions > 0 {
		f.notes = append(f.notes, fmt.Sprintf("The file system was in use: %d transactions of its journal (%d blocks) were replayed in memory.",
			r.transactions, len(f.overlay.blocks)))
	}
	if r.stopped != "" {
		f.notes = append(f.notes, r.stopped)
	}
	return f.replayFast(j, r.end)
}

// rereadSuper takes the super block that the journal holds, if it does.
func (f *FS) rereadSuper() error {
	if _, ok := f.overlay.find(superAt >> f.sb.blockLog); !ok {
		return nil
	}
	b := make([]byte, superBytes)
	if err := f.readBlocks(b, 0, superAt); err != nil {
		return fmt.Errorf("super block: %w", err)
	}
	s, err := decodeSuper(b)
	if err != nil {
		return err
	}
	if s.blockLog != f.sb.blockLog {
		return damaged("super block: blocks of another size")
	}
	s.at = f.sb.at
	f.sb = *s
	return nil
}

// openJournal finds the journal and reads its super block.
func (f *FS) openJournal() (*journal, error) {
	ino := f.sb.journalIno
	if ino == 0 {
		ino = journalIno
	}
	in, err := f.anyInode(ino)
	if err == nil && (typeOf(in.mode) != fs.TypeFile || in.links == 0 || in.has(flagInlineData)) {
		err = damaged("inode %d is not a journal", ino)
	}
	if err != nil {
		if in, err = f.keptJournal(ino, err); err != nil {
			return nil, err
		}
	}
	if in.size < superBytes || in.size>>f.sb.blockLog > 1<<32-1 {
		return nil, damaged("inode %d: %d bytes long", ino, in.size)
	}
	j := &journal{f: f}
	if err := j.findBlocks(&in); err != nil {
		return nil, err
	}
	b := make([]byte, superBytes)
	if _, err := f.readData(context.Background(), &in, b, 0); err != nil {
		return nil, err
	}
	return j, j.readSuper(b, uint64(in.size)>>f.sb.blockLog)
}

// keptJournal makes the journal's inode from the copy in the super block.
func (f *FS) keptJournal(ino uint32, why error) (inode, error) {
	if !f.sb.journalCopy || !isDamaged(why) {
		return inode{}, why
	}
	raw := make([]byte, inodeOldBytes)
	for i, v := range f.sb.journalKept[:15] {
		le.PutUint32(raw[inodeBlockAt+4*i:], v)
	}
	in := inode{
		ino: ino, raw: raw, mode: 0x8000, links: 1,
		size: int64(f.sb.journalKept[16]) | int64(f.sb.journalKept[15])<<32,
	}
	if le.Uint16(raw[inodeBlockAt:]) == extentMagic {
		in.flags = flagExtents
	}
	if in.size <= 0 || in.size > 1<<(32+f.sb.blockLog) {
		return inode{}, why
	}
	return in, nil
}

// How fragmented a journal may be, and how long; mke2fs makes none longer than
// ten million blocks.
const (
	maxJournalExtents = 1 << 18
	maxJournalBlocks  = 1 << 26
)

func (j *journal) findBlocks(in *inode) error {
	end := min(uint64(in.size)>>j.f.sb.blockLog, maxJournalBlocks)
	err := j.f.mapBlocks(in, 0, end, func(e extent) bool {
		if !e.hole() {
			j.extents = append(j.extents, e)
		}
		return len(j.extents) < maxJournalExtents && e.end() < end
	})
	if err == nil && len(j.extents) == maxJournalExtents {
		err = unsupported("a journal in %d pieces", len(j.extents))
	}
	return err
}

func (j *journal) readSuper(b []byte, blocks uint64) error {
	version := be.Uint32(b[4:])
	if be.Uint32(b) != journalMagic || (version != journalSuperV1 && version != journalSuperV2) {
		return damaged("super block % x", b[:8])
	}
	j.length, j.first = be.Uint32(b[16:]), be.Uint32(b[20:])
	j.sequence, j.start = be.Uint32(b[24:]), be.Uint32(b[28:])
	if version == journalSuperV2 {
		j.compat, j.incompat = be.Uint32(b[36:]), be.Uint32(b[40:])
	}
	if j.summed() {
		c := crc32c(^uint32(0), b[:0xfc])
		c = crc32c(c, zeroes[:4])
		if c = crc32c(c, b[0x100:]); b[80] != 4 || c != be.Uint32(b[0xfc:]) {
			return damaged("super block: checksum of type %d %08x, want %08x", b[80], c, be.Uint32(b[0xfc:]))
		}
		j.seed = crc32c(^uint32(0), b[48:64])
	}
	if unknown := j.incompat &^ journalKnown; unknown != 0 {
		return unsupported("the feature incompat %#x", unknown)
	}
	if j.has(journalCsumV2) && j.has(journalCsumV3) {
		return damaged("super block: two kinds of checksums")
	}
	if size := int64(be.Uint32(b[12:])); size != j.f.sb.blockBytes() {
		return damaged("super block: blocks of %d bytes", size)
	}
	if uint64(j.length) > blocks || j.length < 2 {
		return damaged("super block: %d blocks, the file has %d", j.length, blocks)
	}
	j.last, j.fastFrom = j.length, j.length
	if j.has(journalFastCommits) {
		fast := be.Uint32(b[84:])
		if fast == 0 {
			fast = defaultFastBlocks
		}
		if j.length >= fast && j.length-fast >= minJournalBlocks {
			j.last = j.length - fast
		}
		j.fastFrom = j.last + 1
	}
	if j.first == 0 || j.first >= j.last || (j.start != 0 && (j.start < j.first || j.start >= j.last)) {
		return damaged("super block: begins at %d, ring from %d to %d", j.start, j.first, j.last)
	}
	return nil
}

// place is where a block of the journal is on the device.
func (j *journal) place(n uint32) (uint64, error) {
	var at uint64
	_, _, err := mapList(j.extents, uint64(n), uint64(n)+1, func(e extent) (bool, error) {
		if !e.hole() {
			at = e.from(uint64(n)).at
		}
		return false, nil
	})
	if err == nil && at == 0 {
		err = damaged("no block %d", n)
	}
	return at, err
}

// read returns a block of the journal, shared.
func (j *journal) read(n uint32) ([]byte, error) {
	at, err := j.place(n)
	if err != nil {
		return nil, err
	}
	b, err := j.f.block(at)
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", n, err)
	}
	return b, nil
}
