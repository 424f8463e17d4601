package vhdx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/image/internal/fault"
	"holdfast/internal/testreq"
)

// crashed is a made disk whose log is to be replayed.
type crashed struct {
	*paged
	p    places
	guid GUID
	want []byte // of the disk, without the log
}

// makeCrashed makes a disk of eight blocks of which every second is held.
func makeCrashed(seed uint64) crashed {
	content := disktest.Pattern(8*mib, seed)
	held := func(b int64) state {
		if b%2 == 0 {
			return fullyPresent
		}
		return notPresent
	}
	f, p := makeDisk(made{size: 8 * mib, content: of(content), held: held})
	for b := range int64(8) {
		if held(b) == notPresent {
			clear(content[b*mib : (b+1)*mib])
		}
	}
	c := crashed{f, p, guid(77), content}
	c.writeHeader(0, 9, guid(1), c.guid, p.log)
	return c
}

// withHoles is a file that knows its holes.
type withHoles struct{ *paged }

func (f withHoles) NextData(off int64) (start, end int64, err error) {
	page := func(at int64) bool { return f.pages[at/pageSize] != nil }
	for start = off; start < f.size && !page(start); {
		start = start/pageSize*pageSize + pageSize
	}
	if start >= f.size {
		return 0, 0, io.EOF
	}
	for end = start; end < f.size && page(end); {
		end = end/pageSize*pageSize + pageSize
	}
	return start, min(end, f.size), nil
}

// noise is a page that has the log's own magic in it.
func noise(r *rand.Rand) []byte {
	b := make([]byte, logSector)
	for i := 0; i < len(b); i += 8 {
		le.PutUint64(b[i:], r.Uint64())
	}
	copy(b, entryMagic)
	return b
}

// inBlock is the place of a byte of the disk in the file.
func (c crashed) inBlock(off int64) int64 { return c.p.block[off/mib] + off%mib }

// same compares with want, and with what QEMU makes of the file once it has
// repaired it.
func (c crashed) same(t *testing.T, qemu bool) {
	t.Helper()
	disktest.Same(t, c.open(t, noParent), c.want)
	d, err := Open(withHoles{c.paged}, c.size, noParent)
	if err != nil {
		t.Fatal(err)
	}
	if holes, least := disktest.Same(t, d, c.want), disktest.Holes(c.want, 64<<10)/2; holes < least {
		t.Fatalf("%d bytes of holes, want at least %d", holes, least)
	}
	if qemu {
		if got := converted(t, c.paged, true); !bytes.Equal(got, c.want) {
			t.Fatal("qemu-img reads something else")
		}
	}
}

