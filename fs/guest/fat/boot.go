package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"holdfast/fs"
)

var le = binary.LittleEndian

// geometry is what the boot sector says: where everything is.
//
// Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03, "Boot
// Sector and BPB".
type geometry struct {
	bits         int   // of a FAT entry: 12, 16 or 32
	sectorBytes  int64 // 512 to 4096
	clusterBytes int64
	fatOff       int64 // of the first FAT, in bytes
	fatBytes     int64 // of each
	fats         int
	activeFAT    int // -1: all are kept alike
	rootOff      int64
	rootSlots    int    // of FAT12 and FAT16, whose root directory is no chain
	rootCluster  uint32 // of FAT32
	infoOff      int64  // of the FSInfo sector; 0: none
	dataOff      int64  // of cluster 2
	clusters     uint32 // numbered from 2 on
	bytes        int64  // of the file system, as it says
	media        byte
	copySector   int64  // of FAT32: where its boot sector is once more
	copied       string // why the first boot sector was not used; "" if it was
	dirty        bool   // the boot sector says that it was not unmounted
	label        string // as in the boot sector
	serial       uint32
}

const bootBytes = 512

// maxClusters is how many a FAT32 can have: numbers are of 28 bits, and the
// last of them are marks.
const maxClusters = 0x0ffffff5

// Detect says whether dev, of size bytes, begins with the boot sector of a
// FAT12, FAT16 or FAT32. That has the 0x55AA of an MBR, an NTFS and an exFAT;
// only the plausibility of every field tells them apart.
func Detect(dev io.ReaderAt, size int64) bool {
	_, err := readGeometry(dev, size)
	return err == nil
}

func readGeometry(dev io.ReaderAt, size int64) (*geometry, error) {
	g, err := readBoot(dev, size, 0)
	if err == nil || !errors.Is(err, fs.ErrDamaged) {
		return g, err
	}
	// FAT32 has a copy of its boot sector, in sector 6 everywhere. It is also
	// what is left of a file system that another has replaced, so the FAT must
	// be there too.
	for _, sector := range []int64{512, 1024, 2048, 4096} {
		const copySector = 6
		g, cerr := readBoot(dev, size, copySector*sector)
		if cerr != nil || g.bits != 32 || g.sectorBytes != sector || g.copySector != copySector {
			continue
		}
		first := make([]byte, 4)
		if n, _ := dev.ReadAt(first, g.fatOff); n == len(first) && g.begins(first) {
			g.copied = err.Error()
			return g, nil
		}
	}
	return nil, err
}

func readBoot(dev io.ReaderAt, size, off int64) (*geometry, error) {
	b := make([]byte, bootBytes)
	if n, err := dev.ReadAt(b, off); n < len(b) {
		if err == io.EOF {
			return nil, fmt.Errorf("%d bytes hold no boot sector: %w", size, fs.ErrDamaged)
		}
		return nil, fmt.Errorf("read the boot sector: %w", err)
	}
	g, err := parseBoot(b, size)
	if err != nil {
		return nil, fmt.Errorf("boot sector: %w", err)
	}
	return g, nil
}

// parseBoot takes the boot sector of a device of size bytes apart.
func parseBoot(b []byte, size int64) (*geometry, error) {
	sector := int64(le.Uint16(b[11:]))
	perCluster := int64(b[13])
	reserved := int64(le.Uint16(b[14:]))
	fats := int64(b[16])
	rootSlots := int(le.Uint16(b[17:]))
	sectors := int64(le.Uint16(b[19:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	media := b[21]
	fatSectors := int64(le.Uint16(b[22:]))
	bad := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, fs.ErrDamaged)...)
	}
	switch {
	case b[510] != 0x55 || b[511] != 0xaa:
		return nil, bad("no 0x55AA at its end")
	case sector < 512 || sector > 4096 || sector&(sector-1) != 0:
		return nil, bad("sectors of %d bytes", sector)
	case perCluster == 0 || perCluster&(perCluster-1) != 0:
		return nil, bad("clusters of %d sectors", perCluster)
	case reserved == 0:
		return nil, bad("no reserved sectors")
	case fats == 0 || fats > 4:
		return nil, bad("%d FATs", fats)
	case media != 0xf0 && media < 0xf8:
		return nil, bad("media byte %#x", media)
	case int64(rootSlots)*slotBytes%sector != 0:
		return nil, bad("a root directory of %d entries", rootSlots)
	}
	g := &geometry{sectorBytes: sector, clusterBytes: sector * perCluster, fats: int(fats), activeFAT: -1, rootSlots: rootSlots, media: media}
	extended := b[36:62] // what FAT12 and FAT16 have next
	if fatSectors == 0 {
		g.bits = 32
		fatSectors = int64(le.Uint32(b[36:]))
		if err := g.parse32(b, bad); err != nil {
			return nil, err
		}
		extended = b[64:90]
	}
	g.dirty = extended[1]&1 != 0
	if extended[2] == 0x29 || extended[2] == 0x28 {
		g.serial = le.Uint32(extended[3:])
		if extended[2] == 0x29 {
			g.label = labelName(extended[7:18])
		}
	}
	g.fatOff, g.fatBytes = reserved*sector, fatSectors*sector
	g.rootOff = g.fatOff + fats*g.fatBytes
	g.dataOff = g.rootOff + int64(rootSlots)*slotBytes
	g.bytes = sectors * sector
	if fatSectors == 0 || g.bytes < g.dataOff+g.clusterBytes {
		return nil, bad("%d sectors have no room for data behind FATs of %d", sectors, fatSectors)
	}
	return g, g.count(size, bad)
}

