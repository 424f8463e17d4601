package ntfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/fs/guest/ntfs"
	"holdfast/fs/treetest"
)

func setxattr(tb testing.TB, path, name string, value []byte) {
	tb.Helper()
	if err := unix.Lsetxattr(path, name, value, 0); err != nil {
		tb.Fatalf("set %s of %q: %v", name, path, err)
	}
}

// noise is n bytes that do not compress.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// text is n bytes that do.
func text(seed uint64, n int) []byte {
	b := noise(seed, n)
	for i := range b {
		b[i] = "etaoin shrdlu\n  "[b[i]&15]
	}
	return b
}

// kinds counts the bytes of a file by how they are kept.
func kinds(tb testing.TB, f *ntfs.FS, path string) map[fs.ExtentKind]int64 {
	tb.Helper()
	a, sum := find(tb, f, path), map[fs.ExtentKind]int64{}
	for off := int64(0); ; {
		list, err := f.Extents(tb.Context(), a.ID, off, 7)
		if err == io.EOF {
			return sum
		}
		must(tb, err)
		for _, e := range list {
			sum[e.Kind] += e.Len
			off = e.Off + e.Len
		}
	}
}

func TestCompressed(t *testing.T) {
	v := format(t, 128<<20)
	zeros := make([]byte, 200_000)
	mixed := bytes.Join([][]byte{text(1, 70_000), noise(1, 140_000), zeros, text(2, 100), zeros[:65_536], noise(2, 65_536), text(3, 65_536)}, nil)
	v.mounted("compression", func(dir string) {
		dir += "/c"
		must(t, os.Mkdir(dir, 0o755))
		setxattr(t, dir, "system.ntfs_attrib", []byte{0, 8, 0, 0})
		for _, n := range []int{0, 1, 100, 2000, 4095, 4096, 4097, 8191, 65_535, 65_536, 65_537, 131_071, 131_073, 1 << 20} {
			must(t, os.WriteFile(fmt.Sprintf("%s/text-%d", dir, n), text(uint64(n), n), 0o644))
			must(t, os.WriteFile(fmt.Sprintf("%s/noise-%d", dir, n), noise(uint64(n), n), 0o644))
			must(t, os.WriteFile(fmt.Sprintf("%s/zeros-%d", dir, n), make([]byte, n), 0o644))
		}
		must(t, os.WriteFile(dir+"/mixed", mixed, 0o644))
		// A second time, in another order of offsets, and in small steps.
		must(t, os.WriteFile(dir+"/rewritten", mixed, 0o644))
		f, err := os.OpenFile(dir+"/rewritten", os.O_WRONLY, 0)
		must(t, err)
		for i := range 40 {
			_, err := f.WriteAt(noise(uint64(i), 3000), int64(i*7919)%int64(len(mixed)))
			must(t, err)
		}
		must(t, f.Truncate(300_001))
		must(t, f.Truncate(2_000_000))
		_, err = f.WriteAt([]byte("end"), 1_900_000)
		must(t, err)
		must(t, f.Close())
		f, err = os.Create(dir + "/steps")
		must(t, err)
		for i := range 300 {
			_, err := f.Write(text(uint64(i), 1+i*3))
			must(t, err)
		}
		must(t, f.Close())
	})
	v.compare()
	f, _ := v.open()
	if k := kinds(t, f, "c/text-1048576"); k[fs.Made] != 1<<20 {
		t.Errorf("text is kept as %v, want it compressed", k)
	}
	if k := kinds(t, f, "c/noise-1048576"); k[fs.Stored] != 1<<20 {
		t.Errorf("noise is kept as %v, want it stored", k)
	}
	if k := kinds(t, f, "c/zeros-1048576"); k[fs.Hole] != 1<<20 {
		t.Errorf("zeros are kept as %v, want a hole", k)
	}
	if got, err := contents(t, f, "c/mixed"); err != nil || !bytes.Equal(got, mixed) {
		t.Errorf("mixed: %d bytes, %v; want %d", len(got), err, len(mixed))
	}
}

