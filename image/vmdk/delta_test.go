package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"holdfast/image/internal/disktest"
	"holdfast/image/internal/fault"
)

// parentOf is a parent in memory.
type parentOf struct {
	disktest.Memory
	cid uint32
}

func (p parentOf) CID() uint32 { return p.cid }

// chain is a base and the files of the deltas on it, lowest first. Each has a
// descriptor of its own, which comes with it, or one that is made.
type chain struct {
	base  []byte
	files [][]byte
}

// kindOf says how a descriptor would speak of an extent.
func kindOf(extent []byte) (kind string, sectors uint64) {
	switch bareKind(extent) {
	case "":
		return "SPARSE", word(extent, 12)
	case "seSparse":
		return "SESPARSE", word(extent, 8*seWordCapacity)
	}
	return "VMFSSPARSE", word(extent, 12) & 0xffffffff
}

// word is the number at off, with zeros for what b lacks.
func word(b []byte, off int) uint64 {
	var p [8]byte
	copy(p[:], b[min(off, len(b)):])
	return binary.LittleEndian.Uint64(p[:])
}

// deltaText is the descriptor of a delta with one extent, of so many sectors.
func deltaText(kind string, sectors uint64) []byte {
	return fmt.Appendf(nil, "%s\nCID=0000cafe\nparentCID=0000cafe\nparentFileNameHint=\"parent\"\ncreateType=\"x\"\nRW %d %s \"extent\"\n",
		descriptorMagic, sectors, kind)
}

// open opens the top, with what good says about the extents: corruption must
// not choose how they are described.
func (c chain) open(good [][]byte) (*Disk, error) {
	var parent Parent = parentOf{c.base, 0xcafe}
	var top *Disk
	for i, extent := range c.files {
		kind, sectors := kindOf(good[i])
		text := deltaText(kind, sectors)
		below := parent
		d, err := Open(bytes.NewReader(text), int64(len(text)), Files{
			Extent: func(string) (Extent, error) { return disktest.Memory(extent), nil },
			Parent: func(string) (Parent, error) { return below, nil },
		})
		if err != nil {
			return nil, err
		}
		top, parent = d, d
	}
	return top, nil
}

// makeChain is a delta of every kind on 600 KiB, and what they read as.
func makeChain() (c chain, want []byte) {
	const size = 600 << 10
	want = disktest.Pattern(size, 51)
	c.base = want
	for i, write := range []func(l disktest.Layer) []byte{
		func(l disktest.Layer) []byte { return l.COWD() },
		func(l disktest.Layer) []byte { return l.SeSparse(0) },
		hostedLayer,
	} {
		l := disktest.RandomLayer(size, 4096, uint64(52+i))
		c.files = append(c.files, write(l))
		want = l.Over(want)
	}
	return c, want
}

// hostedLayer writes the layer, in blocks of 4 KiB, as a hosted sparse extent.
func hostedLayer(l disktest.Layer) []byte {
	f := makeSparse(l.Bytes)
	for i, h := range l.Hold {
		if h == disktest.Absent {
			f.bytes = touch(f.bytes, f.tables+4*int64(i), u32(grainAbsent)...)
		} else if h == disktest.Zeros {
			f.bytes = touch(f.bytes, f.tables+4*int64(i), u32(grainZeros)...)
		}
	}
	return f.bytes
}

func TestChain(t *testing.T) {
	c, want := makeChain()
	for i := range c.files { // without a redundant directory to fall back on
		part := chain{c.base, c.files[:i+1]}
		d, err := part.open(part.files)
		if err != nil {
			t.Fatal(err)
		}
		if i == len(c.files)-1 {
			disktest.Same(t, d, want)
		}
	}
}

