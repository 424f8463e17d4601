package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
)

// at is a disk of zeros with pieces in it.
func at(size int, pieces map[int]string) []byte {
	b := make([]byte, size)
	for off, p := range pieces {
		copy(b[off:], p)
	}
	return b
}

// fatSector is the boot sector of a FAT12 of 4,096 sectors.
func fatSector() string {
	b := make([]byte, 512)
	copy(b, "\xeb\x3c\x90TESTS   \x00\x02\x01\x01\x00\x02\x10\x00\x00\x10\xf8\x10\x00")
	copy(b[38:], "\x29\xcd\xab\x34\x12A LABEL    FAT16   ")
	copy(b[510:], "\x55\xaa")
	return string(b)
}

func ntfsBootSector(sectors uint64) string {
	b := make([]byte, 512)
	copy(b, "\xeb\x52\x90NTFS    \x00\x02\x08")
	b[21] = 0xf8
	binary.LittleEndian.PutUint64(b[0x28:], sectors)
	binary.LittleEndian.PutUint64(b[0x30:], 4)
	binary.LittleEndian.PutUint64(b[0x48:], 0x123456789abcdef0)
	b[0x40], b[0x44] = 0xf6, 1
	copy(b[510:], "\x55\xaa")
	return string(b)
}

// mbrSector makes a sector of entries: type, first, count.
func mbrSector(below string, entries ...[3]uint32) string {
	b := make([]byte, 512)
	copy(b[:440], below)
	for i, e := range entries {
		b[446+16*i+4] = byte(e[0])
		binary.LittleEndian.PutUint32(b[446+16*i+8:], e[1])
		binary.LittleEndian.PutUint32(b[446+16*i+12:], e[2])
	}
	copy(b[510:], "\x55\xaa")
	return string(b)
}

// gptOf makes the first 34 sectors of a disk with a GPT of one partition, whose
// type and name are given.
func gptOf(typ, name string, first, last uint64) string {
	b := make([]byte, 34*512)
	copy(b, mbrSector("", [3]uint32{0xee, 1, 4095}))
	array := b[1024:]
	copy(array, typ)
	array[16] = 1
	binary.LittleEndian.PutUint64(array[32:], first)
	binary.LittleEndian.PutUint64(array[40:], last)
	for i, c := range name {
		array[56+2*i] = byte(c)
	}
	h := b[512:1024]
	copy(h, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
	h[24] = 1
	binary.LittleEndian.PutUint64(h[32:], 4095)
	h[72], h[80], h[84] = 2, 128, 128
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(array))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	return string(b)
}

