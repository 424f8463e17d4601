package treetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"testing"
	"time"

	"holdfast/fs"
)

// Corruption is a series of damages to an image of a file system, and what may
// come of them.
type Corruption struct {
	Image io.ReaderAt
	Size  int64

	// Meta is where damage is done; none: anywhere.
	Meta []Range

	N     int // cases; 0: 1,000
	First int // the number of the first one: First 17 and N 1 do the 18th again
	Seed  uint64

	// Open opens the damaged image. An error is a good answer.
	Open func(dev io.ReaderAt, size int64) (fs.Tree, error)

	// Want is what the image held when it was whole, for a file system whose
	// metadata has checksums, and only for damage to that: everything is then
	// as it was, or an error. Ignore is left out of the comparison.
	Want   *Snapshot
	Ignore Fields

	Limits Limits
}

// Range is a stretch of an image, in bytes.
type Range struct{ Off, Len int64 }

// Limits are what one case may take.
type Limits struct {
	Time       time.Duration // 0: 20 s
	HeapBytes  uint64        // live at once, beyond what was before; 0: 256 MiB
	AllocBytes uint64        // in all; 0: 8 GiB
	Inodes     int           // to walk over; 0: 2,000
	FileBytes  int64         // of longer files only the ends are read; 0: 4 MiB
	ReadBytes  int64         // of all files; 0: 64 MiB
}

func (l Limits) withDefaults() Limits {
	l.Time = cmp.Or(l.Time, 20*time.Second)
	l.HeapBytes = cmp.Or(l.HeapBytes, 256<<20)
	l.AllocBytes = cmp.Or(l.AllocBytes, 8<<30)
	l.Inodes = cmp.Or(l.Inodes, 2000)
	l.FileBytes = cmp.Or(l.FileBytes, 4<<20)
	l.ReadBytes = cmp.Or(l.ReadBytes, 64<<20)
	return l
}

// Corrupt flips 1 to 64 bytes in one to four sectors of the image, opens it,
// walks over the tree and reads it, N times. It fails the test when a reader
// panics, takes longer or more memory than it may, reads short without an
// error, lists what can't be a name, or, with Want, tells something else
// without an error. Cases that fail are named by seed and number.
func Corrupt(tb testing.TB, c Corruption) {
	tb.Helper()
	c.N = cmp.Or(c.N, 1000)
	c.Limits = c.Limits.withDefaults()
	if len(c.Meta) == 0 {
		c.Meta = []Range{{0, c.Size}}
	}
	for _, r := range c.Meta {
		if r.Off < 0 || r.Len <= 0 || r.Off+r.Len > c.Size {
			tb.Fatalf("range %+v of an image of %d bytes", r, c.Size)
		}
	}
	refused, whole, failed := 0, 0, 0
	for i := c.First; i < c.First+c.N; i++ {
		o := c.damage(i)
		out := c.run(o)
		switch {
		case out.hung:
			tb.Fatalf("case %d of seed %d: not done after %v; damage: %v\n%s", i, c.Seed, c.Limits.Time, o, out.err)
		case out.err != nil:
			tb.Errorf("case %d of seed %d: %v; damage: %v", i, c.Seed, out.err, o)
			if failed++; failed == 10 {
				tb.Fatalf("ten cases of %d failed, no more are tried", i-c.First+1)
			}
		case out.refused:
			refused++
		case out.whole:
			whole++
		}
	}
	tb.Logf("%d damages of seed %d: %d not opened, %d without an error, the others with some", c.N, c.Seed, refused, whole)
}

// damage makes the i-th case.
func (c *Corruption) damage(i int) *overlay {
	r := rand.New(rand.NewPCG(c.Seed, uint64(i)))
	const sector = 512
	o := &overlay{under: c.Image, size: c.Size, bytes: map[int64]byte{}, r: r}
	for range 1 + r.IntN(4)*r.IntN(2) {
		at := c.Meta[r.IntN(len(c.Meta))]
		off := at.Off + r.Int64N((at.Len+sector-1)/sector)*sector
		room := min(sector, at.Off+at.Len-off)
		n := 1 + r.IntN(4)
		if r.IntN(3) == 0 {
			n = 1 + r.IntN(64)
		}
		way := r.IntN(5)
		from := r.Int64N(room)
		for k := range n {
			pos := off + (from+int64(k))%room // a run of bytes, as fields are
			if way == 0 {
				pos = off + r.Int64N(room)
			}
			var old [1]byte
			o.ReadAt(old[:], pos)
			b := byte(r.Uint32())
			switch way {
			case 1:
				b = 0
			case 2:
				b = 0xff
			case 3:
				b = old[0] ^ 1<<(b&7)
			}
			if b == old[0] {
				b = ^b
			}
			o.set(pos, b)
		}
	}
	return o
}

// outcome is how a case went.
type outcome struct {
	refused, whole, hung bool
	err                  error
}

