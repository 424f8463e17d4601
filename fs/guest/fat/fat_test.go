package fat_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
	"holdfast/fs/guest/fat"
	"holdfast/fs/treetest"
)

func open(tb testing.TB, img []byte) *fat.FS {
	tb.Helper()
	f, err := fat.Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func conform(tb testing.TB, img []byte) {
	tb.Helper()
	treetest.Conform(tb, open(tb, img), treetest.Options{
		Device: bytes.NewReader(img),
		Reopen: func() (fs.Tree, error) { return fat.Open(bytes.NewReader(img), int64(len(img))) },
	})
}

// names lists what is in a directory.
func names(tb testing.TB, t fs.Tree, path string) []string {
	tb.Helper()
	a, err := fs.Resolve(tb.Context(), t, t.Root(), path, true)
	if err != nil {
		tb.Fatal(err)
	}
	var list []string
	if err := t.ReadDir(tb.Context(), a.ID, 0, func(e fs.Entry) bool {
		list = append(list, e.Name)
		return true
	}); err != nil {
		tb.Fatal(err)
	}
	return list
}

// content reads a whole file.
func content(tb testing.TB, t fs.Tree, path string) (string, error) {
	tb.Helper()
	a, err := fs.Resolve(tb.Context(), t, t.Root(), path, true)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(fs.File(tb.Context(), t, a))
	return string(b), err
}

func TestSample(t *testing.T) {
	for _, bits := range []int{12, 16, 32} {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			img := sample(bits)
			conform(t, img)
			f := open(t, img)
			want := []string{"hello world.txt", "empty", "readme.txt", "σLMOS", "päck 🦊.bin", "sub dir"}
			if diff := cmp.Diff(want, names(t, f, "/")); diff != "" {
				t.Error(diff)
			}
			for path, want := range map[string]string{
				"hello world.txt": "hello, world\n", "empty": "", "readme.txt": "both in small letters",
				"päck 🦊.bin": strings.Repeat("0123456789", 200), "sub dir/deeper/x": strings.Repeat("x", 5000),
				"SUB DIR/INNER.TXT": "inner", "n0000001.txt": "hello, world\n",
			} {
				if got, err := content(t, f, path); err != nil || got != want {
					t.Errorf("%s: %.40q, %v; want %.40q", path, got, err, want)
				}
			}
			s, err := f.StatFS(t.Context(), f.Root())
			if err != nil || s.Type != fmt.Sprintf("fat%d", bits) || s.Label != "A LABEL" {
				t.Errorf("%+v, %v", s, err)
			}
			p, ok := fat.Probe(bytes.NewReader(img), int64(len(img)))
			if want := (fat.Summary{Format: s.Type, Label: s.Label, UUID: "1234-ABCD", Bytes: int64(len(img))}); !ok || p != want {
				t.Errorf("%+v, %v; want %+v", p, ok, want)
			}
			if s.FreeBytes <= 0 || s.FreeBytes >= s.Bytes {
				t.Errorf("%d bytes free of %d", s.FreeBytes, s.Bytes)
			}
		})
	}
}

func TestAttr(t *testing.T) {
	f := open(t, sample(16))
	a, err := f.Lookup(t.Context(), f.Root(), "σLMOS")
	if err != nil {
		t.Fatal(err)
	}
	want := fs.Attr{
		ID: a.ID, Type: fs.TypeFile, Perm: 0o444, Nlink: 1, Size: 9, Used: 512, Fixed: true,
		Mtime: fs.Time{Sec: 1614834368}, Ctime: fs.Time{Sec: 1614834368}, Atime: fs.Time{Sec: 1614902400},
		Btime: fs.Time{Sec: 1614834357, Nsec: 760_000_000},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Error(diff)
	}
}