func TestLayout(t *testing.T) {
	const size = 2 << 20 // 4,096 sectors
	extSB := string(make([]byte, 0x38)) + "\x53\xef"
	ldm := "\xa0\x60\x9b\xaf\x31\x14\x62\x4f\xbc\x68\x33\x11\x71\x4a\x69\xad"
	reserved := "\x16\xe3\xc9\xe3\x5c\x0b\xb8\x4d\x81\x7d\xf9\x2d\xf0\x02\x15\xae"
	tests := []struct {
		name string
		disk []byte
		want Layout
	}{
		{"nothing", at(size, nil), Layout{Table: "none", Volumes: []Volume{{Name: "whole", Size: size, Why: "empty: it begins with zeros"}}}},
		{"no bytes", nil, Layout{Table: "none", Volumes: []Volume{{Name: "whole", Why: "empty: it begins with zeros"}}}},
		{"text", bytes.Repeat([]byte("text"), size/4), Layout{Table: "none", Volumes: []Volume{{Name: "whole", Size: size, Why: "no file system that we know"}}}},
		{"bare FAT", at(size, map[int]string{0: fatSector()}),
			Layout{Table: "none", Volumes: []Volume{{Name: "whole", Size: size, Format: "fat12", Label: "A LABEL", UUID: "1234-ABCD"}}}},
		{"bare FAT with the entry mkfs.vfat writes", at(size, map[int]string{0: mbrSector(fatSector(), [3]uint32{0xc, 0, 4096})}),
			Layout{Table: "none", Volumes: []Volume{{Name: "whole", Size: size, Format: "fat12", Label: "A LABEL", UUID: "1234-ABCD"}}}},
		{"bare NTFS", at(size, map[int]string{0: ntfsBootSector(4095)}),
			Layout{Table: "none", Volumes: []Volume{{Name: "whole", Size: size, Format: "ntfs", UUID: "123456789ABCDEF0"}}}},
		{"NTFS that lost its beginning", at(size, map[int]string{size - 512: ntfsBootSector(4095)}),
			Layout{Table: "none", Volumes: []Volume{{Name: "whole", Size: size, Format: "ntfs", UUID: "123456789ABCDEF0"}}}},
		{"MBR over what was a bare FAT", at(size, map[int]string{0: mbrSector(fatSector(), [3]uint32{0x83, 64, 2048}), 64*512 + 1024: extSB}),
			Layout{Table: "mbr", Volumes: []Volume{{Name: "1", Off: 64 * 512, Size: 1 << 20, Format: "ext2", PartType: "0x83"}},
				Notes: []string{"the disk as a whole looks like a file system too; its partitions are what counts"}}},
		{"MBR", at(size, map[int]string{0: mbrSector("", [3]uint32{0x83, 64, 1024}, [3]uint32{0x82, 2048, 10}, [3]uint32{0xc, 3000, 9}, [3]uint32{0x83, 9000, 9}), 64 * 512: "XFSB\x00\x00\x10\x00", 3000 * 512: "MSDOS"}),
			Layout{Table: "mbr", Volumes: []Volume{
				{Name: "1", Off: 64 * 512, Size: 1024 * 512, Format: "xfs", PartType: "0x83", Why: "XFS, not readable yet"},
				{Name: "2", Off: 1 << 20, Size: 5120, PartType: "0x82", Why: "empty: it begins with zeros (the partition is of type Linux swap)"},
				{Name: "3", Off: 3000 * 512, Size: 4608, PartType: "0xc", Why: "no file system that we know (the partition is of type FAT32 (LBA))"},
				{Name: "4", PartType: "0x83", Why: "begins in sector 9000, but the disk has only 4096"},
			}}},
		{"MBR without partitions", at(size, map[int]string{0: mbrSector("")}), Layout{Table: "mbr", Notes: []string{"the partition table has no partitions"}}},
		{"dynamic disk with a whole volume", at(size, map[int]string{0: mbrSector("", [3]uint32{0x42, 64, 4000}), 64 * 512: ntfsBootSector(3000)}),
			Layout{Table: "mbr", Volumes: []Volume{{Name: "1", Off: 64 * 512, Size: 4000 * 512, Format: "ntfs", UUID: "123456789ABCDEF0", PartType: "0x42"}},
				Notes: []string{"partition 1 is a dynamic one of Windows (LDM): only the volume at its beginning is shown"}}},
		{"dynamic disk with a piece of a volume", at(size, map[int]string{0: mbrSector("", [3]uint32{0x42, 64, 4000}), 64 * 512: ntfsBootSector(5000)}),
			Layout{Table: "mbr", Volumes: []Volume{{Name: "1", Off: 64 * 512, Size: 4000 * 512, Format: "ldm", PartType: "0x42", Why: "Windows dynamic disk (LDM), not readable yet"}}}},
		{"dynamic disk, GPT", at(size, map[int]string{0: gptOf(ldm, "data", 64, 2111)}),
			Layout{Table: "gpt", Volumes: []Volume{{Name: "1", Off: 64 * 512, Size: 1 << 20, Format: "ldm", PartName: "data", PartType: gptDynamic, Why: "Windows dynamic disk (LDM), not readable yet"}},
				Notes: []string{`the copy of the GPT, in sector 4095, can't be used: no "EFI PART"`}}},
		{"reserved by Windows", at(size, map[int]string{0: gptOf(reserved, "Microsoft reserved partition", 64, 2111)}),
			Layout{Table: "gpt", Volumes: []Volume{{Name: "1", Off: 64 * 512, Size: 1 << 20, PartName: "Microsoft reserved partition", PartType: "e3c9e316-0b5c-4db8-817d-f92df00215ae", Why: "empty: it begins with zeros (the partition is of type Microsoft reserved)"}},
				Notes: []string{`the copy of the GPT, in sector 4095, can't be used: no "EFI PART"`}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.SectorBytes = 512
			got, err := Direct{}.Layout(t.Context(), bytesDisk(tt.disk))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			for _, v := range got.Volumes {
				_, err := Direct{}.Open(t.Context(), bytesDisk(tt.disk), v)
				if v.Why != "" && (!errors.Is(err, fs.ErrUnsupported) || !strings.Contains(err.Error(), v.Why)) {
					t.Errorf("open %+v: %v", v, err)
				}
			}
		})
	}
}