// run is one case under watch.
func (c *Corruption) run(o *overlay) outcome {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	before := memory()
	done := make(chan outcome, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- outcome{err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
			}
		}()
		done <- c.try(ctx, o)
	}()
	late := time.NewTimer(c.Limits.Time)
	defer late.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case out := <-done:
			if took := memory().allocated - before.allocated; out.err == nil && took > c.Limits.AllocBytes {
				out.err = fmt.Errorf("allocated %d bytes in all, more than %d", took, c.Limits.AllocBytes)
			}
			return out
		case <-look.C:
			if memory().heap < before.heap+c.Limits.HeapBytes {
				continue
			}
			runtime.GC()
			if now := memory().heap; now >= before.heap+c.Limits.HeapBytes {
				return outcome{hung: true, err: fmt.Errorf("holds %d bytes of memory, more than %d\n%s", now-before.heap, c.Limits.HeapBytes, stacks())}
			}
		case <-late.C:
			return outcome{hung: true, err: errors.New(string(stacks()))}
		}
	}
}

type memoryUse struct{ heap, allocated uint64 }

func memory() memoryUse {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return memoryUse{s[0].Value.Uint64(), s[1].Value.Uint64()}
}

func stacks() []byte {
	b := make([]byte, 1<<20)
	return b[:runtime.Stack(b, true)]
}

// try opens and reads what it can.
func (c *Corruption) try(ctx context.Context, o *overlay) outcome {
	t, err := c.Open(o, c.Size)
	if err != nil {
		return outcome{refused: true}
	}
	s, err := scan(ctx, t, t.Root(), scanLimits{c.Limits.Inodes, c.Limits.FileBytes, c.Limits.ReadBytes})
	out := outcome{whole: true}
	cut := errors.Is(err, errLimit)
	if err != nil && !cut {
		out.err = fmt.Errorf("walk: %w", err)
	}
	for _, p := range s.Paths() {
		n := s.Nodes[p]
		if n.Err != nil {
			out.whole = false
		}
		if errors.Is(n.Err, errShort) {
			out.err = fmt.Errorf("%q: %w", p, n.Err)
		}
		if n.Err == nil && p != "." && !isName(path.Base(p)) {
			out.err = fmt.Errorf("%q: no name", p)
		}
	}
	for range 3 { // inodes that no name leads to
		c.poke(ctx, t, o.r.Uint64N(1<<10))
	}
	if out.err == nil && c.Want != nil && !cut {
		out.err = c.compare(s)
	}
	if err := t.Close(); err != nil && out.err == nil {
		out.err = fmt.Errorf("close: %w", err)
	}
	return out
}

func isName(s string) bool { return s != "" && s != "." && s != ".." }

// poke asks about an inode by number, as someone with an old file handle would.
func (c *Corruption) poke(ctx context.Context, t fs.Tree, ino uint64) {
	id := fs.ID{FS: t.Root().FS, Ino: ino}
	if a, err := t.Attr(ctx, id); err == nil {
		n := &Node{Attr: a}
		n.fill(ctx, t, scanLimits{fileBytes: c.Limits.FileBytes})
	}
	t.Extents(ctx, id, 0, 100)
	t.Lookup(ctx, id, "..")
	t.StatFS(ctx, id)
}

// compare holds what was read against what the image held: all of it the same,
// or an error there or in a directory above.
func (c *Corruption) compare(got *Snapshot) error {
	var list []string
	for _, p := range c.Want.Paths() {
		w, g := c.Want.Nodes[p], got.Nodes[p]
		if g == nil && !explained(got, p) {
			list = append(list, fmt.Sprintf("%q: gone without an error", p))
		}
		if g == nil || g.Err != nil {
			continue
		}
		if g.Type != w.Type {
			list = append(list, fmt.Sprintf("%q: a %v, was a %v", p, g.Type, w.Type))
			continue
		}
		d := differ{path: p, ignore: c.Ignore | Links}
		if g.Sum == "" { // too long to be read whole
			d.ignore |= Content
		}
		d.node(w, g)
		list = append(list, d.list...)
	}
	for _, p := range got.Paths() {
		if g := got.Nodes[p]; c.Want.Nodes[p] == nil && g.Err == nil {
			list = append(list, fmt.Sprintf("%q: a %v that was not there", p, g.Type))
		}
	}
	if len(list) > 0 {
		return fmt.Errorf("not as it was, and no error: %q", list[:min(len(list), 5)])
	}
	return nil
}

// explained says whether a directory above a missing path could not be read.
func explained(got *Snapshot, p string) bool {
	for p != "." {
		p = path.Dir(p)
		if n := got.Nodes[p]; n != nil {
			return n.Err != nil
		}
	}
	return false
}

// overlay is an image with some bytes changed.
type overlay struct {
	under io.ReaderAt
	size  int64
	bytes map[int64]byte
	at    []int64    // the keys of bytes, in order
	r     *rand.Rand // of the case
}

func (o *overlay) set(off int64, b byte) {
	if _, there := o.bytes[off]; !there {
		i, _ := slices.BinarySearch(o.at, off)
		o.at = slices.Insert(o.at, i, off)
	}
	o.bytes[off] = b
}

func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.under.ReadAt(p, off)
	i, _ := slices.BinarySearch(o.at, off)
	for ; i < len(o.at) && o.at[i] < off+int64(n); i++ {
		p[o.at[i]-off] = o.bytes[o.at[i]]
	}
	return n, err
}

// String lists the changed bytes, in short.
func (o *overlay) String() string {
	s := fmt.Sprintf("%d bytes:", len(o.at))
	for _, off := range o.at[:min(len(o.at), 8)] {
		s += fmt.Sprintf(" %#x=%#02x", off, o.bytes[off])
	}
	return s
}
