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
