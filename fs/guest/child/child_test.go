package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
	"holdfast/fs/guest"
	"holdfast/fs/treetest"
)

// The test program is the process too: with the verb of samples, a volume's
// Format names a tree of the tests, and what it does to its process.
const sampleVerb = "guest-child-sample"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Verb:
			os.Exit(Main())
		case sampleVerb:
			os.Exit(run(sampleReader{}, confine))
		case escapeVerb:
			os.Exit(run(sampleReader{}, escapeAfter(filterCalls)))
		case unfilteredVerb:
			os.Exit(run(sampleReader{}, escapeAfter(func() error { return nil })))
		}
	}
	os.Exit(m.Run())
}

// sampleReader opens the trees of the tests by their names.
type sampleReader struct{}

func (sampleReader) Layout(ctx context.Context, d guest.Disk) (guest.Layout, error) {
	head := make([]byte, 8)
	if _, err := d.ReadAt(head, 0); err != nil {
		return guest.Layout{}, err
	}
	return guest.Layout{Table: "gpt", SectorBytes: 512, Notes: []string{fmt.Sprintf("begins with %x", head)}, Volumes: []guest.Volume{
		{Name: "1", Off: 4096, Size: d.Size() - 4096, Format: "sample", Label: "a label"}, {Name: "2", Why: "XFS, not readable yet"},
	}}, nil
}

func (sampleReader) Close() error { return nil }

func (sampleReader) Open(_ context.Context, d guest.Disk, v guest.Volume) (fs.Tree, error) {
	if v.Format == "huge" {
		return sampleOf(5 << 30), nil
	}
	tree := sample()
	switch v.Format {
	case "many":
		return manyFiles(), nil
	case "trap":
		return trap{manyFiles()}, nil
	case "sample":
		return tree, nil
	case "bare":
		return struct{ fs.Tree }{tree}, nil
	case "moody":
		return moody{tree, d}, nil
	}
	return nil, fmt.Errorf("format %q: %w", v.Format, fs.ErrUnsupported)
}

func sample() *treetest.Tree { return sampleOf(1 << 20) }

// sampleOf has a sparse file of that size.
func sampleOf(hugeBytes int64) *treetest.Tree {
	data := bytes.Repeat([]byte("holdfast "), 5000)
	sparse := append(make([]byte, 3*4096), data...)
	sparse = append(sparse, make([]byte, 10*4096+5)...)
	fragmented := []byte{}
	for i := range 1100 { // data, hole, data …: more extents than are asked for at once
		fragmented = append(fragmented, bytes.Repeat([]byte{byte(i%255 + 1)}, 4096)...)
		fragmented = append(fragmented, make([]byte, 4096)...)
	}
	files := treetest.Files{
		"empty":                 {},
		"small":                 {Data: []byte("a few bytes")},
		"dir/plain":             {Data: data},
		"dir/sparse":            {Data: sparse, Attr: fs.Attr{Size: 1 << 20}},
		"dir/fragmented":        {Data: fragmented},
		"dir/other name":        {Link: "dir/plain"},
		"dir/link":              {Target: "../small"},
		"dir/sub/here":          {Data: data[:4097], Xattrs: map[string]string{"user.a": "1", "security.b": "\x00\xff"}},
		"dir/sub/streamed":      {Data: data[:10], Streams: map[string][]byte{"Zone": []byte("x"), "large": data}},
		"odd \xff name\nof two": {Data: data[:1]},
		"fifo":                  {Attr: fs.Attr{Type: fs.TypeFIFO}},
		"null":                  {Attr: fs.Attr{Type: fs.TypeCharDevice, Major: 1, Minor: 3}},
		"huge":                  {Data: data, Attr: fs.Attr{Size: hugeBytes}},
		"hollow":                {Attr: fs.Attr{Size: 100_000}},
		"broken":                {Data: data, Err: fmt.Errorf("inode 77: extent tree: %w", fs.ErrDamaged)},
	}
	for i := range 1200 {
		files[fmt.Sprintf("big/entry-%d", i)] = treetest.File{}
	}
	return treetest.NewTree(files, "the journal was replayed")
}

// moody is a tree that does to its process what the name looked up says.
type moody struct {
	*treetest.Tree
	disk guest.Disk
}

var (
	eaten [][]byte
	spun  atomic.Int64
)

