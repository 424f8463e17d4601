package recovery

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"holdfast/image/vmdk"
	"holdfast/repo"
)

// diskFiles are what the disks of a point are called in a session: a name for
// each, to which ".vmdk" and "-flat.vmdk" are added. A disk that is called like
// the file it came from loses that file's extension.
func diskFiles(disks []repo.DiskInfo) []string {
	names := make([]string, len(disks))
	taken := make(map[string]bool)
	for i, d := range disks {
		base := fileName(strings.TrimSuffix(d.Name, imageExt(d.Name)))
		names[i] = base
		for n := 2; ; n++ {
			descriptor := names[i] + ".vmdk"
			flat := vmdk.FlatExtentName(descriptor)
			if !taken[strings.ToLower(descriptor)] && !taken[strings.ToLower(flat)] {
				taken[strings.ToLower(descriptor)], taken[strings.ToLower(flat)] = true, true
				break
			}
			names[i] = fmt.Sprintf("%s~%d", base, n)
		}
	}
	return names
}

// maxFileName leaves room for what is put behind a disk's name, by us and by
// hypervisors.
const maxFileName = 200

// fileName makes a name that descriptors, configurations and all hypervisors
// take of the name of a disk.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < 0x20 || strings.ContainsRune(`/\:*?"<>|#%[]`, r) || r == 0x7f {
			return '_'
		}
		return r
	}, name)
	for len(name) > maxFileName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	if name = strings.TrimLeft(name, "."); name == "" {
		return "disk"
	}
	return name
}

// imageExt returns the extension of a name if it is that of a disk image.
func imageExt(name string) string {
	ext := filepath.Ext(name)
	switch strings.ToLower(ext) {
	case ".raw", ".vmdk", ".qcow2", ".vhdx", ".vhd", ".vdi", ".img":
		if ext != name {
			return ext
		}
	}
	return ""
}
