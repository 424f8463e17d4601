package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"

	"holdfast/fs"
)

var le = binary.LittleEndian

const (
	superAt    = 1024 // byte of the first super block
	superBytes = 1024
	superMagic = 0xef53

	rootIno = 2

	maxBlockLog = 6 // 64 KiB
)

// Features without which what is on the disk can't be understood, s_feature_incompat.
const (
	incompatCompression = 0x1
	incompatFiletype    = 0x2
	incompatRecover     = 0x4
	incompatJournalDev  = 0x8
	incompatMetaBG      = 0x10
	incompatExtents     = 0x40
	incompat64bit       = 0x80
	incompatMMP         = 0x100
	incompatFlexBG      = 0x200
	incompatEAInode     = 0x400
	incompatDirdata     = 0x1000
	incompatCsumSeed    = 0x2000
	incompatLargedir    = 0x4000
	incompatInlineData  = 0x8000
	incompatEncrypt     = 0x10000
	incompatCasefold    = 0x20000

	incompatKnown = incompatFiletype | incompatRecover | incompatMetaBG | incompatExtents | incompat64bit |
		incompatMMP | incompatFlexBG | incompatEAInode | incompatCsumSeed | incompatLargedir |
		incompatInlineData | incompatEncrypt | incompatCasefold
)

// Features that matter to who writes, s_feature_ro_compat, and to nobody,
// s_feature_compat, as far as we look at them.
const (
	roSparseSuper  = 0x1
	roLargeFile    = 0x2
	roBtreeDir     = 0x4
	roGdtCsum      = 0x10
	roBigalloc     = 0x200
	roMetadataCsum = 0x400

	compatHasJournal   = 0x4
	compatDirIndex     = 0x20
	compatSparseSuper2 = 0x200
	compatFastCommit   = 0x400
)

var incompatNames = map[uint32]string{
	incompatCompression: "compression", incompatJournalDev: "journal_dev", incompatDirdata: "dirdata",
}

// Bits of s_flags: how bytes above 127 are taken when names are hashed.
const (
	flagSignedHash   = 1
	flagUnsignedHash = 2
)

// Bits of s_state: it was unmounted, and Linux found damage while it was mounted.
const (
	stateClean  = 1
	stateErrors = 2
)

// super is what we use of the super block.
type super struct {
	inodes       uint32
	blocks       uint64
	freeBlocks   uint64
	freeInodes   uint32
	firstData    uint64
	blockLog     uint // log2 of the bytes of a block
	clusterLog   uint
	groupBlocks  uint64
	groupInodes  uint32
	state        uint16
	rev          uint32
	firstIno     uint32
	inodeBytes   int
	compat       uint32
	incompat     uint32
	ro           uint32
	uuid         [16]byte
	label        string
	journalIno   uint32
	journalDev   uint32
	journalUUID  [16]byte
	hashSeed     [4]uint32
	hashDefault  uint8
	journalKept  [17]uint32 // a copy of the journal's block map and size, if journalCopied
	journalCopy  bool
	descBytes    int
	firstMetaBG  uint32
	flags        uint32
	backupGroups [2]uint32
	seed         uint32 // of all checksums

	groups uint32
	at     uint64 // block that this super block is in

	// stray says that there is a checksum though the features say that there
	// are none. It may be those that are damaged.
	stray bool
}

func (s *super) blockBytes() int64        { return 1 << s.blockLog }
func (s *super) has(incompat uint32) bool { return s.incompat&incompat != 0 }
func (s *super) csum() bool               { return s.ro&roMetadataCsum != 0 }

