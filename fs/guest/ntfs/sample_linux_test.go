package ntfs_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs/guest/ntfs"
)

// TestUpdate makes the sample volume, with -update.
func TestUpdate(t *testing.T) {
	if !*update {
		t.Skip("run with -update")
	}
	v := format(t, 3<<20, "-c", "512", "-L", "Sample é", "-T")
	packed := wimPacked(t, ntfs.Prose(9000), "XPRESS", 4096)
	lzx := wimPacked(t, ntfs.Prose(40_000), "LZX", 32768)
	v.mounted("compression,streams_interface=windows", func(dir string) {
		must(t, os.Mkdir(dir+"/many", 0o755))
		for i := range 150 {
			must(t, os.WriteFile(fmt.Sprintf("%s/many/file %d of them", dir, i), noise(1, i%3), 0o644))
		}
		for i := range 50 {
			must(t, os.Remove(fmt.Sprintf("%s/many/file %d of them", dir, i*3)))
		}
		must(t, os.MkdirAll(dir+"/a/b/c", 0o755))
		must(t, os.WriteFile(dir+"/a/noise", noise(3, 5000), 0o644))
		must(t, os.Link(dir+"/a/noise", dir+"/a/b/c/linked"))
		must(t, os.Link(dir+"/a/noise", dir+"/a/linked"))
		must(t, os.WriteFile(dir+"/a/noise:stream", []byte("beside"), 0o644))
		must(t, os.WriteFile(dir+"/a/noise:longer", ntfs.Prose(3000), 0o644))
		must(t, os.Mkdir(dir+"/packed", 0o755))
		setxattr(t, dir+"/packed", "system.ntfs_attrib", []byte{0, 8, 0, 0})
		must(t, os.WriteFile(dir+"/packed/text", ntfs.Prose(60_000), 0o644))
		must(t, os.WriteFile(dir+"/packed/text:more", ntfs.Prose(30_000)[9999:], 0o644))
		must(t, os.WriteFile(dir+"/packed/noise", noise(3, 9000), 0o644))
		for i, p := range [][]byte{packed, lzx} {
			path := fmt.Sprintf("%s/packed/wof-%d", dir, i)
			must(t, os.WriteFile(path, nil, 0o644))
			must(t, os.WriteFile(path+":WofCompressedData", p, 0o644))
			must(t, os.Truncate(path, []int64{9000, 40_000}[i]))
			var info []byte
			for _, n := range []uint32{1, 2, 1, uint32(i), 0} {
				info = binary.LittleEndian.AppendUint32(info, n)
			}
			setxattr(t, path, "system.ntfs_reparse_data", reparse(0x80000017, info))
		}
		f, err := os.Create(dir + "/fragmented")
		must(t, err)
		for i := range 400 {
			_, err := f.WriteAt([]byte("piece"), int64(i*7%400*4096))
			must(t, err)
		}
		must(t, f.Close())
		must(t, os.Symlink("a/b", dir+"/symlink"))
		must(t, os.Mkdir(dir+"/junction", 0o755))
		setxattr(t, dir+"/junction", "system.ntfs_reparse_data", windowsLink(true, `\??\C:\A\b`, `C:\A\b`, 0))
		must(t, os.WriteFile(dir+"/winlink", nil, 0o644))
		setxattr(t, dir+"/winlink", "system.ntfs_reparse_data", windowsLink(false, `a\noise`, `a\noise`, 1))
		must(t, os.WriteFile(dir+"/emoji 🦊", []byte("fox"), 0o644))
		must(t, unix.Mknod(dir+"/null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		setxattr(t, dir+"/a", "system.ntfs_object_id", noise(5, 16))
		setxattr(t, dir+"/a/b", "system.ntfs_ea", append([]byte{20, 0, 0, 0, 0, 6, 4, 0}, "$LXUID\x00\xe8\x03\x00\x00\x00"...)[:20])
	})
	b, err := os.ReadFile(v.path)
	must(t, err)
	out, err := packSample(b)
	must(t, err)
	must(t, os.MkdirAll("testdata", 0o755))
	must(t, os.WriteFile("testdata/sample.gz", out, 0o644))
	must(t, os.WriteFile("testdata/xpress", wimPacked(t, ntfs.Prose(4000), "XPRESS", 4096), 0o644))
	must(t, os.WriteFile("testdata/lzx", wimPacked(t, ntfs.Prose(12_000), "LZX", 32768), 0o644))
}
