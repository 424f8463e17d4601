package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"sync"
	"time"

	"holdfast/repo/ledger"
	"holdfast/repo/vfs"
)

// A run record is the file runs/RUN: it says which packs a run has stored, so
// that none is forgotten and a retry finds them. See FORMAT.md, "Runs". It is
// the one file that grows after it has its name; every line is checksummed
// and synced, and a torn last line is no line.

// runHead is the first line of a run record.
type runHead struct {
	Run       RunID     `json:"run"`
	MachineID string    `json:"machine"`
	Name      string    `json:"name,omitempty"` // the machine's, as the ledger would say it; empty for a mover
	Epoch     uint64    `json:"epoch"`
	Started   time.Time `json:"started"`
	Host      string    `json:"host"`
	PID       int       `json:"pid"`
}

// runRecord is one that is being written. Safe for concurrent use.
type runRecord struct {
	name string
	f    vfs.File
	mu   sync.Mutex // guards end
	end  int64      // length of what is whole
}

const maxRunRecordBytes = 256 << 20 // a pack's line takes 200 bytes: 40 TiB in packs of 32 MiB

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// createRunRecord makes the record of a new run, durably.
func createRunRecord(fsys vfs.FS, head runHead) (*runRecord, error) {
	name := runPath(head.Run)
	line, err := recordLine(head)
	if err != nil {
		return nil, err
	}
	if err := vfs.WriteFile(fsys, name, line); err != nil {
		return nil, fmt.Errorf("begin run %s: %w", head.Run, err)
	}
	f, err := fsys.OpenWrite(name)
	if err != nil {
		return nil, fmt.Errorf("begin run %s: %w", head.Run, err)
	}
	return &runRecord{name: name, f: f, end: int64(len(line))}, nil
}

// add makes a pack's line durable. The pack gets its name after that.
func (r *runRecord) add(p ledger.Pack) error {
	line, err := recordLine(p)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err = r.f.WriteAt(line, r.end); err == nil {
		err = r.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("record pack %s in %s: %w", p.Name, r.name, err)
	}
	r.end += int64(len(line))
	return nil
}

func (r *runRecord) close() error { return r.f.Close() }

// recordLine is v as JSON with a last field "crc" over what stands before it.
func recordLine(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode run record: %w", err)
	}
	b = b[:len(b)-1] // the closing brace
	return fmt.Appendf(b, ",\"crc\":\"%08X\"}\n", crc32.Checksum(b, castagnoli)), nil
}

// readRunRecord returns a run's head and packs. A record that was never
// finished, down to an empty one, gives what is whole of it.
func readRunRecord(fsys vfs.FS, id RunID) (runHead, []ledger.Pack, error) {
	data, err := vfs.ReadFile(fsys, runPath(id), maxRunRecordBytes)
	if err != nil {
		return runHead{}, nil, err
	}
	head, packs, err := parseRunRecord(data)
	if err != nil {
		return head, packs, fmt.Errorf("%s: %w", runPath(id), err)
	}
	return head, packs, nil
}

// parseRunRecord reads the lines that are whole. A last line that is not may be
// a torn write; one that is followed by others is damage, an error beside what
// the others say.
func parseRunRecord(data []byte) (head runHead, packs []ledger.Pack, err error) {
	for n := 1; len(data) > 0; n++ {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		data = rest
		var bad error
		switch {
		case !whole:
			return head, packs, err
		case !lineHolds(line):
			bad = errors.New("fails its checksum")
			if len(rest) == 0 {
				return head, packs, err
			}
		case n == 1:
			bad = json.Unmarshal(line, &head)
		default:
			var p ledger.Pack
			if bad = json.Unmarshal(line, &p); bad == nil {
				packs = append(packs, p)
			}
		}
		if bad != nil && err == nil {
			err = fmt.Errorf("%w: line %d of a run record: %w", ErrFormat, n, bad)
		}
	}
	return head, packs, err
}

// lineHolds reports whether a line's checksum is right.
func lineHolds(line []byte) bool {
	const tail = len(`,"crc":"XXXXXXXX"}`)
	if len(line) < tail {
		return false
	}
	body := line[:len(line)-tail]
	return string(line[len(body):]) == fmt.Sprintf(",\"crc\":\"%08X\"}", crc32.Checksum(body, castagnoli))
}

// listRuns returns the ids in runs/, in order of time.
func listRuns(fsys vfs.FS) ([]RunID, error) {
	infos, err := fsys.ReadDir(runsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []RunID
	for _, info := range infos {
		if !info.Dir && isID(info.Name) {
			ids = append(ids, RunID(info.Name))
		}
	}
	return ids, err
}

// leave remembers a run that ended without a point. What it has stored stays
// for the machine's next run.
func (o *Owner) leave(head runHead, id RunID, packs []ledger.Pack) {
	machine := head.MachineID
	kept := o.guard.keep(packs)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.leftovers[machine] = append(o.leftovers[machine], id)
	o.kept[machine] = append(o.kept[machine], kept)
	if head.Name != "" {
		o.left[head.Name] = machine
	}
}

// forgetLeftovers lets go of what a machine's unfinished runs have stored. The
// caller holds mu.
func (o *Owner) forgetLeftovers(machine string) {
	for _, p := range o.kept[machine] {
		p.end()
	}
	delete(o.kept, machine)
	delete(o.leftovers, machine)
	maps.DeleteFunc(o.left, func(_, id string) bool { return id == machine })
}

// An UnfinishedRun is one that has stored something and made no point of it.
type UnfinishedRun struct {
	ID        RunID
	MachineID string
	Machine   string // its name, if it has points
	Started   time.Time
	Packs     int
	Bytes     int64 // of them
}

// UnfinishedRuns lists them in order of time, with those that are still under
// way, of which AskOwner tells. Each stays until the machine's next point, or until
// AbandonRuns.
func (r *Repository) UnfinishedRuns(ctx context.Context) ([]UnfinishedRun, error) {
	ids, err := listRuns(r.fsys)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	points, err := r.Points(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for _, p := range points {
		names[p.MachineID] = p.Machine
	}
	var runs []UnfinishedRun
	for _, id := range ids {
		head, packs, err := readRunRecord(r.fsys, id)
		if errors.Is(err, fs.ErrNotExist) || head.MachineID == upkeepMachine {
			continue
		}
		u := UnfinishedRun{ID: id, MachineID: head.MachineID, Machine: names[head.MachineID], Started: head.Started, Packs: len(packs)}
		if u.Machine == "" && !r.settings.Sealed {
			u.Machine = head.Name
		}
		for _, p := range packs {
			u.Bytes += p.Bytes
		}
		runs = append(runs, u)
	}
	return runs, nil
}

// AbandonRuns gives up what unfinished runs of a machine have stored, and
// returns how many those were. The next sweep frees what no point needs. A run
// under way is not touched.
func (o *Owner) AbandonRuns(machineID string) (int, error) {
	// The packs get into the ledger first, or nobody would know of them.
	if err := o.record(); err != nil {
		return 0, err
	}
	o.mu.Lock()
	ids := o.leftovers[machineID]
	o.forgetLeftovers(machineID)
	o.mu.Unlock()
	if len(ids) == 0 {
		return 0, nil
	}
	return len(ids), removeRuns(o.fsys, ids)
}