// kind is the name of the file system: the first that had all its features.
func (s *super) kind() string {
	const (
		ext3Incompat = incompatFiletype | incompatRecover | incompatMetaBG
		ext3Ro       = roSparseSuper | roLargeFile | roBtreeDir
	)
	switch {
	case s.incompat&^ext3Incompat != 0 || s.ro&^ext3Ro != 0:
		return "ext4"
	case s.compat&compatHasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// Detect says whether dev begins like one of our file systems. It looks at the
// first super block only.
func Detect(dev io.ReaderAt, size int64) bool {
	b := make([]byte, superBytes)
	if size < superAt+superBytes {
		return false
	}
	if n, _ := dev.ReadAt(b, superAt); n < len(b) {
		return false
	}
	return le.Uint16(b[56:]) == superMagic && le.Uint32(b[24:]) <= maxBlockLog && le.Uint32(b[40:]) != 0
}

// readSuper reads the super block at a byte of the device.
func readSuper(dev io.ReaderAt, size, at int64) (*super, error) {
	if at+superBytes > size {
		return nil, damaged("super block at %d: the device has %d bytes", at, size)
	}
	b := make([]byte, superBytes)
	if err := readFull(dev, b, at); err != nil {
		return nil, fmt.Errorf("read super block at %d: %w", at, err)
	}
	s, err := decodeSuper(b)
	if err != nil {
		return nil, err
	}
	s.at = uint64(at) >> s.blockLog
	return s, nil
}

// decodeSuper takes a super block apart and checks it as Linux does.
func decodeSuper(b []byte) (*super, error) {
	if le.Uint16(b[56:]) != superMagic {
		return nil, damaged("super block: magic %#x", le.Uint16(b[56:]))
	}
	s := &super{
		inodes:      le.Uint32(b[0:]),
		blocks:      uint64(le.Uint32(b[4:])),
		freeBlocks:  uint64(le.Uint32(b[12:])),
		freeInodes:  le.Uint32(b[16:]),
		firstData:   uint64(le.Uint32(b[20:])),
		groupBlocks: uint64(le.Uint32(b[32:])),
		groupInodes: le.Uint32(b[40:]),
		state:       le.Uint16(b[58:]),
		rev:         le.Uint32(b[76:]),
		firstIno:    11,
		inodeBytes:  128,
		compat:      le.Uint32(b[92:]),
		incompat:    le.Uint32(b[96:]),
		ro:          le.Uint32(b[100:]),
		uuid:        [16]byte(b[104:]),
		label:       string(bytes.TrimRight(b[120:136], "\x00")),
		journalUUID: [16]byte(b[208:]),
		journalIno:  le.Uint32(b[224:]),
		journalDev:  le.Uint32(b[228:]),
		hashDefault: b[252],
		journalCopy: b[253] == 1,
		descBytes:   32,
		firstMetaBG: le.Uint32(b[260:]),
		flags:       le.Uint32(b[352:]),
	}
	for i := range s.hashSeed {
		s.hashSeed[i] = le.Uint32(b[236+4*i:])
	}
	for i := range s.journalKept {
		s.journalKept[i] = le.Uint32(b[268+4*i:])
	}
	s.backupGroups = [2]uint32{le.Uint32(b[588:]), le.Uint32(b[592:])}
	if s.rev > 0 {
		s.firstIno = le.Uint32(b[84:])
		s.inodeBytes = int(le.Uint16(b[88:]))
	}
	if s.has(incompat64bit) {
		s.blocks |= uint64(le.Uint32(b[336:])) << 32
		s.freeBlocks |= uint64(le.Uint32(b[344:])) << 32
		s.descBytes = int(le.Uint16(b[254:]))
	}
	s.stray = !s.csum() && le.Uint32(b[1020:]) != 0
	s.seed = crc32c(^uint32(0), s.uuid[:])
	if s.has(incompatCsumSeed) {
		s.seed = le.Uint32(b[624:])
	}
	return s, s.check(b)
}

func (s *super) check(b []byte) error {
	if s.csum() {
		if b[373] != 1 {
			return unsupported("checksums of type %d", b[373])
		}
		if got, want := crc32c(^uint32(0), b[:1020]), le.Uint32(b[1020:]); got != want {
			return damaged("super block: checksum %08x, want %08x", got, want)
		}
	}
	if s.rev > 1 {
		return unsupported("revision %d", s.rev)
	}
	if err := s.checkFeatures(); err != nil {
		return err
	}
	blockLog, clusterLog := le.Uint32(b[24:]), le.Uint32(b[28:])
	bad := func(what string, v uint64) error { return damaged("super block: %s is %d", what, v) }
	if blockLog > maxBlockLog {
		return bad("log of the block size", uint64(blockLog))
	}
	s.blockLog, s.clusterLog = uint(blockLog)+10, uint(blockLog)+10
	bitmap := uint64(8) << s.blockLog // what the bits of one block can tell of
	if s.ro&roBigalloc != 0 {
		clusters := uint64(le.Uint32(b[36:]))
		if clusterLog < blockLog || clusterLog > 20 {
			return bad("log of the cluster size", uint64(clusterLog))
		}
		s.clusterLog = uint(clusterLog) + 10
		if clusters == 0 || clusters > bitmap || clusters<<(s.clusterLog-s.blockLog) != s.groupBlocks {
			return bad("clusters in a group", clusters)
		}
	} else if s.groupBlocks > bitmap {
		return bad("blocks in a group", s.groupBlocks)
	}
	switch {
	case s.groupBlocks < 8:
		return bad("blocks in a group", s.groupBlocks)
	case s.groupInodes == 0 || uint64(s.groupInodes) > bitmap:
		return bad("inodes in a group", uint64(s.groupInodes))
	case s.inodeBytes < 128 || bits.OnesCount(uint(s.inodeBytes)) != 1 || s.inodeBytes > 1<<s.blockLog:
		return bad("inode size", uint64(s.inodeBytes))
	case s.descBytes < 32 || bits.OnesCount(uint(s.descBytes)) != 1 || s.descBytes > 1024 ||
		(s.has(incompat64bit) && s.descBytes < 64):
		return bad("descriptor size", uint64(s.descBytes))
	case s.firstIno < 11 || s.firstIno > s.inodes:
		return bad("first inode", uint64(s.firstIno))
	case s.firstData >= s.blocks || s.firstData > 1:
		return bad("first data block", s.firstData)
	case s.blocks > 1<<48:
		return bad("number of blocks", s.blocks)
	}
	groups := (s.blocks - s.firstData + s.groupBlocks - 1) / s.groupBlocks
	if groups > 1<<32-1 || uint64(s.inodes) > groups*uint64(s.groupInodes) {
		return bad("number of inodes", uint64(s.inodes))
	}
	s.groups = uint32(groups)
	return nil
}

// checkFeatures refuses by name what we can't read.
func (s *super) checkFeatures() error {
	if s.has(incompatJournalDev) {
		return unsupported("this is the journal of another file system (journal_dev), which")
	}
	unknown := s.incompat &^ incompatKnown
	if unknown == 0 {
		return nil
	}
	var names []string
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if unknown&bit == 0 {
			continue
		}
		name := incompatNames[bit]
		if name == "" {
			name = fmt.Sprintf("incompat %#x", bit)
		}
		names = append(names, name)
	}
	return unsupported("a file system with the feature %s", strings.Join(names, ", "))
}

// hasBackup says whether a group begins with copies of the super block and the
// group descriptors.
func (s *super) hasBackup(group uint32) bool {
	switch {
	case group == 0:
		return true
	case s.compat&compatSparseSuper2 != 0:
		return group == s.backupGroups[0] || group == s.backupGroups[1]
	case group == 1 || s.ro&roSparseSuper == 0:
		return true
	}
	return isPower(group, 3) || isPower(group, 5) || isPower(group, 7)
}

func isPower(n, base uint32) bool {
	for n > 1 && n%base == 0 {
		n /= base
	}
	return n == 1
}

// groupStart is the first block of a group.
func (s *super) groupStart(group uint32) uint64 {
	return s.firstData + uint64(group)*s.groupBlocks
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = damaged("the device ends at %d", off+int64(n))
	}
	return err
}

// damaged and unsupported say of what is named that it is.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), fs.ErrDamaged)
}

func isDamaged(err error) bool { return errors.Is(err, fs.ErrDamaged) }

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%s is %w", fmt.Sprintf(format, args...), fs.ErrUnsupported)
}
