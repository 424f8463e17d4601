package recovery

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

func goldenRecord() *record {
	return &record{
		ID: "abcdefgh23", Name: "web1", State: running, Number: 7, Repository: "00112233445566778899aabbccddeeff", Path: "/srv/backup",
		Point: "265glqqq4mmmmmmmmmmm", PointTime: time.Date(2026, 11, 22, 3, 4, 5, 678e6, time.UTC), Machine: "web1", MachineID: "4c4c4544",
		Config: "web1.vmx", Published: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC), Warnings: []string{"serial0 is taken away"},
		Disks: []recordDisk{
			{Name: "root", File: "root-flat.vmdk", SizeBytes: 1 << 40, Root: strings.Repeat("ab", 32)},
			{Name: "data", File: "data-flat.vmdk", SizeBytes: 1000, Root: strings.Repeat("cd", 32), Target: "/srv/data.raw", Migrated: true},
		},
		Kept: []Kept{{Point: "265glqqq4nnnnnnnnnnn", Machine: "web1-recovered", Time: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}},
	}
}

func TestRecordGolden(t *testing.T) {
	got, err := goldenRecord().encode()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/record", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/record")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, or other bytes than testdata/record: %q", err, got)
	}
	r, err := decodeRecord(want)
	if err != nil || !reflect.DeepEqual(r, goldenRecord()) {
		t.Errorf("%+v, %v", r, err)
	}
	for i := range want {
		bad := bytes.Clone(want)
		bad[i] ^= 0x10
		if _, err := decodeRecord(bad); !errors.Is(err, ErrRecord) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

// TestRecordSaved: whatever a power cut leaves is the record before or the one
// after, and what was not finished is cleared away.
func TestRecordSaved(t *testing.T) {
	mem := vfs.NewMem()
	if _, err := readRecords(mem); err != nil {
		t.Fatal(err)
	}
	first, second := goldenRecord(), goldenRecord()
	first.State = publishing
	if err := first.save(mem); err != nil {
		t.Fatal(err)
	}
	faulty := vfs.NewFaulty(mem)
	cuts := 0
	faulty.OnOp(func(int, vfs.Op) {
		for _, c := range vfs.Crashes(1, 2, 3) {
			cuts++
			clone := mem.CrashClone(c)
			found, err := readRecords(clone)
			if err != nil || len(found) != 1 || found[0].err != nil || found[0].rec.State != publishing && found[0].rec.State != running {
				t.Fatalf("%s: %+v, %v", c, found, err)
			}
			if list, err := clone.ReadDir(recordsDir); err != nil || len(list) != 1 {
				t.Fatalf("%s: %v, %v", c, list, err)
			}
		}
	})
	if err := second.save(faulty); err != nil {
		t.Fatal(err)
	}
	found, err := readRecords(mem.CrashClone(vfs.CrashOptions{}))
	if err != nil || len(found) != 1 || !reflect.DeepEqual(found[0].rec, second) || cuts == 0 {
		t.Errorf("%+v, %v", found, err)
	}
	if err := removeRecord(mem, first.ID); err != nil {
		t.Error(err)
	}
	if found, err := readRecords(mem.CrashClone(vfs.CrashOptions{})); err != nil || len(found) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestSessionNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"web1": true, "Web 1 (test)": true, "größe": true,
		"": false, ".snapshot": false, "..": false, "a/b": false, `a"b`: false, `a\b`: false, strings.Repeat("x", 81): false, "a\nb": false,
	} {
		if err := checkSessionName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestKeys(t *testing.T) {
	mem := vfs.NewMem()
	k, err := ExportKeys(mem)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ExportKeys(mem.CrashClone(vfs.CrashOptions{}))
	if err != nil || *again != *k {
		t.Errorf("they are others: %v", err)
	}
	id, key := k.Content("one")
	id2, key2 := k.Content("two")
	if id == id2 || key == key2 || key == k.Datastore || id < 1<<31 {
		t.Error("two exports have the same number or key")
	}
	if err := mem.Corrupt(keysName, 20, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := ExportKeys(mem); !errors.Is(err, ErrKeys) {
		t.Errorf("damaged: %v", err)
	}
	if _, err := ExportKeys(readOnly{vfs.NewMem()}); err == nil {
		t.Error("keys that nobody will know after a restart")
	}
}

type readOnly struct{ *vfs.Mem }

func (readOnly) Create(string) (vfs.File, error) { return nil, fs.ErrPermission }

// FuzzRecord takes whatever lies where a record should, also with the right
// checksum.
func FuzzRecord(f *testing.F) {
	p, err := goldenRecord().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Add(p[:40])
	f.Add([]byte(`{"id":"abcdefgh23","name":"..","state":"running"}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		files := [][]byte{p}
		if sum, ok := sealed(p); ok {
			files = append(files, sum)
		}
		for _, file := range files {
			r, err := decodeRecord(file)
			if err != nil {
				if !errors.Is(err, ErrRecord) {
					t.Errorf("%v", err)
				}
				continue
			}
			if err := r.check(); err != nil {
				t.Errorf("taken: %v", err)
			}
			if text, err := r.encode(); err == nil {
				if _, err := decodeRecord(text); err != nil {
					t.Errorf("written again: %v", err)
				}
			}
		}
	})
}

// sealed makes a file of the text of a record.
func sealed(text []byte) ([]byte, bool) {
	if len(text) > 1<<20 {
		return nil, false
	}
	b := append([]byte(recordMagic), recordVersion, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), true
}
