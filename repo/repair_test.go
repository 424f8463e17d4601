package repo

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"holdfast/repo/vfs"
)

// repair repairs as owner, with the key unless keyless, and closes.
func (s *sample) repair(t *testing.T, fsys vfs.FS, keyless bool, opt RepairOptions) *RepairReport {
	t.Helper()
	oo := s.options(t.Output())
	if keyless {
		oo.Passphrase, oo.Keyless = nil, true
	}
	o, err := Own(t.Context(), fsys, oo, 0)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := o.Repair(t.Context(), opt)
	if err = errors.Join(err, o.Close()); err != nil {
		t.Fatal(err)
	}
	return rep
}

// mustBeWhole demands that everything reads and that a scrub finds nothing.
func (s *sample) mustBeWhole(t *testing.T, what string, fsys vfs.FS) {
	t.Helper()
	if f := s.readAll(t, fsys); len(f.errs) > 0 {
		t.Errorf("%s: %v", what, f)
	}
	if rep := s.scrubOwned(t, fsys, ScrubOptions{Deep: true}); !rep.Clean() || len(rep.Orphans) > 0 {
		t.Errorf("%s: afterwards: %+v", what, rep)
	}
}

// TestRepairByParity damages a block of each pack. What heals it is in the file
// itself, so no key is needed.
func TestRepairByParity(t *testing.T) {
	s := sampleOf(t, sampleShape{true, 3})
	for _, name := range s.files(t, packsDir) {
		mem := s.clone()
		if err := mem.Corrupt(name, 5000, 4); err != nil {
			t.Fatal(err)
		}
		rep := s.repair(t, mem, true, RepairOptions{})
		if !rep.Whole() && !rep.Packs[0].Unfinished || len(rep.Packs) != 1 || rep.Packs[0].Path != name {
			t.Fatalf("%s: %+v", name, rep)
		}
		p := rep.Packs[0]
		if p.Unfinished {
			continue
		}
		if len(p.By) != 1 || p.Copied == 0 || p.Lost > 0 || !p.Removed {
			t.Errorf("%s: %+v", name, p)
		}
		s.mustBeWhole(t, name, mem)
		if again := s.repair(t, mem, false, RepairOptions{}); len(again.Packs)+len(again.Files) > 0 {
			t.Errorf("%s: there was something to repair again: %+v", name, again)
		}
	}
}

// TestRepairFromCopy takes what is lost from a copy of the repository: packs,
// with their nodes and bases, and both copies of manifests.
func TestRepairFromCopy(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		from, err := Open(t.Context(), s.clone(), s.options(io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close() //nolint:errcheck // only read
		names := s.files(t, packsDir)
		for _, base := range s.twinned(t) {
			if strings.HasPrefix(base, pointsDir) {
				names = append(names, base)
			}
		}
		for _, name := range names {
			mem := s.clone()
			for _, n := range []string{name, name + twinSuffix} {
				if err := mem.Remove(n); err != nil && n == name {
					t.Fatal(err)
				}
			}
			rep := s.repair(t, mem, false, RepairOptions{From: from})
			if len(rep.Packs) == 1 && rep.Packs[0].Unfinished {
				continue
			}
			if !rep.Whole() || len(rep.Packs)+len(rep.Files) == 0 {
				t.Errorf("%s: %+v", name, rep)
			}
			s.mustBeWhole(t, name, mem)
		}
	})
}

// TestRepairFromAnother takes what is lost from a repository that has nothing in
// common but the restore points: other keys, other geometry.
func TestRepairFromAnother(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		other := s.elsewhere(t)
		for _, name := range s.files(t, packsDir) {
			mem := s.clone()
			if err := mem.Remove(name); err != nil {
				t.Fatal(err)
			}
			rep := s.repair(t, mem, false, RepairOptions{From: other})
			if len(rep.Packs) == 1 && rep.Packs[0].Unfinished {
				continue
			}
			if !rep.Whole() || len(rep.Packs) == 0 {
				t.Errorf("%s: %+v", name, rep)
			}
			if f := s.readAll(t, mem); len(f.errs) > 0 {
				t.Errorf("%s: %v", name, f)
			}
		}
	})
}

