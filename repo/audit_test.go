package repo_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"holdfast/repo"
	"holdfast/repo/ledger"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// aged is a repository of several points, and the heads that its runs printed.
func aged(t *testing.T, sealed bool) (w *world, heads []ledger.Head) {
	t.Helper()
	w = base(t, sealed)
	for range 3 {
		err := w.with(t.Context(), func(o *repo.Owner) error {
			run, err := w.backup(t.Context(), o, w.next(), nil)
			if err == nil {
				heads = append(heads, run.Head)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return w, heads
}

// kinds lists what VerifyLedger finds.
func kinds(t *testing.T, fsys vfs.FS, opt repo.VerifyOptions) (list []string) {
	t.Helper()
	report, err := repo.VerifyLedger(t.Context(), fsys, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		list = append(list, p.Kind+" "+p.File)
	}
	return list
}

// TestVerifyLedger reads whole repositories.
func TestVerifyLedger(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		w, heads := aged(t, sealed)
		for _, h := range append(heads, ledger.Head{}) {
			done := int64(0)
			report, err := repo.VerifyLedger(t.Context(), w.mem, repo.VerifyOptions{
				Known: h, Packs: true, Progress: func(n, _ int64) { done = n },
			})
			if err != nil || len(report.Problems) > 0 {
				t.Fatalf("%+v, %v", report, err)
			}
			if report.Head != heads[2] || report.Points != 4 || report.PackBytes == 0 || done != report.PackBytes || report.ReadBytes != done {
				t.Errorf("%+v, %d bytes done", report, done)
			}
			if len(report.Signers) != 1 || report.Signers[0].Last != 5 || !report.Signers[0].Checked {
				t.Errorf("signers %+v", report.Signers)
			}
		}
		head, at, err := repo.LedgerHead(w.mem)
		if err != nil || head != heads[2] || at.IsZero() {
			t.Errorf("head %v, %v, want %v", head, err, heads[2])
		}
		var numbers []uint64
		err = repo.LedgerSegments(t.Context(), w.mem, func(s *ledger.Segment) bool {
			numbers = append(numbers, s.Number)
			return s.Number > 2
		})
		if want := []uint64{5, 4, 3, 2}; err != nil || !slices.Equal(numbers, want) {
			t.Errorf("segments %v, %v, want %v", numbers, err, want)
		}
	}
	_, err := repo.VerifyLedger(t.Context(), vfs.NewMem(), repo.VerifyOptions{})
	is(t, "verify nothing", err, repo.ErrNotRepository)
}

// TestVerifyLedgerFinds does one wrong after the other to a repository.
func TestVerifyLedgerFinds(t *testing.T) {
	w, heads := aged(t, false)
	stranger := newWorld(false, 9)
	if err := initAndFirst(t.Context(), stranger); err != nil {
		t.Fatal(err)
	}
	foreign := mustRead(t, stranger.mem, "ledger/00000002")
	point := string(w.points[1].ID)
	packs := packFiles(t, w.mem)
	flip := func(name string, off int64) func(*vfs.Mem) error {
		return func(m *vfs.Mem) error { return m.Corrupt(name, off, 3) }
	}
	remove := func(names ...string) func(*vfs.Mem) error {
		return func(m *vfs.Mem) (err error) {
			for _, name := range names {
				err = errors.Join(err, m.Remove(name))
			}
			return err
		}
	}
	put := func(p []byte, names ...string) func(*vfs.Mem) error {
		return func(m *vfs.Mem) (err error) {
			for _, name := range names {
				_ = m.Remove(name)
				err = errors.Join(err, vfs.WriteFile(m, name, p))
			}
			return err
		}
	}
	segment := func(n string) []string { return []string{"ledger/0000000" + n, "ledger/0000000" + n + ".twin"} }
	for _, c := range []struct {
		name string
		do   func(*vfs.Mem) error
		opt  repo.VerifyOptions
		want []string
	}{
		{"nothing", remove(), repo.VerifyOptions{Known: heads[0], Packs: true}, nil},
		{"tail cut, no head known", remove(append(segment("5"), "points/"+string(w.points[3].ID), "points/"+string(w.points[3].ID)+".twin")...),
			repo.VerifyOptions{}, nil}, // what a head is for
		{"tail cut", remove(append(segment("5"), "points/"+string(w.points[3].ID), "points/"+string(w.points[3].ID)+".twin")...),
			repo.VerifyOptions{Known: heads[2]}, []string{"head "}},
		{"tail cut, manifest left", remove(segment("5")...), repo.VerifyOptions{},
			[]string{"manifest points/" + string(w.points[3].ID), "manifest points/" + string(w.points[3].ID) + ".twin"}},
		{"middle missing", remove(segment("3")...), repo.VerifyOptions{Known: heads[2]}, []string{"segment ledger/00000003"}},
		{"one copy missing", remove(segment("3")[0]), repo.VerifyOptions{}, []string{"segment ledger/00000003"}},
		{"one copy of the last missing", remove(segment("5")[1]), repo.VerifyOptions{}, nil},
		{"one copy changed", flip("ledger/00000003", 200), repo.VerifyOptions{}, []string{"segment ledger/00000003"}},
		{"twin changed", flip("ledger/00000003.twin", 200), repo.VerifyOptions{}, []string{"segment ledger/00000003.twin"}},
		{"another repository's segment", put(foreign, segment("2")...), repo.VerifyOptions{}, []string{"chain ledger/00000002"}},
		{"one copy another repository's", put(foreign, segment("2")[0]), repo.VerifyOptions{}, []string{"segment ledger/00000002"}},
		{"another head was known", remove(), repo.VerifyOptions{Known: ledger.Head{Number: 3, Sum: heads[2].Sum}}, []string{"head ledger/00000003"}},
		{"signed by another", remove(), repo.VerifyOptions{Signers: []seal.Public{signerOf(t, stranger)}}, []string{"signature ledger/00000001"}},
		{"public key missing", remove("keys/signer-1.pub", "keys/signer-1.pub.twin"), repo.VerifyOptions{}, []string{"signer keys/signer-1.pub", "signer keys/signer-1.pub"}},
		{"public key missing, and brought", remove("keys/signer-1.pub", "keys/signer-1.pub.twin"),
			repo.VerifyOptions{Signers: []seal.Public{signerOf(t, w)}}, []string{"signer keys/signer-1.pub"}},
		{"manifest missing", remove("points/"+point, "points/"+point+".twin"), repo.VerifyOptions{}, []string{"manifest points/" + point, "manifest points/" + point + ".twin"}},
		{"manifest changed", flip("points/"+point, 30), repo.VerifyOptions{}, []string{"manifest points/" + point}},
		{"manifest put there", put([]byte("x"), "points/aaaaaaaaaaaaaaaaaaaa"), repo.VerifyOptions{}, []string{"manifest points/aaaaaaaaaaaaaaaaaaaa"}},
		{"pack missing, not looked for", remove(packs[0]), repo.VerifyOptions{}, nil},
		{"pack missing", remove(packs[0]), repo.VerifyOptions{Packs: true}, []string{"pack " + packs[0]}},
		{"pack changed", flip(packs[1], 5000), repo.VerifyOptions{Packs: true}, []string{"pack " + packs[1]}},
		{"pack cut", func(m *vfs.Mem) error { return put(mustRead(t, m, packs[1])[:4096], packs[1])(m) }, repo.VerifyOptions{Packs: true}, []string{"pack " + packs[1]}},
		{"whole repository rolled back", func(m *vfs.Mem) error { return nil }, repo.VerifyOptions{Known: ledger.Head{Number: 6, Sum: heads[2].Sum}}, []string{"head "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := w.fork(keepAll)
			if err := c.do(f.mem); err != nil {
				t.Fatal(err)
			}
			if got := kinds(t, f.mem, c.opt); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func mustRead(t *testing.T, m *vfs.Mem, name string) []byte {
	t.Helper()
	p, err := vfs.ReadFile(m, name, 1<<26)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func signerOf(t *testing.T, w *world) seal.Public {
	t.Helper()
	p, err := seal.ParsePublic(mustRead(t, w.mem, "keys/signer-1.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func packFiles(t *testing.T, m *vfs.Mem) (names []string) {
	t.Helper()
	err := vfs.Walk(m, "packs", func(name string, _ vfs.Info) error {
		if strings.HasSuffix(name, ".pack") {
			names = append(names, name)
		}
		return nil
	})
	if err != nil || len(names) < 2 {
		t.Fatal(names, err)
	}
	return names
}

// TestVerifyAdopted: an auditor who brings the first signer's key sees that
// another has taken over; one who has both is content.
func TestVerifyAdopted(t *testing.T) {
	w, heads := aged(t, false)
	mine := signerOf(t, w)
	a, err := w.adopting(t.Context(), vfs.NewMem())
	if err != nil {
		t.Fatal(err)
	}
	report, err := repo.VerifyLedger(t.Context(), w.mem, repo.VerifyOptions{Signers: []seal.Public{mine}, Known: heads[1]})
	if err != nil || len(report.Problems) != 1 || report.Problems[0].Kind != "signer" || !strings.Contains(report.Problems[0].Err.Error(), a.Signer) {
		t.Errorf("%+v, %v", report.Problems, err)
	}
	if got := kinds(t, w.mem, repo.VerifyOptions{Known: heads[1], Packs: true}); got != nil {
		t.Errorf("with the keys in keys/: %q", got)
	}
}

// TestVerifyBeside verifies while an owner backs up: what is on its way is no
// problem.
func TestVerifyBeside(t *testing.T) {
	w := base(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error {
		defer cancel()
		return w.with(t.Context(), func(o *repo.Owner) error {
			for range 10 {
				if _, err := w.backup(t.Context(), o, w.next(), nil); err != nil {
					return err
				}
			}
			_, err := o.AddKey(t.Context(), repo.KeyOptions{Passphrase: []byte(newPassphrase), WorkFactor: 4})
			return err
		})
	})
	rounds := 0
	for ; ctx.Err() == nil; rounds++ {
		if err := sound(t.Context(), w.mem); err != nil {
			t.Errorf("round %d: %v", rounds, err)
			break
		}
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if rounds < 2 {
		t.Errorf("%d rounds beside the owner", rounds)
	}
}
