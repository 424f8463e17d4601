package ntfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"holdfast/fs"
)

var le = binary.LittleEndian

const (
	bootBytes = 512

	// The largest that are known: mkntfs and Windows 10 make clusters up to 2 MiB;
	// records have 1 or 4 KiB and index blocks 4 KiB or one cluster.
	maxClusterBytes = 2 << 20
	maxBlockBytes   = 64 << 10
)

// geometry is what the boot sector says.
type geometry struct {
	clusterBytes int64
	clusters     int64
	mft, mirror  int64 // byte offsets of the MFT and of the copy of its beginning
	recordBytes  int
	serial       uint64
}

// Detect says whether an NTFS volume begins at the beginning of dev.
func Detect(dev io.ReaderAt, size int64) bool {
	b := make([]byte, bootBytes)
	if err := newDevice(dev, size).read(b, 0); err != nil {
		return false
	}
	_, err := parseBoot(b)
	return err == nil
}

// readBoot reads the boot sector, or its copy in the last sector if it is bad.
func readBoot(d *device) (g geometry, copied bool, err error) {
	b := make([]byte, bootBytes)
	if err := d.read(b, 0); err != nil {
		return geometry{}, false, err
	}
	if g, err = parseBoot(b); err == nil {
		return g, false, nil
	}
	for _, sector := range []int64{512, 4096} {
		if d.read(b, d.size-d.size%512-sector) != nil {
			continue
		}
		if g, cerr := parseBoot(b); cerr == nil {
			return g, true, nil
		}
	}
	return geometry{}, false, err
}

// Source: Linux-NTFS documentation, "$Boot".
func parseBoot(b []byte) (geometry, error) {
	if !bytes.Equal(b[3:11], []byte("NTFS    ")) {
		return geometry{}, fmt.Errorf("boot sector of no NTFS volume: %w", fs.ErrDamaged)
	}
	bad := func(what string, value uint64) (geometry, error) {
		return geometry{}, fmt.Errorf("boot sector: %s %d: %w", what, value, fs.ErrDamaged)
	}
	sector := int64(le.Uint16(b[0x0b:]))
	if sector < 256 || sector > 4096 || sector&(sector-1) != 0 {
		return bad("bytes per sector", uint64(sector))
	}
	perCluster := int64(b[0x0d])
	if perCluster > 128 { // the negative of a power of two
		perCluster = 1 << min(256-perCluster, 31)
	}
	g := geometry{clusterBytes: sector * perCluster, serial: le.Uint64(b[0x48:])}
	if perCluster == 0 || perCluster&(perCluster-1) != 0 || g.clusterBytes > maxClusterBytes {
		return bad("sectors per cluster", uint64(b[0x0d]))
	}
	sectors := le.Uint64(b[0x28:])
	if sectors == 0 || sectors > uint64(1<<62/sector) {
		return bad("sectors", sectors)
	}
	g.clusters = int64(sectors) / perCluster
	for _, at := range []struct {
		what string
		from int
		to   *int64
	}{{"cluster of the MFT", 0x30, &g.mft}, {"cluster of the MFT's copy", 0x38, &g.mirror}} {
		cluster := le.Uint64(b[at.from:])
		if cluster >= uint64(g.clusters) {
			return bad(at.what, cluster)
		}
		*at.to = int64(cluster) * g.clusterBytes
	}
	record := int64(int8(b[0x40])) * g.clusterBytes
	if record < 0 {
		record = 1 << min(-int64(int8(b[0x40])), 62)
	}
	if record < 512 || record > maxBlockBytes || record&(record-1) != 0 {
		return bad("size of a file record", uint64(b[0x40]))
	}
	g.recordBytes = int(record)
	return g, nil
}