// TestNames has rows of slots that systems with and without long names leave.
func TestNames(t *testing.T) {
	const short = "SHORT   TXT"
	s := slot(short, 0, 0, 0, 0)
	long := longSlots("a long name of two slots", short)
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	change := func(b []byte, at int, v byte) []byte {
		b = slices.Clone(b)
		b[at] = v
		return b
	}
	tests := []struct {
		name  string
		slots []byte
		want  []string
	}{
		{"whole", join(long, s), []string{"a long name of two slots"}},
		{"checksum of another short name", join(long, slot("RENAMED TXT", 0, 0, 0, 0)), []string{"RENAMED.TXT"}},
		{"last piece missing", join(long[32:], s), []string{"SHORT.TXT"}},
		{"first piece missing", join(long[:32], s), []string{"SHORT.TXT"}},
		{"a deleted slot between", join(long[:32], change(long[32:], 0, 0xe5), s), []string{"SHORT.TXT"}},
		{"a file between", join(long, slot("OTHER      ", 0, 0, 0, 0), s), []string{"OTHER", "SHORT.TXT"}},
		{"pieces without a file", join(long, join(long, s)), []string{"a long name of two slots"}},
		{"a slash", join(longSlots("a/b", short), s), []string{"SHORT.TXT"}},
		{"two dots", join(longSlots("..", short), s), []string{"SHORT.TXT"}},
		{"no characters", join(change(longSlots("x", short), 1, 0), s), []string{"SHORT.TXT"}},
		{"longest", join(longSlots(strings.Repeat("長", 255), short), s), []string{strings.Repeat("長", 255)}},
		{"too long", join(longSlots(strings.Repeat("n", 256), short), s), []string{"SHORT.TXT"}},
		{"half a pair", join(unitSlots([]uint16{'a', 0xd83e, 'b'}, short), s), []string{"a\xed\xa0\xbeb"}},
		{"other half of a pair at the end", join(unitSlots([]uint16{'a', 0xdd8a}, short), s), []string{"a\xed\xb6\x8a"}},
		{"base in small letters", slot(short, 0, 0x08, 0, 0), []string{"short.TXT"}},
		{"extension in small letters", slot(short, 0, 0x10, 0, 0), []string{"SHORT.txt"}},
		{"code page 437 in small letters", slot("\x9a\x80\xe1     \x8e  ", 0, 0x18, 0, 0), []string{"üçß.ä"}},
		{"spaces inside", slot("A B     C D", 0, 0, 0, 0), []string{"A B.C D"}},
		{"a slash in the short name", slot("A/B        ", 0, 0, 0, 0), []string{"A\ufffdB"}},
		{"no short name", slot("           ", 0, 0, 0, 0), nil},
		{"the same twice", join(s, s), []string{"SHORT.TXT"}},
		{"by case alone", join(longSlots("Case", "CASE~1     "), slot("CASE~1     ", 0, 0, 0, 0), longSlots("cASE", "CASE~2     "), slot("CASE~2     ", 0, 0, 0, 0)), []string{"Case", "cASE"}},
		{"a label among them", join(slot("LABEL      ", 0x08, 0, 0, 0), s), []string{"SHORT.TXT"}},
		{"behind the end", join(s, make([]byte, 32), slot("OLD        ", 0, 0, 0, 0)), []string{"SHORT.TXT"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := maker{bits: 12}
			img := m.make(&entry{slots: tt.slots})
			if diff := cmp.Diff(tt.want, names(t, open(t, img), "/")); diff != "" {
				t.Error(diff)
			}
			conform(t, img)
		})
	}
}