// TestReplay replays entries of all shapes and asks QEMU whether it agrees, where
// QEMU 7.2 can be asked: it takes a log for newer than itself that goes around
// the end, reads all sectors of descriptors to the place of the first, and does
// not make the file longer.
func TestReplay(t *testing.T) {
	t.Run("a block comes into being", func(t *testing.T) {
		c := makeCrashed(1)
		place := c.size
		data := bytes.Repeat([]byte("data of a block that the BAT on disk does not know. "), 80)[:logSector]
		page := c.read(c.p.bat.off, logSector)
		le.PutUint64(page[8:], uint64(place)|uint64(fullyPresent))
		c.writeLog(c.p.log, logged{sequence: 5, guid: c.guid, flushed: c.size, last: place + mib, writes: []change{
			{off: c.p.bat.off, data: page}, {off: place + 8192, data: data}, {off: place + mib - logSector, data: data}}})
		copy(c.want[mib+8192:], data)
		copy(c.want[2*mib-logSector:], data)
		c.same(t, true)
	})
	t.Run("a block that the file does not reach", func(t *testing.T) {
		c := makeCrashed(5)
		place := c.size
		page := c.read(c.p.bat.off, logSector)
		le.PutUint64(page[8:], uint64(place)|uint64(fullyPresent))
		c.writeLog(c.p.log, logged{sequence: 5, guid: c.guid, flushed: c.size, last: place + mib, writes: []change{
			{off: c.p.bat.off, data: page}}})
		c.same(t, false)
	})
	t.Run("zeros and data over each other", func(t *testing.T) {
		c := makeCrashed(2)
		r := rand.New(rand.NewPCG(2, 2))
		at := c.inBlock(2 * mib)
		one, two := noise(r), noise(r)
		tail := c.writeLog(c.p.log, logged{sequence: 5, guid: c.guid, flushed: c.size, last: c.size, writes: []change{
			{off: at, data: noise(r)}, {off: at + 4096, n: 16384}, {off: at + 8192, data: one}, {off: at + 8192, n: 0}}})
		c.writeLog(c.p.log, logged{at: tail, tail: 0, sequence: 6, guid: c.guid, flushed: c.size, last: c.size, writes: []change{
			{off: at, n: 4096}, {off: at + 12288, data: two}}})
		clear(c.want[2*mib : 2*mib+20480])
		copy(c.want[2*mib+8192:], one)
		copy(c.want[2*mib+12288:], two)
		c.same(t, true)
	})
	t.Run("around the end of the log", func(t *testing.T) {
		c := makeCrashed(3)
		r := rand.New(rand.NewPCG(3, 3))
		at, first := int64(mib-3*logSector), int64(mib-3*logSector)
		for n := range uint64(4) {
			page := noise(r)
			off := int64(2*mib + 40960*n)
			copy(c.want[off:], page)
			at = c.writeLog(c.p.log, logged{at: at, tail: first, sequence: 1<<40 + n, guid: c.guid, flushed: c.size, last: c.size,
				writes: []change{{off: c.inBlock(off), data: page}, {off: c.inBlock(off) + 4096, n: 8192}}})
			clear(c.want[off+4096 : off+3*4096])
		}
		c.same(t, false)
	})
	t.Run("more descriptors than fit into a sector", func(t *testing.T) {
		c := makeCrashed(4)
		r := rand.New(rand.NewPCG(4, 4))
		var writes []change
		for i := range int64(150) {
			page := noise(r)
			copy(c.want[4*mib+i*logSector:], page)
			writes = append(writes, change{off: c.inBlock(4*mib + i*logSector), data: page})
		}
		c.writeLog(c.p.log, logged{sequence: 1, guid: c.guid, flushed: c.size, last: c.size, writes: writes})
		c.same(t, false)
	})
}

// TestReplayRandomLogs writes logs as a program does that is stopped at some
// moment: old entries behind, a torn one in front, the tail anywhere.
func TestReplayRandomLogs(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 6))
		c := makeCrashed(seed)
		type done struct {
			at     int64
			writes []change
		}
		var entries []done
		at, sequence, first := r.Int64N(256)*logSector, 1+r.Uint64N(1<<40), 0
		n := 1 + r.IntN(60)
		qemu := seed < 3 // see TestReplay
		if qemu {
			at, n = 0, 1+r.IntN(20)
		}
		for i := range n {
			if i == 0 || r.IntN(4) == 0 {
				first = i - r.IntN(min(i, 5)+1) // what came before is in its place
			}
			l := logged{at: at, sequence: sequence + uint64(i), guid: c.guid, flushed: c.size - r.Int64N(2)*mib, last: c.size, writes: randomChanges(r, c)}
			entries = append(entries, done{at, l.writes})
			first = max(first, i-8) // nothing it needs is written over
			l.tail = entries[first].at
			at = c.writeLog(c.p.log, l)
		}
		next := logged{at: at, tail: entries[first].at, sequence: sequence + uint64(n), guid: c.guid, flushed: c.size, last: c.size, writes: randomChanges(r, c)}
		switch b := next.encode(); r.IntN(3) {
		case 0: // torn: its last sector is from before
			if len(b) > logSector {
				c.writeLog(c.p.log, next)
				end := c.p.log.off + (at+int64(len(b))-logSector)%c.p.log.len
				c.write(make([]byte, logSector), end)
			}
		case 1: // whole, but of another time
			next.guid = guid(78)
			c.writeLog(c.p.log, next)
		}
		for _, e := range entries[:first] { // as if written where they belong
			for _, w := range e.writes {
				c.write(w.bytes(), w.off)
			}
		}
		for _, e := range entries {
			for _, w := range e.writes {
				for b, place := range c.p.block {
					if w.off >= place && w.off < place+mib {
						copy(c.want[b*mib+w.off-place:(b+1)*mib], w.bytes())
					}
				}
			}
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { c.same(t, qemu) })
	}
}

func (w change) bytes() []byte {
	if w.data == nil {
		return make([]byte, w.n)
	}
	return w.data
}