func (m moody) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	switch name {
	case "panic":
		var none []int
		_ = none[len(name)]
	case "crash":
		go panic("in a goroutine of the reader's")
		select {}
	case "spin":
		for n := 0; ; n++ {
			spun.Store(int64(n))
		}
	case "hang":
		select {}
	case "wait":
		<-ctx.Done()
		return fs.Attr{}, ctx.Err()
	case "eat":
		for {
			eaten = append(eaten, bytes.Repeat([]byte{1}, 1<<20))
		}
	case "read":
		_, err := m.disk.ReadAt(make([]byte, 4096), 1<<20)
		return fs.Attr{}, fmt.Errorf("inode 12: %w", err)
	}
	return m.Tree.Lookup(ctx, dir, name)
}

// memDisk is a disk in memory.
type memDisk []byte

func (d memDisk) Size() int64 { return int64(len(d)) }
func (d memDisk) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(d).ReadAt(p, off)
}

// sampleDisk is a disk with the sample's device as volume 1.
func sampleDisk(t testing.TB) memDisk {
	dev, err := io.ReadAll(sample().Device())
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Repeat([]byte{0xee}, 4096), dev...)
}

func volume(d memDisk, format string) guest.Volume {
	return guest.Volume{Name: "1", Off: 4096, Size: d.Size() - 4096, Format: format}
}

