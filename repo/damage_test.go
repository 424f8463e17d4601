package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

func eachShape(t *testing.T, test func(t *testing.T, s *sample)) {
	for _, shape := range sampleShapes() {
		t.Run(shape.String(), func(t *testing.T) {
			t.Parallel()
			test(t, sampleOf(t, shape))
		})
	}
}

func TestSampleReads(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		f := s.readAll(t, s.clone())
		if len(f.errs) > 0 || f.log != "" {
			t.Fatal(f)
		}
		var patches, packs int
		for _, name := range s.files(t, packsDir) {
			packs++
			for _, e := range packRecords(t, s.data(t, name)) {
				if e.Kind == pack.Patch {
					patches++
				}
			}
		}
		if patches < 2 || packs < 6 {
			t.Errorf("the sample has %d patches in %d packs", patches, packs)
		}
	})
}

func packRecords(t *testing.T, file []byte) []pack.Entry {
	t.Helper()
	entries, err := openBytes(t, file).Records()
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func openBytes(t *testing.T, file []byte) *pack.File {
	t.Helper()
	f, err := pack.Open(strings.NewReader(string(file)), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// regions returns places in every part of a pack.
func regions(t *testing.T, file []byte) map[string][]int64 {
	t.Helper()
	at := map[string][]int64{"header": {0, 5, 20, 63}}
	end := int64(0)
	for _, e := range packRecords(t, file) {
		h, n, err := pack.ParseHeader(file[e.Off:])
		if err != nil {
			t.Fatal(err)
		}
		off := int64(e.Off)
		at["record header"] = append(at["record header"], off, off+5, off+30, off+60, off+int64(n)-10, off+int64(n)-1)
		for _, f := range h.Frames {
			if !f.InBase && f.Stored > 0 {
				first := off + int64(f.Off)
				at["frame"] = append(at["frame"], first, first+int64(f.Stored)/2, first+int64(f.Stored)-1)
			}
		}
		end = off + int64(e.Len)
	}
	l, ok := openBytes(t, file).Layout()
	if !ok {
		t.Fatal("no layout")
	}
	data, tail, size := int64(l.Data)*pack.BlockBytes, int64(l.Tail)*pack.BlockBytes, int64(len(file))
	at["record table"] = []int64{end, end + 8, end + 30}
	at["padding"] = []int64{data - 1}
	at["tail A"] = []int64{data, data + tail - 128, data + tail - 1}
	at["tail B"] = []int64{size - tail, size - 128, size - 100, size - 1}
	if l.Parity > 0 {
		at["parity"] = []int64{data + tail, size - tail - 1}
	}
	return at
}

// TestFlippedBit flips one bit in every part of every pack. With parity all
// must read; without, what is not read says why, and the rest reads.
func TestFlippedBit(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		mem := s.clone()
		healed, lost, turn := 0, 0, 0
		for _, name := range s.files(t, packsDir) {
			for region, places := range regions(t, s.data(t, name)) {
				for i, off := range some(places, 1, turn) {
					turn++
					mask := byte(1) << ((turn + i) % 8)
					if err := mem.Corrupt(name, off, mask); err != nil {
						t.Fatal(err)
					}
					f := s.readAll(t, mem)
					if err := mem.Corrupt(name, off, mask); err != nil {
						t.Fatal(err)
					}
					what := fmt.Sprintf("%s, %s at %d", name, region, off)
					if s.shape.parity > 0 && len(f.errs) > 0 {
						t.Fatalf("%s: not healed: %v", what, f)
					}
					s.mustBlame(t, what, f, name)
					if strings.HasPrefix(name, dataDir) && len(f.errs) > len(s.points)*2 {
						t.Errorf("%s: %d frames can't be read: %v", what, len(f.errs), f)
					}
					if f.names("healed") {
						healed++
					}
					lost += len(f.errs)
				}
			}
		}
		if s.shape.parity > 0 && healed < 5 || s.shape.parity < 0 && lost < 5 {
			t.Errorf("healed %d times, lost %d ranges: was anything damaged?", healed, lost)
		}
	})
}

// mustBlame demands that every error names the pack.
func (s *sample) mustBlame(t *testing.T, what string, f *finding, name string) {
	t.Helper()
	for _, err := range f.errs {
		var c *CorruptError
		if !errors.As(err, &c) || c.Pack != name || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error does not name the pack: %v", what, err)
		}
	}
}

// TestLostPack loses packs in whole or in part.
func TestLostPack(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		total := 0
		for _, p := range s.points {
			total += (len(p.small) + sampleFrame - 1) / sampleFrame
		}
		for turn, name := range s.files(t, packsDir) {
			file := s.data(t, name)
			damages := wholeFileDamages(int64(len(file)))
			for _, e := range some(packRecords(t, file), 1, turn) {
				damages = append(damages, cutTo(int64(e.Off)+1))
			}
			for _, d := range some(damages, 3, turn) {
				f := s.readAll(t, d.do(t, s.clone(), name))
				what := name + " " + d.name
				if !f.opened {
					t.Fatalf("%s: %v", what, f)
				}
				s.mustBlame(t, what, f, name)
				if strings.HasPrefix(name, dataDir) && len(f.errs) >= total {
					t.Errorf("%s: nothing can be read any more", what)
				}
				for _, err := range f.errs {
					if d.name == "deleted" && !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s: %v", what, err)
					}
				}
				if d.name == "longer" && len(f.errs) > 0 {
					t.Errorf("%s: %v", what, f)
				}
			}
		}
	})
}