// randomChanges stay within the blocks of c.
func randomChanges(r *rand.Rand, c crashed) []change {
	var all []change
	for range r.IntN(6) {
		page := r.Int64N(256)
		off := c.inBlock(r.Int64N(4)*2*mib + page*logSector)
		if r.IntN(3) == 0 {
			all = append(all, change{off: off, n: (1 + r.Int64N(256-page)) * logSector})
		} else {
			all = append(all, change{off: off, data: noise(r)})
		}
	}
	return all
}

// TestReplayQEMU reads the file that QEMU leaves when it can write the log and
// the data, and no more of the BAT.
func TestReplayQEMU(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "a.vhdx")
	disktest.Run(t, "qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M", path, "20M")
	want := make([]byte, 20<<20)
	write := func(i int) string {
		off, n := (i*7%20)<<20+i*51200, 300000/512*512
		copy(want[off:], bytes.Repeat([]byte{byte(i + 1)}, n))
		return fmt.Sprintf("write -P %d %d %d", i+1, off, n)
	}
	args := []string{"-f", "vhdx"}
	for i := range 8 {
		args = append(args, "-c", write(i))
	}
	disktest.Run(t, "qemu-io", append(args, path)...)
	bat := pagedFrom(readFile(t, path)).open(t, noParent).regions.bat
	cmd := exec.Command("qemu-io", "-c", write(8), "--image-opts", fmt.Sprintf("driver=vhdx,file.driver=blkdebug,"+
		"file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.sector=%d,"+
		"file.image.driver=file,file.image.filename=%s", bat.off/512, path))
	if out, err := cmd.CombinedOutput(); err == nil && !bytes.Contains(out, []byte("error")) {
		t.Fatalf("qemu-io wrote the BAT: %s", out)
	}
	f := pagedFrom(readFile(t, path))
	d := f.open(t, noParent)
	if len(d.f.writes) == 0 {
		t.Fatal("QEMU left no log")
	}
	disktest.Same(t, d, want)
	without := f.clone()
	without.writeHeader(0, d.h.sequence+1, d.h.dataGUID, GUID{}, d.h.log)
	if b := make([]byte, len(want)); errors.Is(readFrom(without.open(t, noParent), b), nil) && bytes.Equal(b, want) {
		t.Fatal("the disk reads the same without the log")
	}
	if got := converted(t, f, true); !bytes.Equal(got, want) {
		t.Fatal("qemu-img reads something else")
	}
}

func readFrom(d *Disk, b []byte) error {
	_, err := d.ReadAt(b, 0)
	return err
}

