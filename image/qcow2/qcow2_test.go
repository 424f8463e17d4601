package qcow2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/image/internal/fault"
)

// sample is the disk in testdata, which qemu-img 7.2 wrote.
func sample() []byte {
	b := make([]byte, 256<<10)
	copy(b[:20000], strings.Repeat("holdfast sample disk\n", 1000))
	var noise []byte
	for i := byte(0); len(noise) < 3000; i++ {
		sum := sha256.Sum256([]byte{i})
		noise = append(noise, sum[:]...)
	}
	copy(b[100<<10:], noise[:3000])
	copy(b[len(b)-512:], strings.Repeat("end.", 128))
	return b
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func noBacking(name, _ string) (Backing, error) { return nil, fmt.Errorf("%q: no such file", name) }

func openBytes(t testing.TB, b []byte, backing []byte) *Disk {
	t.Helper()
	d, err := Open(bytes.NewReader(b), int64(len(b)), func(name, format string) (Backing, error) {
		if name != "s.raw" || format != "raw" {
			t.Fatalf("backing file is %q of format %q, want s.raw and raw", name, format)
		}
		return disktest.Memory(backing), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSamples(t *testing.T) {
	want := sample()
	for _, name := range []string{"v2", "deflate", "zstd"} {
		t.Run(name, func(t *testing.T) {
			holes := disktest.Same(t, openBytes(t, testdata(t, name+".qcow2"), nil), want)
			if least := disktest.Holes(want, 4096); holes < least {
				t.Fatalf("%d bytes of holes, want at least %d", holes, least)
			}
		})
	}
	t.Run("overlay", func(t *testing.T) {
		over := append(bytes.Clone(want), make([]byte, 44<<10)...)
		copy(over, bytes.Repeat([]byte{1}, 1<<10))
		clear(over[8<<10 : 16<<10])
		disktest.Same(t, openBytes(t, testdata(t, "overlay.qcow2"), want), over)
	})
}

// made is an image put together here: one L2 table, extended entries, clusters
// of 16 KiB. Its disk has four clusters:
//
//	0  subclusters by turns held, zeros, absent
//	1  absent
//	2  held whole, in the file before the others
//	3  zeros whole, with a place kept for it
type made struct{ bytes, disk []byte }

const (
	madeCluster = 16 << 10
	madeL1      = 1 * madeCluster
	madeL2      = 2 * madeCluster
)

func makeExtended() made {
	m := made{bytes: make([]byte, 5*madeCluster), disk: make([]byte, 4*madeCluster)}
	be := binary.BigEndian
	b := m.bytes
	copy(b, magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 14)
	be.PutUint64(b[24:], uint64(len(m.disk)))
	be.PutUint32(b[36:], 1)
	be.PutUint64(b[40:], madeL1)
	be.PutUint64(b[72:], featureExtendedL2)
	be.PutUint32(b[100:], headerV3)
	be.PutUint64(b[madeL1:], madeL2|1<<63)
	const first, third = 4 * madeCluster, 3 * madeCluster
	var bitmap uint64
	for sub := range subclusters {
		switch sub % 3 {
		case 0:
			bitmap |= 1 << sub
			for i := range 512 {
				b[first+sub*512+i], m.disk[sub*512+i] = byte(sub+1), byte(sub+1)
			}
		case 1:
			bitmap |= 1 << (sub + 32)
		}
	}
	entry := func(i int, e, bitmap uint64) {
		be.PutUint64(b[madeL2+16*i:], e)
		be.PutUint64(b[madeL2+16*i+8:], bitmap)
	}
	entry(0, first, bitmap)
	entry(2, third, 0xffffffff)
	entry(3, third, 0xffffffff<<32)
	for i := range madeCluster {
		b[third+i], m.disk[2*madeCluster+i] = byte(i>>8)+1, byte(i>>8)+1
	}
	return m
}

func TestExtended(t *testing.T) {
	m := makeExtended()
	d := openBytes(t, m.bytes, nil)
	holes := disktest.Same(t, d, m.disk)
	if want := int64(21*512 + 2*madeCluster); holes != want {
		t.Fatalf("%d bytes of holes, want %d", holes, want)
	}
	d.backing = disktest.Memory(bytes.Repeat([]byte{99}, madeCluster+700))
	want := bytes.Clone(m.disk)
	for i := range madeCluster + 700 {
		if i >= madeCluster || i/512%3 == 2 {
			want[i] = 99
		}
	}
	disktest.Same(t, d, want)
}

func touch(b []byte, off int, p ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[off:], p)
	return b
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func readAll(b []byte) error {
	d, err := Open(bytes.NewReader(b), int64(len(b)), noBacking)
	if err != nil {
		return err
	}
	if d.Size() > 1<<24 {
		return nil
	}
	buf := make([]byte, d.Size())
	if _, err := d.ReadAt(buf, 0); err != nil && err != io.EOF {
		return err
	}
	for off := int64(0); ; {
		_, end, err := d.NextData(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		off = end
	}
}

func TestDamage(t *testing.T) {
	ext := makeExtended().bytes
	std := testdata(t, "deflate.qcow2")
	v2 := testdata(t, "v2.qcow2")
	be := binary.BigEndian
	l1 := int(be.Uint64(std[40:]))
	l2 := int(be.Uint64(std[l1:]) & entryPlace)
	stream := int(be.Uint64(std[l2:]) & (1<<58 - 1))
	v2l2 := int(be.Uint64(v2[be.Uint64(v2[40:]):]) & entryPlace)
	tests := []struct {
		name string
		b    []byte
		err  error
	}{
		{"empty", nil, fault.ErrTruncated},
		{"another magic", touch(std, 0, 'Q', 'E', 'D', 0), fault.ErrDamaged},
		{"version 1", touch(std, 4, u32(1)...), fault.ErrUnsupported},
		{"version 4", touch(std, 4, u32(4)...), fault.ErrUnsupported},
		{"clusters of 2^8", touch(std, 20, u32(8)...), fault.ErrDamaged},
		{"clusters of 2^62", touch(std, 20, u32(62)...), fault.ErrDamaged},
		{"extended entries in clusters of 4k", touch(std, 72, u64(featureExtendedL2)...), fault.ErrDamaged},
		{"disk of 8 EiB", touch(std, 24, u64(1<<63)...), fault.ErrDamaged},
		{"disk larger than its L1 table", touch(std, 24, u64(1<<49)...), fault.ErrDamaged},
		{"AES", touch(std, 32, u32(1)...), fault.ErrUnsupported},
		{"LUKS", touch(std, 32, u32(2)...), fault.ErrUnsupported},
		{"no L1 entries", touch(std, 36, u32(0)...), fault.ErrDamaged},
		{"L1 of 32 GiB", touch(std, 36, u32(0xffffffff)...), fault.ErrDamaged},
		{"L1 of 32 MiB", touch(std, 36, u32(maxL1Bytes/8)...), fault.ErrTruncated},
		{"L1 at 0", touch(std, 40, u64(0)...), fault.ErrDamaged},
		{"L1 unaligned", touch(std, 40, u64(0x1001)...), fault.ErrDamaged},
		{"L1 far", touch(std, 40, u64(1<<62)...), fault.ErrTruncated},
		{"corrupt", touch(std, 72, u64(featureCorrupt)...), fault.ErrDamaged},
		{"dirty", touch(std, 72, u64(featureDirty)...), nil},
		{"data file", touch(std, 72, u64(featureDataFile)...), fault.ErrUnsupported},
		{"feature of the future", touch(std, 72, u64(1<<40)...), fault.ErrUnsupported},
		{"compression without its bit", touch(std, 104, 1), fault.ErrDamaged},
		{"compression of the future", touch(std, 104, 2), fault.ErrUnsupported},
		{"header of 16", touch(std, 100, u32(16)...), fault.ErrDamaged},
		{"header of 4 GiB", touch(std, 100, u32(0xfffffff8)...), fault.ErrDamaged},
		{"backing name far", touch(touch(std, 8, u64(1<<40)...), 16, u32(10)...), fault.ErrDamaged},
		{"backing name long", touch(touch(std, 8, u64(1000)...), 16, u32(5000)...), fault.ErrDamaged},
		{"extension too long", touch(touch(touch(std, 8, u64(1000)...), 16, u32(5)...), 112, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff), fault.ErrDamaged},
		{"L2 unaligned", touch(std, l1, u64(0x1200)...), fault.ErrDamaged},
		{"L2 far", touch(std, l1, u64(1<<50)...), fault.ErrTruncated},
		{"cluster unaligned", touch(std, l2, u64(0x1200)...), fault.ErrDamaged},
		{"cluster far", touch(std, l2, u64(1<<50)...), fault.ErrTruncated},
		{"compressed cluster far", touch(std, l2, u64(entryPacked|1<<50)...), fault.ErrTruncated},
		{"compressed cluster damaged", touch(std, stream, 0xff, 0xff, 0xff), fault.ErrDamaged},
		{"compressed cluster elsewhere", touch(std, l2, u64(entryPacked|2)...), fault.ErrDamaged},
		{"zeros in version 2", touch(v2, v2l2, u64(1)...), fault.ErrDamaged},
		{"cut in the clusters", v2[:len(v2)-100], fault.ErrTruncated},
		{"cut in the L2 table", ext[:madeL2+8], fault.ErrTruncated},
		{"cut in the header", ext[:90], fault.ErrTruncated},
		{"subcluster both held and zeros", touch(ext, madeL2+8, u64(1<<32|1)...), fault.ErrDamaged},
		{"subcluster held nowhere", touch(ext, madeL2, u64(0)...), fault.ErrDamaged},
		{"extended entry with the zero bit", touch(ext, madeL2, u64(1)...), fault.ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := readAll(tt.b); !errors.Is(err, tt.err) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
		})
	}
}

// TestFlippedBytes flips bytes of small disks: whatever comes is an error or
// bytes, soon.
func TestFlippedBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, good := range seeds(t) {
		for range 200 {
			b := bytes.Clone(good)
			for range 1 + r.IntN(8) {
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
			_ = readAll(b)
		}
	}
}

func seeds(t testing.TB) [][]byte {
	all := [][]byte{makeExtended().bytes}
	for _, name := range []string{"v2", "deflate", "zstd", "overlay"} {
		all = append(all, testdata(t, name+".qcow2"))
	}
	return all
}

func FuzzOpen(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	below := disktest.Memory(disktest.Pattern(64<<10, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Open(bytes.NewReader(b), int64(len(b)), func(string, string) (Backing, error) { return below, nil })
		if err != nil {
			return
		}
		defer d.Close()
		buf := make([]byte, 40<<10)
		disktest.Probe(t, d, buf, 20) //nolint:errcheck // any error will do
	})
}

// TestBackingAskedOnce: a walk over many small pieces looks through a hole of the
// backing file once, not once for each piece.
func TestBackingAskedOnce(t *testing.T) {
	m := makeExtended()
	below := &askedBacking{Memory: make([]byte, len(m.disk))}
	d := openBytes(t, m.bytes, nil)
	d.backing = below
	pieces := disktest.Pieces(t, d)
	if pieces != 12 || below.times != 1 {
		t.Fatalf("%d pieces and %d questions to the backing file, want 12 and 1", pieces, below.times)
	}
}

type askedBacking struct {
	disktest.Memory
	times int
}

func (a *askedBacking) NextData(off int64) (start, end int64, err error) {
	a.times++
	return a.Memory.NextData(off)
}
