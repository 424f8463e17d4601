package mounttest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// fsxBytes is how long the verifier's file becomes at most.
const fsxBytes = 400 << 10

// fsx changes a file at random in all ways there are, and compares it with what it
// should be after each.
func (e *env) fsx() {
	x := &verifier{env: e, at: rand.New(rand.NewPCG(e.opt.Seed, 2))}
	x.open()
	x.openDirect()
	for i := range e.opt.Ops {
		x.one(i)
		if i == e.opt.Ops/2 {
			e.middle()
		}
	}
	x.reopen()
	x.readAll()
	x.close()
}

// verifier is a file and what it should hold.
type verifier struct {
	*env
	at     *rand.Rand
	f      *os.File
	direct *os.File // the same, past the cache; nil where that can't be
	want   []byte
	buffer []byte // page by page, as direct transfers need
	mapped bool   // something was written by mapping, and not synced
}

func (x *verifier) one(i int) {
	kinds := []struct {
		weight int
		name   string
		do     func()
	}{
		{20, "read", x.read},
		{25, "write", x.write},
		{10, "read mapped", x.readMapped},
		{15, "write mapped", x.writeMapped},
		{8, "cut or grow", x.truncate},
		{6, "read past the cache", x.readDirect},
		{8, "write past the cache", x.writeDirect},
		{4, "sync", func() { x.ok(x.f.Sync()) }},
		{3, "open again", x.reopen},
		{1, "read all", x.readAll},
	}
	n := x.at.IntN(100)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			x.step("%s, operation %d of seed %d", k.name, i, x.opt.Seed)
			k.do()
			return
		}
	}
}

func (x *verifier) open() {
	f, err := os.OpenFile(x.path("fsx"), os.O_RDWR|os.O_CREATE, 0o644)
	x.ok(err)
	x.f = f
}

func (x *verifier) openDirect() {
	f, err := os.OpenFile(x.path("fsx"), os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, syscall.EINVAL) {
		x.Log("there is no O_DIRECT here")
		return
	}
	x.ok(err)
	x.direct = f
	if x.buffer == nil {
		x.buffer, err = unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		x.ok(err)
	}
}

func (x *verifier) close() {
	x.ok(x.f.Close())
	if x.direct != nil {
		x.ok(x.direct.Close())
	}
}

func (x *verifier) reopen() {
	had := x.direct != nil
	x.close()
	info := x.stat("fsx")
	x.that(info.Size() == int64(len(x.want)), "size %d, want %d", info.Size(), len(x.want))
	x.open()
	if had {
		x.openDirect()
	}
}

// within returns a place and a length in the file as it is; 0 for none.
func (x *verifier) within() (off, n int) {
	if len(x.want) == 0 {
		return 0, 0
	}
	off = x.at.IntN(len(x.want))
	return off, 1 + x.at.IntN(min(len(x.want)-off, 64<<10))
}

// beyond returns a place and a length that may make the file longer.
func (x *verifier) beyond() (off, n int) {
	n = 1 + x.at.IntN(64<<10)
	return x.at.IntN(fsxBytes - n), n
}

// put notes what the file holds after a write.
func (x *verifier) put(p []byte, off int) {
	x.grow(off + len(p))
	copy(x.want[off:], p)
}

func (x *verifier) grow(size int) {
	if n := size - len(x.want); n > 0 {
		x.want = append(x.want, make([]byte, n)...)
	}
}

func (x *verifier) compare(got []byte, off int) {
	x.same(fmt.Sprintf("what was read at %d", off), got, x.want[off:off+len(got)])
}

func (x *verifier) read() {
	off, n := x.within()
	p := make([]byte, n)
	_, err := x.f.ReadAt(p, int64(off))
	x.ok(err)
	x.compare(p, off)
}

func (x *verifier) readAll() {
	x.holds("fsx", x.want)
	p := make([]byte, 10)
	n, err := x.f.ReadAt(p, int64(len(x.want)))
	x.that(n == 0 && err == io.EOF, "%d bytes behind the end, %v", n, err)
}

func (x *verifier) write() {
	off, n := x.beyond()
	p := x.bytes(n)
	_, err := x.f.WriteAt(p, int64(off))
	x.ok(err)
	x.put(p, off)
}

func (x *verifier) truncate() {
	size := x.at.IntN(fsxBytes)
	x.ok(x.f.Truncate(int64(size)))
	if size < len(x.want) {
		x.want = x.want[:size:size] // what comes behind it later is zeros
	}
	x.grow(size)
	info, err := x.f.Stat()
	x.ok(err)
	x.that(info.Size() == int64(size), "size %d, want %d", info.Size(), size)
}

// inMemory lets do have n bytes of the file from off in memory.
func (x *verifier) inMemory(off, n int, do func(p []byte)) {
	page := os.Getpagesize()
	from := off / page * page
	m, err := unix.Mmap(int(x.f.Fd()), int64(from), off+n-from, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	x.ok(err)
	do(m[off-from:])
	x.ok(unix.Munmap(m))
}

func (x *verifier) readMapped() {
	if off, n := x.within(); n > 0 {
		x.inMemory(off, n, func(p []byte) { x.compare(p, off) })
	}
}

func (x *verifier) writeMapped() {
	off, n := x.beyond()
	if off+n > len(x.want) {
		x.ok(x.f.Truncate(int64(off + n)))
		x.grow(off + n)
	}
	data := x.bytes(n)
	x.inMemory(off, n, func(p []byte) { copy(p, data) })
	x.mapped = true
	x.put(data, off)
}

// aligned moves a place and a length to what transfers past the cache can do.
func (x *verifier) aligned(off, n int) (int, int) {
	a := x.opt.Align
	return off / a * a, min((n+a-1)/a*a, len(x.buffer))
}

// settle syncs what was written by mapping: the kernel's NFS client doesn't do that
// before it passes the cache by, if it did so the last time, too.
func (x *verifier) settle() {
	if x.mapped {
		x.ok(x.f.Sync())
		x.mapped = false
	}
}

func (x *verifier) readDirect() {
	off, n := x.within()
	if x.direct == nil || n == 0 {
		return
	}
	x.settle()
	off, n = x.aligned(off, n)
	n, err := x.direct.ReadAt(x.buffer[:n], int64(off))
	x.that(err == nil || err == io.EOF, "%v", err)
	x.that(n > 0, "nothing at %d of %d bytes", off, len(x.want))
	x.compare(x.buffer[:n], off)
}

func (x *verifier) writeDirect() {
	if x.direct == nil {
		return
	}
	x.settle()
	off, n := x.aligned(x.beyond())
	p := x.buffer[:n]
	copy(p, x.bytes(n))
	_, err := x.direct.WriteAt(p, int64(off))
	x.ok(err)
	x.put(p, off)
}