// parse32 reads what only FAT32 has.
func (g *geometry) parse32(b []byte, bad func(string, ...any) error) error {
	flags, version := le.Uint16(b[40:]), le.Uint16(b[42:])
	g.rootCluster = le.Uint32(b[44:])
	info := int64(le.Uint16(b[48:]))
	g.copySector = int64(le.Uint16(b[50:]))
	switch {
	case g.rootSlots != 0:
		return bad("a FAT32 with %d entries in a fixed root directory", g.rootSlots)
	case version != 0:
		return fmt.Errorf("FAT32 of version %d.%d: %w", version>>8, version&0xff, fs.ErrUnsupported)
	}
	if flags&0x80 != 0 {
		g.activeFAT = int(flags & 0xf)
		if g.activeFAT >= g.fats {
			return bad("FAT %d of %d is the active one", g.activeFAT+1, g.fats)
		}
	}
	if info > 0 && info < int64(le.Uint16(b[14:])) {
		g.infoOff = info * g.sectorBytes
	}
	return nil
}

// count finds the number of clusters, which for 12 and 16 bits decides between
// them. (With FATs whose size stands in the 32-bit field it is a FAT32 whatever
// the number: mkfs.vfat makes small ones, and all systems read them.)
func (g *geometry) count(size int64, bad func(string, ...any) error) error {
	const least16, least32 = 4085, 65525
	clusters := (g.bytes - g.dataOff) / g.clusterBytes
	if g.bits == 0 {
		if g.rootSlots == 0 {
			return bad("no root directory")
		}
		switch {
		case clusters < least16:
			g.bits = 12
		case clusters < least32:
			g.bits = 16
		default:
			return bad("%d clusters in a FAT16", clusters)
		}
	}
	// What has no entry in the FAT, or lies behind the device, can't be used.
	clusters = min(clusters, g.fatBytes*8/int64(g.bits)-2, maxClusters)
	if clusters < 1 {
		return bad("FATs of %d bytes", g.fatBytes)
	}
	if g.dataOff > size {
		return bad("the data begins at byte %d, the device ends at %d", g.dataOff, size)
	}
	g.clusters = uint32(clusters)
	if last := g.rootCluster; g.bits == 32 && (last < 2 || last-2 >= g.clusters) {
		return bad("root directory in cluster %d of %d", last, g.clusters)
	}
	return nil
}

// name is the format as the probe names it.
func (g *geometry) name() string { return fmt.Sprintf("fat%d", g.bits) }

// uuid is the volume's serial number as blkid writes it, or "".
func (g *geometry) uuid() string {
	if g.serial == 0 {
		return ""
	}
	return fmt.Sprintf("%04X-%04X", g.serial>>16, g.serial&0xffff)
}

// off is where cluster c begins on the device.
func (g *geometry) off(c uint32) int64 { return g.dataOff + int64(c-2)*g.clusterBytes }

// valid says whether c is the number of a cluster.
func (g *geometry) valid(c uint32) bool { return c >= 2 && c-2 < g.clusters }

// shift turns byte offsets in a file into numbers of clusters.
func (g *geometry) shift() int { return bits.TrailingZeros64(uint64(g.clusterBytes)) }

// cluster returns the first cluster of a directory entry. On FAT12 and FAT16
// the upper half is something of OS/2.
func (g *geometry) cluster(slot []byte) uint32 {
	c := uint32(le.Uint16(slot[26:]))
	if g.bits == 32 {
		c |= uint32(le.Uint16(slot[20:])) << 16
	}
	return c
}