// TestBadSectors heals what a disk can't read.
func TestBadSectors(t *testing.T) {
	s := sampleOf(t, sampleShape{true, 3})
	for turn, name := range s.files(t, packsDir) {
		size := int64(len(s.data(t, name)))
		var starts []int64
		for off := int64(0); off < size; off += max(pack.BlockBytes, size/16/pack.BlockBytes*pack.BlockBytes) {
			starts = append(starts, off)
		}
		for _, off := range some(starts, 2, turn) {
			f := s.readAll(t, &badSectors{FS: s.clone(), file: name, from: off, end: off + 2*pack.BlockBytes})
			if len(f.errs) > 0 {
				t.Fatalf("%s, two blocks at %d: %v", name, off, f)
			}
		}
	}
}

// twinned lists the files that are stored twice.
func (s *sample) twinned(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, name := range s.files(t, ".") {
		if base, ok := strings.CutSuffix(name, twinSuffix); ok {
			names = append(names, base)
		}
	}
	return names
}

// TestOneTwin damages one copy of what is stored twice: nothing is lost.
func TestOneTwin(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		names := s.twinned(t)
		if len(names) < 8 {
			t.Fatal(names)
		}
		for turn, base := range names {
			size := int64(len(s.data(t, base)))
			for _, d := range append(wholeFileDamages(size), some(someFlips(size, 40), 4, turn)...) {
				for _, name := range []string{base, base + twinSuffix} {
					if f := s.read(t, d.do(t, s.clone(), name), sampleFrame); len(f.errs) > 0 {
						t.Fatalf("%s %s: %v", name, d.name, f)
					}
				}
			}
		}
	})
}

// TestBothTwins damages both copies: what needs them says so and names them.
func TestBothTwins(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		for turn, base := range s.twinned(t) {
			size := int64(len(s.data(t, base)))
			for _, d := range append(wholeFileDamages(size), some(someFlips(size, 10), 1, turn)...) {
				if d.name == "EIO" {
					continue // Faulty goes on top, once
				}
				mem := s.clone()
				d.do(t, mem, base)
				d.do(t, mem, base+twinSuffix)
				f := s.read(t, mem, sampleFrame)
				what := base + " " + d.name
				gone := d.name == "deleted"
				switch dir, _, _ := strings.Cut(base, "/"); {
				case dir == settingsName:
					if f.opened || !errors.Is(f.errs[0], ErrNotRepository) && !f.names(settingsName) {
						t.Errorf("%s: %v", what, f)
					}
				case dir == pointsDir:
					id := strings.TrimPrefix(base, pointsDir+"/")
					if len(f.errs) != 1 || !f.names(id) || gone != errors.Is(f.errs[0], ErrNotFound) {
						t.Errorf("%s: %v", what, f)
					}
				case dir == ledgerDir:
					// The points it records are not believed any more.
					if len(f.errs) > 1 || len(f.errs) == 1 && !f.names(base) {
						t.Errorf("%s: %v", what, f)
					}
				case strings.Contains(base, "signer"):
					if len(f.errs) > 0 || !gone && !f.names(base) {
						t.Errorf("%s: %v", what, f)
					}
				default: // the only key
					if f.opened || !errors.Is(f.errs[0], ErrWrongKey) || !gone && !f.names(base) {
						t.Errorf("%s: %v", what, f)
					}
				}
			}
		}
	})
}

// TestDamagedIndex damages the index in every way. Readers read on, and so does
// the owner, who backs up and leaves it whole.
func TestDamagedIndex(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		for turn, name := range s.files(t, indexDir) {
			size := int64(len(s.data(t, name)))
			flips := some(someFlips(size, 48), 3, turn)
			for i, d := range append(wholeFileDamages(size), flips...) {
				what := name + " " + d.name
				mem := s.clone()
				fsys := d.do(t, mem, name)
				f := s.readAll(t, fsys)
				if len(f.errs) > 0 {
					t.Fatalf("%s, reader: %v", what, f)
				}
				if i%3 != 0 { // the owner is slow
					continue
				}
				s.ownAndBackUp(t, what, fsys)
				f = s.readAll(t, fsys)
				if len(f.errs) > 0 || f.log != "" {
					t.Fatalf("%s, after the owner: %v", what, f)
				}
			}
		}
	})
}

