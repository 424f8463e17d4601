package vhd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/image/internal/fault"
	"holdfast/internal/testreq"
)

func noParent(name string) (Parent, error) { return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist) }

func openBytes(t testing.TB, b []byte, open func(string) (Parent, error)) *Disk {
	t.Helper()
	d, err := Open(bytes.NewReader(b), int64(len(b)), open)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// qemu makes a VHD of content by qemu-img, and what qemu-img reads from it.
func qemu(t *testing.T, content []byte, options string) (vhd, read []byte) {
	t.Helper()
	dir := t.TempDir()
	raw, path, back := filepath.Join(dir, "a.raw"), filepath.Join(dir, "a.vhd"), filepath.Join(dir, "b.raw")
	disktest.WriteSparse(t, raw, content)
	disktest.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", options, raw, path)
	disktest.Run(t, "qemu-img", "convert", "-f", "vpc", "-O", "raw", path, back)
	return readFile(t, path), readFile(t, back)
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestQEMU reads what qemu-img writes, with its size as cylinders make it and as
// it was asked for.
func TestQEMU(t *testing.T) {
	testreq.Need(t, "qemu-img")
	for _, size := range []int{3 << 20, 5<<20 + 7*512, 20 << 20} {
		for _, options := range []string{"subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size=on", "subformat=fixed,force_size=on"} {
			t.Run(fmt.Sprintf("%d %s", size, options), func(t *testing.T) {
				content := disktest.Pattern(size, uint64(size))
				b, want := qemu(t, content, options)
				if !bytes.Equal(want[:size], content) || strings.Contains(options, "force") && len(want) != size {
					t.Fatal("qemu-img did not read what it wrote")
				}
				disktest.Same(t, openBytes(t, b, noParent), want)
			})
		}
	}
}

// TestMadeIsVHD shows that qemu-img takes what the tests here make for what it
// is. It does not look at bitmaps, so every sector is held.
func TestMadeIsVHD(t *testing.T) {
	testreq.Need(t, "qemu-img")
	content := disktest.Pattern(3<<20+5*512, 2)
	dir := t.TempDir()
	all, _ := makeDisk(made{held: func(int) bool { return true }}, content)
	for name, b := range map[string][]byte{"dynamic": all, "fixed": makeFixed(made{}, content)} {
		path, back := filepath.Join(dir, name), filepath.Join(dir, name+".raw")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		disktest.Run(t, "qemu-img", "convert", "-f", "vpc", "-O", "raw", path, back)
		if !bytes.Equal(readFile(t, back), content) {
			t.Fatalf("%s: qemu-img reads something else", name)
		}
		disktest.Same(t, openBytes(t, b, noParent), content)
	}
}

func TestDynamic(t *testing.T) {
	for _, block := range []int{512, 4 << 10, 64 << 10, 2 << 20, 32 << 20} {
		want := disktest.Pattern(5<<20+7*512, uint64(block))
		b, _ := makeDisk(made{block: block}, want)
		holes := disktest.Same(t, openBytes(t, b, noParent), want)
		if least := disktest.Holes(want, sectorSize); holes < least || least == 0 {
			t.Errorf("blocks of %d: %d bytes of holes, want at least %d, which is more than 0", block, holes, least)
		}
	}
}

// TestCopyOfTheFooter: the one in front stands in for the one at the end.
func TestCopyOfTheFooter(t *testing.T) {
	want := disktest.Pattern(1<<20, 3)
	b, _ := makeDisk(made{}, want)
	cut := b[:len(b)-footerBytes]
	disktest.Same(t, openBytes(t, cut, noParent), want)
	broken := bytes.Clone(b)
	broken[len(b)-1] ^= 1
	disktest.Same(t, openBytes(t, broken, noParent), want)
	broken = bytes.Clone(b)
	broken[100] ^= 1
	disktest.Same(t, openBytes(t, broken, noParent), want)
}

// TestFixedWithAFooterInside: the first sector of a fixed disk is the guest's,
// who may write the footer of another kind of disk there.
func TestFixedWithAFooterInside(t *testing.T) {
	want := disktest.Pattern(1<<20, 3)
	copy(want, makeFooter(made{kind: differencing, size: 1 << 30}, footerBytes))
	disktest.Same(t, openBytes(t, makeFixed(made{}, want), noParent), want)
}

// TestShortFooter: before Virtual PC 2004 it had 511 bytes.
func TestShortFooter(t *testing.T) {
	want := disktest.Pattern(1<<20, 4)
	b := makeFixed(made{}, want)
	disktest.Same(t, openBytes(t, b[:len(b)-1], noParent), want)
}

// chain is disks of which each is over the one before it, and what the last one
// reads.
type chain struct {
	files [][]byte
	want  []byte
}

// makeChain writes random sectors into every layer.
func makeChain(seed uint64, sizes []int, blocks []int) chain {
	r := rand.New(rand.NewPCG(seed, 9))
	var c chain
	var last made
	for i, size := range sizes {
		content := disktest.Pattern(size, seed*100+uint64(i))
		held := make([]bool, size/sectorSize+1)
		for s := 0; s < len(held); {
			n, h := 1+r.IntN(1<<r.IntN(9)), r.IntN(3) == 0
			for ; n > 0 && s < len(held); n-- {
				held[s] = h
				s++
			}
		}
		m := made{block: blocks[i], id: ID{byte(i + 1)}, stamp: uint32(1000 * i)}
		if i > 0 {
			m.kind, m.parentID, m.parentTime = differencing, last.id, last.stamp
			m.locators = []locator{{"W2ru", string(utf16Text(fmt.Sprintf(".\\%d.vhd", i-1), le))}}
			m.held = func(s int) bool { return held[s] }
			want := make([]byte, size)
			copy(want, c.want)
			for s := range size / sectorSize {
				if held[s] {
					copy(want[s*sectorSize:][:sectorSize], content[s*sectorSize:])
				}
			}
			c.want = want
		} else {
			c.want = content
		}
		b, _ := makeDisk(m, content)
		c.files, last = append(c.files, b), m
	}
	return c
}

// open opens file i of the chain by its name.
func (c chain) open(name string) (Parent, error) {
	var i int
	if n, err := fmt.Sscanf(name, "%d.vhd", &i); n != 1 || err != nil || i >= len(c.files) {
		return noParent(name)
	}
	return Open(bytes.NewReader(c.files[i]), int64(len(c.files[i])), c.open)
}

func TestDifferencing(t *testing.T) {
	const mib = 1 << 20
	tests := []struct {
		name   string
		sizes  []int
		blocks []int
	}{
		{"two", []int{3 * mib, 3 * mib}, []int{64 << 10, 64 << 10}},
		{"blocks of one sector", []int{mib, mib}, []int{64 << 10, 512}},
		{"larger than its parent", []int{mib + 512*3, 3*mib + 512}, []int{512 << 10, 2 << 20}},
		{"smaller than its parent", []int{3*mib + 512*5, mib}, []int{4 << 10, 128 << 10}},
		{"five", []int{2 * mib, 3 * mib, mib, 4 * mib, 2*mib + 512}, []int{2 << 20, 4 << 10, 64 << 10, 1 << 20, 16 << 10}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := makeChain(uint64(i+1), tt.sizes, tt.blocks)
			top := c.files[len(c.files)-1]
			d := openBytes(t, top, c.open)
			defer d.Close()
			holes, least := disktest.Same(t, d, c.want), disktest.Holes(c.want, 64<<10)
			if holes < least/2 || least == 0 {
				t.Fatalf("%d bytes of holes, want at least half of %d, which is more than 0", holes, least)
			}
		})
	}
}

// TestParentNames: where a parent is looked for, and in which order.
func TestParentNames(t *testing.T) {
	le16 := func(s string) string { return string(utf16Text(s, le)) }
	tests := []struct {
		name string
		made made
		want []string
	}{
		{"relative", made{locators: []locator{{"W2ru", le16(`.\base.vhd`)}}}, []string{"base.vhd"}},
		{"relative first", made{
			locators:   []locator{{"W2ku", le16(`C:\vms\base.vhd`)}, {"W2ru", le16(`..\x\rel.vhd`)}},
			parentName: `D:\old\hint.vhd`,
		}, []string{"../x/rel.vhd", "C:/vms/base.vhd", "D:/old/hint.vhd", "rel.vhd", "base.vhd", "hint.vhd"}},
		{"XenServer", made{locators: []locator{{"MacX", "file://./8d5a.vhd"}}, parentName: "8d5a.vhd"}, []string{"8d5a.vhd"}},
		{"Macintosh", made{locators: []locator{{"Mac ", "alias"}, {"MacX", "file://localhost/Disks/my%20disk.vhd\x00"}}},
			[]string{"/Disks/my disk.vhd", "my disk.vhd"}},
		{"old", made{locators: []locator{{"Wi2k", `C:\b.vhd`}, {"Wi2r", `.\b.vhd`}}}, []string{"b.vhd", "C:/b.vhd"}},
		{"not ASCII", made{parentName: "Größe 磁盘.vhd"}, []string{"Größe 磁盘.vhd"}},
		{"none", made{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.made.kind = differencing
			b, _ := makeDisk(tt.made, disktest.Pattern(64<<10, 1))
			is := fs.ErrNotExist
			if tt.want == nil {
				is = fault.ErrDamaged
			}
			disktest.Asks(t, tt.want, is, func(parent func(string)) error {
				_, err := Open(bytes.NewReader(b), int64(len(b)), func(name string) (Parent, error) {
					parent(name)
					return noParent(name)
				})
				return err
			})
		})
	}
}

// TestNamesDoNotMultiply: a parent that is there and whose own parent is not ends
// the search. Eight names on each floor would otherwise be 8^63 ways down.
func TestNamesDoNotMultiply(t *testing.T) {
	var all []locator
	for i := range maxLocators {
		all = append(all, locator{"W2ru", string(utf16Text(fmt.Sprintf("%d.vhd", i), le))})
	}
	b, _ := makeDisk(made{kind: differencing, locators: all}, make([]byte, 4096))
	asked := 0
	var open func(depth int) func(string) (Parent, error)
	open = func(depth int) func(string) (Parent, error) {
		return func(name string) (Parent, error) {
			if asked++; asked > 1000 || depth == 0 {
				return noParent(name)
			}
			return Open(bytes.NewReader(b), int64(len(b)), open(depth-1))
		}
	}
	if _, err := Open(bytes.NewReader(b), int64(len(b)), open(63)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error is %v, want %v", err, fs.ErrNotExist)
	}
	if asked != 63+maxLocators {
		t.Fatalf("it was asked for %d files, want %d", asked, 63+maxLocators)
	}
}

// TestWrongParent: what is found must be the disk that the child was made over,
// as it was then.
func TestWrongParent(t *testing.T) {
	content := disktest.Pattern(256<<10, 5)
	tests := []struct {
		name     string
		parent   made
		recorded uint32
		err      error
	}{
		{"as recorded", made{id: ID{1}, stamp: 5000}, 5000, nil},
		{"recorded by the date of its file", made{id: ID{1}, stamp: 5000}, 9000, nil},
		{"a second late", made{id: ID{1}, stamp: 5001}, 5000, nil},
		{"not recorded", made{id: ID{1}, stamp: 5000}, 0, nil},
		{"changed", made{id: ID{1}, stamp: 5003}, 5000, fault.ErrDamaged},
		{"another", made{id: ID{2}, stamp: 5000}, 5000, fault.ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			child, _ := makeDisk(made{kind: differencing, parentID: ID{1}, parentTime: tt.recorded, parentName: "p.vhd",
				held: func(int) bool { return false }}, content)
			parent := makeFixed(tt.parent, content)
			d, err := Open(bytes.NewReader(child), int64(len(child)), func(string) (Parent, error) {
				return Open(bytes.NewReader(parent), int64(len(parent)), noParent)
			})
			if !errors.Is(err, tt.err) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
			if err == nil {
				disktest.Same(t, d, content)
			} else {
				t.Log(err)
			}
		})
	}
}