// TestDeltaDamage: every contradiction is an error that says what it is.
func TestDeltaDamage(t *testing.T) {
	l := disktest.RandomLayer(600<<10, 4096, 61)
	l.Hold[0], l.Bytes[0] = disktest.Stored, 1
	cowd, se := l.COWD(), l.SeSparse(0)
	cowdTable := int64(word(cowd, 4*sectorSize)&0xffffffff) * sectorSize
	// A directory in sector 1, and the table behind it, whose first entry is 1.
	cowdAt1 := append(u32(2), make([]byte, sectorSize-4)...)
	cowdAt1 = append(cowdAt1, u32(1)...)
	seTable := int64(word(se, 8*seWordTables)) * sectorSize
	seDirectory := int64(word(se, 8*seWordDirectory)) * sectorSize
	tests := []struct {
		name string
		good []byte
		b    []byte
		err  error
		says string
	}{
		{"COWD empty", cowd, nil, fault.ErrTruncated, "COWD header"},
		{"COWD magic", cowd, touch(cowd, 0, 'X'), fault.ErrDamaged, "no COWD header"},
		{"COWD version", cowd, touch(cowd, 4, u32(2)...), fault.ErrUnsupported, "version 2"},
		{"COWD capacity", cowd, touch(cowd, 12, u32(0)...), fault.ErrDamaged, "capacity"},
		{"COWD smaller than it is said", cowd, touch(cowd, 12, u32(8)...), fault.ErrDamaged, "8 sectors"},
		{"COWD grain of 0", cowd, touch(cowd, 16, u32(0)...), fault.ErrDamaged, "grain size"},
		{"COWD grain of 3", cowd, touch(cowd, 16, u32(3)...), fault.ErrDamaged, "grain size"},
		{"COWD grain of 2 TiB", cowd, touch(cowd, 16, u32(1<<31)...), fault.ErrDamaged, "grain size"},
		{"COWD directory nowhere", cowd, touch(cowd, 20, u32(0)...), fault.ErrDamaged, "directory is 0"},
		{"COWD directory far", cowd, touch(cowd, 20, u32(1<<31)...), fault.ErrTruncated, "grain directory"},
		{"COWD directory short", cowd, touch(cowd, 24, u32(0)...), fault.ErrDamaged, "number of entries"},
		{"COWD table far", cowd, touch(cowd, 4*sectorSize, u32(1<<31)...), fault.ErrTruncated, "grain table 0"},
		{"COWD grain far", cowd, touch(cowd, cowdTable, u32(1<<31)...), fault.ErrTruncated, "grain 0"},
		{"COWD grain in the header", cowd, touch(cowd, cowdTable, u32(1)...), fault.ErrDamaged, "grain 0"},
		{"COWD grain in a directory at 1", cowd, touch(touch(cowd, 20, u32(1)...), sectorSize, cowdAt1...), fault.ErrDamaged, "grain 0"},
		{"COWD cut", cowd, cowd[:len(cowd)-100], fault.ErrTruncated, "grain 0"}, // the first lies last

		{"seSparse empty", se, nil, fault.ErrTruncated, "seSparse header"},
		{"seSparse magic", se, touch(se, 4, 1), fault.ErrDamaged, "no seSparse header"},
		{"seSparse version", se, touch(se, 8, u64(0x300000001)...), fault.ErrUnsupported, "version 0x300000001"},
		{"seSparse capacity", se, touch(se, 16, u64(1<<60)...), fault.ErrDamaged, "capacity"},
		{"seSparse capacity of 1 PiB", se, touch(se, 16, u64(maxReadSectors)...), fault.ErrDamaged, "grain directory of 1 sectors"},
		{"seSparse grain", se, touch(se, 24, u64(1<<63)...), fault.ErrDamaged, "grain size"},
		{"seSparse table size", se, touch(se, 32, u64(32)...), fault.ErrUnsupported, "grain tables"},
		{"seSparse flags", se, touch(se, 40, u64(1)...), fault.ErrUnsupported, "flags"},
		{"seSparse volatile header far", se, touch(se, 80, u64(1<<40)...), fault.ErrTruncated, "volatile header"},
		{"seSparse volatile header beyond any number", se, touch(se, 80, u64(1<<63)...), fault.ErrDamaged, "volatile header"},
		{"seSparse volatile magic", se, touch(se, sectorSize, 1), fault.ErrDamaged, "volatile header"},
		{"seSparse not closed", se, touch(se, sectorSize+24, 1), fault.ErrUnsupported, "journal"},
		{"seSparse directory far", se, touch(se, 8*seWordDirectory, u64(1<<62)...), fault.ErrTruncated, "grain directory"},
		{"seSparse tables nowhere", se, touch(se, 8*seWordTables, u64(0)...), fault.ErrDamaged, "grain tables is 0"},
		{"seSparse grains nowhere", se, touch(se, 8*seWordGrains, u64(1<<62)...), fault.ErrDamaged, "place of the grains"},
		{"seSparse grains in sector 1", se, touch(touch(se, 8*seWordGrains, u64(1)...), seTable, u64(3<<60)...), fault.ErrDamaged, "place of the grains"},
		{"seSparse table state", se, touch(se, seDirectory, u64(2<<60)...), fault.ErrDamaged, "grain directory"},
		{"seSparse table number", se, touch(se, seDirectory, u64(1<<60|1<<40)...), fault.ErrDamaged, "grain directory"},
		{"seSparse table far", se, touch(se, seDirectory, u64(1<<60|0xffffffff)...), fault.ErrTruncated, "grain table 0"},
		{"seSparse grain state", se, touch(se, seTable, u64(4<<60)...), fault.ErrDamaged, "grain 0: "},
		{"seSparse absent grain with a number", se, touch(se, seTable, u64(7)...), fault.ErrDamaged, "grain 0: "},
		{"seSparse grain far", se, touch(se, seTable, u64(3<<60|1<<20)...), fault.ErrTruncated, "grain 0 lies"},
		{"seSparse grain beyond any number", se, touch(se, seTable, u64(3<<60|1<<47)...), fault.ErrDamaged, "grain 0: "},
		{"seSparse cut", se, se[:len(se)-100], fault.ErrTruncated, "grain 0"},
	}
	base := disktest.Pattern(600<<10, 62)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := chain{base, [][]byte{tt.b}}.open([][]byte{tt.good})
			if err == nil {
				_, err = d.ReadAt(make([]byte, d.Size()), 0)
			}
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error is %v, want one that is %q and says %q", err, tt.err, tt.says)
			}
		})
	}
	sick := errors.New("bad sector")
	text := deltaText("VMFSSPARSE", uint64(len(base)/sectorSize))
	d, err := Open(bytes.NewReader(text), int64(len(text)), Files{
		Extent: func(string) (Extent, error) { return disktest.Memory(cowd), nil },
		Parent: func(string) (Parent, error) { return sickParent{parentOf{base, 0xcafe}, sick}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadAt(make([]byte, d.Size()), 0); !errors.Is(err, sick) || !strings.Contains(err.Error(), "parent") {
		t.Errorf("a parent that can't be read: %v, want %v and the parent", err, sick)
	}
	if _, _, err := d.NextData(4096); !errors.Is(err, sick) {
		t.Errorf("a parent that can't tell its data: %v, want %v", err, sick)
	}
}

type sickParent struct {
	parentOf
	err error
}

func (p sickParent) ReadAt([]byte, int64) (int, error)            { return 0, p.err }
func (p sickParent) NextData(int64) (start, end int64, err error) { return 0, 0, p.err }

// TestParentAskedOnce: a walk over many small pieces looks through a hole of the
// parent once, not once for each piece.
func TestParentAskedOnce(t *testing.T) {
	l := disktest.RandomLayer(4<<20, 4096, 81)
	for i := range l.Hold {
		l.Hold[i] = []disktest.Hold{disktest.Absent, disktest.Stored}[i%2]
	}
	extent := l.SeSparse(0)
	text := deltaText("SESPARSE", uint64(len(l.Bytes)/sectorSize))
	parent := &asked{parentOf: parentOf{make([]byte, len(l.Bytes)), 0xcafe}}
	d, err := Open(bytes.NewReader(text), int64(len(text)), Files{
		Extent: func(string) (Extent, error) { return disktest.Memory(extent), nil },
		Parent: func(string) (Parent, error) { return parent, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	pieces := disktest.Pieces(t, d)
	if pieces != 512 || parent.times != 1 {
		t.Fatalf("%d pieces and %d questions to the parent, want 512 and 1", pieces, parent.times)
	}
}

type asked struct {
	parentOf
	times int
}

func (a *asked) NextData(off int64) (start, end int64, err error) {
	a.times++
	return a.parentOf.NextData(off)
}

// TestCorruptDeltas damages the tables and headers of a chain in 1,000 ways:
// what comes is an error or the whole of the disk, soon and in little memory.
func TestCorruptDeltas(t *testing.T) {
	good, _ := makeChain()
	readable := 0
	for seed := range uint64(1000) {
		c := good.corrupt(rand.New(rand.NewPCG(seed, 9)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		d, err := c.open(good.files)
		if err == nil {
			err = disktest.Probe(t, d, make([]byte, 1<<20), 1000)
		}
		if err == nil {
			readable++
		}
		runtime.ReadMemStats(&after)
		if took, grown := time.Since(began), after.TotalAlloc-before.TotalAlloc; took > 10*time.Second || grown > 64<<20 {
			t.Errorf("seed %d: %v, %s and %d bytes of memory", seed, err, took, grown)
		}
		if err != nil && !errors.Is(err, fault.ErrDamaged) && !errors.Is(err, fault.ErrTruncated) && !errors.Is(err, fault.ErrUnsupported) {
			t.Errorf("seed %d: %v is no error that says what is wrong", seed, err)
		}
	}
	if readable < 50 || readable > 950 {
		t.Errorf("%d of 1000 damaged chains are readable: the damage is not what it should be", readable)
	}
}

// corrupt writes into what comes before the grains of one file of the chain.
func (c chain) corrupt(r *rand.Rand) chain {
	i := r.IntN(len(c.files))
	b := bytes.Clone(c.files[i])
	meta := min(len(b), 48<<10)
	for range 1 + r.IntN(4) {
		at := r.IntN(meta)
		if r.IntN(2) == 0 {
			at = r.IntN(min(meta, 1024)) // the headers
		}
		switch r.IntN(4) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			copy(b[at:], u64(r.Uint64()>>r.IntN(64)))
		case 2:
			copy(b[at/8*8:], u64(uint64(r.Int64N(int64(len(b))))))
		case 3:
			clear(b[at:min(at+r.IntN(4096), len(b))])
		}
	}
	files := append([][]byte(nil), c.files...)
	files[i] = b
	return chain{c.base, files}
}

// FuzzDelta reads any extent of a delta.
func FuzzDelta(f *testing.F) {
	l := disktest.RandomLayer(64<<10, 4096, 71)
	for _, b := range [][]byte{l.COWD(), l.SeSparse(0), hostedLayer(l)} {
		f.Add(b)
	}
	base := disktest.Pattern(64<<10, 72)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := chain{base, [][]byte{b}}.open([][]byte{b})
		if err != nil {
			return
		}
		defer d.Close()
		disktest.Probe(t, d, make([]byte, 100<<10), 20) //nolint:errcheck // any error will do
	})
}
