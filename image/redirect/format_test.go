package redirect

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/repo/vfs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var sampleID = [16]byte([]byte("0123456789abcdef"))

// samples are bytes of each kind of file, as FORMAT.md shows them.
func samples() map[string][]byte {
	id := sampleID
	grain := bytes.Repeat([]byte("grain..."), grainBytes/8)
	wal := batch{
		batchHead: batchHead{origin: origin{id, 7}, off: walStart, durable: walStart, prior: 0x5000, mode: mode{layers: []uint32{0, 1}, write: 1, sealed: 1}},
		records: []record{
			{kind: kindData, disk: 0, layer: 1, first: 0x1234, count: 1, payload: grain},
			{kind: kindZero, disk: 1, layer: 1, first: 8, count: 16},
			{kind: kindMapped, disk: 0, layer: 1, first: 256, count: 256},
			{kind: kindTarget, disk: 1, count: 9, payload: []byte("/dev/sdq1")},
		},
	}
	m := batch{
		batchHead: batchHead{origin: origin{id, 3}, off: mapStart, applied: 6, mode: mode{layers: []uint32{0}}},
		records:   []record{{kind: kindData, first: 0x1234, count: 1}, {kind: kindZero, disk: 1, first: 8, count: 16}},
	}
	text, err := header{ID: hex.EncodeToString(id[:]), WALBytes: 64 * mib, Disks: []headerDisk{
		{"disk1", Identity{"repo-1", "point-1", "root-1", 10 << 40}},
	}}.encode()
	if err != nil {
		panic(err)
	}
	return map[string][]byte{
		"session":    text,
		"wal-header": fileHeader{walMagic, id, 7, 32 * mib}.encode(),
		"map-header": fileHeader{mapMagic, id, 3, 0x400}.encode(),
		"wal-batch":  wal.encode(nil, grainBytes, true),
		"map-batch":  m.encode(nil, mapUnit, false),
	}
}

// short leaves out what repeats.
func short(dump string) string {
	var out []string
	last, skipped := "", false
	for line := range strings.Lines(dump) {
		if text := line[10:]; text != last {
			out, skipped = append(out, line), false
			last = text
		} else if !skipped {
			out, skipped = append(out, "*\n"), true
		}
	}
	return strings.Join(out, "")
}

func TestGolden(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range samples() {
		file := filepath.Join("testdata", name+".golden")
		got := short(hex.Dump(p))
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s has changed:\n%s", name, got)
		}
		if strings.HasSuffix(name, "batch") && !strings.Contains(string(doc), got) {
			t.Errorf("FORMAT.md does not show %s as it is:\n%s", name, got)
		}
	}
}

// TestDecodeSamples reads back what encode made.
func TestDecodeSamples(t *testing.T) {
	p := samples()
	b, err := decodeBatch(p["wal-batch"], origin{sampleID, 7}, walStart, grainBytes, true)
	if err != nil || len(b.records) != 4 || b.records[0].first != 0x1234 || string(b.records[3].payload[:9]) != "/dev/sdq1" || b.prior != 0x5000 {
		t.Errorf("log batch: %+v, %v", b.batchHead, err)
	}
	if _, err := decodeBatch(p["wal-batch"], origin{sampleID, 8}, walStart, grainBytes, true); err == nil {
		t.Error("a batch of another generation was taken")
	}
	if _, err := decodeBatch(p["wal-batch"], origin{gen: 7}, walStart, grainBytes, true); err == nil {
		t.Error("a batch of another session was taken")
	}
	if _, err := decodeBatch(p["wal-batch"], origin{sampleID, 7}, 2*walStart, grainBytes, true); err == nil {
		t.Error("a batch in another place was taken")
	}
	for i := range p["wal-batch"] {
		q := bytes.Clone(p["wal-batch"])
		q[i] ^= 0x10
		if _, err := decodeBatch(q, origin{sampleID, 7}, walStart, grainBytes, true); err == nil && (i < batchBytes+4*recordBytes || i >= 4096) {
			t.Fatalf("a flipped bit at %d went unseen", i)
		}
	}
	m, err := decodeBatch(p["map-batch"], origin{sampleID, 3}, mapStart, mapUnit, false)
	if err != nil || len(m.records) != 2 || m.applied != 6 {
		t.Errorf("map batch: %+v, %v", m.batchHead, err)
	}
	h, id, err := decodeHeader(p["session"])
	if err != nil || string(id[:]) != "0123456789abcdef" || h.Disks[0].Identity.Point != "point-1" {
		t.Errorf("session: %+v, %v", h, err)
	}
}

