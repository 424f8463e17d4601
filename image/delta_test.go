package image_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"holdfast/image"
	"holdfast/image/internal/disktest"
	"holdfast/image/vmdk"
	"holdfast/internal/testreq"
)

// deltas is a chain of VMDKs as it grows, each on top of the one before.
type deltas struct {
	t    *testing.T
	dir  string
	top  string // name of the last file
	n    int    // layers
	want []byte // what the top reads as, unless QEMU wrote into it
	hole []bool // per sector: no layer stores it
	qemu bool   // QEMU wrote into it
}

func (c *deltas) path(name string) string { return filepath.Join(c.dir, name) }

// cid is the CID of the top.
func (c *deltas) cid() int {
	c.t.Helper()
	b, err := os.ReadFile(c.path(c.top))
	if err != nil {
		c.t.Fatal(err)
	}
	m := regexp.MustCompile(`\bCID=([0-9a-f]{1,8})`).FindSubmatch(b)
	if m == nil {
		c.t.Fatalf("%s has no CID", c.top)
	}
	cid, err := strconv.ParseInt(string(m[1]), 16, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return int(cid)
}

// add puts a descriptor with these extents on top.
func (c *deltas) add(createType string, extents ...string) {
	c.n++
	name := fmt.Sprintf("delta%d.vmdk", c.n)
	write(c.t, c.path(name), deltaText(createType, c.top, c.cid(), extents...))
	c.top = name
}

// extent writes an extent and returns its line.
func (c *deltas) extent(kind string, l disktest.Layer, b []byte) string {
	name := fmt.Sprintf("extent%d-%d.vmdk", c.n+1, len(l.Bytes)/512)
	write(c.t, c.path(name), b)
	return fmt.Sprintf("RW %d %s %q", len(l.Bytes)/512, kind, name)
}

const deltaBytes = 5<<20 + 3*512

// deltaSteps are the bases and layers of the chains below.
var deltaSteps = map[string]func(c *deltas, seed uint64){
	"flat":   func(c *deltas, seed uint64) { c.flat(seed, deltaBytes) },
	"small":  func(c *deltas, seed uint64) { c.flat(seed, 3<<20+512) },
	"sparse": func(c *deltas, seed uint64) { c.convert(seed, "monolithicSparse") },
	"stream": func(c *deltas, seed uint64) { c.convert(seed, "streamOptimized") },

	"cowd":      func(c *deltas, seed uint64) { c.cowd(deltaBytes, 512, seed) },
	"cowd 64k":  func(c *deltas, seed uint64) { c.cowd(deltaBytes, 64<<10, seed) },
	"cowd less": func(c *deltas, seed uint64) { c.cowd(4<<20+512, 512, seed) },
	"sesparse": func(c *deltas, seed uint64) {
		l := disktest.RandomLayer(deltaBytes, 4096, seed)
		c.put(l)
		c.add("seSparse", c.extent("SESPARSE", l, l.SeSparse(4090)))
	},
	"two": func(c *deltas, seed uint64) { // extents of different kinds
		a, b := disktest.RandomLayer(2<<20, 4096, seed), stores(disktest.RandomLayer(deltaBytes-2<<20, 4096, seed+1))
		c.put(disktest.Layer{Block: 4096, Hold: append(a.Hold, b.Hold...), Bytes: append(a.Bytes, b.Bytes...)})
		c.add("vmfsSparse", c.extent("SESPARSE", a, a.SeSparse(0)), c.extent("VMFSSPARSE", b, b.COWD()))
	},
	"hosted":       func(c *deltas, seed uint64) { c.hosted(seed, "subformat=monolithicSparse,zeroed_grain=on") },
	"hosted split": func(c *deltas, seed uint64) { c.hosted(seed, "subformat=twoGbMaxExtentSparse") },
}

// base makes a pattern the lowest layer.
func (c *deltas) base(seed uint64, size int) {
	const usual = 64 << 10
	c.want, c.top = disktest.Pattern(size, seed), "base.vmdk"
	c.hole = make([]bool, size/512)
	for i := range c.hole {
		at := i * 512 / usual * usual
		c.hole[i] = disktest.Holes(c.want[at:min(at+usual, size)], usual) > 0
	}
}

func (c *deltas) flat(seed uint64, size int) {
	c.base(seed, size)
	text, err := vmdk.FlatDescriptor(c.top, int64(size), 0x7654321)
	if err != nil {
		c.t.Fatal(err)
	}
	write(c.t, c.path(c.top), text)
	disktest.WriteSparse(c.t, c.path(vmdk.FlatExtentName(c.top)), c.want)
}

func (c *deltas) convert(seed uint64, subformat string) {
	c.base(seed, deltaBytes)
	disktest.WriteSparse(c.t, c.path("base.raw"), c.want)
	disktest.Run(c.t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, c.path("base.raw"), c.path(c.top))
}

// put works out what a layer makes of the chain.
func (c *deltas) put(l disktest.Layer) {
	c.want = l.Over(c.want)
	hole := make([]bool, len(l.Bytes)/512)
	for i := range hole {
		switch l.Hold[i*512/l.Block] {
		case disktest.Absent:
			hole[i] = i >= len(c.hole) || c.hole[i]
		case disktest.Zeros:
			hole[i] = true
		}
	}
	c.hole = hole
}

// stores is the layer for a format that can't tell zeros.
func stores(l disktest.Layer) disktest.Layer {
	for i, h := range l.Hold {
		if h == disktest.Zeros {
			l.Hold[i] = disktest.Stored
		}
	}
	return l
}

func (c *deltas) cowd(size, block int, seed uint64) {
	l := stores(disktest.RandomLayer(size, block, seed))
	c.put(l)
	c.add("vmfsSparse", c.extent("VMFSSPARSE", l, l.COWD()))
}

// hosted has QEMU make a delta and write into it.
func (c *deltas) hosted(seed uint64, options string) {
	c.n++
	name := fmt.Sprintf("delta%d.vmdk", c.n)
	disktest.Run(c.t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", options, "-b", c.top, "-F", "vmdk", c.path(name))
	r := rand.New(rand.NewPCG(seed, 6))
	var args []string
	for i := range 12 {
		n := (1 + r.Int64N(200)) * 512
		off := r.Int64N((deltaBytes-n)/512) * 512
		what := fmt.Sprintf("-P %d", i+1)
		if i%3 == 2 {
			what = "-z"
		}
		args = append(args, "-c", fmt.Sprintf("write %s %d %d", what, off, n))
	}
	disktest.Run(c.t, "qemu-io", append(args, c.path(name))...)
	c.top, c.qemu = name, true
}

// TestDeltas compares chains of VMDKs with what qemu-img makes of their tops,
// and with what was put into them.
func TestDeltas(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	for seed, steps := range [][]string{
		{"flat", "cowd"},
		{"flat", "sesparse"},
		{"sparse", "hosted"},
		{"stream", "hosted"},
		{"sparse", "cowd 64k", "cowd"},
		{"flat", "sesparse", "sesparse", "sesparse"},
		{"flat", "two"},
		{"sparse", "two", "sesparse"},
		{"small", "cowd", "sesparse"},
		{"flat", "cowd less"},
		{"flat", "cowd less", "sesparse"},
		{"sparse", "hosted", "hosted", "hosted"},
		{"flat", "sesparse", "hosted"},
		{"flat", "hosted", "hosted split"},
		{"sparse", "hosted", "cowd", "sesparse"},
	} {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			t.Parallel()
			c := &deltas{t: t, dir: t.TempDir()}
			for i, step := range steps {
				deltaSteps[step](c, uint64(100*seed+i))
			}
			flat := c.path("flat.raw")
			disktest.Run(t, "qemu-img", "convert", "-f", "vmdk", "-O", "raw", c.path(c.top), flat)
			want, err := os.ReadFile(flat)
			if err != nil {
				t.Fatal(err)
			}
			if !c.qemu && !bytes.Equal(c.want, want) {
				t.Fatal("QEMU does not read what was put in")
			}
			d := open(t, c.path(c.top), image.Options{})
			if got := image.FormatOf(d); got != "vmdk" {
				t.Fatalf("format is %q, want vmdk", got)
			}
			holes, least := disktest.Same(t, d, want), int64(0)
			for _, hole := range c.hole {
				if hole {
					least += 512
				}
			}
			if c.qemu { // it copies around what it writes
				least = disktest.Holes(want, 64<<10) - 512<<10
			}
			if holes < least || least <= 0 {
				t.Fatalf("%d bytes of holes, want at least %d, which is more than 0", holes, least)
			}
		})
	}
}

// TestMovedDelta: a chain that was moved into one directory is found, whatever
// place its files speak of.
func TestMovedDelta(t *testing.T) {
	dir := t.TempDir()
	want := disktest.Pattern(1<<20, 44)
	write(t, filepath.Join(dir, "vm-flat.vmdk"), want)
	write(t, filepath.Join(dir, "vm.vmdk"), vmdkText("vmfs", fmt.Sprintf(`RW %d VMFS "vm-flat.vmdk"`, len(want)/512)))
	l := disktest.RandomLayer(len(want), 512, 45)
	write(t, filepath.Join(dir, "vm-000001-delta.vmdk"), l.COWD())
	for _, parent := range []string{"vm.vmdk", "/vmfs/volumes/4f6a-77/vm/vm.vmdk", `D:\VMs\vm.vmdk`, "../vm.vmdk"} {
		path := write(t, filepath.Join(dir, "vm-000001.vmdk"), deltaText("vmfsSparse", parent, 0x12345678,
			fmt.Sprintf(`RW %d VMFSSPARSE "vm-000001-delta.vmdk"`, len(want)/512)))
		disktest.Same(t, open(t, path, image.Options{}), l.Over(want))
	}
}