func TestSparseAndFallocated(t *testing.T) {
	v := format(t, 128<<20)
	const far = 5 << 30
	tail := noise(1, 10_000)
	v.mounted("", func(dir string) {
		f, err := os.Create(dir + "/sparse")
		must(t, err)
		_, err = f.WriteAt(tail, far)
		must(t, err)
		must(t, f.Close())
		must(t, os.WriteFile(dir+"/fallocated", tail[:5000], 0o644))
	})
	run(t, "ntfsfallocate", "-l", "1000000", v.path, "/fallocated")
	f, _ := v.open()
	a := find(t, f, "sparse")
	start, end, err := fs.NextData(t.Context(), f, a.ID, 0)
	if err != nil || start > far || start < far-65536 || end != far+int64(len(tail)) || a.Size != end {
		t.Errorf("first data from %d to %d of %d, %v; want up to %d", start, end, a.Size, err, far+len(tail))
	}
	if a.Used > 1<<20 {
		t.Errorf("it takes %d bytes", a.Used)
	}
	got := make([]byte, len(tail)+100)
	if n, err := f.ReadAt(t.Context(), a.ID, got, far-100); n != len(got) || !bytes.Equal(got, append(make([]byte, 100), tail...)) {
		t.Errorf("read around the data: %d, %v", n, err)
	}
	k := kinds(t, f, "fallocated")
	if k[fs.Stored]+k[fs.Hole] != 1_000_000 || k[fs.Hole] < 990_000 {
		t.Errorf("fallocated file is kept as %v, want all but the first bytes a hole", k)
	}
	if got, err := contents(t, f, "fallocated"); err != nil || !bytes.Equal(got, append(bytes.Clone(tail[:5000]), make([]byte, 995_000)...)) {
		t.Errorf("fallocated file: %d bytes, %v", len(got), err)
	}
}

// TestManyRecords makes files whose attributes do not fit into one record.
func TestManyRecords(t *testing.T) {
	v := format(t, 256<<20)
	v.mounted("streams_interface=windows", func(dir string) {
		for k := range 2 {
			f, err := os.Create(fmt.Sprintf("%s/fragmented-%d", dir, k))
			must(t, err)
			for i := range 1200 { // runs between holes, of lengths that need many bytes
				_, err := f.WriteAt(noise(uint64(i), 4096), int64(i*(7+4*k)%1200*12_288))
				must(t, err)
			}
			must(t, f.Close())
		}
		must(t, os.Mkdir(dir+"/links", 0o755))
		must(t, os.WriteFile(dir+"/linked", []byte("x"), 0o644))
		for i := range 120 {
			must(t, os.Link(dir+"/linked", fmt.Sprintf("%s/links/%d-%s", dir, i, strings.Repeat("n", i%100))))
		}
		must(t, os.WriteFile(dir+"/streams", []byte("main"), 0o644))
		for i := range 60 {
			must(t, os.WriteFile(fmt.Sprintf("%s/streams:s%d", dir, i), text(uint64(i), i*40), 0o644))
		}
		must(t, os.WriteFile(dir+"/large", nil, 0o644))
		must(t, os.WriteFile(dir+"/large:stream", noise(9, 300_000), 0o644))
		must(t, os.Mkdir(dir+"/dir", 0o755))
		must(t, os.WriteFile(dir+"/dir:of a directory", []byte("here"), 0o644))
	})
	f, _ := v.open()
	a := find(t, f, "large")
	streams, err := f.Streams(t.Context(), a.ID)
	if err != nil || len(streams) != 1 || streams[0].Size != 300_000 || a.Size != 0 {
		t.Fatalf("streams %+v, %v of %+v", streams, err, a)
	}
	sa, err := f.Attr(t.Context(), streams[0].ID)
	must(t, err)
	if got, err := io.ReadAll(fs.File(t.Context(), f, sa)); err != nil || !bytes.Equal(got, noise(9, 300_000)) {
		t.Errorf("stream: %d bytes, %v", len(got), err)
	}
	v.mounted("streams_interface=windows", func(dir string) {
		must(t, os.Remove(dir+"/large")) // too large to compare as an attribute
	})
	v.compare()
	if f, _ := v.open(); kinds(t, f, "fragmented-1")[fs.Stored] < 1200*4096 {
		t.Errorf("kept as %v", kinds(t, f, "fragmented-1"))
	}
}

