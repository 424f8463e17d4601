package repo

import (
	"encoding/json"
	"time"

	"holdfast/repo/chunk"
)

// A Point is a restore point: one machine at one instant.
type Point struct {
	ID        PointID
	Sequence  uint64 // of this machine, from 1; the highest is the latest
	Machine   string // the machine's name when the point was made
	MachineID string
	Job       string // "manual" when no job made it
	Slot      string // schedule slot; empty for an extra
	Actor     string // who asked for it
	Host      string // where the mover ran
	Run       RunID
	Time      time.Time // UTC, the store's clock, never before the point that came earlier
	ClockBack bool      // the clock had gone back and Time was clamped

	Full   bool    // stands without a parent
	Parent PointID // whose map nodes it shares; empty for a full

	Consistency string // what quiescing reached
	Signed      bool   // the ledger's record of it is signed by a key in keys/
	Expired     bool   // no longer kept; while its manifest is there it is retired, and may be recalled
	Reason      string // why it expired
	Disks       []DiskInfo
	Counters    Counters
	Extensions  map[string]json.RawMessage
	Files       []FileInfo // what the machine had beside its disks; Reader.Files has the bytes
	CopiedFrom  string     // the id of the repository whose run made the point, when this has a copy

	packed  []manifestFile // nil in what is kept in memory
	segment uint64
	epoch   uint64
}

// DiskInfo describes one disk of a point.
type DiskInfo struct {
	Name      string
	SizeBytes int64
	Format    string // of the source: raw, vmdk …
	Source    string // where it was read
	ChangeID  string // names the source's state, for the next change list
	Root      chunk.ID
	levels    int
}

// SizeBytes is the size of all disks together.
func (p *Point) SizeBytes() int64 {
	var n int64
	for _, d := range p.Disks {
		n += d.SizeBytes
	}
	return n
}

// Counters says what a run did. All but the chunk counts are bytes.
type Counters struct {
	ReadBytes      int64 `json:"readBytes"`      // read from the sources
	HoleBytes      int64 `json:"holeBytes"`      // known as zeros without reading
	ZeroBytes      int64 `json:"zeroBytes"`      // read, and found to be zeros
	UnchangedBytes int64 `json:"unchangedBytes"` // read, and the same as in the parent
	SharedBytes    int64 `json:"sharedBytes"`    // taken from the parent by a change list, not read
	KnownBytes     int64 `json:"knownBytes"`     // read, and already stored for something else
	NewBytes       int64 `json:"newBytes"`       // read and stored
	StoredBytes    int64 `json:"storedBytes"`    // records written for this run, chunks and nodes
	PackBytes      int64 `json:"packBytes"`      // whole pack files, with parity
	ParityBytes    int64 `json:"parityBytes"`    // of which parity
	Chunks         int64 `json:"chunks"`         // stored, in full
	Patches        int64 `json:"patches"`        // stored as changed frames
	Nodes          int64 `json:"nodes"`          // stored
	SampledBytes   int64 `json:"sampledBytes"`   // "unchanged" by the list, read to see whether that is true
}

func (c *Counters) add(d Counters) {
	c.ReadBytes += d.ReadBytes
	c.HoleBytes += d.HoleBytes
	c.ZeroBytes += d.ZeroBytes
	c.UnchangedBytes += d.UnchangedBytes
	c.SharedBytes += d.SharedBytes
	c.KnownBytes += d.KnownBytes
	c.NewBytes += d.NewBytes
	c.StoredBytes += d.StoredBytes
	c.PackBytes += d.PackBytes
	c.ParityBytes += d.ParityBytes
	c.Chunks += d.Chunks
	c.Patches += d.Patches
	c.Nodes += d.Nodes
	c.SampledBytes += d.SampledBytes
}

// pointOf joins what the manifest and the ledger say of one point.
func pointOf(m *manifest, full bool, parent PointID) Point {
	p := Point{
		ID: m.Point, Sequence: m.Sequence, Machine: m.Name, MachineID: m.MachineID,
		Job: m.Job, Slot: m.Slot, Actor: m.Actor, Host: m.Host, Run: m.Run,
		Time: m.Time.UTC(), ClockBack: m.ClockBack, Full: full, Parent: parent,
		Consistency: m.Consistency, Counters: m.Counters, Extensions: m.Extensions, CopiedFrom: m.CopiedFrom,
		Files: fileInfos(m.Files), packed: m.Files,
		segment: m.Segment, epoch: m.Epoch,
	}
	for i, r := range m.Roots {
		d := DiskInfo{SizeBytes: r.SizeBytes, Root: r.Root, levels: r.Levels}
		if i < len(m.Disks) {
			d.Name, d.Format, d.Source, d.ChangeID = m.Disks[i].Name, m.Disks[i].Format, m.Disks[i].Source, m.Disks[i].ChangeID
		}
		p.Disks = append(p.Disks, d)
	}
	return p
}
