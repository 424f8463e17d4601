package guest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// blkidFormats are blkid's names for ours.
var blkidFormats = map[string]string{
	"crypto_LUKS": "luks", "LVM2_member": "lvm2", "linux_raid_member": "mdraid", "BitLocker": "bitlocker",
	"hfsplus": "hfs+", "zfs_member": "zfs", "ReFS": "refs", "VMFS_volume_member": "vmfs",
}

var escaped = regexp.MustCompile(`\\x[0-9a-f]{2}`)

// blkid asks the second witness.
func blkid(t *testing.T, path string) found {
	t.Helper()
	cmd := exec.Command("blkid", "-p", "-o", "udev", path)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("blkid: %v\n%s", err, out)
	}
	tags := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			tags[strings.TrimPrefix(k, "ID_FS_")] = escaped.ReplaceAllStringFunc(v, func(s string) string {
				b, _ := hex.DecodeString(s[2:])
				return string(b)
			})
		}
	}
	f := found{format: tags["TYPE"], label: tags["LABEL_ENC"], uuid: tags["UUID_ENC"]}
	if tags["TYPE"] == "vfat" {
		f.format = strings.ToLower(tags["VERSION"])
	}
	if ours, ok := blkidFormats[f.format]; ok {
		f.format = ours
	}
	return f
}

func TestAgainstBlkid(t *testing.T) {
	tests := []struct {
		want string
		size int64
		argv string // %s is the image, $ the directory it is in
	}{
		{"ext2", 8 << 20, "mkfs.ext4 -q -t ext2 -L a-label %s"},
		{"ext3", 8 << 20, "mkfs.ext4 -q -t ext3 -L sixteen-letters_ %s"},
		{"ext4", 8 << 20, "mkfs.ext4 -q -t ext4 -L räksmörgås %s"},
		{"ext4", 8 << 20, "mkfs.ext4 -q -b 1024 -O ^has_journal %s"},
		{"xfs", 300 << 20, "mkfs.xfs -q -L a-label %s"},
		{"xfs", 300 << 20, "mkfs.xfs -q -b size=1024 %s"},
		{"btrfs", 120 << 20, "mkfs.btrfs -q -L a-label %s"},
		{"ntfs", 8 << 20, "mkfs.ntfs -q -F -f -L a-läbel %s"},
		{"ntfs", 8 << 20, "mkfs.ntfs -q -F -f -c 65536 -s 4096 %s"},
		{"fat12", 1440 << 10, "mkfs.vfat -n A_LABEL %s"},
		{"fat16", 16 << 20, "mkfs.vfat -F 16 -n A_LABEL %s"},
		{"fat32", 64 << 20, "mkfs.vfat -F 32 -n A_LABEL %s"},
		{"fat32", 64 << 20, "mkfs.vfat -F 32 -S 4096 --mbr=yes %s"},
		{"fat16", 64 << 20, "mkfs.vfat -F 16 --mbr=no %s"},
		{"exfat", 8 << 20, "mkfs.exfat -L a-läbel %s"},
		{"swap", 8 << 20, "mkswap -L a-label %s"},
		{"swap", 8 << 20, "mkswap -p 65536 %s"},
		{"luks", 20 << 20, "cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 --key-file $/key %s"},
		{"luks", 20 << 20, "cryptsetup -q luksFormat --type luks2 --label a-label --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file $/key %s"},
		{"squashfs", 0, "mksquashfs $/key %s -quiet -no-progress"},
		{"iso9660", 0, "genisoimage -quiet -R -J -V A_LABEL -o %s $/key"},
		{"jfs", 64 << 20, "mkfs.jfs -q -L a-label %s"},
		{"reiserfs", 64 << 20, "mkreiserfs -q -ff -l a-label %s"},
		{"udf", 64 << 20, "mkudffs --utf8 -l a-läbel %s"},
		{"udf", 64 << 20, "mkudffs -b 512 -m hd -l label --uuid 0123456789abcdef %s"},
		{"f2fs", 64 << 20, "mkfs.f2fs -q -l a-läbel %s"},
	}
	for i, tt := range tests {
		argv := strings.Fields(tt.argv)
		t.Run(fmt.Sprintf("%d %s", i, tt.want), func(t *testing.T) {
			testreq.Need(t, "blkid", argv[0])
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			if err := os.WriteFile(filepath.Join(dir, "key"), []byte("a key that is no secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			if tt.size > 0 {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, tt.size); err != nil {
					t.Fatal(err)
				}
			}
			for i := range argv {
				argv[i] = strings.ReplaceAll(strings.ReplaceAll(argv[i], "%s", path), "$", dir)
			}
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			got, err := probe(f, info.Size())
			if err != nil {
				t.Fatal(err)
			}
			if got.bytes > info.Size() {
				t.Errorf("%d bytes of %d", got.bytes, info.Size())
			}
			want := blkid(t, path)
			if want.format != tt.want {
				t.Fatalf("blkid says %+v, want %s", want, tt.want)
			}
			if got.format != want.format || got.label != want.label || got.uuid != want.uuid {
				t.Errorf("got %+v, blkid says %+v", got, want)
			}
			l, err := Direct{}.Layout(t.Context(), disk{f, info.Size()})
			if err != nil || l.Table != "none" || len(l.Volumes) != 1 || l.Volumes[0].Format != tt.want || l.Volumes[0].Label != got.label {
				t.Fatalf("layout %+v, %v", l, err)
			}
			tryOpen(t, disk{f, info.Size()}, l.Volumes[0])
		})
	}
}

// disk is a file or bytes as a Disk.
type disk struct {
	readerAt
	size int64
}

func (d disk) Size() int64 { return d.size }

func bytesDisk(b []byte) disk { return disk{bytes.NewReader(b), int64(len(b))} }

// TestPartition opens a FAT that is a partition, through the layout of the disk.
func TestPartition(t *testing.T) {
	testreq.Need(t, "mkfs.vfat", "mcopy")
	dir := t.TempDir()
	path, file := filepath.Join(dir, "volume"), filepath.Join(dir, "file")
	want := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"mkfs.vfat", "-C", path, "8192"}, {"mcopy", "-i", path, file, "::"}} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", argv, err, out)
		}
	}
	volume, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const off = 1 << 20
	d := bytesDisk(at(off+len(volume)+4096, map[int]string{
		0:   mbrSector("", [3]uint32{0x83, 1, 1}, [3]uint32{}, [3]uint32{0xc, off / 512, uint32(len(volume) / 512)}),
		off: string(volume),
	}))
	var r Reader = Direct{}
	defer r.Close()
	l, err := r.Layout(t.Context(), d)
	if err != nil || len(l.Volumes) != 2 || l.Volumes[1].Name != "3" {
		t.Fatalf("%+v, %v", l, err)
	}
	v := l.Volumes[1]
	tree, err := r.Open(t.Context(), d, v)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	treetest.Conform(t, tree, treetest.Options{
		Device: io.NewSectionReader(d, v.Off, v.Size),
		Reopen: func() (fs.Tree, error) { return r.Open(t.Context(), d, v) },
	})
	a, err := fs.Resolve(t.Context(), tree, tree.Root(), "file", true)
	if err != nil {
		t.Fatal(err)
	}
	extents, err := tree.Extents(t.Context(), a.ID, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, extents[0].Len)
	if _, err := d.ReadAt(got, v.Off+extents[0].At); err != nil || !bytes.HasPrefix(want, got) {
		t.Errorf("%+v: %.20q, %v", extents[0], got, err)
	}
}
