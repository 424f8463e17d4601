package repo

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

// The samples are small repositories with everything in them: patches and their
// bases, two levels of nodes, a disk with a space in its name, the record of a
// run that failed.

type sampleShape struct {
	sealed bool
	parity int // as in CreateOptions
}

func (s sampleShape) String() string {
	return fmt.Sprintf("sealed=%t,parity=%d", s.sealed, max(0, s.parity))
}

// thorough damages everything everywhere. Without it a part is done, a different
// one in each file.
var thorough = flag.Bool("thorough", false, "damage every part of every file, in over a minute")

// sampleShapes lists those to test, two of four unless thorough.
func sampleShapes() []sampleShape {
	list := []sampleShape{{true, 3}, {false, -1}}
	if *thorough {
		list = append(list, sampleShape{false, 3}, sampleShape{true, -1})
	}
	return list
}

// some returns every so many of list, at least n, beginning somewhere that
// depends on turn; all of them when thorough.
func some[T any](list []T, n, turn int) []T {
	step := max(1, len(list)/n)
	if *thorough {
		step = 1
	}
	var out []T
	for i := turn % step; i < len(list); i += step {
		out = append(out, list[i])
	}
	return out
}

const (
	samplePass  = "correct horse"
	sampleChunk = 256 << 10
	sampleFrame = 64 << 10
	bigSize     = 300*sampleChunk + 5 // more chunks than one leaf has
)

// A sample is one of them. Tests work on clones of it.
type sample struct {
	shape     sampleShape
	fs, state *vfs.Mem
	past      *vfs.Mem // fs as it was when it had one point
	points    []samplePoint
}

// samplePoint is a point and the bytes it must give.
type samplePoint struct {
	id    PointID
	small []byte // disk "Hard disk 1"
	big   []byte // the last chunks of disk "big"; all before is zeros
}

const (
	smallDisk = "Hard disk 1"
	bigDisk   = "big"
)

// bigSource is zeros but for its end.
type bigSource []byte

func (b bigSource) Size() int64 { return bigSize }

func (b bigSource) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	start := bigSize - int64(len(b))
	for i := range p {
		if at := off + int64(i) - start; at >= 0 && at < int64(len(b)) {
			p[i] = b[at]
		}
	}
	if off+int64(len(p)) > bigSize {
		return int(bigSize - off), io.EOF
	}
	return len(p), nil
}

func (b bigSource) NextData(off int64) (int64, int64, error) {
	if off >= bigSize {
		return 0, 0, io.EOF
	}
	return max(off, bigSize-int64(len(b))), bigSize, nil
}

// failingSource fails from a byte on.
type failingSource struct {
	memSource
	at int64
}

func (f failingSource) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, syscall.EIO
	}
	return f.memSource.ReadAt(p, off)
}

var (
	samplesMu sync.Mutex
	samples   = map[sampleShape]*sample{}
)

func sampleOf(t *testing.T, shape sampleShape) *sample {
	t.Helper()
	samplesMu.Lock()
	defer samplesMu.Unlock()
	if samples[shape] == nil {
		samples[shape] = makeSample(t, shape)
	}
	return samples[shape]
}

func makeSample(t *testing.T, shape sampleShape) *sample {
	t.Helper()
	s := &sample{shape: shape, fs: vfs.NewMem(), state: vfs.NewMem()}
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	clock := func() time.Time { now = now.Add(time.Minute); return now }
	opt := CreateOptions{
		State: s.state, WorkFactor: 1, ReserveBytes: -1, PackBytes: MinPackBytes, Parity: shape.parity, Now: clock,
		Geometry: chunk.Geometry{ChunkBytes: sampleChunk, FrameBytes: sampleFrame},
	}
	if shape.sealed {
		opt.Passphrase = []byte(samplePass)
	}
	if _, err := Create(t.Context(), s.fs, opt); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	small, big := make([]byte, 6*sampleChunk+777), make([]byte, sampleChunk+5)
	for i := range small {
		switch { // noise, zeros and what compresses
		case i < 2*sampleChunk+sampleFrame:
			small[i] = byte(rng.Uint32())
		case i > 4*sampleChunk:
			small[i] = byte(rng.Uint32() % 3)
		}
	}
	copy(big[100:], "the end of a large disk")
	o := s.own(t, s.fs)
	for range 3 {
		disks := []SourceDisk{{Name: smallDisk, Source: memSource(small)}, {Name: bigDisk, Source: bigSource(big)}}
		run, err := o.Backup(t.Context(), BackupOptions{Machine: "web 1", Disks: disks})
		if err != nil {
			t.Fatal(err)
		}
		s.points = append(s.points, samplePoint{run.Point.ID, slices.Clone(small), slices.Clone(big)})
		if s.past == nil {
			s.past = s.clone()
		}
		small[rng.IntN(sampleFrame)]++ // one frame of the first chunk, and some others
		small[5*sampleChunk+rng.IntN(sampleFrame)]++
		big[rng.IntN(len(big))]++
	}
	noise := make([]byte, 8*sampleChunk)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	_, err := o.Backup(t.Context(), BackupOptions{Machine: "other", Disks: []SourceDisk{
		{Name: "a", Source: failingSource{noise, 6 * sampleChunk}}}})
	if !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if runs, err := listRuns(s.fs); err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	return s
}