// TestFragmentedMFT fills a volume, empties it in part and makes files that have
// room in the MFT only, which then lies in many pieces.
func TestFragmentedMFT(t *testing.T) {
	v := format(t, 8<<20, "-c", "512", "-z", "1")
	v.mounted("", func(dir string) {
		block := noise(1, 1000)
		n := 0
		for ; ; n++ {
			err := os.WriteFile(fmt.Sprintf("%s/%d", dir, n), block, 0o644)
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			must(t, err)
		}
		for i := 0; i < n; i += 2 {
			must(t, os.Remove(fmt.Sprintf("%s/%d", dir, i)))
		}
		must(t, os.Mkdir(dir+"/many", 0o755))
		for i := range n {
			if os.WriteFile(fmt.Sprintf("%s/many/%d", dir, i), block[:i%400], 0o644) != nil {
				break // full again
			}
		}
	})
	if info := run(t, "ntfsinfo", "-i", "0", v.path); !strings.Contains(info, "$ATTRIBUTE_LIST") {
		t.Errorf("the MFT needs no attribute list:\n%s", info)
	}
	v.compare()
}

// reparse makes reparse data as a driver gets it.
func reparse(tag uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, tag)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(data)))
	return append(append(b, 0, 0), data...)
}

// windowsLink is the reparse data of a symbolic link, or of a junction.
func windowsLink(junction bool, path, shown string, flags uint32) []byte {
	p, s := utf16le(path), utf16le(shown)
	var b []byte
	for _, n := range []int{0, len(p), len(p), len(s)} {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	if junction {
		return reparse(0xa0000003, append(append(b, p...), s...))
	}
	return reparse(0xa000000c, append(append(binary.LittleEndian.AppendUint32(b, flags), p...), s...))
}

func TestLinks(t *testing.T) {
	v := format(t, 32<<20)
	tests := []struct {
		name   string
		isDir  bool
		data   []byte
		target string
	}{
		{"relative", false, windowsLink(false, `..\Dir\file.txt`, `..\Dir\file.txt`, 1), "../Dir/file.txt"},
		{"relative, other case", false, windowsLink(false, `..\dIR\FILE.TXT`, `..\dIR\FILE.TXT`, 1), "../Dir/file.txt"},
		{"relative, to nothing", false, windowsLink(false, `no\such\thing`, `no\such\thing`, 1), "no/such/thing"},
		{"absolute", false, windowsLink(false, `\??\C:\dir\file.txt`, `C:\dir\file.txt`, 0), "../Dir/file.txt"},
		{"absolute, to a directory", true, windowsLink(false, `\??\C:\Dir`, `C:\Dir`, 0), "../Dir"},
		{"absolute, of another drive", false, windowsLink(false, `\??\D:\elsewhere\x`, `D:\elsewhere\x`, 0), "D:/elsewhere/x"},
		{"rooted", false, windowsLink(false, `\dir\file.txt`, `\dir\file.txt`, 1), "../Dir/file.txt"},
		{"junction", true, windowsLink(true, `\??\C:\DIR`, `C:\DIR`, 0), "../Dir"},
		{"junction with a slash at the end", true, windowsLink(true, `\??\C:\DIR\`, ``, 0), "../Dir"},
		{"junction to the root", true, windowsLink(true, `\??\C:\`, `C:\`, 0), ".."},
		{"junction by way of a junction", true, windowsLink(true, `\??\C:\links\junction\Sub`, ``, 0), "../links/junction/Sub"},
		{"mounted volume", true, windowsLink(true, `\??\Volume{01234567-89ab-cdef-0123-456789abcdef}\`, ``, 0), `\??\Volume{01234567-89ab-cdef-0123-456789abcdef}\`},
		{"share", false, windowsLink(false, `\??\UNC\server\share\x`, `\\server\share\x`, 0), `\\server\share\x`},
	}
	v.mounted("", func(dir string) {
		must(t, os.MkdirAll(dir+"/Dir/Sub", 0o755))
		must(t, os.WriteFile(dir+"/Dir/file.txt", []byte("here"), 0o644))
		must(t, os.Mkdir(dir+"/links", 0o755))
		for _, tt := range tests {
			path := dir + "/links/" + tt.name
			if tt.isDir {
				must(t, os.Mkdir(path, 0o755))
			} else {
				must(t, os.WriteFile(path, nil, 0o644))
			}
			setxattr(t, path, "system.ntfs_reparse_data", tt.data)
		}
	})
	f, _ := v.open()
	v.mounted("ro", func(dir string) {
		for _, tt := range tests {
			a := find(t, f, "links/"+tt.name)
			target, err := f.ReadLink(t.Context(), a.ID)
			if a.Type != fs.TypeSymlink || target != tt.target || err != nil || a.Size != int64(len(target)) {
				t.Errorf("%s: a %v of %d to %q, %v; want %q", tt.name, a.Type, a.Size, target, err, tt.target)
			}
			theirs, err := os.Readlink(dir + "/links/" + tt.name)
			t.Logf("%s: %q; ntfs-3g %q, %v", tt.name, target, theirs, err)
			if err != nil {
				continue
			}
			// Where both lead to something, it is the same.
			want, err1 := filepath.EvalSymlinks(dir + "/links/" + tt.name)
			got, err2 := fs.Resolve(t.Context(), f, f.Root(), "links/"+tt.name, true)
			if err1 == nil && (err2 != nil || inode(t, want) != got.ID.Ino) {
				t.Errorf("%s leads to %+v, %v; for ntfs-3g to %s", tt.name, got, err2, want)
			}
		}
	})
	if _, err := f.ReadLink(t.Context(), f.Root()); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("read link of the root: %v", err)
	}
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Ino
}

// TestElsewhere reads files whose contents are not on the volume.
func TestElsewhere(t *testing.T) {
	v := format(t, 32<<20)
	tests := []struct {
		name     string
		tag      uint32
		readable bool
		says     string
	}{
		{"dedup", 0x80000013, false, "deduplicated by Windows"},
		{"onedrive", 0x9000601a, false, "OneDrive"},
		{"onedrive, here", 0x9000601a, true, ""},
		{"container", 0x80000018, false, "container"},
		{"unknown", 0x80004711, false, "0x80004711"},
		{"app", 0x8000001b, true, ""},
	}
	v.mounted("", func(dir string) {
		for _, tt := range tests {
			must(t, os.WriteFile(dir+"/"+tt.name, nil, 0o644))
			if tt.name == "onedrive" {
				must(t, os.Truncate(dir+"/"+tt.name, 1<<20))
			}
			setxattr(t, dir+"/"+tt.name, "system.ntfs_reparse_data", reparse(tt.tag, []byte("12345678")))
		}
	})
	// ntfs-3g doesn't write such a file, so ntfscp gives it bytes.
	data := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(data, noise(1, 9000), 0o644))
	for _, tt := range tests {
		if tt.name != "onedrive" { // a hole
			run(t, "ntfscp", v.path, data, tt.name)
		}
	}
	f, _ := v.open()
	for _, tt := range tests {
		a := find(t, f, tt.name)
		got, err := contents(t, f, tt.name)
		_, xerr := f.Extents(t.Context(), a.ID, 0, 1)
		if tt.readable {
			if err != nil || xerr != nil || len(got) != 9000 {
				t.Errorf("%s: %d bytes, %v, %v", tt.name, len(got), err, xerr)
			}
		} else if !errors.Is(err, fs.ErrUnsupported) || !errors.Is(xerr, fs.ErrUnsupported) || len(got) > 0 || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %d bytes, %v, %v", tt.name, len(got), err, xerr)
		}
	}
}

func TestWSL(t *testing.T) {
	v := format(t, 32<<20)
	ea := func(pairs ...any) []byte {
		var b []byte
		for i := 0; i < len(pairs); i += 2 {
			name, value := pairs[i].(string), pairs[i+1].([]byte)
			e := append([]byte{0, byte(len(name))}, byte(len(value)), 0)
			e = append(append(append(e, name...), 0), value...)
			for len(e)%4 != 0 {
				e = append(e, 0)
			}
			b = binary.LittleEndian.AppendUint32(b, uint32(4+len(e)))
			b = append(b, e...)
		}
		return b
	}
	u32 := func(v ...uint32) (b []byte) {
		for _, v := range v {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return b
	}
	v.mounted("special_files=wsl", func(dir string) {
		must(t, os.Symlink("../a target/é", dir+"/link"))
		must(t, unix.Mkfifo(dir+"/fifo", 0o600))
		must(t, unix.Mknod(dir+"/char", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(dir+"/block", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))
		must(t, unix.Mknod(dir+"/socket", unix.S_IFSOCK|0o600, 0))
		must(t, os.WriteFile(dir+"/script", []byte("#!"), 0o644))
		setxattr(t, dir+"/script", "system.ntfs_ea", ea("$LXUID", u32(1000), "$LXGID", u32(100), "$LXMOD", u32(0o104755)))
	})
	v.compare()
	f, _ := v.open()
	if a := find(t, f, "script"); a.UID != 1000 || a.GID != 100 || a.Perm != 0o4755 {
		t.Errorf("owner and mode of WSL: %+v", a)
	}
	if a := find(t, f, "block"); a.Type != fs.TypeBlockDevice || a.Major != 259 || a.Minor != 70000 {
		t.Errorf("device of WSL: %+v", a)
	}
}

// TestNames has names that are short, of DOS, or not Unicode.
func TestNames(t *testing.T) {
	v := format(t, 32<<20)
	v.mounted("", func(dir string) {
		for _, name := range []string{"A long name with a short one.text", "second long name.text"} {
			must(t, os.WriteFile(dir+"/"+name, []byte(name), 0o644))
			setxattr(t, dir+"/"+name, "system.ntfs_dos_name", []byte(strings.ToUpper(name[:2])[:1]+"SHORT~1.TXT"))
		}
		must(t, os.WriteFile(dir+"/BOTH.TXT", nil, 0o444))
		setxattr(t, dir+"/BOTH.TXT", "system.ntfs_dos_name", []byte("BOTH.TXT"))
		for _, name := range []string{"half \xed\xa0\x80", "other half \xed\xbf\xbf", "fox 🦊", "\xed\xa0\xbe, not \xed\xb6\x8a a fox"} {
			must(t, os.WriteFile(dir+"/"+name, nil, 0o644))
		}
		setxattr(t, dir+"/BOTH.TXT", "system.ntfs_attrib", []byte{1, 0, 0, 0})
	})
	v.compare(treetest.Nlink) // ntfs-3g counts short names too
	f, _ := v.open()
	for _, name := range []string{"ASHORT~1.TXT", "a long name with a short one.text", "no/slash", "nul\x00", "", "half \xed\xa0", "\xed\xa0\xbe\xed\xb6\x8a"} {
		if a, err := f.Lookup(t.Context(), f.Root(), name); !errors.Is(err, fs.ErrNotFound) {
			t.Errorf("look up %q: %+v, %v", name, a, err)
		}
	}
	if a := find(t, f, "BOTH.TXT"); a.Perm != 0o444 || a.Nlink != 1 {
		t.Errorf("read-only file: %+v", a)
	}
	for _, name := range []string{"$MFT", "$Extend", "$Bitmap"} {
		if a, err := f.Lookup(t.Context(), f.Root(), name); !errors.Is(err, fs.ErrNotFound) {
			t.Errorf("look up %q: %+v, %v", name, a, err)
		}
	}
}

func TestHibernated(t *testing.T) {
	v := format(t, 16<<20)
	file := make([]byte, 8192)
	copy(file, "HIBR")
	v.mounted("", func(dir string) { must(t, os.WriteFile(dir+"/Hiberfil.sys", file, 0o644)) })
	f, _ := v.open()
	if notes := strings.Join(f.Notes(), "\n"); !strings.Contains(notes, "hibernated") {
		t.Errorf("notes %q", notes)
	}
}

// TestMounted copies volumes while ntfs-3g writes to them: what was synced before,
// in a directory that is left alone, must be there.
func TestMounted(t *testing.T) {
	v := format(t, 64<<20)
	copied := filepath.Join(t.TempDir(), "copy")
	sum := map[string][]byte{}
	v.mounted("", func(dir string) {
		must(t, errors.Join(os.Mkdir(dir+"/synced", 0o755), os.Mkdir(dir+"/other", 0o755)))
		for i := range 200 {
			name := fmt.Sprint("synced/", i)
			sum[name] = noise(uint64(i), i*500)
			f, err := os.Create(dir + "/" + name)
			must(t, err)
			_, err = f.Write(sum[name])
			must(t, errors.Join(err, f.Sync(), f.Close()))
		}
		stop, done := make(chan bool), make(chan bool)
		defer func() { close(stop); <-done }()
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				_ = os.WriteFile(fmt.Sprint(dir, "/other/", i%300), noise(uint64(i), i*700%100_000), 0o644)
				_ = os.Remove(fmt.Sprint(dir, "/other/", i*7%300))
			}
		}()
		for range 3 {
			run(t, "cp", "--sparse=always", v.path, copied)
			dev, err := os.Open(copied)
			must(t, err)
			f, err := ntfs.Open(dev, 64<<20)
			must(t, err)
			for name, want := range sum {
				if got, err := contents(t, f, name); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
				}
			}
			count := 0
			must(t, fs.Walk(t.Context(), f, f.Root(), func(path string, a fs.Attr, err error) error {
				if err != nil && !errors.Is(err, fs.ErrDamaged) {
					t.Errorf("%s: %v", path, err)
				}
				count++
				return nil
			}))
			if count < 200 {
				t.Errorf("%d paths", count)
			}
			must(t, dev.Close())
		}
	})
}
