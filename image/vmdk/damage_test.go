package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/image/internal/fault"
)

// sparseFile is a monolithicSparse disk as a table test wants it: every place
// is known. Grains are 4 KiB and lie in the reverse order of the disk.
type sparseFile struct {
	bytes                []byte
	directory, redundant int64 // bytes
	tables               int64 // bytes, of the first grain table
}

func makeSparse(content []byte) sparseFile {
	const grain = minGrainSectors * sectorSize
	h := header{
		version: 1, flags: flagNewlines | flagRedundant | flagZeroGrains, capacity: uint64(len(content) / sectorSize),
		grainSectors: minGrainSectors, descriptorOffset: 1, descriptorSectors: 2, entriesPerTable: entriesPerTable,
		redundantOffset: 3,
	}
	n := h.tables()
	directorySectors := sectorsOf(n * 4)
	redundantTables := 3 + directorySectors
	h.directoryOffset = uint64(redundantTables + 4*n)
	tables := int64(h.directoryOffset) + directorySectors
	h.overhead = uint64(tables + 4*n)

	f := sparseFile{directory: int64(h.directoryOffset) * sectorSize, redundant: 3 * sectorSize, tables: tables * sectorSize}
	f.bytes = make([]byte, h.overhead*sectorSize)
	copy(f.bytes, h.encode())
	text := descriptorText("monolithicSparse", `RW 1 SPARSE "a.vmdk"`, int64(len(content)), 1)
	copy(f.bytes[sectorSize:], text)
	for i := range n {
		binary.LittleEndian.PutUint32(f.bytes[f.redundant+4*i:], uint32(redundantTables+4*i))
		binary.LittleEndian.PutUint32(f.bytes[f.directory+4*i:], uint32(tables+4*i))
	}
	for g := int64(len(content)-1) / grain; g >= 0; g-- {
		b := make([]byte, grain)
		copy(b, content[g*grain:])
		entry := uint32(grainZeros * (g % 2)) // zeros are told in both ways
		if disktest.Holes(b, grain) == 0 {
			entry = uint32(len(f.bytes) / sectorSize)
			f.bytes = append(f.bytes, b...)
		}
		binary.LittleEndian.PutUint32(f.bytes[f.tables+4*g:], entry)
		binary.LittleEndian.PutUint32(f.bytes[redundantTables*sectorSize+4*g:], entry)
	}
	return f
}

// touch returns a copy of b with p at off.
func touch(b []byte, off int64, p ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[off:], p)
	return b
}

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func TestSparse(t *testing.T) {
	want := disktest.Pattern(5<<20+7*512, 21)
	f := makeSparse(want)
	holes := disktest.Same(t, openBytes(t, f.bytes), want)
	if least := disktest.Holes(want, minGrainSectors*sectorSize); holes < least {
		t.Fatalf("%d bytes of holes, want at least %d", holes, least)
	}
}

// TestRedundant: whatever can be seen to be wrong in the first directory and
// its tables is read through the second.
func TestRedundant(t *testing.T) {
	want := disktest.Pattern(5<<20, 22)
	f := makeSparse(want)
	far := u32(0x7fffffff)
	for name, b := range map[string][]byte{
		"directory out of the file": touch(f.bytes, 56, u64(1<<40)...),
		"no directory":              touch(f.bytes, 56, u64(0)...),
		"table out of the file":     touch(f.bytes, f.directory+4, far...),
		"grain out of the file":     touch(f.bytes, f.tables+tableBytes, far...),
	} {
		t.Run(name, func(t *testing.T) { disktest.Same(t, openBytes(t, b), want) })
	}
	b := touch(f.bytes, f.directory+4, far...)
	b = touch(b, f.redundant+4, far...)
	if err := readAll(b); !errors.Is(err, fault.ErrTruncated) || !strings.Contains(err.Error(), "grain table 1") {
		t.Fatalf("both damaged: %v, want %v and the table", err, fault.ErrTruncated)
	}
}

// readAll opens b and reads all of it, by its data extents.
func readAll(b []byte) error {
	d, err := Open(bytes.NewReader(b), int64(len(b)), noExtents)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		start, end, err := d.NextData(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for ; start < end; start += int64(len(buf)) {
			if _, err := d.ReadAt(buf[:min(end-start, int64(len(buf)))], start); err != nil {
				return err
			}
		}
		off = end
	}
}

