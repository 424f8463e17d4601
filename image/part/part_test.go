package part_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/image/part"
	"holdfast/internal/testreq"
)

var le = binary.LittleEndian

// sparse is a disk of which most is zeros.
type sparse struct {
	size   int64
	pieces map[int64][]byte // by offset
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for at, b := range s.pieces {
		lo, hi := max(at, off), min(at+int64(len(b)), off+int64(len(p)))
		if lo < hi {
			copy(p[lo-off:hi-off], b[lo-at:])
		}
	}
	if off+int64(len(p)) > s.size {
		return int(max(0, s.size-off)), io.EOF
	}
	return len(p), nil
}

// disk makes a disk image with a table that fdisk writes from an sfdisk script.
// (sfdisk itself takes sectors of 4096 only from a real disk.)
func disk(t *testing.T, size int64, script string, sectorBytes int64) string {
	t.Helper()
	testreq.Need(t, "fdisk")
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".script", []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "I\n"+path+".script\nw\n", "fdisk", "-b", fmt.Sprint(sectorBytes), path)
	return path
}

func run(t *testing.T, script string, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Stdin = strings.NewReader(script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, stderr.Bytes())
	}
	return out
}

func readFile(t *testing.T, path string) *part.Table {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := part.Read(f, info.Size(), part.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

var (
	dumpLine = regexp.MustCompile(`(?m)^(label|label-id|sector-size): (?:0x)?(.*)$`)
	partLine = regexp.MustCompile(`(?m)^.*disk(\d+) : start= *(\d+), size= *(\d+), type=([^, \n]+)(?:, uuid=([^, \n]+))?(?:, name="(.*)")?`)
	escaped  = regexp.MustCompile(`\\x[0-9a-f]{2}`)
)

// compare holds what Read says against what fdisk says of the same disk.
func compare(t *testing.T, path string, got *part.Table, sectorBytes int64) {
	t.Helper()
	run(t, "O\n"+path+".dump\nq\n", "fdisk", "-b", fmt.Sprint(sectorBytes), path)
	dump, err := os.ReadFile(path + ".dump")
	if err != nil {
		t.Fatal(err)
	}
	head := map[string]string{}
	for _, m := range dumpLine.FindAllStringSubmatch(string(dump), -1) {
		head[m[1]] = m[2]
	}
	kind := map[string]string{"gpt": "gpt", "dos": "mbr"}[head["label"]]
	if got.Kind != kind || head["sector-size"] != fmt.Sprint(got.SectorBytes) || !strings.EqualFold(head["label-id"], got.ID) {
		t.Errorf("%s, sectors of %d, %s; want %v", got.Kind, got.SectorBytes, got.ID, head)
	}
	var wants, gots []string
	for _, m := range partLine.FindAllStringSubmatch(string(dump), -1) {
		typ, id := strings.ToLower(m[4]), strings.ToLower(m[5])
		if kind == "mbr" {
			if typ == "5" || typ == "f" {
				continue // the box itself is no partition of ours
			}
			typ, id = "0x"+typ, fmt.Sprintf("%s-%02s", got.ID, m[1])
		}
		name := escaped.ReplaceAllStringFunc(m[6], func(s string) string {
			b, _ := hex.DecodeString(s[2:])
			return string(b)
		})
		wants = append(wants, fmt.Sprintf("%s: %s+%s %s %s %q", m[1], m[2], m[3], typ, id, name))
	}
	for _, p := range got.Partitions {
		gots = append(gots, fmt.Sprintf("%d: %d+%d %s %s %q", p.Number, p.Off/sectorBytes, p.Size/sectorBytes, p.Type, p.ID, p.Name))
	}
	if diff := cmp.Diff(wants, gots); diff != "" {
		t.Errorf("%s\n%s", diff, dump)
	}
}

const gptScript = `label: gpt
size=2MiB, type=U, name="EFI Systempartition ü"
size=1MiB, type=L
size=1MiB, type=S, name="swap"
size=3MiB, type=V
type=L, name="🦊 the rest, up to 36 characters...."
`

const mbrScript = `label: dos
size=2MiB, type=c, bootable
size=1MiB, type=82
size=12MiB, type=f
type=83
size=1MiB, type=83
size=2MiB, type=8e
size=1MiB, type=7
size=1MiB, type=fd
`

func TestTools(t *testing.T) {
	const size = 32 << 20
	tests := []struct {
		name, script string
		sector       int64
		notes        int
		after        []string // a program to run on it then
	}{
		{"GPT", gptScript, 512, 0, nil},
		{"GPT with sectors of 4096", gptScript, 4096, 0, nil},
		{"MBR with logical partitions", mbrScript, 512, 0, nil},
		{"MBR without partitions", "label: dos\n", 512, 0, nil},
		{"GPT without partitions", "label: gpt\n", 512, 0, nil},
		{"GPT whose entries are out of order and have gaps", "label: gpt\nstart=8MiB, size=1MiB\nstart=2MiB, size=1MiB\n", 512, 0, nil},
		{"first logical partition removed", mbrScript, 512, 0, []string{"sfdisk", "--delete", "", "5"}},
		{"GPT of 200 entries, one removed", "label: gpt\ntable-length: 200\nsize=1MiB\nsize=1MiB\nsize=1MiB\n", 512, 0, []string{"sfdisk", "--delete", "", "2"}},
		{"hybrid MBR", gptScript, 512, 1, []string{"sgdisk", "-h", "1:2", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := disk(t, size, tt.script, tt.sector)
			if tt.after != nil {
				argv := slices.Clone(tt.after)
				argv[slices.Index(argv, "")] = path
				testreq.Need(t, argv[0])
				run(t, "", argv...)
			}
			got := readFile(t, path)
			compare(t, path, got, tt.sector)
			if len(got.Notes) != tt.notes {
				t.Errorf("notes %q, want %d", got.Notes, tt.notes)
			}
		})
	}
}

// TestGPTDamage breaks one copy of a GPT and expects the same partitions.
func TestGPTDamage(t *testing.T) {
	const size = 32 << 20
	for _, sector := range []int64{512, 4096} {
		tests := []struct {
			name   string
			damage func(f *os.File)
			note   string
		}{
			{"first header wiped", func(f *os.File) { write(t, f, make([]byte, 64), sector) }, "the copy in sector"},
			{"first header changed", func(f *os.File) { flip(t, f, sector+56) }, "checksum"},
			{"first entries changed", func(f *os.File) { flip(t, f, 2*sector+100) }, "checksum of its entries"},
			{"first megabyte wiped", func(f *os.File) { write(t, f, make([]byte, 1<<20), 0) }, "no MBR before it"},
			{"copy wiped", func(f *os.File) { write(t, f, make([]byte, sector), size-sector) }, "the copy of the GPT"},
			{"copy's entries changed", func(f *os.File) { flip(t, f, size-sector-16<<10) }, "the copy of the GPT"},
			{"disk grown", func(f *os.File) { truncate(t, f, size+1<<20) }, "larger or smaller"},
			{"disk grown and first header changed", func(f *os.File) {
				flip(t, f, sector+56)
				truncate(t, f, size+1<<20)
			}, "the copy in sector"},
			{"disk grown and first header wiped", func(f *os.File) {
				write(t, f, make([]byte, sector), sector)
				truncate(t, f, size+1<<20)
			}, "the copy in sector"},
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%d, %s", sector, tt.name), func(t *testing.T) {
				path := disk(t, size, gptScript, sector)
				want := readFile(t, path)
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				tt.damage(f)
				got := readFile(t, path)
				if !strings.Contains(strings.Join(got.Notes, "\n"), tt.note) {
					t.Errorf("notes %q, want %q", got.Notes, tt.note)
				}
				t.Logf("%q", got.Notes)
				got.Notes = nil
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func write(t *testing.T, f *os.File, b []byte, off int64) {
	t.Helper()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// flip changes the byte at off.
func flip(t *testing.T, f *os.File, off int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	write(t, f, []byte{^b[0]}, off)
}

func truncate(t *testing.T, f *os.File, size int64) {
	t.Helper()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// mbrSector makes a sector of up to four entries: type, first, count.
func mbrSector(entries ...[3]uint32) []byte {
	b := make([]byte, 512)
	for i, e := range entries {
		at := b[446+16*i:]
		at[4] = byte(e[0])
		le.PutUint32(at[8:], e[1])
		le.PutUint32(at[12:], e[2])
	}
	copy(b[510:], "\x55\xaa")
	return b
}

// gptSectors makes a protecting MBR, a header and entries, each a first and a
// last sector; change may do something to the header before its checksum.
func gptSectors(size int64, change func(h []byte), entries ...[2]uint64) map[int64][]byte {
	array := make([]byte, 128*128)
	for i, e := range entries {
		b := array[128*i:]
		copy(b, "\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4")
		b[16] = byte(i + 1)
		le.PutUint64(b[32:], e[0])
		le.PutUint64(b[40:], e[1])
	}
	header := func(lba, alt, entries uint64) []byte {
		h := make([]byte, 512)
		copy(h, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
		le.PutUint64(h[24:], lba)
		le.PutUint64(h[32:], alt)
		le.PutUint64(h[72:], entries)
		le.PutUint32(h[80:], 128)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(array))
		if change != nil {
			change(h)
		}
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(512, le.Uint32(h[12:]))]))
		return h
	}
	last := uint64(size/512) - 1
	return map[int64][]byte{
		0:             mbrSector([3]uint32{0xee, 1, uint32(last)}),
		512:           header(1, last, 2),
		1024:          array,
		size - 512:    header(last, 1, last-32),
		size - 33*512: array,
	}
}

func TestMadeUp(t *testing.T) {
	const size = 64 << 20
	const sectors = size / 512
	linux := func(number int, first, count int64) part.Partition {
		return part.Partition{Number: number, Off: first * 512, Size: count * 512, Type: "0x83"}
	}
	tests := []struct {
		name   string
		pieces map[int64][]byte
		known  map[int64]bool
		kind   string
		sector int
		want   []part.Partition
		notes  []string // a part of each
	}{
		{name: "zeros"},
		{name: "text", pieces: map[int64][]byte{0: bytes.Repeat([]byte("text"), 128)}},
		{name: "signature alone", pieces: map[int64][]byte{0: mbrSector()}, kind: "mbr"},
		{name: "signature alone, with a file system", pieces: map[int64][]byte{0: mbrSector()}, known: map[int64]bool{0: true}},
		{name: "boot sector with text in place of entries",
			pieces: map[int64][]byte{0: append(append(make([]byte, 400), bytes.Repeat([]byte("boot"), 27)...), 0, 0, 0x55, 0xaa)},
			notes:  []string{"can't be partitions"}},
		{name: "the entry that mkfs.vfat writes", pieces: map[int64][]byte{0: mbrSector([3]uint32{0xc, 0, sectors})}, known: map[int64]bool{0: true}},
		{name: "a partition behind the end, one over it, and an odd one",
			pieces: map[int64][]byte{0: mbrSector([3]uint32{0x83, 2048, 2048}, [3]uint32{0x83, sectors + 1, 10}, [3]uint32{0x83, 8192, sectors}, [3]uint32{0xff, 4096, 0})},
			kind:   "mbr",
			want: []part.Partition{
				linux(1, 2048, 2048),
				{Number: 2, Type: "0x83", Why: fmt.Sprintf("begins in sector %d, but the disk has only %d", sectors+1, sectors)},
				linux(3, 8192, sectors-8192),
			},
			notes: []string{"partition 3 ends 8192 sectors behind"}},
		{name: "partitions that overlap", pieces: map[int64][]byte{0: mbrSector([3]uint32{0x83, 2048, 20000}, [3]uint32{0x83, 4096, 100}, [3]uint32{0x83, 9000, 100})},
			kind: "mbr", want: []part.Partition{linux(1, 2048, 20000), linux(2, 4096, 100), linux(3, 9000, 100)},
			notes: []string{"partitions 1 and 2 overlap", "partitions 1 and 3 overlap"}},
		{name: "a chain of logical partitions that is a loop",
			pieces: map[int64][]byte{
				0:           mbrSector([3]uint32{0x5, 2048, 20000}),
				2048 * 512:  mbrSector([3]uint32{0x83, 10, 100}, [3]uint32{0x5, 1000, 200}),
				3048 * 512:  mbrSector([3]uint32{0x83, 10, 100}, [3]uint32{0x5, 0, 200}),
				99999 * 512: mbrSector(),
			},
			kind: "mbr", want: []part.Partition{linux(5, 2058, 100), linux(6, 3058, 100)}, notes: []string{"leads back"}},
		{name: "a chain that leads nowhere",
			pieces: map[int64][]byte{
				0:          mbrSector([3]uint32{0x5, 2048, 20000}),
				2048 * 512: mbrSector([3]uint32{0x83, 10, 100}, [3]uint32{0x5, 1000, 200}),
			},
			kind: "mbr", want: []part.Partition{linux(5, 2058, 100)}, notes: []string{"no link"}},
		{name: "a chain that leaves the disk",
			pieces: map[int64][]byte{
				0:          mbrSector([3]uint32{0x83, 1, 100}, [3]uint32{0x5, 2048, 20000}),
				2048 * 512: mbrSector([3]uint32{0x83, 10, 100000}, [3]uint32{0x5, sectors, 200}),
			},
			kind: "mbr", want: []part.Partition{linux(1, 1, 100), linux(5, 2058, 100000)}, notes: []string{"not wholly", "behind the disk's end"}},
		{name: "an empty link between two",
			pieces: map[int64][]byte{
				0:          mbrSector([3]uint32{0xf, 2048, 20000}),
				2048 * 512: mbrSector([3]uint32{}, [3]uint32{0x5, 1000, 200}),
				3048 * 512: mbrSector([3]uint32{0x83, 10, 100}),
			},
			kind: "mbr", want: []part.Partition{linux(5, 3058, 100)}},
		{name: "MBR that counts in 4096, by what is there",
			pieces: map[int64][]byte{0: mbrSector([3]uint32{0x83, 256, 1000}, [3]uint32{0x83, 1256, 1000})}, known: map[int64]bool{256 * 4096: true},
			kind: "mbr", sector: 4096,
			want: []part.Partition{
				{Number: 1, Off: 256 * 4096, Size: 1000 * 4096, Type: "0x83"},
				{Number: 2, Off: 1256 * 4096, Size: 1000 * 4096, Type: "0x83"},
			}},
		{name: "MBR that counts in 4096, by its logical partition",
			pieces: map[int64][]byte{
				0:          mbrSector([3]uint32{0x5, 256, 1000}),
				256 * 4096: mbrSector([3]uint32{0x83, 10, 100}),
			},
			kind: "mbr", sector: 4096, want: []part.Partition{{Number: 5, Off: 266 * 4096, Size: 100 * 4096, Type: "0x83"}}},
		{name: "partitions on what looks like a file system", pieces: map[int64][]byte{0: mbrSector([3]uint32{0x83, 2048, 2048})}, known: map[int64]bool{0: true},
			kind: "mbr", want: []part.Partition{linux(1, 2048, 2048)}, notes: []string{"looks like a file system too"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &sparse{size, tt.pieces}
			got, err := part.Read(d, size, part.Options{Known: func(off, _ int64) bool { return tt.known[off] }})
			if err != nil {
				t.Fatal(err)
			}
			if got.Kind != tt.kind || got.SectorBytes != max(512, tt.sector) {
				t.Errorf("%q, sectors of %d; want %q, %d", got.Kind, got.SectorBytes, tt.kind, tt.sector)
			}
			if diff := cmp.Diff(tt.want, got.Partitions); diff != "" {
				t.Error(diff)
			}
			checkNotes(t, got.Notes, tt.notes)
		})
	}
}

func checkNotes(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("notes %q, want %q", got, want)
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("note %q, want %q", got[i], want[i])
		}
	}
}

func TestMadeUpGPT(t *testing.T) {
	const size = 64 << 20
	const sectors = size / 512
	tests := []struct {
		name    string
		change  func(h []byte)
		entries [][2]uint64
		want    []string
		notes   []string
		err     string
	}{
		{name: "as it should be", entries: [][2]uint64{{2048, 4095}, {4096, 9999}}, want: []string{"1: 2048+2048", "2: 4096+5904"}},
		{name: "over the end", entries: [][2]uint64{{2048, sectors + 9}}, want: []string{"1: 2048+129024"}, notes: []string{"10 sectors behind"}},
		{name: "behind the end", entries: [][2]uint64{{2048, 4095}, {1 << 60, 1 << 61}}, want: []string{"1: 2048+2048", "2: begins in sector 1152921504606846976, but the disk has only 131072"}},
		{name: "backwards", entries: [][2]uint64{{4096, 2048}}, want: []string{"1: ends before it begins"}},
		{name: "the whole of 64 bits", entries: [][2]uint64{{0, 1<<64 - 1}}, want: []string{"1: ends before it begins"}},
		{name: "overlap", entries: [][2]uint64{{2048, 4096}, {4096, 5000}}, want: []string{"1: 2048+2049", "2: 4096+905"}, notes: []string{"overlap"}},
		{name: "header of 8 bytes", change: func(h []byte) { h[12] = 8 }, err: "a header of 8 bytes"},
		{name: "header of 4 GiB", change: func(h []byte) { le.PutUint32(h[12:], 1<<32-1) }, err: "a header of 4294967295 bytes"},
		{name: "entries of 64 bytes", change: func(h []byte) { h[84] = 64 }, err: "entries of 64 bytes"},
		{name: "too many entries", change: func(h []byte) { le.PutUint32(h[80:], 1<<31) }, err: "too many"},
		{name: "entries behind the end", change: func(h []byte) { le.PutUint64(h[72:], 1<<63) }, err: "not on the disk"},
		{name: "another sector", change: func(h []byte) { h[24] += 5 }, err: "it belongs in sector 6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &sparse{size, gptSectors(size, tt.change, tt.entries...)}
			table, err := part.Read(d, size, part.Options{})
			if tt.err != "" {
				if !errors.Is(err, part.ErrDamaged) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range table.Partitions {
				s := fmt.Sprintf("%d: %d+%d", p.Number, p.Off/512, p.Size/512)
				if p.Why != "" {
					s = fmt.Sprintf("%d: %s", p.Number, p.Why)
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			checkNotes(t, table.Notes, tt.notes)
		})
	}
}

// TestLargeEntries reads entries of 256 bytes.
func TestLargeEntries(t *testing.T) {
	const size = 64 << 20
	pieces := gptSectors(size, func(h []byte) {
		le.PutUint32(h[80:], 64)
		le.PutUint32(h[84:], 256)
	}, [2]uint64{2048, 4095}, [2]uint64{}, [2]uint64{8192, 9000})
	got, err := part.Read(&sparse{size, pieces}, size, part.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, p := range got.Partitions {
		numbers = append(numbers, p.Number)
	}
	if diff := cmp.Diff([]int{1, 2}, numbers); diff != "" {
		t.Error(diff)
	}
}

// failing is a disk whose every read but those of sector 0 fails.
type failing struct{ sparse }

var errBroken = errors.New("broken disk")

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, errBroken
	}
	return f.sparse.ReadAt(p, off)
}

func TestReadErrors(t *testing.T) {
	const size = 1 << 20
	_, err := part.Read(&failing{sparse{size, gptSectors(size, nil)}}, size, part.Options{})
	if err == nil || !strings.Contains(err.Error(), errBroken.Error()) {
		t.Errorf("GPT: %v", err)
	}
	_, err = part.Read(&failing{sparse{size, map[int64][]byte{0: mbrSector([3]uint32{5, 100, 100})}}}, size, part.Options{})
	if !errors.Is(err, errBroken) {
		t.Errorf("logical partitions: %v", err)
	}
	for n := range int64(600) {
		if _, err := part.Read(&sparse{size: n}, n, part.Options{}); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	const size = 64 << 10
	add := func(pieces map[int64][]byte) {
		b := make([]byte, size)
		for at, p := range pieces {
			copy(b[at:], p)
		}
		f.Add(b)
	}
	add(gptSectors(size, nil, [2]uint64{40, 60}, [2]uint64{50, 90}))
	add(map[int64][]byte{
		0:        mbrSector([3]uint32{0x5, 10, 100}, [3]uint32{0x83, 2, 3}),
		10 * 512: mbrSector([3]uint32{0x83, 1, 1}, [3]uint32{0x5, 5, 5}),
		15 * 512: mbrSector([3]uint32{0x83, 1, 1}, [3]uint32{0x5, 5, 5}),
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		size := int64(len(b))
		table, err := part.Read(bytes.NewReader(b), size, part.Options{Known: func(off, n int64) bool {
			return off < size && len(b) > 0 && b[off]&1 == 1
		}})
		if err != nil {
			return
		}
		for _, p := range table.Partitions {
			if p.Why == "" && (p.Off < 0 || p.Size <= 0 || p.Off > size-p.Size) {
				t.Errorf("partition %+v of a disk of %d bytes", p, size)
			}
		}
	})
}
