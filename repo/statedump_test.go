package repo

import (
	"testing"
	"time"

	"holdfast/repo/pack"
)

// FuzzReadState gives any bytes to the reader of what an owner keeps for itself.
func FuzzReadState(f *testing.F) {
	v := verifiedFile{number: 3, begun: 7, rows: []verifiedRow{{name: pack.Name{1}, at: 9, how: verifiedBytes}}}
	f.Add(appendSum(v.encode()))
	d := damageList{number: 2, at: time.Unix(5, 0), packs: []knownBad{{
		name: pack.Name{4}, kind: pack.Data, fault: FaultBytes, records: []badRecord{{off: 64, len: 100, kind: pack.Chunk}},
	}}}
	f.Add(appendSum(d.encode()))
	line, err := recordLine(runHead{Run: "r", MachineID: "m", Epoch: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(checkpointMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := ReadState(p)
		if err == nil && (s.Kind == "" || s.Head == nil || s.Rows == nil) {
			t.Errorf("no error and %+v", s)
		}
	})
}
