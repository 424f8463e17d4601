package vhdx

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/image/internal/fault"
	"holdfast/internal/testreq"
)

func noParent(name string) (Parent, error) { return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist) }

// of makes made.content from bytes.
func of(content []byte) func(p []byte, off int64) {
	return func(p []byte, off int64) {
		clear(p)
		copy(p, content[min(off, int64(len(content))):])
	}
}

// TestQEMU reads what qemu-img writes.
func TestQEMU(t *testing.T) {
	testreq.Need(t, "qemu-img")
	for _, size := range []int{1 << 20, 9<<20 + 7*512} {
		for _, options := range []string{"subformat=dynamic", "subformat=fixed", "block_size=1M", "block_size=1M,block_state_zero=off", "block_size=256M,log_size=3M"} {
			t.Run(fmt.Sprintf("%d %s", size, options), func(t *testing.T) {
				content := disktest.Pattern(size, uint64(size))
				dir := t.TempDir()
				raw, path := filepath.Join(dir, "a.raw"), filepath.Join(dir, "a.vhdx")
				disktest.WriteSparse(t, raw, content)
				disktest.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", options, raw, path)
				disktest.Same(t, openBytes(t, readFile(t, path), noParent), content)
			})
		}
	}
}

// converted is what qemu-img reads of f, after it has replayed the log if check
// says so.
func converted(t *testing.T, f *paged, check bool) []byte {
	t.Helper()
	testreq.Need(t, "qemu-img")
	dir := t.TempDir()
	path, raw := filepath.Join(dir, "a.vhdx"), filepath.Join(dir, "a.raw")
	f.store(t, path)
	if check {
		disktest.Run(t, "qemu-img", "check", "-f", "vhdx", "-r", "all", path)
	}
	disktest.Run(t, "qemu-img", "convert", "-f", "vhdx", "-O", "raw", path, raw)
	return readFile(t, raw)
}

// TestStates reads blocks in every state a dynamic disk may have, and qemu-img
// agrees.
func TestStates(t *testing.T) {
	states := []state{fullyPresent, notPresent, zero, undefined, unmapped, fullyPresent, unmappedOld, fullyPresent, fullyPresent}
	content := disktest.Pattern(len(states)<<20-3*512, 4)
	f, _ := makeDisk(made{size: int64(len(content)), content: of(content), held: func(b int64) state { return states[b] }})
	want := bytes.Clone(content)
	for b, st := range states {
		if st != fullyPresent {
			clear(want[b<<20 : (b+1)<<20])
		}
	}
	d := f.open(t, noParent)
	disktest.Same(t, d, want)
	if got := converted(t, f, false); !bytes.Equal(got, want) {
		t.Fatal("qemu-img reads something else")
	}
	if _, end, err := d.NextData(7 << 20); err != nil || end != d.Size() {
		t.Fatalf("data from block 7 ends at %d, %v; want the end of the disk", end, err)
	}
}

// chain is disks of which each is over the one before it, and what the last one
// reads.
type chain struct {
	files []*paged
	want  []byte
}

// makeChain makes layers whose blocks are in every state.
func makeChain(seed uint64, sector int64, sizes, blocks []int64) chain {
	r := rand.New(rand.NewPCG(seed, 9))
	var c chain
	for i, size := range sizes {
		content := disktest.Pattern(int(size), seed*100+uint64(i))
		states := make([]state, size/blocks[i]+1)
		for b := range states {
			states[b] = []state{notPresent, notPresent, zero, unmapped, fullyPresent, partiallyPresent, partiallyPresent, partiallyPresent}[r.IntN(8)]
		}
		held := make([]bool, size/sector+1)
		for s := 0; s < len(held); {
			n, h := 1+r.IntN(1<<r.IntN(10)), r.IntN(2) == 0
			for ; n > 0 && s < len(held); n-- {
				held[s] = h
				s++
			}
		}
		m := made{size: size, block: blocks[i], sector: sector, dataID: guid(i + 1), content: of(content),
			held: func(int64) state { return fullyPresent }, sectorHeld: func(s int64) bool { return held[s] }}
		want := content
		if i > 0 {
			m.parent = []pair{{"parent_linkage", "{" + guid(i).String() + "}"}, {"relative_path", fmt.Sprintf(".\\%d.vhdx", i-1)}}
			m.held = func(b int64) state { return states[b] }
			want = make([]byte, size)
			copy(want, c.want)
			for s := range size / sector {
				st := states[s*sector/blocks[i]]
				switch here := want[s*sector:][:sector]; {
				case st == zero || st == unmapped:
					clear(here)
				case st == fullyPresent || st == partiallyPresent && held[s]:
					copy(here, content[s*sector:])
				}
			}
		}
		f, _ := makeDisk(m)
		c.files, c.want = append(c.files, f), want
	}
	return c
}

