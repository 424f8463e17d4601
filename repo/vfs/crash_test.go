package vfs_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"holdfast/repo/vfs"
)

// TestCrash states for each rule of the model what is left.
func TestCrash(t *testing.T) {
	none := vfs.CrashOptions{}
	all := vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll}
	names := vfs.CrashOptions{Names: vfs.KeepAll}
	sizes := vfs.CrashOptions{Sizes: vfs.KeepAll, Names: vfs.KeepAll}
	data := vfs.CrashOptions{Data: vfs.KeepAll, Names: vfs.KeepAll}
	anyOrder := vfs.CrashOptions{AnyOrder: true}

	for _, c := range []struct {
		name string
		do   func(t *testing.T, m *vfs.Mem)
		want map[vfs.CrashOptions]string
	}{
		{"a synced file without a synced name", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "d/a", "A")
		}, map[vfs.CrashOptions]string{none: "d/ tmp/", names: "d/ d/a=A tmp/", all: "d/ d/a=A tmp/"}},

		{"a synced name without a synced file", func(t *testing.T, m *vfs.Mem) {
			create(t, m, "d/a", "AB")
			must(t, m.SyncDir("d"))
		}, map[vfs.CrashOptions]string{
			none: "d/ d/a= tmp/", sizes: "d/ d/a=\x00\x00 tmp/", data: "d/ d/a= tmp/", all: "d/ d/a=AB tmp/",
		}},

		{"an overwritten file", func(t *testing.T, m *vfs.Mem) {
			f := create(t, m, "d/a", "old")
			must(t, f.Sync())
			must(t, m.SyncDir("d"))
			_, err := f.WriteAt([]byte("newer"), 0)
			must(t, err)
		}, map[vfs.CrashOptions]string{
			none: "d/ d/a=old tmp/", sizes: "d/ d/a=old\x00\x00 tmp/", data: "d/ d/a=new tmp/", all: "d/ d/a=newer tmp/",
		}},

		{"a file cut and written again", func(t *testing.T, m *vfs.Mem) {
			f := create(t, m, "d/a", "old")
			must(t, f.Sync())
			must(t, m.SyncDir("d"))
			must(t, f.Truncate(1))
			_, err := f.WriteAt([]byte("e"), 4)
			must(t, err)
		}, map[vfs.CrashOptions]string{
			none: "d/ d/a=old tmp/", sizes: "d/ d/a=o\x00\x00\x00\x00 tmp/", all: "d/ d/a=o\x00\x00\x00e tmp/",
		}},

		{"a removed file", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "d/a", "A")
			must(t, m.SyncDir("d"))
			must(t, m.Remove("d/a"))
		}, map[vfs.CrashOptions]string{none: "d/ d/a=A tmp/", all: "d/ tmp/"}},

		{"a removed file and the directory synced", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "d/a", "A")
			must(t, m.Remove("d/a"))
			must(t, m.SyncDir("d"))
		}, map[vfs.CrashOptions]string{none: "d/ tmp/", all: "d/ tmp/", anyOrder: "d/ tmp/"}},

		{"a directory without a synced name", func(t *testing.T, m *vfs.Mem) {
			must(t, m.Mkdir("d/e"))
			synced(t, m, "d/e/a", "A")
			must(t, m.SyncDir("d/e"))
		}, map[vfs.CrashOptions]string{none: "d/ tmp/", names: "d/ d/e/ d/e/a=A tmp/"}},

		{"renamed in place of another", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "d/a", "A")
			synced(t, m, "d/b", "B")
			must(t, m.SyncDir("d"))
			must(t, m.Rename("d/a", "d/b"))
		}, map[vfs.CrashOptions]string{none: "d/ d/a=A d/b=B tmp/", anyOrder: "d/ d/a=A d/b=B tmp/", all: "d/ d/b=A tmp/"}},

		{"renamed to another directory, nothing synced", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "tmp/a", "A")
			must(t, m.SyncDir("tmp"))
			must(t, m.Rename("tmp/a", "d/a"))
		}, map[vfs.CrashOptions]string{none: "d/ tmp/ tmp/a=A", anyOrder: "d/ tmp/ tmp/a=A", all: "d/ d/a=A tmp/"}},

		{"renamed to another directory, the new one synced", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "tmp/a", "A")
			must(t, m.SyncDir("tmp"))
			must(t, m.Rename("tmp/a", "d/a"))
			must(t, m.SyncDir("d"))
		}, map[vfs.CrashOptions]string{none: "d/ d/a=A tmp/", anyOrder: "d/ d/a=A tmp/ tmp/a=A", all: "d/ d/a=A tmp/"}},

		{"renamed to another directory, the old one synced", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "tmp/a", "A")
			must(t, m.SyncDir("tmp"))
			must(t, m.Rename("tmp/a", "d/a"))
			must(t, m.SyncDir("tmp"))
		}, map[vfs.CrashOptions]string{none: "d/ d/a=A tmp/", anyOrder: "d/ d/a=A tmp/", all: "d/ d/a=A tmp/"}},

		{"a synced rename brings what came before it", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "tmp/z", "Z")
			synced(t, m, "tmp/a", "A")
			must(t, m.Rename("tmp/a", "d/a"))
			synced(t, m, "tmp/later", "L")
			must(t, m.SyncDir("d"))
		}, map[vfs.CrashOptions]string{none: "d/ d/a=A tmp/ tmp/z=Z", anyOrder: "d/ d/a=A tmp/"}},

		{"a directory renamed to another never has two names", func(t *testing.T, m *vfs.Mem) {
			must(t, m.Mkdir("tmp/e"))
			must(t, m.SyncDir("tmp"))
			must(t, m.Rename("tmp/e", "d/e"))
			must(t, m.SyncDir("d"))
		}, map[vfs.CrashOptions]string{none: "d/ d/e/ tmp/", anyOrder: "d/ d/e/ tmp/"}},

		{"damage outlives a crash", func(t *testing.T, m *vfs.Mem) {
			synced(t, m, "d/a", "A")
			must(t, m.SyncDir("d"))
			must(t, m.Corrupt("d/a", 0, 2))
		}, map[vfs.CrashOptions]string{none: "d/ d/a=C tmp/", all: "d/ d/a=C tmp/"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := skeleton(t)
			c.do(t, m)
			before := m.Dump()
			for opt, want := range c.want {
				same(t, opt.String(), tree(t, m.CrashClone(opt)), want)
			}
			same(t, "the original after its clones", m.Dump(), before)
		})
	}
}

