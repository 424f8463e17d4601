package repo_test

import (
	"context"
	"errors"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// adopting calls Adopt with another machine's state directory.
func (w *world) adopting(ctx context.Context, state vfs.FS) (repo.Adoption, error) {
	opt := w.options()
	opt.State = state
	return repo.Adopt(ctx, w.disk, opt, 0)
}

// ownedBy opens the repository as owner with a state directory, and backs up.
func (w *world) ownedBy(ctx context.Context, state vfs.FS) error {
	opt := w.options()
	opt.State = state
	o, err := repo.Own(ctx, w.disk, opt, 0)
	if err != nil {
		return err
	}
	_, err = w.backup(ctx, o, w.next(), nil)
	return errors.Join(err, o.Close())
}

// TestAdopt lets another machine write, then a third, and the first return.
func TestAdopt(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(sealing(sealed), func(t *testing.T) {
			ctx := t.Context()
			w := base(t, sealed)
			here, err := w.adopting(ctx, w.state)
			if err != nil || here.Previous != "" || here.Epoch != 1 {
				t.Fatalf("adopted where the key is: %+v, %v", here, err)
			}
			before := here.Signer
			var all []string
			for i := range 3 {
				state := vfs.NewMem()
				is(t, "own without the key", w.ownedBy(ctx, state), repo.ErrNoSigner)
				a, err := w.adopting(ctx, state)
				if err != nil {
					t.Fatal(err)
				}
				if a.Previous != before || a.Signer == before || a.Head.Number == 0 {
					t.Errorf("adoption %d: %+v after %s", i, a, before)
				}
				again, err := w.adopting(ctx, state)
				if want := (repo.Adoption{Signer: a.Signer, Epoch: a.Epoch, Head: again.Head}); err != nil || again != want {
					t.Errorf("again: %+v, %v, want %+v", again, err, want)
				}
				if err := w.ownedBy(ctx, state); err != nil {
					t.Error(err)
				}
				is(t, "own by the first", w.ownedBy(ctx, w.state), repo.ErrNoSigner)
				before, all = a.Signer, append(all, a.Signer)
			}
			// The first takes it back, keeping its old key beside the new one.
			if _, err := w.adopting(ctx, w.state); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.ownedBy(ctx, w.state), sound(ctx, w.disk), repotest.Account(w.disk),
				repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model())); err != nil {
				t.Error(err)
			}
			l, err := repo.ListKeys(ctx, w.disk)
			if err != nil || len(l.Signers) != 5 {
				t.Fatalf("signers %+v, %v", l.Signers, err)
			}
			for i, s := range l.Signers {
				if !s.Adopted || s.InForce != (i == 4) || s.Damage != nil || i > 0 && i < 4 && s.Fingerprint != all[i-1] {
					t.Errorf("signer %d: %+v", i, s)
				}
			}
			if _, err := repo.Adopt(ctx, w.disk, repo.Options{Passphrase: []byte(passphrase)}, 0); !errors.Is(err, repo.ErrNoSigner) {
				t.Errorf("adopted without a state directory: %v", err)
			}
		})
	}
}

// TestAdoptUnknown: the old public key is lost too. Its points read, and nobody
// says that they are signed.
func TestAdoptUnknown(t *testing.T) {
	ctx := t.Context()
	w := base(t, false)
	for _, name := range []string{"keys/signer-1.pub", "keys/signer-1.pub.twin"} {
		if err := w.mem.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	state := vfs.NewMem()
	if _, err := w.adopting(ctx, state); err != nil {
		t.Fatal(err)
	}
	if err := w.ownedBy(ctx, state); err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(ctx, w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	points, err := r.Points(ctx)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	for i, p := range points {
		if p.Signed != (i > 0) {
			t.Errorf("point %d is signed: %t", i, p.Signed)
		}
	}
	report, err := repo.VerifyLedger(ctx, w.disk, repo.VerifyOptions{})
	if err != nil || len(report.Problems) == 0 || report.Problems[0].Kind != "signer" || len(report.Signers) != 2 || report.Signers[0].Checked || !report.Signers[1].Checked {
		t.Errorf("report %+v, %v", report, err)
	}
	if err := repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model()); err != nil {
		t.Error(err)
	}
}

// TestPublicKeyLost: whoever has the private key makes it again.
func TestPublicKeyLost(t *testing.T) {
	ctx := t.Context()
	w := base(t, false)
	for _, name := range []string{"keys/signer-1.pub", "keys/signer-1.pub.twin"} {
		if err := w.mem.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.ownedBy(ctx, w.state), sound(ctx, w.disk), repotest.Account(w.disk)); err != nil {
		t.Error(err)
	}
}

// TestAdoptStops cuts the power before every operation of an adoption, in the
// repository and in the state directory. At any of them either the old signer
// goes on as if nothing had been, or it says that another has taken over; and
// whoever wants to adopt can: who began it, and a third.
func TestAdoptStops(t *testing.T) {
	ctx := t.Context()
	first := base(t, false)
	old := first.state
	adoption := mix{name: "adopt", do: func(ctx context.Context, w *world) error {
		_, err := w.adopting(ctx, w.keys)
		return err
	}}
	w := first.fork(keepAll)
	w.state = vfs.NewMem()
	w.mount()
	all, n, err := adoption.stops(ctx, w, func(i int, _ string) []vfs.CrashOptions {
		ways := vfs.Crashes(1, 2, 3, 4)
		if long {
			return ways
		}
		return ways[i%len(ways):][:1]
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 30 {
		t.Errorf("stopped at %d operations", n)
	}
	seen := make(map[string]int)
	for _, s := range all {
		others := []string{"same", "third", "old, then same"}
		if !long {
			others = others[s.index%3:][:1]
		}
		for _, who := range append(others, "old") {
			outcome, err := whoGoesOn(ctx, s.world.fork(keepAll), who, old.CrashClone(keepAll))
			if err != nil {
				t.Fatalf("%v: %s: %v", s, who, err)
			}
			seen[who+": "+outcome]++
		}
	}
	for _, want := range []string{"old: signs", "old: taken over", "same: signs", "third: signs", "old, then same: signs"} {
		if seen[want] == 0 {
			t.Errorf("%v: never %q", seen, want)
		}
	}
	t.Logf("stopped at %d operations: %v", n, seen)
}

// whoGoesOn has somebody use a repository after an interrupted adoption.
func whoGoesOn(ctx context.Context, w *world, who string, old vfs.FS) (outcome string, err error) {
	outcome = "signs"
	oldSigner := func() error {
		err := w.ownedBy(ctx, old)
		if errors.Is(err, repo.ErrNoSigner) {
			outcome = "taken over"
			return nil
		}
		return err
	}
	adopts := func(state vfs.FS) error {
		outcome = "signs"
		if _, err := w.adopting(ctx, state); err != nil {
			return err
		}
		return w.ownedBy(ctx, state)
	}
	switch who {
	case "old":
		err = oldSigner()
	case "same":
		err = adopts(w.state)
	case "third":
		err = adopts(vfs.NewMem())
	case "old, then same":
		err = errors.Join(oldSigner(), adopts(w.state))
	}
	if err != nil {
		return outcome, err
	}
	if outcome == "taken over" { // nobody has tidied up since
		return outcome, repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model())
	}
	return outcome, errors.Join(sound(ctx, w.disk), repotest.Account(w.disk), repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model()))
}
