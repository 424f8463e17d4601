package repotest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

// TestDisk holds a Disk against a plain byte array.
func TestDisk(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		d, plain := NewDisk(0), []byte(nil)
		for step := range 60 {
			switch size := int64(len(plain)); rng.IntN(4) {
			case 0:
				n := rng.Int64N(40 << 10)
				d.Resize(n)
				plain = append(plain[:min(n, size)], make([]byte, max(0, n-size))...)
			case 1, 2:
				if size > 0 {
					off := rng.Int64N(size)
					p := noise(rng, rng.IntN(int(size-off)+1))
					d.Write(p, off)
					copy(plain[off:], p)
				}
			case 3:
				if size > 0 {
					off := rng.Int64N(size)
					n := rng.Int64N(12 << 10)
					d.Trim(off, n)
					clear(plain[off:min(size, off+n)])
				}
			}
			got := make([]byte, len(plain)+1)
			n, err := d.ReadAt(got, 0)
			if n != len(plain) || !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], plain) {
				t.Fatalf("seed %d, step %d: read %d bytes, %v, of %d; equal %v", seed, step, n, err, len(plain), bytes.Equal(got[:n], plain))
			}
			for off := int64(0); ; {
				start, end, err := d.NextData(off)
				if errors.Is(err, io.EOF) {
					start, end = d.size, d.size
				}
				if !bytes.Equal(plain[off:start], make([]byte, start-off)) || !d.zero(off, start-off) {
					t.Fatalf("seed %d, step %d: data between %d and %d passed over", seed, step, off, start)
				}
				if off = end; err != nil {
					break
				}
			}
		}
	}
}

// TestChange holds the ranges that Change tells against what differs.
func TestChange(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		old := New(rng, Kind(rng.IntN(Kinds)), rng.Int64N(700<<10))
		changed, ranges := Change(rng, old)
		a, b := make([]byte, old.size), make([]byte, changed.size)
		_, _ = old.ReadAt(a, 0)
		_, _ = changed.ReadAt(b, 0)
		n := min(len(a), len(b))
		for _, r := range ranges {
			if r.Off < 0 || r.Len <= 0 || r.Off+r.Len > int64(n) {
				t.Fatalf("seed %d: range %+v of disks of %d and %d bytes", seed, r, len(a), len(b))
			}
			copy(a[r.Off:r.Off+r.Len], b[r.Off:])
		}
		if !bytes.Equal(a[:n], b[:n]) {
			t.Fatalf("seed %d: differs outside of %+v", seed, ranges)
		}
	}
}

func TestSource(t *testing.T) {
	d := New(rand.New(rand.NewPCG(1, 1)), Dense, 20<<10)
	s := NewSource(d)
	s.FailAt = 8000
	if n, err := s.ReadAt(make([]byte, 4000), 4000); n != 4000 || err != nil {
		t.Errorf("before the bad byte: %d, %v", n, err)
	}
	if _, err := s.ReadAt(make([]byte, 4001), 4000); !errors.Is(err, ErrSource) {
		t.Errorf("with the bad byte: %v", err)
	}
	s = NewSource(d)
	s.EndAt = 8000
	if n, err := s.ReadAt(make([]byte, 4096), 4096); n != 8000-4096 || !errors.Is(err, io.EOF) {
		t.Errorf("over the early end: %d, %v", n, err)
	}
	if n, err := s.ReadAt(make([]byte, 10), 9000); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the early end: %d, %v", n, err)
	}
}