// testLog writes what the parent logs to the test.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func start(t testing.TB, opt Options) *Child {
	t.Helper()
	if opt.Command == nil {
		opt.Command = []string{self, sampleVerb}
	}
	if opt.Logger == nil {
		opt.Logger = testLog(t)
	}
	c, err := Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func open(t testing.TB, c *Child, d guest.Disk, v guest.Volume) fs.Tree {
	t.Helper()
	tree, err := c.Open(t.Context(), d, v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

func TestConform(t *testing.T) {
	c, d := start(t, Options{}), sampleDisk(t)
	tree := open(t, c, d, volume(d, "huge"))
	treetest.Conform(t, tree, treetest.Options{
		Device: io.NewSectionReader(d, 4096, d.Size()-4096), Unreadable: true,
		Reopen: func() (fs.Tree, error) { return c.Open(t.Context(), d, volume(d, "huge")) },
	})
}

func TestTheSameAsHere(t *testing.T) {
	c, d := start(t, Options{}), sampleDisk(t)
	for _, format := range []string{"sample", "bare"} {
		want, err := sampleReader{}.Open(t.Context(), d, volume(d, format))
		if err != nil {
			t.Fatal(err)
		}
		got := open(t, c, d, volume(d, format))
		if got.Root() != want.Root() {
			t.Errorf("root %v, want %v", got.Root(), want.Root())
		}
		broken := resolve(t, want, "broken").ID
		_, wantErr := want.ReadAt(t.Context(), broken, make([]byte, 10), 0)
		_, gotErr := got.ReadAt(t.Context(), broken, make([]byte, 10), 0)
		if !errors.Is(gotErr, fs.ErrDamaged) || gotErr.Error() != wantErr.Error() {
			t.Errorf("error %v, want %v", gotErr, wantErr)
		}
		for _, diff := range treetest.Diff(snap(want), snap(got), 0) {
			if !strings.Contains(diff, `"broken": error`) {
				t.Error(diff)
			}
		}
		_, x := got.(fs.XattrTree)
		_, s := got.(fs.StreamTree)
		n, noted := got.(fs.NotedTree)
		if all := format == "sample"; x != all || s != all || noted != all {
			t.Errorf("%s: xattrs %v, streams %v, notes %v; want %v", format, x, s, noted, all)
		}
		if noted && cmp.Diff([]string{"the journal was replayed"}, n.Notes()) != "" {
			t.Errorf("notes %q", n.Notes())
		}
	}
}

// quiet is a test that is not told of files that can't be read.
type quiet struct{ testing.TB }

func (quiet) Errorf(string, ...any) {}
func (quiet) Helper()               {}
func (quiet) Context() context.Context {
	return context.Background()
}

func snap(t fs.Tree) *treetest.Snapshot { return treetest.Snap(quiet{}, t, t.Root()) }

func resolve(t testing.TB, tree fs.Tree, path string) fs.Attr {
	t.Helper()
	a, err := fs.Resolve(t.Context(), tree, tree.Root(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLayout(t *testing.T) {
	c, d := start(t, Options{}), sampleDisk(t)
	got, err := c.Layout(t.Context(), d)
	want, werr := sampleReader{}.Layout(t.Context(), d)
	if diff := cmp.Diff(want, got); err != nil || werr != nil || diff != "" {
		t.Errorf("%v, %v, -want +got\n%s", err, werr, diff)
	}
}

// TestDirectInTheProcess has the real reader in the process, for a disk with nothing on it.
func TestDirectInTheProcess(t *testing.T) {
	c := start(t, Options{Command: []string{self, Verb}})
	d := memDisk(make([]byte, 1<<20))
	want, werr := guest.Direct{}.Layout(t.Context(), d)
	got, err := c.Layout(t.Context(), d)
	if diff := cmp.Diff(want, got); fmt.Sprint(err) != fmt.Sprint(werr) || diff != "" {
		t.Errorf("%v, want %v, -want +got\n%s", err, werr, diff)
	}
	v := guest.Volume{Name: "5", Size: 1 << 20, Format: "xfs", Why: "XFS, not readable yet"}
	_, werr = guest.Direct{}.Open(t.Context(), d, v)
	if _, err := c.Open(t.Context(), d, v); !errors.Is(err, fs.ErrUnsupported) || err.Error() != werr.Error() {
		t.Errorf("open: %v, want %v", err, werr)
	}
	v.Size++
	if _, err := c.Open(t.Context(), d, v); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("open past the end: %v", err)
	}
}

// pid is the process that serves c now.
func (c *Child) process() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

func kill(t *testing.T, c *Child) {
	t.Helper()
	p, err := os.FindProcess(c.process())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}

// TestDeath kills the process while trees are read: requests fail so that they
// may be tried again, and what is read then is right.
func TestDeath(t *testing.T) {
	c, d := start(t, Options{}), sampleDisk(t)
	a, b := open(t, c, d, volume(d, "sample")), open(t, c, d, volume(d, "bare"))
	plain := resolve(t, a, "dir/plain").ID
	want := snap(a)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var retries, reads int
	var mu sync.Mutex
	for g := range 4 {
		tree := []fs.Tree{a, b}[g%2]
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, err := tree.Lookup(t.Context(), tree.Root(), []string{"dir", "small", "big"}[r.IntN(3)])
				mu.Lock()
				if errors.Is(err, fs.ErrRetry) {
					retries++
				} else if err != nil {
					t.Errorf("lookup: %v", err)
				} else {
					reads++
				}
				mu.Unlock()
			}
		}()
	}
	for range 3 {
		time.Sleep(100 * time.Millisecond)
		kill(t, c)
	}
	time.Sleep(50 * time.Millisecond)
	close(stop)
	wg.Wait()
	if retries == 0 || reads == 0 {
		t.Errorf("%d requests failed, %d did not; want some of both", retries, reads)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := a.Attr(t.Context(), plain)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrRetry) || time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, diff := range treetest.Diff(want, snap(a), 0) {
		if !strings.Contains(diff, `"broken": error`) {
			t.Error(diff)
		}
	}
}

// TestHarm has a reader that does what readers must not: the request fails with
// a reason, and the next ones are answered.
func TestHarm(t *testing.T) {
	tests := []struct {
		name  string
		says  string
		err   error
		lives bool // the process does
	}{
		{"panic", "the reader panicked: runtime error: index out of range", fs.ErrDamaged, true},
		{"crash", `volume 1: the reading process ended \(exit status 2: panic: in a goroutine of the reader's\)`, fs.ErrRetry, false},
		{"spin", "volume 1: look up a name: took more than 1s of processor time", fs.ErrDamaged, false},
		{"hang", "volume 1: look up a name: took more than 6s without reading", fs.ErrDamaged, false},
		{"eat", "out of memory|failed to allocate", fs.ErrRetry, false}, // the latter with the race detector
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			opt := Options{MemoryBytes: 64 << 20, CPU: time.Minute}
			switch tt.name {
			case "spin":
				opt.CPU = time.Second
			case "hang":
				opt.Wall = 6 * time.Second
			}
			c, d := start(t, opt), sampleDisk(t)
			tree := open(t, c, d, volume(d, "moody"))
			before := c.process()
			_, err := tree.Lookup(t.Context(), tree.Root(), tt.name)
			if !errors.Is(err, tt.err) || !regexp.MustCompile(tt.says).MatchString(err.Error()) {
				t.Errorf("got %v; want %v, saying %q", err, tt.err, tt.says)
			}
			if a, err := tree.Lookup(t.Context(), tree.Root(), "small"); err != nil || a.Size != 11 {
				t.Errorf("the next request: %+v, %v", a, err)
			}
			if lives := c.process() == before; lives != tt.lives {
				t.Errorf("the process lives: %v, want %v", lives, tt.lives)
			}
		})
	}
}

