package treetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Populate fills a directory, usually the root of a file system mounted for the
// test, with what the plan says. The same plan makes the same tree, but for the
// times the kernel alone sets.
func Populate(tb testing.TB, dir string, p Plan) error {
	tb.Helper()
	p = p.withDefaults()
	tb.Logf("populate with seed %d", p.Seed)
	pop := &populator{
		Plan: p, dir: dir,
		r:     rand.New(rand.NewPCG(p.Seed, 1)),
		bytes: rand.NewChaCha8(seedOf(p.Seed)),
		root:  os.Geteuid() == 0,
	}
	steps := []struct {
		name string
		wish bool
		do   func() error
	}{
		{"directories and files", true, pop.files},
		{"hard names", true, pop.hardNames},
		{"big directory", p.BigDir > 0, pop.bigDir},
		{"deep directories", p.Deep > 0, pop.deep},
		{"fragmented files", p.Fragmented > 0, pop.fragmented},
		{"sparse files", p.Sparse, pop.sparse},
		{"huge files", p.Huge, pop.huge},
		{"hard links", p.HardLinks, pop.hardLinks},
		{"symbolic links", p.Symlinks, pop.symlinks},
		{"fifos and sockets", p.Special, pop.special},
		{"device nodes", p.Devices, pop.devices},
		{"ACLs", p.ACLs, pop.acls}, // before attributes fill the room for both
		{"attributes", p.Xattrs, pop.xattrs},
		{"owners, modes and times", true, pop.finish},
	}
	for _, s := range steps {
		if !s.wish {
			continue
		}
		if err := s.do(); err != nil {
			return fmt.Errorf("populate: %s: %w", s.name, err)
		}
	}
	return nil
}

func seedOf(seed uint64) (b [32]byte) {
	binary.LittleEndian.PutUint64(b[:], seed)
	return b
}

type populator struct {
	Plan
	dir   string
	r     *rand.Rand
	bytes *rand.ChaCha8
	root  bool

	dirs  []string // relative to dir, parents first
	plain []string // files
	many  []string // files of the big directory, which get times and no more
	other []string // symbolic links, fifos, sockets, device nodes
	links []string // further names of files
}

func (p *populator) path(rel string) string { return filepath.Join(p.dir, rel) }

func (p *populator) mkdir(rel string) error {
	p.dirs = append(p.dirs, rel)
	return os.Mkdir(p.path(rel), 0o755)
}

// content is n bytes that do not compress, or do, as real files.
func (p *populator) content(n int64) []byte {
	b := make([]byte, n)
	p.bytes.Read(b)
	if p.r.IntN(3) == 0 { // text
		for i := range b {
			b[i] = "etaoin shrdlu\n  "[b[i]&15]
		}
	}
	return b
}

func (p *populator) file(rel string, n int64) error {
	p.plain = append(p.plain, rel)
	return os.WriteFile(p.path(rel), p.content(n), 0o644)
}

func (p *populator) files() error {
	if err := p.mkdir("tree"); err != nil {
		return err
	}
	dirs := []string{"tree"}
	for i := 1; i < p.Dirs; i++ {
		d := filepath.Join(dirs[p.r.IntN(len(dirs))], fileName(p.r, i)+".d")
		if err := p.mkdir(d); err != nil {
			return err
		}
		dirs = append(dirs, d)
	}
	for i := range p.Files {
		name := filepath.Join(dirs[p.r.IntN(len(dirs))], fileName(p.r, i))
		if err := p.file(name, p.size(p.r)); err != nil {
			return err
		}
	}
	return nil
}

func (p *populator) hardNames() error {
	if err := p.mkdir("names"); err != nil {
		return err
	}
	for i, name := range p.names() {
		rel := "names/" + name
		if i%7 == 3 {
			if err := p.mkdir(rel); err != nil {
				return err
			}
			rel += "/inside"
		}
		if err := p.file(rel, int64(i)); err != nil {
			return err
		}
	}
	return nil
}