// open opens file i of the chain by its name.
func (c chain) open(name string) (Parent, error) {
	var i int
	if n, err := fmt.Sscanf(name, "%d.vhdx", &i); n != 1 || err != nil || i >= len(c.files) {
		return noParent(name)
	}
	return Open(c.files[i], c.files[i].size, c.open)
}

func TestDifferencing(t *testing.T) {
	tests := []struct {
		name   string
		sector int64
		sizes  []int64
		blocks []int64
	}{
		{"two", 512, []int64{9 * mib, 9 * mib}, []int64{mib, mib}},
		{"sectors of 4 KiB", 4096, []int64{9*mib + 4096, 9*mib + 8192}, []int64{2 * mib, mib}},
		{"larger than its parent", 512, []int64{3*mib + 512, 9*mib + 512}, []int64{mib, 4 * mib}},
		{"smaller than its parent", 512, []int64{9*mib + 512, 5 * mib}, []int64{8 * mib, mib}},
		{"four", 512, []int64{6 * mib, 7 * mib, 5 * mib, 9*mib + 512}, []int64{2 * mib, mib, mib, mib}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := makeChain(uint64(i+1), tt.sector, tt.sizes, tt.blocks)
			d := c.files[len(c.files)-1].open(t, c.open)
			defer d.Close()
			if d.SectorBytes() != int(tt.sector) {
				t.Errorf("sectors have %d bytes, want %d", d.SectorBytes(), tt.sector)
			}
			if holes := disktest.Same(t, d, c.want); holes == 0 {
				t.Error("no holes were found")
			}
		})
	}
}

// TestChunks reads through sector bitmaps of several chunks: with sectors of
// 512 bytes one speaks of 4 GiB, with 4096 of 32 GiB.
func TestChunks(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		const block = 2 * mib
		chunk := chunkSectors * sector
		size := 2*chunk + 5*block
		partly := []int64{0, chunk/block - 1, chunk / block, 2*chunk/block + 3}
		sectorHeld := func(s int64) bool { return s%3 == 1 }
		f, p := makeDisk(made{size: size, block: block, sector: sector,
			parent: []pair{{"parent_linkage", guid(1).String()}, {"relative_path", "p"}},
			held: func(b int64) state {
				for _, k := range partly {
					if b == k {
						return partiallyPresent
					}
				}
				return notPresent
			},
			sectorHeld: func(s int64) bool { return s%(block/sector) < 100 && sectorHeld(s) },
			content: func(p []byte, off int64) {
				clear(p)
				if off%block < 100*sector {
					le.PutUint64(p, uint64(off)+1)
				}
			}})
		if len(p.bitmap) != 3 {
			t.Fatalf("%d bitmaps were made, want 3", len(p.bitmap))
		}
		d := f.open(t, func(string) (Parent, error) {
			g, _ := makeDisk(made{size: size, block: block, sector: sector, dataID: guid(1), held: func(int64) state { return zero }})
			return Open(g, g.size, noParent)
		})
		for _, b := range partly {
			got := make([]byte, 110*sector)
			if _, err := d.ReadAt(got, b*block); err != nil {
				t.Fatal(err)
			}
			for s := range int64(110) {
				want := uint64(0)
				if abs := b*block/sector + s; s < 100 && sectorHeld(abs) {
					want = uint64(abs*sector) + 1
				}
				if v := le.Uint64(got[s*sector:]); v != want {
					t.Fatalf("sector %d of block %d reads %d, want %d", s, b, v, want)
				}
			}
		}
		start, _, err := d.NextData(chunk + block)
		if want := partly[3] * block; err != nil || start < want || start > want+2*sector {
			t.Errorf("data of the last chunk is at %d, %v; want it at %d", start, err, want)
		}
	}
}