// TestRepeatedDeath sees that a question which ends every process is soon not
// asked any more, while others are answered.
func TestRepeatedDeath(t *testing.T) {
	c, d := start(t, Options{}), sampleDisk(t)
	tree := open(t, c, d, volume(d, "moody"))
	var err error
	deaths := 0
	for range 20 {
		if _, err = tree.Lookup(t.Context(), tree.Root(), "crash"); !errors.Is(err, fs.ErrRetry) {
			break
		}
		deaths++
		time.Sleep(50 * time.Millisecond)
	}
	if !errors.Is(err, fs.ErrDamaged) || deaths != guiltyDeaths {
		t.Errorf("after %d deaths: %v; want %v after %d", deaths, err, fs.ErrDamaged, guiltyDeaths)
	}
	for range 100 {
		if _, err = tree.Lookup(t.Context(), tree.Root(), "small"); !errors.Is(err, fs.ErrRetry) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	c, d := start(t, Options{}), sampleDisk(t)
	tree := open(t, c, d, volume(d, "moody"))
	before := c.process()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 2 * maxCalls { // more than there may be at once
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := tree.Lookup(ctx, tree.Root(), "wait"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
			}
		}()
	}
	wg.Wait()
	for range 2 * maxCalls { // those that were cancelled have ended there too
		if _, err := tree.Lookup(t.Context(), tree.Root(), "small"); err != nil {
			t.Fatal(err)
		}
	}
	if c.process() != before {
		t.Error("the process was started again")
	}
}

// errDisk is what only our own disk can say.
type errDisk struct{ at int64 }

func (e errDisk) Error() string { return fmt.Sprintf("pack 17 fails its digest at %d", e.at) }

type failingDisk struct {
	memDisk
	from int64
}

func (d failingDisk) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > d.from {
		return 0, errDisk{off}
	}
	return d.memDisk.ReadAt(p, off)
}

// TestDiskErrors sees that an error of the disk is found again, whoever read it.
func TestDiskErrors(t *testing.T) {
	c := start(t, Options{})
	d := sampleDisk(t)
	bad := failingDisk{d, 1 << 20}
	tree := open(t, c, bad, volume(d, "moody"))
	var e errDisk
	if _, err := tree.Lookup(t.Context(), tree.Root(), "read"); !errors.As(err, &e) || !strings.Contains(err.Error(), "inode 12: pack 17") {
		t.Errorf("read by the process: %v", err)
	}
	n, err := tree.ReadAt(t.Context(), resolve(t, tree, "dir/fragmented").ID, make([]byte, 20<<20), 0)
	if !errors.As(err, &e) || !strings.Contains(err.Error(), "volume 1: inode ") || n <= 0 {
		t.Errorf("read here: %d, %v", n, err)
	}
}

func TestIdle(t *testing.T) {
	c, d := start(t, Options{Idle: 300 * time.Millisecond}), sampleDisk(t)
	tree := open(t, c, d, volume(d, "sample"))
	before := c.process()
	deadline := time.Now().Add(20 * time.Second)
	for {
		if k, err := c.current(); err != nil {
			t.Fatal(err)
		} else if k == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the unused process does not end")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if a, err := tree.Lookup(t.Context(), tree.Root(), "small"); err != nil || a.Size != 11 {
		t.Errorf("after a while: %+v, %v", a, err)
	}
	if c.process() == before {
		t.Error("the process is the same")
	}
}

func TestClosed(t *testing.T) {
	c, d := start(t, Options{}), sampleDisk(t)
	one, other := open(t, c, d, volume(d, "moody")), open(t, c, d, volume(d, "sample"))
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if _, err := one.Attr(t.Context(), one.Root()); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a closed tree: %v", err)
	}
	if _, err := other.Attr(t.Context(), other.Root()); err != nil {
		t.Errorf("another tree: %v", err)
	}
	waiting := make(chan error)
	third := open(t, c, d, volume(d, "moody"))
	go func() {
		_, err := third.Lookup(t.Context(), third.Root(), "hang")
		waiting <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a request under way: %v", err)
	}
	if _, err := c.Open(t.Context(), d, volume(d, "sample")); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a closed Child: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	for _, tt := range []struct {
		name    string
		command []string
		says    string
	}{
		{"no program", []string{"/no/such/program"}, "no such file"},
		{"another program", []string{"/bin/true"}, "exit status 0"},
		{"one that says why", []string{"/bin/sh", "-c", "echo it is like this >&2; exit 3"}, "exit status 3: it is like this"},
		{"one that talks nonsense", []string{"/bin/sh", "-c", "head -c 100 /dev/zero >&3; exec sleep 100"}, "protocol broken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Start(t.Context(), Options{Command: tt.command})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want one saying %q", err, tt.says)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Options{Command: []string{"/bin/sleep", "100"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that says nothing: %v", err)
	}
}
