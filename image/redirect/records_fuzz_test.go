package redirect

import (
	"bytes"
	"testing"

	"holdfast/repo/vfs"
)

// FuzzRecords opens sessions whose log or map goes on with a batch that is whole
// and says anything.
func FuzzRecords(f *testing.F) {
	base := newBase(8, 30*grainBytes)
	fsys := vfs.NewMem()
	s := mustCreate(f, fsys, smallLog, base)
	if _, err := s.Disks()[0].Write(bytes.Repeat([]byte{9}, 2*grainBytes), 4096, true); err != nil {
		f.Fatal(err)
	}
	w, m := struct {
		gen  uint64
		end  int64
		prev uint32
		name string
	}{s.log.active.gen, s.log.active.end, s.log.active.prev, s.log.active.name}, s.m
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(true, uint32(0), byte(0), []byte("\x01\x00\x00\x00\x00\x01"))
	f.Add(false, uint32(0), byte(0), []byte("\x05\x00\x00\x00\x00\x00\x02\x00\x01\x03\x04\x02"))
	f.Add(true, uint32(1), byte(1), []byte("\x04\x00\x00\x05\x00\x00"))
	f.Fuzz(func(t *testing.T, wal bool, write uint32, sealed byte, p []byte) {
		b := batch{batchHead: batchHead{origin: origin{s.id, m.gen}, off: uint64(m.end), prev: m.prev, mode: mode{layers: []uint32{0}, write: write, sealed: int(sealed)}}}
		unit, name := int64(mapUnit), mapName
		if wal {
			b.gen, b.off, b.prev, unit, name = w.gen, uint64(w.end), w.prev, grainBytes, w.name
		}
		if write > 0 {
			b.mode.layers = append(b.mode.layers, write)
		}
		for ; len(p) >= 6 && len(b.records) < 20; p = p[6:] {
			r := record{kind: kind(p[0]), disk: uint16(p[1]), layer: uint32(p[2]), first: uint64(p[3]), count: uint32(p[4]) << (p[5] % 25)}
			if n := r.payloadBytes(wal); n > 0 && n <= 1<<18 {
				r.payload = bytes.Repeat(p[:6], n/6)
			} else if n > 0 {
				continue
			}
			b.records = append(b.records, r)
		}
		out := b.encode(nil, unit, wal)
		bad := fsys.CrashClone(vfs.CrashOptions{})
		file, err := bad.OpenWrite(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(out, int64(b.off)); err != nil {
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
		_, _, _ = d.NextData(0)
		_ = s.Checkpoint()
		_ = s.Close()
	})
}