// outcomes collects what is left of m over many seeds.
func outcomes(t *testing.T, m *vfs.Mem, opt vfs.CrashOptions, what func(*vfs.Mem) string) []string {
	t.Helper()
	set := make(map[string]bool)
	for seed := range uint64(400) {
		opt.Seed = seed
		got := what(m.CrashClone(opt))
		set[got] = true
		if again := what(m.CrashClone(opt)); again != got {
			t.Fatalf("%v: once %q, once %q", opt, got, again)
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func TestCrashNamesByChance(t *testing.T) {
	m := skeleton(t)
	for _, name := range []string{"a", "b", "c"} {
		synced(t, m, "d/"+name, "")
	}
	left := func(m *vfs.Mem) string {
		s := ""
		list, err := m.ReadDir("d")
		must(t, err)
		for _, info := range list {
			s += info.Name
		}
		return s
	}
	opt := vfs.CrashOptions{Names: vfs.KeepSome}
	same(t, "in order", outcomes(t, m, opt, left), []string{"", "a", "ab", "abc"})
	opt.AnyOrder = true
	same(t, "in any order", outcomes(t, m, opt, left), []string{"", "a", "ab", "abc", "ac", "b", "bc", "c"})
}

func TestCrashRenameByChance(t *testing.T) {
	m := skeleton(t)
	synced(t, m, "tmp/a", "A")
	must(t, m.SyncDir("tmp"))
	must(t, m.Rename("tmp/a", "d/a"))
	left := func(m *vfs.Mem) string { return tree(t, m) }
	opt := vfs.CrashOptions{Names: vfs.KeepSome}
	same(t, "in order", outcomes(t, m, opt, left), []string{"d/ d/a=A tmp/", "d/ tmp/ tmp/a=A"})
	opt.AnyOrder = true
	same(t, "in any order", outcomes(t, m, opt, left),
		[]string{"d/ d/a=A tmp/", "d/ d/a=A tmp/ tmp/a=A", "d/ tmp/ tmp/a=A"})
}

// TestCrashDataByChance: each page has seen none, one or both of two writes.
func TestCrashDataByChance(t *testing.T) {
	const pages = 2
	m := skeleton(t)
	f := create(t, m, "d/a", strings.Repeat("0", pages*4096))
	must(t, f.Sync())
	must(t, m.SyncDir("d"))
	for _, s := range []string{"1", "2"} {
		_, err := f.WriteAt([]byte(strings.Repeat(s, pages*4096)), 0)
		must(t, err)
	}
	left := func(m *vfs.Mem) string { // the start of each sector, equal ones once
		data, s := get(t, m, "d/a"), ""
		for p := range pages {
			page := data[p*4096:][:4096]
			for k := 0; k < 4096; k += 512 {
				if strings.Count(page[k:k+512], page[k:k+1]) != 512 {
					t.Fatal("a sector is torn")
				}
				if !strings.HasSuffix(s, page[k:k+1]) || k == 0 {
					s += page[k : k+1]
				}
			}
		}
		return s
	}
	opt := vfs.CrashOptions{Data: vfs.KeepSome}
	same(t, "whole pages", outcomes(t, m, opt, left), []string{"00", "01", "02", "10", "11", "12", "20", "21", "22"})
	opt.Torn = true
	if torn := outcomes(t, m, opt, left); len(torn) < 50 {
		t.Errorf("torn pages: only %d outcomes: %q", len(torn), torn)
	}
}

func TestCrashSizesByChance(t *testing.T) {
	m := skeleton(t)
	f := create(t, m, "d/a", "")
	must(t, m.SyncDir("d"))
	for _, s := range []string{"a", "b", "c"} {
		_, err := f.Write([]byte(s))
		must(t, err)
	}
	left := func(m *vfs.Mem) string { return get(t, m, "d/a") }
	same(t, "sizes", outcomes(t, m, vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepSome}, left),
		[]string{"", "a", "ab", "abc"})
}

// TestCrashWriteFile stops a durable write before each of its operations: the
// file is not there or whole, and it is there once WriteFile has returned.
func TestCrashWriteFile(t *testing.T) {
	m := skeleton(t)
	f := vfs.NewFaulty(m)
	data := strings.Repeat("0123456789", 3000)
	var seeds []uint64
	for s := range uint64(40) {
		seeds = append(seeds, s)
	}
	done := -1
	check := func() {
		for _, opt := range vfs.Crashes(seeds...) {
			c := m.CrashClone(opt)
			list, err := c.ReadDir("d")
			must(t, err)
			if len(list) < done+1 {
				t.Errorf("%v: %d files are left of %d", opt, len(list), done+1)
			}
			for _, info := range list {
				if get(t, c, "d/"+info.Name) != data {
					t.Errorf("%v: %s is not whole", opt, info.Name)
				}
			}
		}
	}
	f.OnOp(func(int, vfs.Op) { check() })
	for i := range 3 {
		must(t, vfs.WriteFile(f, fmt.Sprintf("d/%d", i), []byte(data)))
		done = i
	}
	check()
	same(t, "operations", f.Count(), 3*5)
}

func TestCrashCloneStandsAlone(t *testing.T) {
	m := skeleton(t)
	f := create(t, m, "d/a", strings.Repeat("x", 10000))
	l, err := m.Lock("d/a", vfs.Exclusive)
	must(t, err)
	m.SetCapacity(1 << 20)
	all := vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll}
	c := m.CrashClone(all)
	same(t, "clone", c.Dump(), m.Dump())
	same(t, "space used", c.Used(), m.Used())

	_, err = f.WriteAt([]byte("original"), 5000)
	must(t, err)
	g, err := c.OpenWrite("d/a")
	must(t, err)
	_, err = g.WriteAt([]byte("clone"), 0)
	must(t, err)
	must(t, c.Mkdir("d/e"))
	same(t, "original", get(t, m, "d/a")[:5], "xxxxx")
	same(t, "clone", get(t, c, "d/a")[5000:5008], "xxxxxxxx")
	same(t, "clone of the clone", tree(t, c.CrashClone(vfs.CrashOptions{})), "d/ d/a="+strings.Repeat("x", 10000)+" tmp/")

	cl, err := c.Lock("d/a", vfs.Exclusive) // the holder died
	must(t, err)
	must(t, cl.Unlock())
	must(t, l.Unlock())
}

func BenchmarkCrashClone(b *testing.B) {
	m := skeleton(b)
	for i := range 512 {
		must(b, m.Mkdir(fmt.Sprintf("d/%03x", i)))
	}
	for i := range 200 {
		must(b, vfs.WriteFile(m, fmt.Sprintf("d/%03x/f", i), make([]byte, 1<<16)))
	}
	must(b, m.SyncDir("d"))
	f := create(b, m, "tmp/open", strings.Repeat("x", 1<<20))
	defer f.Close()
	for _, opt := range []vfs.CrashOptions{{}, vfs.Crashes(1)[6]} {
		b.Run(opt.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.CrashClone(opt)
			}
		})
	}
}