func (p *populator) bigDir() error {
	if err := p.mkdir("big"); err != nil {
		return err
	}
	name := func(i int) string {
		return fmt.Sprintf("big/%0*d-%s", 1+i%17, i, strings.Repeat("x", i*7%60))
	}
	for i := range p.BigDir {
		n := int64(0)
		if i%50 == 0 {
			n = int64(i)
		}
		if err := os.WriteFile(p.path(name(i)), p.content(n), 0o644); err != nil {
			return err
		}
	}
	for i := range p.BigDir {
		if i%3 > 0 {
			p.many = append(p.many, name(i))
		} else if err := os.Remove(p.path(name(i))); err != nil {
			return err
		}
	}
	for i := 0; i < p.BigDir; i += 9 {
		rel := fmt.Sprintf("big/again-%d", i)
		if i%2 == 0 {
			rel = name(i)
		}
		p.many = append(p.many, rel)
		if err := os.WriteFile(p.path(rel), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (p *populator) deep() error {
	rel := "deep"
	for i := range p.Deep {
		if err := p.mkdir(rel); err != nil {
			return err
		}
		if i%50 == 49 || i == p.Deep-1 {
			if err := p.file(rel+"/here", int64(i)); err != nil {
				return err
			}
		}
		rel += fmt.Sprintf("/d%d", i%10)
	}
	return nil
}

// fragmented files grow in turns, and each piece is made durable before the
// next file's, so that none finds room behind its own end.
func (p *populator) fragmented() error {
	if err := p.mkdir("fragmented"); err != nil {
		return err
	}
	open := make([]*os.File, p.Fragmented)
	for i := range open {
		rel := fmt.Sprintf("fragmented/%d", i)
		f, err := os.Create(p.path(rel))
		if err != nil {
			return err
		}
		defer f.Close()
		open[i] = f
		p.plain = append(p.plain, rel)
	}
	for range 40 {
		for _, f := range open {
			if _, err := f.Write(p.content(4096 * (1 + p.r.Int64N(3)))); err != nil {
				return err
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				return err
			}
		}
	}
	return nil
}

// pieces makes a file of size bytes that is a hole but for the given pieces.
func (p *populator) pieces(rel string, size int64, pieces ...[2]int64) error {
	p.plain = append(p.plain, rel)
	f, err := os.Create(p.path(rel))
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	for _, piece := range pieces {
		if err == nil {
			_, err = f.WriteAt(p.content(piece[1]), piece[0])
		}
	}
	return errors.Join(err, f.Close())
}

func (p *populator) sparse() error {
	const k = 1 << 10
	if err := p.mkdir("sparse"); err != nil {
		return err
	}
	many := [][2]int64{}
	for i := range int64(200) {
		many = append(many, [2]int64{i * 64 * k, 4*k - i%3})
	}
	for _, f := range []struct {
		name   string
		size   int64
		pieces [][2]int64
	}{
		{"all hole", 1<<20 + 17, nil},
		{"one byte hole", 1, nil},
		{"leading", 300*k + 5, [][2]int64{{256 * k, 44*k + 5}}},
		{"middle", 600 * k, [][2]int64{{0, 100 * k}, {500 * k, 100 * k}}},
		{"trailing", 1 << 20, [][2]int64{{0, 4*k + 1}}},
		{"odd edges", 200 * k, [][2]int64{{3*k + 7, 1}, {77*k + 123, 9 * k}}},
		{"many", 200*64*k - 1000, many[:199]},
	} {
		if err := p.pieces("sparse/"+f.name, f.size, f.pieces...); err != nil {
			return err
		}
	}
	// Room that was set aside and not written reads as zeros too.
	f, err := os.OpenFile(p.path("sparse/many"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 70*k, 200*k)
	if err == unix.EOPNOTSUPP {
		err = nil
	}
	return errors.Join(err, f.Close())
}

func (p *populator) huge() error {
	const g = 1 << 30
	if err := p.mkdir("huge"); err != nil {
		return err
	}
	if err := p.pieces("huge/far end", 5*g+12345, [2]int64{5 * g, 12345}); err != nil {
		return err
	}
	return p.pieces("huge/around 4 GiB", 4*g+70_000, [2]int64{0, 10}, [2]int64{2*g - 3, 6}, [2]int64{4*g - 5000, 10_000})
}

func (p *populator) hardLinks() error {
	if err := p.mkdir("links"); err != nil {
		return err
	}
	for i := range min(10, len(p.plain)) {
		from := p.plain[p.r.IntN(len(p.plain))]
		n := 1 + p.r.IntN(5)
		if i == 0 {
			n = 60
		}
		for k := range n {
			rel := fmt.Sprintf("links/%d-%d", i, k)
			if k%2 == 1 {
				rel = filepath.Join(p.dirs[p.r.IntN(len(p.dirs))], fmt.Sprintf("link-%d-%d", i, k))
			}
			if err := os.Link(p.path(from), p.path(rel)); err != nil {
				return err
			}
			p.links = append(p.links, rel)
		}
	}
	return nil
}

func (p *populator) symlinks() error {
	if err := p.mkdir("symlinks"); err != nil {
		return err
	}
	targets := []string{
		"x", ".", "..", "../..", "/", "/etc/passwd", "no/such/thing", "loop", "a//b/./c/", "new\nline", "caf\u00e9",
		"../names/with space", strings.Repeat("s", 59), strings.Repeat("s", 60), strings.Repeat("s", 61), strings.Repeat("t/", 127), strings.Repeat("long/", 200),
	}
	if p.ByteNames {
		targets = append(targets, "\xff\xfe")
	}
	for i, target := range targets {
		rel := fmt.Sprintf("symlinks/%d", i)
		if target == "loop" {
			rel = "symlinks/loop"
		}
		if err := os.Symlink(target, p.path(rel)); err != nil {
			return err
		}
		p.other = append(p.other, rel)
	}
	return nil
}

func (p *populator) special() error {
	if err := p.mkdir("special"); err != nil {
		return err
	}
	p.other = append(p.other, "special/fifo", "special/socket")
	if err := unix.Mkfifo(p.path("special/fifo"), 0o640); err != nil {
		return err
	}
	// By a short way, since the address of a socket is at most 108 bytes.
	fd, err := unix.Open(p.path("special"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/socket", fd)})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

func (p *populator) devices() error {
	if err := p.mkdir("devices"); err != nil {
		return err
	}
	for _, d := range []struct {
		name         string
		mode         uint32
		major, minor uint32
	}{
		{"null", unix.S_IFCHR, 1, 3}, {"sda1", unix.S_IFBLK, 8, 1}, {"old edge", unix.S_IFCHR, 255, 255},
		{"minor 256", unix.S_IFBLK, 8, 256}, {"large", unix.S_IFCHR, 4095, 1<<20 - 1}, {"zero", unix.S_IFCHR, 0, 0},
	} {
		rel := "devices/" + d.name
		if err := unix.Mknod(p.path(rel), d.mode|0o600, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return err
		}
		p.other = append(p.other, rel)
	}
	return nil
}
