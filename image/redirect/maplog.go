package redirect

import (
	"errors"
	"fmt"
	"slices"

	"holdfast/repo/vfs"
)

// mapStart is where the first batch of the map file begins, mapUnit what batches
// are aligned to.
const (
	mapStart = headerBytes
	mapUnit  = 512
)

// mapLog is the file "map": a row of batches, each of which brings the map from
// one checkpoint to the next. When there is no room for another one it is
// written anew, as the map stands. Only the keeper uses it.
type mapLog struct {
	fs      vfs.FS
	id      [16]byte
	file    vfs.File
	gen     uint64
	end     int64
	cap     int64 // bytes that are allocated
	least   int64 // what the file was written with before it got its name
	prev    uint32
	applied uint64 // generation of the last log file that is in it
	mode    mode   // as of that one
	durable int64
}

func (m *mapLog) row(limit int64) row {
	return row{name: mapName, r: m.file, from: origin{m.id, m.gen}, start: mapStart, size: limit, unit: mapUnit}
}

// open opens the map file and reads its header.
func (m *mapLog) open() error {
	var err error
	if m.file, err = m.fs.OpenWrite(mapName); err != nil {
		return err
	}
	p := make([]byte, headerBytes)
	if err := m.row(headerBytes).read(p, 0); err != nil {
		return err
	}
	h, err := decodeFileHeader(p, mapMagic)
	if err == nil && h.id != m.id {
		err = errors.New("belongs to another session")
	}
	if err != nil {
		return damaged(mapName, 0, "%v", err)
	}
	m.gen, m.least = h.gen, int64(h.size)
	m.cap, err = m.file.Size()
	return err
}

// append adds a batch and makes it durable.
func (m *mapLog) append(records []record, mo mode, applied uint64) error {
	b := batch{
		batchHead: batchHead{origin: origin{m.id, m.gen}, off: uint64(m.end), prev: m.prev, durable: uint64(m.durable), applied: applied, mode: mo},
		records:   records,
	}
	p := b.encode(nil, mapUnit, false)
	if m.end+int64(len(p)) > m.cap {
		return fmt.Errorf("%s has no room for %d bytes", mapName, len(p)) // mapRoom was wrong
	}
	if _, err := m.file.WriteAt(p, m.end); err != nil {
		return fmt.Errorf("append to %s: %w", mapName, err)
	}
	if err := syncData(m.file); err != nil {
		return fmt.Errorf("sync %s: %w", mapName, err)
	}
	m.end += int64(len(p))
	m.prev, m.applied, m.mode, m.durable = b.sum, applied, mo, m.end
	return nil
}

// rewrite puts a new file in place, with the map as it stands and as much room
// as it takes again, at least twice room.
func (m *mapLog) rewrite(disks []*Disk, mo mode, applied uint64, room int64) error {
	next := mapLog{fs: m.fs, id: m.id, gen: m.gen + 1, end: mapStart, applied: applied, mode: mo}
	w := mapWriter{m: &next, mode: mo, applied: applied}
	for _, d := range disks {
		w.disk(d)
	}
	w.flush()
	next.cap = align(next.end+max(next.end, 2*room), mapUnit)
	f, err := createNew(m.fs, mapName+newSuffix)
	if err != nil {
		return err
	}
	next.file = f
	err = f.Preallocate(next.cap)
	if err == nil {
		_, err = f.WriteAt(fileHeader{mapMagic, m.id, next.gen, uint64(next.end)}.encode(), 0)
	}
	if err == nil {
		_, err = f.WriteAt(w.out, mapStart)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = m.fs.Rename(mapName+newSuffix, mapName)
	}
	if err != nil {
		return errors.Join(err, f.Close(), m.fs.Remove(mapName+newSuffix))
	}
	next.durable, next.least = next.end, next.end
	old := m.file
	*m = next
	// The new file has the name, whatever else happens: it is the one to use.
	err = m.fs.SyncDir(".")
	if old != nil {
		err = errors.Join(err, old.Close())
	}
	return err
}

// mapWriter makes the batches of a map as it stands.
type mapWriter struct {
	m       *mapLog
	mode    mode
	applied uint64
	records []record
	out     []byte
	bytes   int64
}

func (w *mapWriter) add(r record) {
	w.records = append(w.records, r)
	w.bytes += recordBytes + int64(r.payloadBytes(false))
	if w.bytes > mib {
		w.flush()
	}
}

func (w *mapWriter) flush() {
	b := batch{
		batchHead: batchHead{origin: origin{w.m.id, w.m.gen}, off: uint64(w.m.end), prev: w.m.prev, applied: w.applied, mode: w.mode},
		records:   w.records,
	}
	before := len(w.out)
	w.out = b.encode(w.out, mapUnit, false)
	w.m.end += int64(len(w.out) - before)
	w.m.prev = b.sum
	w.records, w.bytes = nil, 0
}

// disk adds the pages of a disk: as runs or as they are, whichever is shorter.
func (w *mapWriter) disk(d *Disk) {
	d.s.mu.RLock()
	defer d.s.mu.RUnlock()
	for _, l := range d.layers {
		if !slices.Contains(w.mode.layers, l.id) {
			continue // came after the last checkpoint
		}
		for _, n := range l.grains.pageNumbers() {
			start := len(w.records)
			page := l.grains.durablePage(n)
			for r := range page.runs(n) {
				k := kindData
				if r.state == stateZero {
					k = kindZero
				}
				w.records = append(w.records, record{kind: k, disk: d.index, layer: l.id, first: r.first, count: uint32(r.count)})
			}
			if len(w.records)-start > grainBytes/recordBytes {
				w.records = append(w.records[:start], record{kind: kindPage, disk: d.index, layer: l.id, first: n, payload: page[:]})
				w.bytes += grainBytes
			}
			w.bytes += int64(len(w.records)-start) * recordBytes
			if w.bytes > mib {
				w.flush()
			}
		}
	}
	if d.targetName != "" {
		w.add(record{kind: kindTarget, disk: d.index, count: uint32(len(d.targetName)), payload: []byte(d.targetName)})
	}
}