// TestProbe has superblocks by hand, of what no small tool makes.
func TestProbe(t *testing.T) {
	const size = 4 << 20
	id := "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
	const idText = "01020304-0506-0708-090a-0b0c0d0e0f10"
	zeros := func(n int) string { return string(make([]byte, n)) }
	md := func(sector byte) string {
		return "\xfc\x4e\x2b\xa9\x01\x00\x00\x00" + zeros(8) + id + "host:0" + zeros(26+8) + "\x01" + zeros(71) + string(sector) + zeros(1)
	}
	nvlist := func(name string, value string) string {
		padded := name + zeros((4-len(name)%4)%4)
		b := binary.BigEndian.AppendUint32(nil, uint32(12+len(padded)+len(value)))
		b = binary.BigEndian.AppendUint32(b, 0)
		b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
		return string(b) + padded + value
	}
	tests := []struct {
		name string
		size int
		at   map[int]string
		want found
	}{
		{"LVM2", size, map[int]string{512: "LABELONE" + zeros(12) + "\x20\x00\x00\x00LVM2 001" + "abcdefghijklmnopqrstuvwxyz012345"}, found{format: "lvm2", uuid: "abcdef-ghij-klmn-opqr-stuv-wxyz-012345"}},
		{"MD 1.2", size, map[int]string{4096: md(8)}, found{format: "mdraid", uuid: idText, label: "host:0", why: "member of a Linux RAID 1, not readable yet"}},
		{"MD 1.1", size, map[int]string{0: md(0)}, found{format: "mdraid", uuid: idText, label: "host:0", why: "member of a Linux RAID 1, not readable yet"}},
		{"MD 1.0 over an ext4", 64 << 10, map[int]string{56 << 10: md(112), 1024 + 0x38: "\x53\xef"}, found{format: "mdraid", uuid: idText, label: "host:0", why: "member of a Linux RAID 1, not readable yet"}},
		{"MD whose superblock belongs elsewhere", size, map[int]string{4096: md(0)}, found{}},
		{"MD 0.90", size + 1024, map[int]string{size - 64<<10: "\xfc\x4e\x2b\xa9" + zeros(4) + "\x5a" + zeros(11) + id[:4] + zeros(4) + "\x05" + zeros(23) + id[4:]}, found{format: "mdraid", uuid: "04030201-0807-0605-0c0b-0a09100f0e0d", why: "member of a Linux RAID 5, not readable yet"}},
		{"BitLocker", size, map[int]string{0: "\xeb\x58\x90-FVE-FS-"}, found{format: "bitlocker"}},
		{"BitLocker To Go", size, map[int]string{0: fatSector()[:0x1a8] + "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01" + zeros(70) + "\x55\xaa"}, found{format: "bitlocker"}},
		{"ReFS", size, map[int]string{0: "\x00\x00\x00ReFS\x00" + zeros(48) + "\xef\xcd\xab\x89\x67\x45\x23\x01"}, found{format: "refs", uuid: "0123456789ABCDEF"}},
		{"HFS+", size, map[int]string{1024: "H+\x00\x04" + zeros(36) + "\x00\x00\x10\x00\x00\x00\x00\x10"}, found{format: "hfs+", bytes: 64 << 10}},
		{"HFSX", size, map[int]string{1024: "HX\x00\x05"}, found{format: "hfs+"}},
		{"HFS+ in an HFS", size, map[int]string{1024: "BD", 1024 + 36: "\x05Label", 1024 + 124: "H+"}, found{format: "hfs+", label: "Label"}},
		{"APFS", size, map[int]string{32: "NXSB\x00\x10\x00\x00\x00\x01" + zeros(30) + id}, found{format: "apfs", uuid: idText, bytes: 1 << 20}},
		{"JFS", size, map[int]string{32 << 10: "JFS1" + zeros(132) + id + "a-label"}, found{format: "jfs", uuid: idText, label: "a-label"}},
		{"ReiserFS 3.6", size, map[int]string{64<<10 + 52: "ReIsEr2Fs" + zeros(23) + id + "a-label"}, found{format: "reiserfs", uuid: idText, label: "a-label"}},
		{"ReiserFS 3.5", size, map[int]string{8<<10 + 52: "ReIsErFs"}, found{format: "reiserfs"}},
		{"VMFS", size, map[int]string{1 << 20: "\x0d\xd0\x01\xc0"}, found{format: "vmfs"}},
		{"UDF", size, map[int]string{32<<10 + 1: "BEA01", 34<<10 + 1: "NSR03", 36<<10 + 1: "TEA01", 512 << 10: "\x02\x00" + zeros(10) + "\x00\x01\x00\x00" + "\x00\x80\x00\x00\x01\x01\x00\x00", 514 << 10: "\x01\x00", 516 << 10: "\x06\x00" + zeros(82) + "\x08a label" + zeros(119) + "\x08"}, found{format: "udf", label: "a label"}},
		{"UDF and ISO 9660", size, map[int]string{32 << 10: "\x01CD001", 34<<10 + 1: "BEA01", 36<<10 + 1: "NSR02"}, found{format: "udf"}},
		{"ZFS", size, map[int]string{
			16 << 10: "\x01\x01\x00\x00" + zeros(8) + nvlist("version", "\x00\x00\x00\x08\x00\x00\x00\x01"+zeros(8)) +
				nvlist("name", "\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x04tank") + nvlist("pool_guid", "\x00\x00\x00\x08\x00\x00\x00\x01"+"\x00\x00\x00\x00\x00\x01\x00\x00"),
			128<<10 + 4096: "\x0c\xb1\xba\x00\x00\x00\x00\x00"}, found{format: "zfs", label: "tank", uuid: "65536"}},
		{"ZFS by its last label", size, map[int]string{size - 128<<10: "\x0c\xb1\xba\x00\x00\x00\x00\x00"}, found{format: "zfs"}},
		{"bcache", size, map[int]string{4096 + 24: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81" + id + zeros(16) + "a-label"}, found{format: "bcache", uuid: idText, label: "a-label"}},
		{"hibernated", size, map[int]string{4086: "S1SUSPEND\x00"}, found{format: "swap", why: "swap space with the memory of a hibernated machine, no files in it"}},
		{"external journal", size, map[int]string{1024 + 0x38: "\x53\xef", 1024 + 0x60: "\x08"}, found{format: "ext4", why: "journal of an ext4 that is elsewhere, no files in it"}},
		{"erofs", size, map[int]string{1024: "\xe2\xe1\xf5\xe0"}, found{format: "erofs"}},
		{"NILFS2", size, map[int]string{1024: "\x02\x00\x00\x00\x00\x00\x34\x34"}, found{format: "nilfs2"}},
		{"FAT with an entry like the magic of NILFS2", size, map[int]string{0: fatSector(), 1030: "\x34\x34"}, found{format: "fat12", label: "A LABEL", uuid: "1234-ABCD", bytes: 2 << 20}},
		{"NTFS with sectors of 3 bytes", size, map[int]string{0: strings.Replace(ntfsBootSector(1000), "\x00\x02\x08", "\x03\x00\x08", 1)}, found{}},
		{"zeros", size, nil, found{}},
		{"one sector", 512, nil, found{}},
		{"nothing", 0, nil, found{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img := at(tt.size, tt.at)
			got, err := probe(bytes.NewReader(img), int64(len(img)))
			if err != nil || got != tt.want {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
			if _, ok := formats[got.format]; !ok && got.format != "" {
				t.Errorf("format %q is not in the table", got.format)
			}
		})
	}
}

// broken is a disk whose bytes from 64 KiB on can't be read.
type broken struct {
	disk
	err error
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > 64<<10 {
		return 0, b.err
	}
	return b.disk.ReadAt(p, off)
}

func TestLayoutReadErrors(t *testing.T) {
	img := at(2<<20, map[int]string{0: mbrSector("", [3]uint32{0x83, 1, 10}, [3]uint32{0x83, 2048, 1024}), 512 + 1024 + 0x38: "\x53\xef"})
	l, err := Direct{}.Layout(t.Context(), broken{bytesDisk(img), errors.New("a bad sector")})
	if err != nil || len(l.Volumes) != 2 || l.Volumes[0].Why != "" || !strings.Contains(l.Volumes[1].Why, "a bad sector") {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := (Direct{}).Layout(t.Context(), broken{bytesDisk(img), fs.ErrRetry}); !errors.Is(err, fs.ErrRetry) {
		t.Errorf("an error that may not come again: %v", err)
	}
	img = at(2<<20, map[int]string{0: mbrSector("", [3]uint32{0xee, 1, 4095})})
	if _, err := (Direct{}).Layout(t.Context(), bytesDisk(img)); !errors.Is(err, fs.ErrDamaged) || !strings.Contains(err.Error(), "copy in sector 4095") {
		t.Errorf("no GPT behind its MBR: %v", err)
	} else {
		t.Log(err)
	}
	d := bytesDisk(img)
	for _, v := range []Volume{{Off: -1}, {Off: 1 << 40}, {Off: 1 << 20, Size: 2 << 20}, {Size: -1}, {Off: 1, Size: 1<<63 - 1}} {
		v.Format = "fat16"
		if _, err := (Direct{}).Open(t.Context(), d, v); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("open %+v: %v", v, err)
		}
	}
}

func FuzzLayout(f *testing.F) {
	const size = 300 << 10
	for _, img := range [][]byte{
		at(size, map[int]string{0: fatSector()}),
		at(size, map[int]string{0: ntfsBootSector(500)}),
		at(size, map[int]string{0: mbrSector("", [3]uint32{0x83, 2, 100}, [3]uint32{0x42, 102, 100}), 2*512 + 1024 + 0x38: "\x53\xef"}),
		at(size, map[int]string{0: gptOf("\xa0\x60\x9b\xaf\x31\x14\x62\x4f\xbc\x68\x33\x11\x71\x4a\x69\xad", "name", 40, 400)}),
		at(size, map[int]string{32 << 10: "\x01CD001", 34<<10 + 1: "BEA01", 36<<10 + 1: "NSR02"}),
		at(size, map[int]string{64<<10 + 64: "_BHRfS_M", 16 << 10: "\x01\x01"}),
		at(size, map[int]string{512: "LABELONE\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001"}),
	} {
		f.Add(img)
	}
	f.Fuzz(func(t *testing.T, img []byte) {
		d := bytesDisk(img)
		l, err := Direct{}.Layout(t.Context(), d)
		if err != nil {
			return
		}
		for _, v := range l.Volumes {
			if v.Name == "" || v.Off < 0 || v.Size < 0 || v.Off > d.size-v.Size {
				t.Errorf("volume %+v of a disk of %d bytes", v, d.size)
			}
		}
	})
}