// sample is a repository of two points, and what it holds.
func sample(t *testing.T) (*vfs.Mem, repo.Options, *Model) {
	t.Helper()
	fsys, state := vfs.NewMem(), vfs.NewMem()
	create := repo.CreateOptions{State: state, ReserveBytes: 4096, PackBytes: repo.MinPackBytes,
		Geometry: chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 64 << 10}}
	if _, err := repo.Create(t.Context(), fsys, create); err != nil {
		t.Fatal(err)
	}
	opt := repo.Options{State: state}
	o, err := repo.Own(t.Context(), fsys, opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	m := new(Model)
	rng := rand.New(rand.NewPCG(1, 1))
	d := New(rng, Text, 300<<10)
	for range 2 {
		p := NewPoint("m", NamedDisk{"d", d})
		run, err := o.Backup(t.Context(), repo.BackupOptions{Machine: "m", Disks: p.Sources()})
		if err != nil {
			t.Fatal(err)
		}
		m.Add(p.WithID(run.Point.ID))
		d = Scramble(d, 100<<10)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	return fsys, opt, m
}

// TestAccountFinds shows that nothing out of place is overlooked.
func TestAccountFinds(t *testing.T) {
	whole, opt, m := sample(t)
	Check(t, whole, opt, m)
	CheckAccount(t, whole, opt)
	points := m.Points()
	pack := ""
	files := 0
	_ = vfs.Walk(whole, ".", func(name string, info vfs.Info) error {
		if !info.Dir {
			files++
		}
		if strings.HasSuffix(name, ".pack") {
			pack = name
		}
		return nil
	})
	write := func(name string) func(*vfs.Mem) error {
		return func(m *vfs.Mem) error {
			f, err := m.Create(name)
			if err == nil {
				err = f.Close()
			}
			return err
		}
	}
	for _, c := range []struct {
		name string
		do   func(*vfs.Mem) error
		want string
	}{
		{"a file in tmp", write("tmp/x"), "tmp/x, 0 bytes, belongs to nothing"},
		{"a strange file", write("notes"), "notes, 0 bytes, belongs to nothing"},
		{"a pack that nothing names", write(strings.Replace(pack, "00000002-", "00000009-", 1)), "belongs to nothing"},
		{"a run that stored nothing", write("runs/aaaaaaaaaaaaaaaaaaaa"), "stored nothing"},
		{"an index file in no list", write("index/00000099.idx"), "index/00000099.idx, 0 bytes, belongs to nothing"},
		{"a lease of no point", write("leases/aaaaaaaaaaaaaaaaaaaa"), "belongs to nothing"},
		{"a pin of no point", write("leases/pin-a"), "belongs to nothing"},
		{"a manifest that nothing records", write("points/aaaaaaaaaaaaaaaaaaaa"), "belongs to nothing"},
		{"a gap in the ledger", func(m *vfs.Mem) error { return m.Remove("ledger/00000002") }, "ledger/00000003, "},
		{"a directory too many", func(m *vfs.Mem) error { return m.Mkdir("packs/data/zz") }, "directories"},
		{"a directory too few", func(m *vfs.Mem) error { return m.Remove("tmp") }, "directories"},
		{"a manifest without its twin", func(m *vfs.Mem) error { return m.Remove("points/" + string(points[0].ID) + ".twin") }, ".twin is missing"},
		{"settings without their twin", func(m *vfs.Mem) error { return m.Remove("format.json.twin") }, "format.json.twin is missing"},
		{"twins that differ", func(m *vfs.Mem) error { return m.Corrupt("ledger/00000001.twin", 40, 1) }, "differ"},
		{"a pack that is gone", func(m *vfs.Mem) error { return m.Remove(pack) }, pack + " is missing"},
		{"a pack that has changed", func(m *vfs.Mem) error { return m.Corrupt(pack, 5000, 1) }, "is not the pack that is recorded"},
		{"an index without its list", func(m *vfs.Mem) error {
			infos, err := m.ReadDir("index")
			for _, info := range infos {
				if strings.HasPrefix(info.Name, "list-") {
					err = errors.Join(err, m.Remove("index/"+info.Name))
				}
			}
			return err
		}, "0 lists in index/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := whole.CrashClone(vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll})
			if err := c.do(fsys); err != nil {
				t.Fatal(err)
			}
			if err := Account(fsys); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestCompareFinds shows that no other byte, size, name or point passes.
func TestCompareFinds(t *testing.T) {
	fsys, opt, m := sample(t)
	for _, c := range []struct {
		name string
		do   func(p []Point) []Point
		want string
	}{
		{"another byte", func(p []Point) []Point {
			p[1].Disks[0].Disk.Write([]byte{0xff, 0xff}, 77_777)
			return p
		}, "are not those that were backed up"},
		{"data where it has zeros", func(p []Point) []Point {
			p[1].Disks[0].Disk.Resize(1)
			p[1].Disks[0].Disk.Resize(300 << 10)
			return p
		}, "are not those that were backed up"},
		{"another size", func(p []Point) []Point {
			p[0].Disks[0].Disk.Resize(300<<10 + 1)
			return p
		}, "307200 bytes, want 307201"},
		{"another disk", func(p []Point) []Point { p[0].Disks[0].Name = "e"; return p }, "not found"},
		{"more disks", func(p []Point) []Point { p[0].Disks = append(p[0].Disks, p[1].Disks...); return p }, "has 1 disks, want 2"},
		{"another machine", func(p []Point) []Point { p[0].Machine = "n"; return p }, "want of n"},
		{"another order", func(p []Point) []Point { return []Point{p[1], p[0]} }, "after number 2"},
		{"a point too many", func(p []Point) []Point { return p[:1] }, "is listed and should not be"},
		{"a point too few", func(p []Point) []Point { return append(p, NewPoint("m").WithID("aaaaaaaaaaaaaaaaaaaa")) }, "is not listed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var points []Point
			for _, p := range m.Points() {
				points = append(points, NewPoint(p.Machine, p.Disks...).WithID(p.ID))
			}
			r, err := repo.Open(t.Context(), fsys, opt)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close() //nolint:errcheck // only read
			if err := Compare(t.Context(), r, c.do(points)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