// TestExactFirst looks up names that differ by case alone.
func TestExactFirst(t *testing.T) {
	m := maker{bits: 12}
	f := open(t, m.make(file("Case", "1"), file("cASE", "2"), file("CASE", "3")))
	for name, want := range map[string]string{"Case": "1", "cASE": "2", "CASE": "3", "case": "1"} {
		if got, err := content(t, f, name); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestDamage(t *testing.T) {
	tests := []struct {
		name  string
		root  []*entry
		after func(m *maker)
		path  string // that can't be read
		good  string // that can
	}{
		{"chain shorter than the file", []*entry{{name: "f", data: make([]byte, 600), size: 2000}, file("g", "g")}, nil, "f", "g"},
		{"chain into free space", []*entry{file("f", strings.Repeat("f", 2000)), file("g", "g")}, func(m *maker) { m.link(3, 0) }, "f", "g"},
		{"chain out of the volume", []*entry{file("f", strings.Repeat("f", 2000)), file("g", "g")}, func(m *maker) { m.link(3, 0xfee) }, "f", "g"},
		{"chain over a bad cluster", []*entry{file("f", strings.Repeat("f", 2000)), file("g", "g")}, func(m *maker) { m.link(3, 0xff7) }, "f", "g"},
		{"chain back to its beginning", []*entry{file("f", strings.Repeat("f", 2000)), file("g", "g")}, func(m *maker) { m.link(4, 2) }, "f", "g"},
		{"chain back to its middle", []*entry{file("f", strings.Repeat("f", 20000)), file("g", "g")}, func(m *maker) { m.link(9, 5) }, "f", "g"},
		{"chain that is a cluster of itself", []*entry{file("f", strings.Repeat("f", 2000)), file("g", "g")}, func(m *maker) { m.link(2, 2) }, "f", "g"},
		{"no first cluster", []*entry{{name: "f", size: 10}, file("g", "g")}, nil, "f", "g"},
		{"directory in cluster 0", []*entry{dir("sub"), file("g", "g")}, func(m *maker) { m.img[m.rootOff+32+26] = 0 }, "sub", "g"},
		{"directory that is its parent", []*entry{dir("a", dir("b", file("x", "x"))), file("g", "g")}, func(m *maker) {
			m.at(2)[3*32+26] = 2 // of the long and short slots behind the two dots
		}, "a/b", "g"},
		{"directory whose chain is a loop", []*entry{dir("sub", &entry{slots: bytes.Repeat(slot("X          ", 0, 0, 0, 0), 60)}), file("g", "g")}, func(m *maker) { m.link(3, 2) }, "sub", "g"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := maker{bits: 12}
			img := m.make(tt.root...)
			if tt.after != nil {
				tt.after(&m)
			}
			f := open(t, img)
			if got, err := content(t, f, tt.good); err != nil || got == "" {
				t.Errorf("%s: %q, %v", tt.good, got, err)
			}
			a, err := fs.Resolve(t.Context(), f, f.Root(), tt.path, true)
			if err != nil {
				t.Fatal(err)
			}
			if a.IsDir() {
				err = f.ReadDir(t.Context(), a.ID, 0, func(fs.Entry) bool { return true })
			} else {
				_, err = content(t, f, tt.path)
			}
			if !errors.Is(err, fs.ErrDamaged) {
				t.Errorf("%s: %v, want damage", tt.path, err)
			}
			t.Log(err)
		})
	}
}

// TestTwoFATs damages one of the two.
func TestTwoFATs(t *testing.T) {
	want := strings.Repeat("0123456789", 200)
	tests := []struct {
		name   string
		damage func(m *maker, fat int) []byte
	}{
		{"an impossible entry", func(m *maker, fat int) []byte {
			for c := 2; c < 40; c++ {
				le.PutUint16(m.img[m.fatOff+fat*m.fatBytes+2*c:], 1)
			}
			return m.img
		}},
		{"overwritten from its beginning", func(m *maker, fat int) []byte {
			copy(m.img[m.fatOff+fat*m.fatBytes:], bytes.Repeat([]byte("\x07\x00"), 1000))
			return m.img
		}},
	}
	for _, tt := range tests {
		for fatNo := range 2 {
			t.Run(fmt.Sprintf("%s, FAT %d", tt.name, fatNo+1), func(t *testing.T) {
				m := maker{bits: 16}
				m.make(file("f", want))
				f := open(t, tt.damage(&m, fatNo))
				if got, err := content(t, f, "f"); err != nil || got != want {
					t.Errorf("%.40q, %v", got, err)
				}
				if len(f.Notes()) == 0 {
					t.Error("no note")
				}
			})
		}
	}
}

func TestRefused(t *testing.T) {
	set := func(at int, b ...byte) func([]byte) { return func(img []byte) { copy(img[at:], b) } }
	tests := []struct {
		name   string
		bits   int
		damage func([]byte)
		want   error
	}{
		{"no signature", 16, set(510, 0, 0), fs.ErrDamaged},
		{"sectors of 500 bytes", 16, set(11, 0xf4, 1), fs.ErrDamaged},
		{"clusters of three sectors", 16, set(13, 3), fs.ErrDamaged},
		{"no FAT", 16, set(16, 0), fs.ErrDamaged},
		{"no reserved sectors, as in NTFS", 16, set(14, 0, 0), fs.ErrDamaged},
		{"media of a code sector", 16, set(21, 0x33), fs.ErrDamaged},
		{"no sectors", 16, set(32, 0, 0, 0, 0), fs.ErrDamaged},
		{"no FAT sectors", 32, set(36, 0, 0, 0, 0), fs.ErrDamaged},
		{"root behind the end", 32, set(44, 0xff, 0xff, 0xff, 0x0f), fs.ErrDamaged},
		{"a later version", 32, set(42, 1), fs.ErrUnsupported},
		{"third of two FATs active", 32, set(40, 0x82), fs.ErrDamaged},
		{"too many clusters for 16 bits", 16, set(32, 0, 0, 0, 0x10), fs.ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img := sample(tt.bits)
			if !fat.Detect(bytes.NewReader(img), int64(len(img))) {
				t.Fatal("the sample is not detected")
			}
			tt.damage(img)
			if tt.bits == 32 {
				clear(img[6*512 : 7*512]) // the copy
			}
			if fat.Detect(bytes.NewReader(img), int64(len(img))) {
				t.Error("detected")
			}
			_, err := fat.Open(bytes.NewReader(img), int64(len(img)))
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			t.Log(err)
		})
	}
	for n := range 512 {
		if fat.Detect(bytes.NewReader(sample(12)[:n]), int64(n)) {
			t.Errorf("detected in %d bytes", n)
		}
	}
}