// TestRefusedHeaders names what is wrong with a session's header.
func TestRefusedHeaders(t *testing.T) {
	good := string(samples()["session"])
	for name, text := range map[string]string{
		"empty":       "",
		"version":     strings.Replace(good, "HFREDIR 1", "HFREDIR 2", 1),
		"checksum":    strings.Replace(good, "point-1", "point-2", 1),
		"cut":         good[:len(good)-5],
		"other magic": "HFOTHER 1\n",
	} {
		if _, _, err := decodeHeader([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestMismatch refuses a session on another base.
func TestMismatch(t *testing.T) {
	fsys := vfs.NewMem()
	base := newBase(1, 50*grainBytes)
	s := mustCreate(t, fsys, smallLog, base)
	if _, err := Open(fsys, specs(base), smallLog); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := Discard(fsys); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("discarded while open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]DiskSpec) []DiskSpec{
		"repository": func(d []DiskSpec) []DiskSpec { d[0].Identity.Repository = "x"; return d },
		"point":      func(d []DiskSpec) []DiskSpec { d[0].Identity.Point = "x"; return d },
		"root":       func(d []DiskSpec) []DiskSpec { d[0].Identity.Root = "x"; return d },
		"size":       func(d []DiskSpec) []DiskSpec { d[0].Identity.Size++; return d },
		"name":       func(d []DiskSpec) []DiskSpec { d[0].Name = "x"; return d },
		"base":       func(d []DiskSpec) []DiskSpec { d[0].Base = newBase(1, 51*grainBytes); return d },
		"fewer":      func(d []DiskSpec) []DiskSpec { return nil },
	} {
		if _, err := Open(fsys, change(specs(base)), smallLog); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Create(fsys, specs(base), smallLog); err == nil {
		t.Error("created over a session")
	}
	s = mustOpen(t, fsys, smallLog, base)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestDamage flips bits all over the files that can tell. Opening gives a
// *DamageError with the file's name, or the disk is as it was.
func TestDamage(t *testing.T) {
	base := newBase(6, 100*grainBytes)
	want := bytes.Clone(base.data)
	fsys := vfs.NewMem()
	s := mustCreate(t, fsys, smallLog, base)
	d := s.Disks()[0]
	write := func(g, n int, b byte) {
		t.Helper()
		p := bytes.Repeat([]byte{b}, n*grainBytes)
		if _, err := d.Write(p, int64(g)*grainBytes, true); err != nil {
			t.Fatal(err)
		}
		copy(want[g*grainBytes:], p)
	}
	for i := range 12 {
		write(i*7, 3, byte(i+1))
		if i == 4 || i == 7 {
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	active := s.log.active
	for i := range 3 {
		write(90+i, 1, 0x77)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	end, name, mapEnd := active.end, active.name, s.m.end
	fsys = fsys.CrashClone(vfs.CrashOptions{})
	try := func(file string, off int64) (damaged bool) {
		t.Helper()
		bad := fsys.CrashClone(vfs.CrashOptions{})
		if err := bad.Corrupt(file, off, 0x24); err != nil {
			t.Fatal(err)
		}
		s, err := Open(bad, specs(base), smallLog)
		if err == nil {
			defer s.Close()
			if err := same(s.Disks()[0], want); err != nil {
				t.Fatalf("%s at %d: %v", file, off, err)
			}
			return false
		}
		var de *DamageError
		if !errors.As(err, &de) || !errors.Is(err, ErrDamaged) || de.File == "" {
			t.Fatalf("%s at %d: %v", file, off, err)
		}
		return true
	}
	found := 0
	for _, f := range []struct {
		name  string
		end   int64
		steps int64
	}{{headerName, 230, 7}, {name, end, 331}, {mapName, mapEnd, 41}} {
		for off := int64(0); off < f.end; off += f.steps {
			if try(f.name, off) {
				found++
			}
		}
	}
	t.Logf("%d found", found)
	if found < 100 {
		t.Error("hardly any damage was found")
	}
}

// TestBadBase lets whole grains be written where the base can't be read, and
// nothing else.
func TestBadBase(t *testing.T) {
	base := newBase(7, 50*grainBytes)
	base.bad = map[uint64]bool{10: true}
	s := mustCreate(t, vfs.NewMem(), smallLog, base)
	defer s.Close()
	d := s.Disks()[0]
	if _, err := d.Write([]byte("part"), 10*grainBytes+5, true); err == nil {
		t.Error("part of an unreadable grain was written")
	}
	if _, err := d.ReadAt(make([]byte, 10), 10*grainBytes); err == nil {
		t.Error("an unreadable grain was read")
	}
	p := bytes.Repeat([]byte("x"), 2*grainBytes)
	if _, err := d.Write(p, 9*grainBytes, true); err != nil {
		t.Error(err)
	}
	q := make([]byte, len(p))
	if _, err := d.ReadAt(q, 9*grainBytes); err != nil || !bytes.Equal(p, q) {
		t.Errorf("read back: %v", err)
	}
}

func FuzzBatch(f *testing.F) {
	s := samples()
	f.Add(s["wal-batch"], true)
	f.Add(s["map-batch"], false)
	f.Add(s["wal-batch"][:200], true)
	f.Fuzz(func(t *testing.T, p []byte, wal bool) {
		unit, from, off := int64(mapUnit), origin{sampleID, 3}, int64(mapStart)
		if wal {
			unit, from, off = grainBytes, origin{sampleID, 7}, walStart
		}
		b, err := decodeBatch(p, from, off, unit, wal)
		if err != nil {
			return
		}
		again := b.encode(nil, unit, wal)
		if c, err := decodeBatch(again, from, off, unit, wal); err != nil || len(c.records) != len(b.records) {
			t.Fatalf("what was read does not encode: %v", err)
		}
	})
}

// FuzzLog opens sessions whose log and map end in any bytes.
func FuzzLog(f *testing.F) {
	base := newBase(8, 30*grainBytes)
	fsys := vfs.NewMem()
	s := mustCreate(f, fsys, smallLog, base)
	if _, err := s.Disks()[0].Write(bytes.Repeat([]byte{9}, 2*grainBytes), 4096, true); err != nil {
		f.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add("wal.0", int64(walStart), samples()["wal-batch"])
	f.Add("wal.1", int64(0), samples()["wal-header"])
	f.Add("map", int64(mapStart), samples()["map-batch"])
	f.Add("map", int64(0), samples()["map-header"])
	f.Add("session", int64(0), samples()["session"])
	f.Fuzz(func(t *testing.T, name string, off int64, p []byte) {
		if off < 0 || off > 1<<20 || len(p) > 1<<16 {
			return
		}
		bad := fsys.CrashClone(vfs.CrashOptions{})
		file, err := bad.OpenWrite(name)
		if err != nil {
			return
		}
		if _, err := file.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := Open(bad, specs(base), smallLog)
		if err != nil {
			return
		}
		d := s.Disks()[0]
		_, _ = d.ReadAt(make([]byte, d.Size()), 0)
		_ = s.Checkpoint()
		_ = s.Close()
	})
}