// elsewhere copies the sample's points into a repository of another make.
func (s *sample) elsewhere(t *testing.T) *Repository {
	t.Helper()
	state, fsys := vfs.NewMem(), vfs.NewMem()
	copt := CreateOptions{State: state, WorkFactor: 1, ReserveBytes: -1, PackBytes: MinPackBytes}
	if !s.shape.sealed {
		copt.Passphrase = []byte("another")
	}
	if _, err := Create(t.Context(), fsys, copt); err != nil {
		t.Fatal(err)
	}
	src, err := Open(t.Context(), s.clone(), s.options(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close() //nolint:errcheck // only read
	opt := Options{State: state, Passphrase: copt.Passphrase}
	o, err := Own(t.Context(), fsys, opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ids []PointID
	for _, p := range s.points {
		ids = append(ids, p.id)
	}
	if _, err := o.Copy(t.Context(), src, ids, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), fsys, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// TestRepairByNextRun loses packs for which nothing here can help. What is left
// is salvaged and what is not is named; the next run stores what it still has,
// and then a second repair is through.
func TestRepairByNextRun(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		last := &s.points[len(s.points)-1]
		for _, name := range s.files(t, packsDir) {
			mem := s.clone()
			e := packRecords(t, s.data(t, name))[0]
			overwrite(int64(e.Off), int64(e.Len)).do(t, mem, name)
			before := s.readAll(t, mem)
			rep := s.repair(t, mem, false, RepairOptions{})
			if len(rep.Packs) != 1 {
				t.Errorf("%s: %+v", name, rep)
				continue
			}
			if rep.Packs[0].Unfinished {
				continue
			}
			after := s.readAll(t, mem)
			if len(after.errs) > len(before.errs) {
				t.Errorf("%s: before the repair %v, after it %v", name, before, after)
			}
			if rep.Whole() != (len(after.errs) == 0) {
				t.Errorf("%s: whole %v: %+v, but %v", name, rep.Whole(), rep, after)
			}
			o := s.own(t, mem)
			if _, err := o.Backup(t.Context(), BackupOptions{Machine: "web 1", Disks: []SourceDisk{
				{Name: smallDisk, Source: memSource(last.small)}, {Name: bigDisk, Source: bigSource(last.big)}}}); err != nil {
				t.Fatal(err)
			}
			if errs := s.readPoint(t, o.Repository, last, bigSize); len(errs) > 0 {
				t.Errorf("%s: after the next run: %v", name, errs)
			}
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			second := s.repair(t, mem, false, RepairOptions{})
			if len(second.Lost) > len(rep.Lost) {
				t.Errorf("%s: lost %+v, then %+v", name, rep.Lost, second.Lost)
			}
			if slices.ContainsFunc(second.Lost, func(l Lost) bool { return l.Point == last.id }) {
				t.Errorf("%s: the run has stored it, but it is lost: %+v", name, second)
			}
			if len(second.Lost) == 0 {
				s.mustBeWhole(t, name, mem)
			}
		}
	})
}

// TestRepairTwins restores every copy of what is stored twice from the other.
func TestRepairTwins(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		for turn, base := range s.twinned(t) {
			size := int64(len(s.data(t, base)))
			damages := slices.DeleteFunc(append(wholeFileDamages(size), some(someFlips(size, 40), 2, turn)...),
				func(d damage) bool { return d.name == "EIO" })
			for i, d := range some(damages, 4, turn) {
				name := base + []string{"", twinSuffix}[(turn+i)%2]
				mem := s.clone()
				d.do(t, mem, name)
				rep := s.repair(t, mem, true, RepairOptions{})
				// Owning completes a pair of which one is missing.
				if !rep.Whole() || len(rep.Files) != 1 && d.name != "deleted" {
					t.Errorf("%s %s: %+v", name, d.name, rep)
				}
				a, aerr := vfs.ReadFile(mem, base, 1<<20)
				b, berr := vfs.ReadFile(mem, base+twinSuffix, 1<<20)
				if aerr != nil || berr != nil || string(a) != string(b) || string(a) != string(s.data(t, base)) {
					t.Errorf("%s %s: %v, %v: not as it was", name, d.name, aerr, berr)
				}
			}
		}
	})
}

// TestReindex drops the index and makes it again, without a key.
func TestReindex(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		mem := s.clone()
		s.scrubOwned(t, mem, ScrubOptions{})
		gone := s.files(t, metaDir)[0] // no unfinished run has any
		if err := mem.Remove(gone); err != nil {
			t.Fatal(err)
		}
		stray := "packs/data/00/00000009-000000000000000000000000.pack"
		if err := vfs.WriteFile(mem, stray, []byte("stray")); err != nil {
			t.Fatal(err)
		}
		opt := s.options(t.Output())
		opt.Passphrase, opt.Keyless = nil, s.shape.sealed
		o, err := Own(t.Context(), mem, opt, 0)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := o.Reindex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		packs := len(s.files(t, packsDir))
		if rep.Packs != packs-1 || !slices.Equal(rep.Missing, []string{gone}) || !slices.Equal(rep.Orphans, []string{stray}) {
			t.Errorf("of %d packs: %+v", packs, rep)
		}
		v, err := o.Verified(t.Context())
		if err != nil || v.NeverPacks != int64(packs) {
			t.Errorf("what was verified is still known: %+v, %v", v, err)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		// The pack comes back, say from a backup of the repository, and so does all.
		if err := vfs.WriteFile(mem, gone, s.data(t, gone)); err != nil {
			t.Fatal(err)
		}
		if err := mem.Remove(stray); err != nil {
			t.Fatal(err)
		}
		o = s.own(t, mem)
		if _, err := o.Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		s.mustBeWhole(t, "reindexed", mem)
	})
}