func TestDamage(t *testing.T) {
	content := disktest.Pattern(3<<20, 23)
	content[0] = 1
	sp := makeSparse(content)
	single := touch(sp.bytes, 8, u32(flagNewlines|flagZeroGrains)...) // no redundant directory
	st := stream1(t, content, 1)
	first := int64(streamOverhead * sectorSize) // marker of grain 0
	foot := int64(len(st)) - 2*sectorSize
	tests := []struct {
		name string
		b    []byte
		err  error
	}{
		{"empty", nil, fault.ErrDamaged},
		{"version", touch(single, 4, u32(4)...), fault.ErrUnsupported},
		{"capacity 0", touch(single, 12, u64(0)...), fault.ErrDamaged},
		{"capacity of 8 EiB", touch(single, 12, u64(1<<63)...), fault.ErrDamaged},
		{"capacity of 1 PiB", touch(single, 12, u64(maxReadSectors)...), fault.ErrTruncated},
		{"grain of 0", touch(single, 20, u64(0)...), fault.ErrDamaged},
		{"grain of 24", touch(single, 20, u64(24)...), fault.ErrDamaged},
		{"grain of 2^40", touch(single, 20, u64(1<<40)...), fault.ErrDamaged},
		{"entries", touch(single, 44, u32(1<<30)...), fault.ErrDamaged},
		{"directory at 0", touch(single, 56, u64(0)...), fault.ErrTruncated},
		{"directory far", touch(single, 56, u64(1<<62)...), fault.ErrTruncated},
		{"directory at the end, no stream", touch(single, 56, u64(directoryAtEnd)...), fault.ErrTruncated},
		{"descriptor far", touch(single, 28, u64(1<<62)...), fault.ErrTruncated},
		{"descriptor long", touch(single, 36, u64(1<<62)...), fault.ErrDamaged},
		{"no descriptor", touch(single, 28, u64(0)...), fault.ErrUnsupported},
		{"copied as text", touch(single, 73, '\n', ' ', '\n', '\n'), fault.ErrDamaged},
		{"compression", touch(single, 77, 9, 0), fault.ErrUnsupported},
		{"compressed without markers", touch(single, 8, u32(flagCompressed)...), fault.ErrUnsupported},
		{"cut in the tables", single[:sp.tables+100], fault.ErrTruncated},
		{"cut in the grains", single[:len(single)-100], fault.ErrTruncated},
		{"grain in the header", touch(touch(single, 8, u32(flagNewlines)...), sp.tables, u32(1)...), fault.ErrDamaged},

		{"stream cut in the footer", st[:len(st)-700], nil}, // the directory is there
		{"stream cut in the directory", st[:len(st)-4*sectorSize], fault.ErrTruncated},
		{"stream cut in half", st[:len(st)/2/sectorSize*sectorSize], fault.ErrTruncated},
		{"stream cut anywhere", st[:len(st)/2+77], fault.ErrTruncated},
		{"directory of the footer far", touch(st, foot+56, u64(1<<50)...), fault.ErrTruncated},
		{"footer says at the end", touch(st, foot+56, u64(directoryAtEnd)...), nil},
		{"marker of another grain", touch(st, first, u64(128)...), fault.ErrDamaged},
		{"grain of no bytes", touch(st, first+8, u32(0)...), fault.ErrDamaged},
		{"grain of 4 GiB", touch(st, first+8, u32(0xffffffff)...), fault.ErrDamaged},
		{"grain cut", touch(st, first+8, u32(30)...), fault.ErrDamaged},
		{"zlib header", touch(st, first+12, 0xff, 0xff), fault.ErrDamaged},
		{"zlib data", touch(st, first+40, 0xff, 0xff, 0xff), fault.ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := readAll(tt.b); !errors.Is(err, tt.err) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
		})
	}
}

// TestStreamWithoutFooter: the directory is found by its marker, and where there
// is none the grains are listed.
func TestStreamWithoutFooter(t *testing.T) {
	want := disktest.Pattern(34<<20, 24)
	st := stream1(t, want, 2)
	footer, err := readHeader(bytes.NewReader(st), int64(len(st))-2*sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	directoryMarker := int64(footer.directoryOffset-1) * sectorSize
	for name, b := range map[string][]byte{
		"padded":       append(bytes.Clone(st), make([]byte, 9<<10)...),
		"no footer":    append(bytes.Clone(st[:len(st)-3*sectorSize]), make([]byte, sectorSize)...),
		"no directory": append(bytes.Clone(st[:directoryMarker]), make([]byte, sectorSize)...),
	} {
		t.Run(name, func(t *testing.T) { disktest.Same(t, openBytes(t, b), want) })
	}
	if err := readAll(st[:directoryMarker]); !errors.Is(err, fault.ErrTruncated) {
		t.Fatalf("without an end: %v, want %v", err, fault.ErrTruncated)
	}
}

// TestFlippedBytes flips bytes of small disks: whatever comes is an error or
// bytes, soon.
func TestFlippedBytes(t *testing.T) {
	content := disktest.Pattern(1<<20, 25)
	r := rand.New(rand.NewPCG(3, 3))
	for _, good := range [][]byte{makeSparse(content).bytes, stream1(t, content, 1)} {
		for range 100 {
			b := bytes.Clone(good)
			for range 1 + r.IntN(8) {
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
			_ = readAll(b)
		}
	}
}

func FuzzOpen(f *testing.F) {
	content := disktest.Pattern(64<<10, 26) // small, or the fuzzer spends its time on making them smaller
	f.Add(makeSparse(content).bytes)
	f.Add(smallStream(f))
	text, err := FlatDescriptor("a.vmdk", 1<<20, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(descriptorMagic + "\ncreateType=x\nRW 8 SPARSE \"a\"\nRW 8 ZERO\nRW 100 VMFS \"b\" 3\n"))
	f.Add(deltaText("SPARSE", 100))
	extent := makeSparse(content).bytes
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Open(bytes.NewReader(b), int64(len(b)), Files{
			Extent: func(string) (Extent, error) { return disktest.Memory(extent), nil },
			Parent: func(string) (Parent, error) { return parentOf{content, 0xcafe}, nil },
		})
		if err != nil {
			return
		}
		defer d.Close()
		disktest.Probe(t, d, make([]byte, 100<<10), 20) //nolint:errcheck // any error will do
	})
}

// smallStream is a stream of 192 KiB of text without the usual empty room before
// the first grain.
func smallStream(f *testing.F) []byte {
	content := disktest.Memory(strings.Repeat("a line of a file\n", 3*64<<10/17))
	opt := StreamOptions{Name: "a.vmdk", Level: 1}
	var b bytes.Buffer
	s := newStream(&b, content.Size())
	s.h.overhead = 1 + streamDescriptorSectors
	err := errors.Join(s.begin(opt), packInOrder(context.Background(), content, opt, s.add), s.finish())
	if err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}
