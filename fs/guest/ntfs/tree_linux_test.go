package ntfs_test

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/fs/guest/ntfs"
	"holdfast/fs/treetest"
)

// plan is what NTFS can hold under ntfs-3g. FIFOs and sockets are left out: it
// makes empty system files of them, which Windows has too, so to us they are files.
func plan(seed uint64) treetest.Plan {
	p := treetest.Plan{
		Seed: seed, BigDir: 600, Deep: 40, Fragmented: 4,
		AnyNames: true, Cases: true,
		Sparse: true, HardLinks: true, Symlinks: true, Devices: true,
		Xattrs: true, WideTimes: true,
	}
	if os.Getenv("HOLDFAST_LONG") != "" {
		p.BigDir, p.Deep, p.Files, p.Fragmented, p.Huge = 10_000, 200, 3000, 10, true
	}
	return p
}

func TestTree(t *testing.T) {
	for i, tt := range []struct {
		name string
		long bool
		size int64
		args []string
	}{
		{"clusters of 4 KiB", false, 512 << 20, nil},
		{"clusters of 512 bytes", true, 256 << 20, []string{"-c", "512"}},
		{"clusters of 64 KiB", false, 1 << 30, []string{"-c", "65536"}},
		{"clusters of 256 bytes", true, 256 << 20, []string{"-c", "256", "-s", "256"}},
		{"clusters of 1 KiB", true, 256 << 20, []string{"-c", "1024"}},
		{"clusters of 2 MiB", true, 64 << 30, []string{"-c", "2097152"}},
		{"sectors of 4 KiB", true, 512 << 20, []string{"-s", "4096"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.long && os.Getenv("HOLDFAST_LONG") == "" {
				t.Skip("set HOLDFAST_LONG=1")
			}
			v := format(t, tt.size, tt.args...)
			v.mounted("", func(dir string) {
				if err := treetest.Populate(t, dir, plan(uint64(i))); err != nil {
					t.Fatal(err)
				}
			})
			v.compare()
		})
	}
}

// ours are the differences that are meant: NTFS keeps no modes and owners, and
// no size of a directory that means anything.
const ours = treetest.Perm | treetest.Owner | treetest.DirNlink | treetest.DirSize

// compare compares everything with what ntfs-3g shows, and checks the contract.
func (v *volume) compare(ignore ...treetest.Fields) {
	t := v.tb
	t.Helper()
	f, dev := v.open()
	got := treetest.Snap(t, f, f.Root())
	var want *treetest.Snapshot
	v.mounted("ro,streams_interface=xattr", func(dir string) {
		want = treetest.SnapHost(t, dir)
		compareXattrs(t, dir, got)
		for path, n := range want.Nodes {
			setTimes(t, dir+"/"+path, &n.Attr)
			// It lists the attributes in the namespace of the user only.
			const other = "trusted.holdfast"
			b := make([]byte, 100)
			if size, err := unix.Lgetxattr(dir+"/"+path, other, b); err == nil {
				addStream(t, n, "ntfs-3g."+other, string(b[:size]))
			}
		}
	})
	for path, n := range want.Nodes {
		if g := got.Nodes[path]; g != nil {
			switch {
			case g.Used == 0 && n.Used <= 4096:
				n.Used = 0 // it takes no cluster, but ntfs-3g counts the bytes in the record
			case n.Used == (g.Used+511)/512*512:
				n.Used = g.Used // the kernel tells it in blocks of 512, which may be two clusters
			}
		}
		for name, value := range n.Xattrs {
			if s, ok := strings.CutPrefix(name, "user."); ok {
				addStream(t, n, s, value)
			}
		}
		if n.Type == fs.TypeCharDevice || n.Type == fs.TypeBlockDevice {
			n.Size = 0 // of the file that stands for it
		}
	}
	leave := ours | treetest.Xattrs
	for _, field := range ignore {
		leave |= field
	}
	for _, d := range treetest.Diff(want, got, leave) {
		t.Error(d)
	}
	t.Logf("%d paths; notes %q", len(got.Nodes), f.Notes())
	treetest.Conform(t, f, treetest.Options{Device: dev, Seed: 1, Reopen: func() (fs.Tree, error) {
		st, err := dev.Stat()
		if err != nil {
			return nil, err
		}
		return ntfs.Open(dev, st.Size())
	}})
}

// setTimes gives a the times as they stand on the volume. stat has no time of
// making, and ntfs-3g rounds there what is before 1970.
func setTimes(t testing.TB, path string, a *fs.Attr) {
	t.Helper()
	b := make([]byte, 32)
	if n, err := unix.Lgetxattr(path, "system.ntfs_times", b); n != 32 || err != nil {
		t.Errorf("times of %q: %d bytes, %v", path, n, err)
	}
	for i, to := range []*fs.Time{&a.Btime, &a.Mtime, &a.Atime, &a.Ctime} {
		since1601 := int64(binary.LittleEndian.Uint64(b[8*i:]))
		*to = fs.TimeOf(time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC))
		to.Sec += since1601 / 1e7
		to.Nsec = uint32(since1601 % 1e7 * 100)
	}
}

// compareXattrs asks ntfs-3g for what we list, since it doesn't list it.
func compareXattrs(t testing.TB, dir string, got *treetest.Snapshot) {
	t.Helper()
	buf := make([]byte, 1<<16)
	count := 0
	for path, n := range got.Nodes {
		for _, name := range []string{"system.ntfs_acl", "system.ntfs_attrib", "system.ntfs_ea", "system.ntfs_object_id", "system.ntfs_reparse_data"} {
			m, err := unix.Lgetxattr(dir+"/"+path, name, buf)
			if err == unix.ENODATA || err == unix.EOPNOTSUPP || err == nil && m == 0 {
				if v, ok := n.Xattrs[name]; ok {
					t.Errorf("%q: %s is %x, ntfs-3g has none", path, name, v)
				}
			} else if err != nil {
				t.Errorf("%q: %s: %v", path, name, err)
			} else if want := string(buf[:m]); n.Xattrs[name] != want {
				t.Errorf("%q: %s: got %x, want %x", path, name, n.Xattrs[name], want)
			}
			count++
		}
		if len(n.Xattrs) > 5 {
			t.Errorf("%q: xattrs %q", path, n.Xattrs)
		}
	}
	t.Logf("%d attributes compared", count)
}

// addStream gives n a stream with the value.
func addStream(t testing.TB, n *treetest.Node, name, value string) {
	tree := treetest.NewTree(treetest.Files{"s": {Data: []byte(value), Attr: fs.Attr{Type: fs.TypeFile, Size: int64(len(value))}}})
	if n.Streams == nil {
		n.Streams = map[string]treetest.Stream{}
	}
	n.Streams[name] = treetest.Stream{Size: int64(len(value)), Sum: treetest.Snap(t, tree, tree.Root()).Nodes["s"].Sum}
}