// ownAndBackUp opens the repository as owner, backs up what was backed up
// before, changed in one place, and reads everything.
func (s *sample) ownAndBackUp(t *testing.T, what string, fsys vfs.FS) {
	t.Helper()
	o := s.own(t, fsys)
	last := &s.points[len(s.points)-1]
	small := slices.Clone(last.small)
	small[sampleChunk+3]++
	run, err := o.Backup(t.Context(), BackupOptions{Machine: "web 1", Disks: []SourceDisk{
		{Name: smallDisk, Source: memSource(small)}, {Name: bigDisk, Source: bigSource(last.big)}}})
	if err != nil {
		t.Fatalf("%s: back up: %v", what, err)
	}
	c := run.Point.Counters
	if c.NewBytes > sampleChunk {
		t.Errorf("%s: %d bytes were taken for new", what, c.NewBytes)
	}
	fresh := samplePoint{run.Point.ID, small, last.big}
	for _, p := range []*samplePoint{last, &fresh} {
		if errs := s.readPoint(t, o.Repository, p, bigSize); len(errs) > 0 {
			t.Fatalf("%s: owner: %v", what, errs)
		}
	}
	if err := o.Close(); err != nil {
		t.Fatalf("%s: close: %v", what, err)
	}
}

// TestIndexDamagedWhileOpen damages the index below those who have it open.
func TestIndexDamagedWhileOpen(t *testing.T) {
	s := sampleOf(t, sampleShape{false, -1})
	for _, name := range s.files(t, indexDir) {
		if !strings.HasSuffix(name, ".idx") {
			continue
		}
		mem := s.clone()
		r, err := Open(t.Context(), mem, s.options(t.Output()))
		if err != nil {
			t.Fatal(err)
		}
		o := s.own(t, mem)
		for off := int64(0); off < int64(len(s.data(t, name))); off += 4096 {
			if err := mem.Corrupt(name, off+1000, 0x10); err != nil {
				t.Fatal(err)
			}
		}
		for i := range s.points {
			if errs := s.readPoint(t, r, &s.points[i], bigSize); len(errs) > 0 {
				t.Error("reader:", errs)
			}
		}
		run, err := o.Backup(t.Context(), BackupOptions{Machine: "new", Disks: []SourceDisk{
			{Name: smallDisk, Source: memSource(s.points[0].small)}, {Name: bigDisk, Source: bigSource(s.points[0].big)}}})
		if err != nil {
			t.Fatal(err)
		}
		if run.Point.Counters.NewBytes > 0 {
			t.Error("what was stored was not found")
		}
		// The reader goes by the ledger now, and sees what is committed anew.
		fresh := s.points[0]
		fresh.id = run.Point.ID
		if errs := s.readPoint(t, r, &fresh, bigSize); len(errs) > 0 {
			t.Error("reader, new point:", errs)
		}
		if err := errors.Join(r.Close(), o.Close()); err != nil {
			t.Fatal(err)
		}
		if f := s.readAll(t, mem); len(f.errs) > 0 || f.log != "" {
			t.Error(f)
		}
	}
}

// TestDamagedRunRecord keeps nobody from anything.
func TestDamagedRunRecord(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		name := s.files(t, runsDir)[0]
		size := int64(len(s.data(t, name)))
		for _, d := range append(wholeFileDamages(size), some(someFlips(size, 16), 3, 1)...) {
			fsys := d.do(t, s.clone(), name)
			s.ownAndBackUp(t, name+" "+d.name, fsys)
			if f := s.read(t, fsys, sampleFrame); len(f.errs) > 0 {
				t.Fatalf("%s: %v", d.name, f)
			}
		}
	})
}

// TestIndexDamagedDuringRuns damages the index while several run and read: the
// index is made anew below them, and none of their packs is missing in it.
func TestIndexDamagedDuringRuns(t *testing.T) {
	s := sampleOf(t, sampleShape{false, -1})
	mem := s.clone()
	o := s.own(t, mem)
	for _, name := range s.files(t, indexDir) {
		for off := int64(1000); strings.HasSuffix(name, ".idx") && off < int64(len(s.data(t, name))); off += 4096 {
			if err := mem.Corrupt(name, off, 0x10); err != nil {
				t.Fatal(err)
			}
		}
	}
	fresh := make([]samplePoint, 3)
	var runs errgroup.Group
	for i := range fresh {
		p := &fresh[i]
		*p = samplePoint{small: slices.Clone(s.points[0].small), big: s.points[0].big}
		rng := rand.New(rand.NewPCG(uint64(i), 9))
		for j := range len(p.small) / 2 {
			p.small[j] = byte(rng.Uint32())
		}
		runs.Go(func() error {
			run, err := o.Backup(t.Context(), BackupOptions{Machine: fmt.Sprint("m", i), Disks: []SourceDisk{
				{Name: smallDisk, Source: memSource(p.small)}, {Name: bigDisk, Source: bigSource(p.big)}}})
			if err == nil {
				p.id = run.Point.ID
			}
			return err
		})
	}
	for i := range s.points {
		if errs := s.readPoint(t, o.Repository, &s.points[i], bigSize); len(errs) > 0 {
			t.Error(errs)
		}
	}
	if err := runs.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	after := sample{shape: s.shape, state: s.state, points: append(fresh, s.points...)}
	if f := after.readAll(t, mem); len(f.errs) > 0 || f.log != "" {
		t.Error(f)
	}
}
