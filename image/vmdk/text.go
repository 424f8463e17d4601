package vmdk

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrTooLarge: the disk does not fit what the format can say.
var ErrTooLarge = errors.New("larger than the format allows")

// FlatExtentName is the name of the file that holds the bytes of the
// monolithicFlat disk with the descriptor file name: "db1-flat.vmdk" for
// "db1.vmdk".
func FlatExtentName(name string) string {
	return strings.TrimSuffix(name, ".vmdk") + "-flat.vmdk"
}

// FlatDescriptor is the content of the descriptor file name of a monolithicFlat
// disk of sizeBytes. The bytes themselves belong, as they are, into
// FlatExtentName(name) beside it. A size that is no multiple of 512 is rounded
// up, and so must be the length of that file: FlatExtentBytes. cid names this
// content of the disk, and is not ffffffff.
func FlatDescriptor(name string, sizeBytes int64, cid uint32) ([]byte, error) {
	if err := checkTarget(name, sizeBytes, cid); err != nil {
		return nil, err
	}
	extent := fmt.Sprintf("RW %d FLAT %q 0", sectorsOf(sizeBytes), FlatExtentName(name))
	return []byte(descriptorText("monolithicFlat", extent, sizeBytes, cid)), nil
}

// FlatExtentBytes is the length of the file of a monolithicFlat disk: sizeBytes
// rounded up to a sector.
func FlatExtentBytes(sizeBytes int64) int64 { return sectorsOf(sizeBytes) * sectorSize }

func sectorsOf(sizeBytes int64) int64 { return (sizeBytes + sectorSize - 1) / sectorSize }

// checkTarget refuses what no descriptor can say.
func checkTarget(name string, sizeBytes int64, cid uint32) error {
	odd := func(r rune) bool { return r == '"' || r == '\\' || r == '/' || !unicode.IsPrint(r) }
	switch {
	case name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, odd):
		return fmt.Errorf("a VMDK cannot be called %q", name)
	case sizeBytes <= 0:
		return fmt.Errorf("a VMDK cannot have %d bytes", sizeBytes)
	case sizeBytes > maxSizeBytes:
		return fmt.Errorf("VMDK of %d bytes: %w (62 TiB)", sizeBytes, ErrTooLarge)
	case cid == noParent:
		return fmt.Errorf("CID ffffffff means \"no parent\" and names no content")
	}
	return nil
}

// descriptorText writes the descriptor of a disk with one extent.
func descriptorText(createType, extent string, sizeBytes int64, cid uint32) string {
	cylinders, heads, sectors := geometry(sectorsOf(sizeBytes))
	var b strings.Builder
	for _, line := range []string{
		descriptorMagic,
		"version=1",
		`encoding="UTF-8"`,
		fmt.Sprintf("CID=%08x", cid),
		fmt.Sprintf("parentCID=%08x", uint32(noParent)),
		fmt.Sprintf("createType=%q", createType),
		"",
		"# Extent description",
		extent,
		"",
		"# The Disk Data Base",
		"#DDB",
		"",
		`ddb.adapterType = "lsilogic"`,
		fmt.Sprintf(`ddb.geometry.cylinders = "%d"`, cylinders),
		fmt.Sprintf(`ddb.geometry.heads = "%d"`, heads),
		fmt.Sprintf(`ddb.geometry.sectors = "%d"`, sectors),
		`ddb.virtualHWVersion = "10"`,
	} {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// geometry is what the BIOS of an LSI controller shows for a disk of so many
// sectors.
func geometry(total int64) (cylinders, heads, sectors int64) {
	const gib = 1 << 30 / sectorSize
	switch {
	case total < gib:
		heads, sectors = 64, 32
	case total < 2*gib:
		heads, sectors = 128, 32
	default:
		heads, sectors = 255, 63
	}
	return max(1, total/(heads*sectors)), heads, sectors
}