// TestCopyOfBootSector wipes the first one.
func TestCopyOfBootSector(t *testing.T) {
	img := sample(32)
	copy(img, make([]byte, 512))
	f := open(t, img)
	if got, err := content(t, f, "hello world.txt"); err != nil || got != "hello, world\n" {
		t.Errorf("%q, %v", got, err)
	}
	if notes := f.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "copy of the boot sector") {
		t.Errorf("notes %q", notes)
	}
	le.PutUint32(img[32*512:], 0x12345678) // no FAT either
	if _, err := fat.Open(bytes.NewReader(img), int64(len(img))); !errors.Is(err, fs.ErrDamaged) {
		t.Errorf("without a FAT: %v", err)
	}
}

// TestLabel has the root directory's label, in code page 437, before that of
// the boot sector.
func TestLabel(t *testing.T) {
	for want, root := range map[string][]*entry{"LÄBEL": {{slots: slot("L\x8eBEL      ", 0x08, 0, 0, 0)}}, "A LABEL": nil} {
		m := maker{bits: 12}
		f := open(t, m.make(root...))
		if s, err := f.StatFS(t.Context(), f.Root()); err != nil || s.Label != want {
			t.Errorf("%q, %v; want %q", s.Label, err, want)
		}
	}
}

// TestCut opens a volume whose end is missing.
func TestCut(t *testing.T) {
	m := maker{bits: 16}
	img := m.make(file("first", strings.Repeat("1", 3000)), file("last", strings.Repeat("2", 3000)))
	f := open(t, img[:m.dataOff+6*512+1000])
	if got, err := content(t, f, "first"); err != nil || len(got) != 3000 {
		t.Errorf("first: %d bytes, %v", len(got), err)
	}
	if _, err := content(t, f, "last"); !errors.Is(err, fs.ErrDamaged) {
		t.Errorf("last: %v, want damage", err)
	}
	if len(f.Notes()) == 0 {
		t.Error("no note")
	}
}

// TestForgedID asks for slots that are bytes of a file, or of no directory.
func TestForgedID(t *testing.T) {
	m := maker{bits: 16}
	forged := slot("FORGED  TXT", 0, 0, 2, 512)
	img := m.make(file("f", string(forged)), dir("d", file("x", "x")), file("g", "g"))
	at := bytes.Index(img, forged)
	f := open(t, img)
	for _, ino := range []uint64{uint64(at) / 32, 0, 2, 1 << 40, 1<<64 - 1, uint64(m.rootOff)/32 + 511, uint64(m.dataOff)/32 + 17} {
		if a, err := f.Attr(t.Context(), fs.ID{Ino: ino}); !errors.Is(err, fs.ErrStale) {
			t.Errorf("inode %d: %+v, %v; want stale", ino, a, err)
		}
	}
}