// TestParentNames: where a parent is looked for, and in which order.
func TestParentNames(t *testing.T) {
	linkage := pair{"parent_linkage", guid(1).String()}
	tests := []struct {
		name  string
		pairs []pair
		want  []string
	}{
		{"relative", []pair{linkage, {"relative_path", `.\base.vhdx`}}, []string{"base.vhdx"}},
		{"all", []pair{{"absolute_win32_path", `\\?\d:\vms\base.vhdx`}, {"relative_path", `..\vms\base.vhdx`}, linkage,
			{"volume_path", `\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\vms\base.vhdx`}},
			[]string{"../vms/base.vhdx", "//?/Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}/vms/base.vhdx", "//?/d:/vms/base.vhdx", "base.vhdx"}},
		{"not ASCII", []pair{linkage, {"relative_path", "Größe 磁盘.vhdx"}}, []string{"Größe 磁盘.vhdx"}},
		{"none", []pair{linkage}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, _ := makeDisk(made{size: mib, parent: tt.pairs, held: func(int64) state { return notPresent }})
			is := fs.ErrNotExist
			if tt.want == nil {
				is = fault.ErrDamaged
			}
			disktest.Asks(t, tt.want, is, func(parent func(string)) error {
				_, err := Open(f, f.size, func(name string) (Parent, error) {
					parent(name)
					return noParent(name)
				})
				return err
			})
		})
	}
}

// TestWrongParent: the parent's data must be what the child was made over.
func TestWrongParent(t *testing.T) {
	tests := []struct {
		name    string
		linkage []pair
		sector  int64
		err     error
	}{
		{"right", []pair{{"parent_linkage", "{" + guid(1).String() + "}"}}, 512, nil},
		{"right, second", []pair{{"parent_linkage", guid(5).String()}, {"parent_linkage2", guid(1).String()}}, 512, nil},
		{"changed", []pair{{"parent_linkage", guid(2).String()}}, 512, fault.ErrDamaged},
		{"other sectors", []pair{{"parent_linkage", guid(1).String()}}, 4096, fault.ErrDamaged},
		{"no linkage", nil, 512, fault.ErrDamaged},
		{"linkage that is none", []pair{{"parent_linkage", "base"}}, 512, fault.ErrDamaged},
		{"linkage twice", []pair{{"parent_linkage", guid(1).String()}, {"parent_linkage", guid(2).String()}}, 512, fault.ErrDamaged},
	}
	content := disktest.Pattern(2*mib, 8)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, _ := makeDisk(made{size: 2 * mib, sector: tt.sector, parent: append(tt.linkage, pair{"relative_path", "p"}),
				held: func(int64) state { return notPresent }})
			d, err := Open(f, f.size, func(string) (Parent, error) {
				p, _ := makeDisk(made{size: 2 * mib, dataID: guid(1), held: func(int64) state { return fullyPresent }, content: of(content)})
				return Open(p, p.size, noParent)
			})
			if !errors.Is(err, tt.err) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
			if err != nil {
				t.Log(err)
				return
			}
			disktest.Same(t, d, content)
		})
	}
}

// TestHolesOfTheFile: a fixed disk in a sparse file has holes.
func TestHolesOfTheFile(t *testing.T) {
	content := disktest.Pattern(9<<20+512, 12)
	f, _ := makeDisk(made{size: int64(len(content)), content: of(content), held: func(int64) state { return fullyPresent }})
	path := filepath.Join(t.TempDir(), "a.vhdx")
	f.store(t, path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(disktest.Memory(b), int64(len(b)), noParent)
	if err != nil {
		t.Fatal(err)
	}
	holes, least := disktest.Same(t, d, content), disktest.Holes(content, 4096)-64<<10
	if holes < least || least <= 0 {
		t.Fatalf("%d bytes of holes, want at least %d, which is more than 0", holes, least)
	}
}
