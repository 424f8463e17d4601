package content

import (
	"encoding/json"
	"time"

	"holdfast/repo"
)

// machineFile is what machine.json says: all that the manifest has and that
// never changes.
type machineFile struct {
	Schema      string                     `json:"schema"`
	Machine     string                     `json:"machine"`
	MachineID   string                     `json:"machineId"`
	Point       repo.PointID               `json:"point"`
	Sequence    uint64                     `json:"sequence"`
	Time        time.Time                  `json:"time"`
	ClockBack   bool                       `json:"clockBack"`
	Kind        string                     `json:"kind"`
	Parent      repo.PointID               `json:"parent"`
	Job         string                     `json:"job"`
	Slot        string                     `json:"slot"`
	Run         repo.RunID                 `json:"run"`
	Actor       string                     `json:"actor"`
	Host        string                     `json:"host"`
	Consistency string                     `json:"consistency"`
	CopiedFrom  string                     `json:"copiedFrom,omitempty"`
	SizeBytes   int64                      `json:"sizeBytes"`
	Disks       []diskFile                 `json:"disks"`
	Files       []keptListing              `json:"files,omitempty"`
	Counters    repo.Counters              `json:"counters"`
	Extensions  map[string]json.RawMessage `json:"extensions,omitempty"`
}

// keptListing is a file of the machine beside its disks.
type keptListing struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"sizeBytes"`
	File      string `json:"file"` // what it is called beside machine.json
}

type diskFile struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"sizeBytes"`
	Format    string `json:"format"`
	Source    string `json:"source"`
	ChangeID  string `json:"changeId"`
	Root      string `json:"root"`  // names the content: the same for the same bytes
	Disks     string `json:"disks"` // what its files in disks/ are called, before what tells their form
	Files     string `json:"files"` // the directory of its volumes in files/
}

// machineJSON returns the content of machine.json.
func machineJSON(p *point) ([]byte, error) {
	f := machineFile{
		Schema: "holdfast.machine/1", Machine: p.Machine, MachineID: p.MachineID, Point: p.ID, Sequence: p.Sequence,
		Time: p.Time.UTC(), ClockBack: p.ClockBack, Kind: "increment", Parent: p.Parent, Job: p.Job, Slot: p.Slot,
		Run: p.Run, Actor: p.Actor, Host: p.Host, Consistency: p.Consistency, CopiedFrom: p.CopiedFrom,
		SizeBytes: p.SizeBytes(), Disks: []diskFile{}, Counters: p.Counters, Extensions: p.Extensions,
	}
	if p.Full {
		f.Kind = "full"
	}
	for i, names := range p.diskNames() {
		d := p.Disks[i]
		f.Disks = append(f.Disks, diskFile{d.Name, d.SizeBytes, d.Format, d.Source, d.ChangeID, d.Root.String(), names.view, names.folder})
	}
	for i, name := range keptNames(p.Files) {
		f.Files = append(f.Files, keptListing{p.Files[i].Name, p.Files[i].SizeBytes, name})
	}
	b, err := json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}