func (s *sample) options(log io.Writer) Options {
	opt := Options{State: s.state, Log: slog.New(slog.NewTextHandler(log, nil))}
	if s.shape.sealed {
		opt.Passphrase = []byte(samplePass)
	}
	return opt
}

func (s *sample) own(t *testing.T, fsys vfs.FS) *Owner {
	t.Helper()
	o, err := Own(t.Context(), fsys, s.options(io.Discard), 0)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// clone returns a copy to damage.
func (s *sample) clone() *vfs.Mem {
	return s.fs.CrashClone(vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll})
}

// files lists the files of the sample below a directory.
func (s *sample) files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := vfs.Walk(s.fs, dir, func(name string, info vfs.Info) error {
		if !info.Dir {
			names = append(names, name)
		}
		return nil
	})
	if err != nil || len(names) == 0 {
		t.Fatal(dir, names, err)
	}
	return names
}

func (s *sample) data(t *testing.T, name string) []byte {
	t.Helper()
	p, err := vfs.ReadFile(s.fs, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A finding is what reading everything met.
type finding struct {
	opened bool
	errs   []error
	log    string
}

func (f *finding) String() string { return fmt.Sprintf("%v\n%s", errors.Join(f.errs...), f.log) }

// names reports whether an error or the log speaks of something.
func (f *finding) names(what string) bool { return strings.Contains(f.String(), what) }

// readAll opens the repository and reads every disk of every point. Wrong bytes
// end the test, and so does an error that does not say what could not be read.
func (s *sample) readAll(t *testing.T, fsys vfs.FS) *finding {
	t.Helper()
	return s.read(t, fsys, bigSize)
}

// read is readAll for the first bytes of each disk.
func (s *sample) read(t *testing.T, fsys vfs.FS, upTo int64) *finding {
	t.Helper()
	var log bytes.Buffer
	r, err := Open(t.Context(), fsys, s.options(&log))
	if err != nil {
		return &finding{errs: []error{err}, log: log.String()}
	}
	defer r.Close() //nolint:errcheck // the second time
	f := &finding{opened: true}
	for i := range s.points {
		f.errs = append(f.errs, s.readPoint(t, r, &s.points[i], upTo)...)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	f.log = log.String()
	return f
}

func (s *sample) readPoint(t *testing.T, r *Repository, p *samplePoint, upTo int64) (errs []error) {
	t.Helper()
	reader, err := r.OpenPoint(p.id)
	if err != nil {
		if !strings.Contains(err.Error(), string(p.id)) {
			t.Errorf("the error does not name the point: %v", err)
		}
		return []error{err}
	}
	defer reader.Close() //nolint:errcheck // a lock in memory
	small, err := reader.Disk(smallDisk)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, sampleFrame)
	for off := int64(0); off < min(upTo, small.Size()); off += sampleFrame {
		part := buf[:min(sampleFrame, small.Size()-off)]
		if _, err := small.ReadAt(part, off); err != nil {
			errs = append(errs, err)
			mustName(t, err, p.id, smallDisk, off, int64(len(part)))
		} else if !bytes.Equal(part, p.small[off:off+int64(len(part))]) {
			t.Fatalf("point %s, disk %s at %d: wrong bytes", p.id, smallDisk, off)
		}
	}
	if upTo < bigSize {
		return errs
	}
	big, err := reader.Disk(bigDisk)
	if err != nil {
		t.Fatal(err)
	}
	target := &bigTarget{got: make([]byte, len(p.big))}
	_, err = big.Restore(t.Context(), target, RestoreOptions{})
	switch {
	case err != nil:
		errs = append(errs, err)
		mustName(t, err, p.id, bigDisk, -1, 0)
	case target.astray || !bytes.Equal(target.got, p.big):
		t.Fatalf("point %s, disk %s: wrong bytes", p.id, bigDisk)
	}
	return errs
}

// bigTarget takes the end of the big disk; nothing but zeros belongs elsewhere.
type bigTarget struct {
	mu     sync.Mutex
	got    []byte
	astray bool
}

func (b *bigTarget) WriteAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	start := bigSize - int64(len(b.got))
	for i, c := range p {
		if at := off + int64(i) - start; at >= 0 && at < int64(len(b.got)) {
			b.got[at] = c
		} else if c != 0 {
			b.astray = true
		}
	}
	return len(p), nil
}

// mustName demands an error that says point, disk and range; off < 0: any range
// of the disk.
func mustName(t *testing.T, err error, id PointID, disk string, off, n int64) {
	t.Helper()
	var c *CorruptError
	switch {
	case !errors.As(err, &c):
		t.Errorf("not a *CorruptError: %v", err)
	case c.Point != id || c.Disk != disk || c.Len <= 0 || off >= 0 && (c.Off != off || c.Len != n):
		t.Errorf("the error names %s, %s, %d bytes at %d; want %s, %s, %d at %d: %v", c.Point, c.Disk, c.Len, c.Off, id, disk, n, off, err)
	case !strings.Contains(err.Error(), string(id)) || !strings.Contains(err.Error(), disk):
		t.Errorf("the text does not say it: %v", err)
	}
}

// A damage changes one file.
type damage struct {
	name string
	do   func(t *testing.T, fsys *vfs.Mem, file string) vfs.FS
}

func flipAt(off int64, mask byte) damage {
	return damage{fmt.Sprintf("flip %#02x at %d", mask, off), func(t *testing.T, fsys *vfs.Mem, file string) vfs.FS {
		if err := fsys.Corrupt(file, off, mask); err != nil {
			t.Fatal(err)
		}
		return fsys
	}}
}

func cutTo(n int64) damage {
	return damage{fmt.Sprintf("cut to %d", n), func(t *testing.T, fsys *vfs.Mem, file string) vfs.FS {
		f, err := fsys.OpenWrite(file)
		if err == nil {
			err = errors.Join(f.Truncate(n), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return fsys
	}}
}

// wholeFileDamages are those that don't depend on what is in the file.
func wholeFileDamages(size int64) []damage {
	list := []damage{
		{"deleted", func(t *testing.T, fsys *vfs.Mem, file string) vfs.FS {
			if err := fsys.Remove(file); err != nil {
				t.Fatal(err)
			}
			return fsys
		}},
		{"garbage", func(t *testing.T, fsys *vfs.Mem, file string) vfs.FS {
			garbage := make([]byte, size)
			rng := rand.New(rand.NewPCG(3, 4))
			for i := range garbage {
				garbage[i] = byte(rng.Uint32())
			}
			if err := fsys.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFile(fsys, file, garbage); err != nil {
				t.Fatal(err)
			}
			return fsys
		}},
		{"longer", func(t *testing.T, fsys *vfs.Mem, file string) vfs.FS {
			return cutTo(size+4096).do(t, fsys, file)
		}},
		{"EIO", func(t *testing.T, fsys *vfs.Mem, file string) vfs.FS {
			f := vfs.NewFaulty(fsys)
			f.FailReads(file, syscall.EIO)
			return f
		}},
	}
	for _, n := range slices.Compact([]int64{0, 1, size / 2, size - 1}) {
		list = append(list, cutTo(n))
	}
	return list
}

// someFlips are flips all over a file, of all bits in turn.
func someFlips(size int64, count int) []damage {
	var list []damage
	step := max(1, size/int64(count))
	for i, off := 0, int64(0); off < size; i, off = i+1, off+step {
		list = append(list, flipAt(min(size-1, off+int64(i)%step), 1<<(i%8)))
	}
	return list
}

// badSectors is a file system in which a stretch of one file can't be read.
type badSectors struct {
	vfs.FS
	file      string
	from, end int64
}

func (b *badSectors) Open(name string) (vfs.File, error) {
	f, err := b.FS.Open(name)
	if err != nil || name != b.file {
		return f, err
	}
	return &badFile{f, b}, nil
}

type badFile struct {
	vfs.File
	bad *badSectors
}

func (f *badFile) ReadAt(p []byte, off int64) (int, error) {
	if off < f.bad.end && off+int64(len(p)) > f.bad.from {
		return 0, fmt.Errorf("read %s: %w", path.Base(f.bad.file), syscall.EIO)
	}
	return f.File.ReadAt(p, off)
}