// TestLogRefused: a log that can't be replayed makes the file unreadable.
func TestLogRefused(t *testing.T) {
	fill := bytes.Repeat([]byte{7}, logSector)
	one := func(c crashed, l logged) logged {
		l.sequence, l.guid = max(l.sequence, 1), c.guid
		if l.writes == nil {
			l.writes = []change{{off: c.inBlock(0), data: fill}}
		}
		return l
	}
	tests := []struct {
		name string
		make func(c crashed)
		err  error
	}{
		{"in order", func(c crashed) { c.writeLog(c.p.log, one(c, logged{})) }, nil},
		{"nothing was ever logged", func(crashed) {}, nil},
		{"another GUID", func(c crashed) {
			l := one(c, logged{})
			l.guid = guid(3)
			c.writeLog(c.p.log, l)
		}, nil},
		{"log of version 1", func(c crashed) {
			h := c.read(header1At, headerBytes)
			le.PutUint16(h[64:], 1)
			c.write(sealed(h), header1At)
		}, fault.ErrUnsupported},
		{"log far", func(c crashed) { c.writeHeader(0, 9, guid(1), c.guid, extent{1 << 50, mib}) }, fault.ErrTruncated},
		{"log in the header", func(c crashed) { c.writeHeader(0, 9, guid(1), c.guid, extent{0, mib}) }, fault.ErrDamaged},
		{"no log", func(c crashed) { c.writeHeader(0, 9, guid(1), c.guid, extent{mib, 0}) }, fault.ErrDamaged},
		{"large log", func(c crashed) {
			c.size = 600 * mib
			c.writeHeader(0, 9, guid(1), c.guid, extent{20 * mib, 512 * mib})
		}, fault.ErrUnsupported},
		{"only a torn entry", func(c crashed) {
			c.writeLog(c.p.log, one(c, logged{}))
			c.write(make([]byte, 100), c.p.log.off+logSector+2000)
		}, fault.ErrDamaged},
		{"data sector of another entry", func(c crashed) {
			l := one(c, logged{})
			b := l.encode()
			b[logSector+4] = 1
			c.write(sealed(clearSum(b)), c.p.log.off)
		}, fault.ErrDamaged},
		{"descriptor of another entry", func(c crashed) {
			b := one(c, logged{}).encode()
			b[64+24]++
			c.write(sealed(clearSum(b)), c.p.log.off)
		}, fault.ErrDamaged},
		{"descriptor of no kind", func(c crashed) {
			b := one(c, logged{}).encode()
			b[64]++
			c.write(sealed(clearSum(b)), c.p.log.off)
		}, fault.ErrDamaged},
		{"more descriptors than room", func(c crashed) {
			b := one(c, logged{}).encode()
			le.PutUint32(b[24:], 1<<31)
			c.write(sealed(clearSum(b)), c.p.log.off)
		}, fault.ErrDamaged},
		{"sequence number 0", func(c crashed) {
			l := one(c, logged{})
			l.sequence = 0
			c.writeLog(c.p.log, l)
		}, fault.ErrDamaged},
		{"tail elsewhere", func(c crashed) { c.writeLog(c.p.log, one(c, logged{tail: 64 * kib})) }, fault.ErrDamaged},
		{"tail behind the log", func(c crashed) { c.writeLog(c.p.log, one(c, logged{tail: 64 * mib})) }, fault.ErrDamaged},
		{"a gap in the sequence", func(c crashed) {
			next := c.writeLog(c.p.log, one(c, logged{tail: 64 * kib}))
			c.writeLog(c.p.log, one(c, logged{at: next, tail: 0, sequence: 3}))
		}, fault.ErrDamaged},
		{"file cut since", func(c crashed) { c.writeLog(c.p.log, one(c, logged{flushed: c.size + mib})) }, fault.ErrTruncated},
		{"more writes than anybody makes", func(c crashed) {
			log := extent{32 * mib, 16 * mib}
			c.writeHeader(0, 9, guid(1), c.guid, log)
			l := one(c, logged{writes: make([]change, maxWrites+1)})
			for i := range l.writes {
				l.writes[i] = change{off: c.inBlock(0), n: logSector}
			}
			c.write(make([]byte, 1), log.end()-1)
			c.writeLog(log, l)
		}, fault.ErrUnsupported},
		{"writes the header", func(c crashed) {
			c.writeLog(c.p.log, one(c, logged{writes: []change{{off: 64 * kib, data: fill}}}))
		}, fault.ErrDamaged},
		{"writes the log", func(c crashed) {
			c.writeLog(c.p.log, one(c, logged{writes: []change{{off: 0, n: 1 << 40}}}))
		}, fault.ErrDamaged},
		{"writes off the border", func(c crashed) {
			c.writeLog(c.p.log, one(c, logged{writes: []change{{off: c.inBlock(0) + 512, data: fill}}}))
		}, fault.ErrDamaged},
		{"writes behind everything", func(c crashed) {
			c.writeLog(c.p.log, one(c, logged{writes: []change{{off: 1 << 62, data: fill}}}))
		}, fault.ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := makeCrashed(1)
			tt.make(c)
			d, err := Open(c, c.size, noParent)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
			if err != nil {
				t.Log(err)
				return
			}
			want := c.want
			if tt.name == "in order" {
				want = append(bytes.Clone(fill), c.want[logSector:]...)
			}
			disktest.Same(t, d, want)
		})
	}
}

// clearSum clears the checksum of an entry, as it is when it is computed.
func clearSum(b []byte) []byte {
	clear(b[4:8])
	return b
}

// TestLogIsLinear: entries that each claim the whole log cost no more than a
// few times its reading.
func TestLogIsLinear(t *testing.T) {
	const size = 64 * mib
	c := makeCrashed(1)
	log := extent{32 * mib, size}
	c.writeHeader(0, 9, guid(1), c.guid, log)
	b := make([]byte, logSector)
	copy(b, entryMagic)
	le.PutUint32(b[8:], size)
	le.PutUint64(b[16:], 1)
	copy(b[32:], c.guid[:])
	for at := int64(0); at < size; at += logSector {
		c.write(b, log.off+at)
	}
	if _, err := Open(c, c.size, noParent); !errors.Is(err, fault.ErrDamaged) {
		t.Fatalf("error is %v, want %v", err, fault.ErrDamaged)
	}
}
