package repo

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

func goldenVerified() *verifiedFile {
	return &verifiedFile{number: 2, begun: goldenTime.Unix(), rows: []verifiedRow{
		{pack.Name{3: 1, 15: 1}, uint32(goldenTime.Unix()) + 1, verifiedBytes},
		{pack.Name{3: 1, 15: 2}, uint32(goldenTime.Unix()) + 2, verifiedRecords},
	}}
}

func goldenDamage() *damageList {
	return &damageList{number: 3, at: goldenTime.Truncate(time.Second), packs: []knownBad{
		{name: pack.Name{3: 1, 15: 1}, kind: pack.Data, fault: FaultBytes, healable: true},
		{name: pack.Name{3: 1, 15: 2}, kind: pack.Data, fault: FaultUnreadable, records: []badRecord{
			{key: [16]byte{1, 2, 3}, off: 64, len: 2000, kind: pack.Chunk},
			{key: [16]byte{4, 5, 6}, off: 2064, len: 300, kind: pack.Patch, base: true},
		}},
		{name: pack.Name{3: 2, 15: 1}, kind: pack.Meta, fault: FaultMissing},
	}}
}

func TestSavedFormat(t *testing.T) {
	golden(t, "verified", appendSum(goldenVerified().encode()))
	golden(t, "damage", appendSum(goldenDamage().encode()))
	v, err := parseVerified(2, goldenVerified().encode())
	if err != nil || !bytes.Equal(v.encode(), goldenVerified().encode()) {
		t.Error(v, err)
	}
	d, err := parseDamage(3, goldenDamage().encode())
	if err != nil || !bytes.Equal(d.encode(), goldenDamage().encode()) {
		t.Error(d, err)
	}
	if _, err := parseVerified(3, goldenVerified().encode()); !errors.Is(err, ErrFormat) {
		t.Errorf("another number: %v", err)
	}
	newer := goldenDamage().encode()
	newer[4] = 2
	if _, err := parseDamage(3, newer); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer version: %v", err)
	}
	twice := goldenVerified()
	twice.rows[1].name = twice.rows[0].name
	if _, err := parseVerified(2, twice.encode()); !errors.Is(err, ErrFormat) {
		t.Errorf("a pack twice: %v", err)
	}
	mixed := goldenDamage()
	slices.Reverse(mixed.packs)
	if _, err := parseDamage(3, mixed.encode()); !errors.Is(err, ErrFormat) {
		t.Errorf("out of order: %v", err)
	}
}

func FuzzVerified(f *testing.F) {
	f.Add(goldenVerified().encode())
	f.Add(goldenVerified().encode()[:verifiedHead])
	f.Fuzz(func(t *testing.T, p []byte) {
		maxMemory(t, len(p), func() {
			if v, err := parseVerified(2, p); err == nil && !bytes.Equal(v.encode(), p) {
				t.Error("taken, and means something else")
			}
		})
	})
}

func FuzzDamage(f *testing.F) {
	f.Add(goldenDamage().encode())
	f.Add(goldenDamage().encode()[:damageHead])
	f.Fuzz(func(t *testing.T, p []byte) {
		maxMemory(t, len(p), func() {
			d, err := parseDamage(3, p)
			if err != nil {
				return
			}
			if !bytes.Equal(d.encode(), p) {
				t.Error("taken, and means something else")
			}
			for _, k := range d.packs {
				if d.pack(k.name) == nil {
					t.Errorf("pack %s can't be found", k.name)
				}
			}
		})
	})
}

// TestVerifiedFiles adds packs step by step: few files are there at any time, and
// all that was added is known, also by whoever reads it again.
func TestVerifiedFiles(t *testing.T) {
	fsys := vfs.NewMem()
	for _, dir := range []string{indexDir, tmpDir} {
		if err := fsys.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	v, err := readVerified(fsys, log)
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) pack.Name { return pack.Name{3: 1, 14: byte(i >> 8), 15: byte(i)} }
	const steps, each = 100, 7
	at := goldenTime
	for step := range steps {
		for i := range each {
			v.add(name(step*each+i), at.Add(time.Duration(step)*time.Second), verifiedBytes)
		}
		if err := v.flush(at); err != nil {
			t.Fatal(err)
		}
		if len(v.files) > 8 {
			t.Fatalf("%d files after %d steps", len(v.files), step+1)
		}
	}
	again, err := readVerified(fsys, log)
	if err != nil || !again.begun().Equal(at.Truncate(time.Second)) {
		t.Fatal(again.begun(), err)
	}
	for i := range steps * each {
		if got, want := again.get(name(i)).at, uint32(at.Unix())+uint32(i/each); got != want {
			t.Errorf("pack %d: %d, want %d", i, got, want)
		}
	}
	// A file that is lost costs what it says.
	if err := fsys.Corrupt(verifiedFiles(fsys).path(again.files[0].number), 40, 1); err != nil {
		t.Fatal(err)
	}
	less, err := readVerified(fsys, log)
	if err != nil || len(less.files) != len(again.files)-1 || less.get(name(steps*each-1)).at == 0 {
		t.Errorf("%d files of %d: %v", len(less.files), len(again.files), err)
	}
	if err := again.finish(time.Time{}, func(n pack.Name) bool { return n == name(3) }); err != nil {
		t.Fatal(err)
	}
	infos, err := fsys.ReadDir(indexDir)
	if err != nil || len(infos) != 1 || !again.begun().IsZero() {
		t.Errorf("%v, %v", infos, err)
	}
	if again.get(name(3)).at == 0 || again.get(name(4)).at != 0 {
		t.Error("not those that are there")
	}
}
