package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

const newPassphrase = "battery staple"

// opensWith reports whether the repository opens with a passphrase.
func (w *world) opensWith(ctx context.Context, pass string) (bool, error) {
	opt := w.options()
	opt.Passphrase = []byte(pass)
	r, err := repo.Open(ctx, w.disk, opt)
	if errors.Is(err, repo.ErrWrongKey) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, r.Close()
}

// sound reports what VerifyLedger finds wrong.
func sound(ctx context.Context, fsys vfs.FS) error {
	report, err := repo.VerifyLedger(ctx, fsys, repo.VerifyOptions{Packs: true})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range report.Problems {
		errs = append(errs, fmt.Errorf("%s of segment %d, %s: %w", p.Kind, p.Segment, p.File, p.Err))
	}
	return errors.Join(errs...)
}

// keyNames lists the key files, each of which must be whole and recorded.
func keyNames(ctx context.Context, fsys vfs.FS) ([]string, error) {
	l, err := repo.ListKeys(ctx, fsys)
	if err = errors.Join(err, l.Ledger); err != nil {
		return nil, err
	}
	var names []string
	for _, k := range l.Keys {
		if k.Damage != nil || k.Lost || !k.Recorded {
			return nil, fmt.Errorf("key %+v", k)
		}
		names = append(names, k.Name)
	}
	return names, nil
}

func wantKeys(t *testing.T, fsys vfs.FS, want ...string) {
	t.Helper()
	got, err := keyNames(t.Context(), fsys)
	if err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("keys %q, want %q", got, want)
	}
}

// TestKeyChanges adds, rotates and removes keys; data written before opens with each.
func TestKeyChanges(t *testing.T) {
	ctx := t.Context()
	w := base(t, true)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, w.disk, "key-1")
	err = w.with(ctx, func(o *repo.Owner) error {
		k, err := o.AddKey(ctx, repo.KeyOptions{Recipient: identity.Recipient().String(), Label: "the vault's"})
		if err != nil {
			return err
		}
		if k.Name != "key-2" || k.Kind != seal.Recipient || k.Label != "the vault's" || k.Recipient != identity.Recipient().String() || k.Created.IsZero() {
			t.Errorf("added %+v", k)
		}
		k, gone, err := o.RotateKey(ctx, "", repo.KeyOptions{Passphrase: []byte(newPassphrase), WorkFactor: 4})
		if k.Name != "key-3" || gone != "key-1" {
			t.Errorf("rotated %q to %+v", gone, k)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, w.disk, "key-2", "key-3")
	if ok, err := w.opensWith(ctx, passphrase); ok || err != nil {
		t.Errorf("opens with the old passphrase: %t, %v", ok, err)
	}
	opt := w.options()
	opt.Passphrase, opt.Identities = nil, []age.Identity{identity}
	for _, o := range []repo.Options{opt, {Passphrase: []byte(newPassphrase)}} {
		if err := repotest.OpenAndCompare(ctx, w.disk, o, w.model()); err != nil {
			t.Error(err)
		}
	}
	o, err := repo.Own(ctx, w.disk, opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.RemoveKey(ctx, "key-3"); err != nil {
		t.Error(err)
	}
	is(t, "remove the last", o.RemoveKey(ctx, "key-2"), repo.ErrLastKey)
	for _, name := range []string{"key-1", "key-9", "signer-1.pub", "../format.json", "key-2.twin", ""} {
		is(t, "remove "+name, o.RemoveKey(ctx, name), repo.ErrNotFound)
	}
	if _, err := o.AddKey(ctx, repo.KeyOptions{}); err == nil {
		t.Error("a key of nothing was added")
	}
	k, err := o.AddKey(ctx, repo.KeyOptions{Passphrase: []byte(passphrase), WorkFactor: 4})
	if err != nil || k.Name != "key-4" { // no name comes twice
		t.Errorf("added %+v, %v", k, err)
	}
	if keys, err := o.Keys(ctx); err != nil || len(keys) != 2 {
		t.Errorf("keys %+v, %v", keys, err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	wantKeys(t, w.disk, "key-2", "key-4")
	if err := errors.Join(sound(ctx, w.disk), repotest.Account(w.disk)); err != nil {
		t.Error(err)
	}
}

// TestKeysPlain: what is not sealed has no keys.
func TestKeysPlain(t *testing.T) {
	w, o := owned(t)
	_, err := o.AddKey(t.Context(), repo.KeyOptions{Passphrase: []byte("x")})
	is(t, "add", err, repo.ErrNotSealed)
	_, _, err = o.RotateKey(t.Context(), "", repo.KeyOptions{Passphrase: []byte("x")})
	is(t, "rotate", err, repo.ErrNotSealed)
	is(t, "remove", o.RemoveKey(t.Context(), "key-1"), repo.ErrNotSealed)
	wantKeys(t, w.disk)
}

// TestKeyDamage lists keys that are damaged, missing, foreign or brought back, and
// removes a damaged one.
func TestKeyDamage(t *testing.T) {
	ctx := t.Context()
	w := base(t, true)
	var first []byte
	err := w.with(ctx, func(o *repo.Owner) (err error) {
		for range 3 {
			if _, err := o.AddKey(ctx, repo.KeyOptions{Passphrase: []byte(newPassphrase), WorkFactor: 4}); err != nil {
				return err
			}
		}
		if first, err = vfs.ReadFile(w.disk, "keys/key-1", 1<<16); err != nil {
			return err
		}
		_, _, err = o.RotateKey(ctx, "key-1", repo.KeyOptions{Passphrase: []byte(passphrase), WorkFactor: 4})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, p []byte) {
		t.Helper()
		_ = w.mem.Remove(name)
		if err := vfs.WriteFile(w.mem, name, p); err != nil {
			t.Fatal(err)
		}
	}
	write("keys/key-1", first)            // brought back after its removal
	write("keys/key-2", []byte("torn\n")) // one copy
	write("keys/key-3", []byte("torn\n")) // both
	write("keys/key-3.twin", nil)
	for _, name := range []string{"keys/key-4", "keys/key-4.twin"} {
		if err := w.mem.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	write("keys/key-7", first) // nobody's
	write("keys/key-7.twin", first)

	l, err := repo.ListKeys(ctx, w.mem)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range l.Keys {
		got = append(got, fmt.Sprintf("%s recorded=%t lost=%t damaged=%t", k.Name, k.Recorded, k.Lost, k.Damage != nil))
	}
	want := []string{
		"key-1 recorded=false lost=false damaged=true",
		"key-2 recorded=true lost=false damaged=true",
		"key-3 recorded=false lost=true damaged=true",
		"key-4 recorded=true lost=true damaged=true",
		"key-5 recorded=true lost=false damaged=false",
		"key-7 recorded=false lost=false damaged=false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	report, err := repo.VerifyLedger(ctx, w.mem, repo.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, p := range report.Problems {
		files = append(files, p.Kind+" "+p.File)
	}
	wantFiles := []string{"key keys/key-1", "key keys/key-2", "key keys/key-3", "key keys/key-4", "key keys/key-7"}
	if !slices.Equal(files, wantFiles) {
		t.Errorf("problems %q, want %q", files, wantFiles)
	}
	// The next owner removes what was removed, and records what is new.
	err = w.with(ctx, func(o *repo.Owner) error {
		return errors.Join(o.RemoveKey(ctx, "key-3"), o.RemoveKey(ctx, "key-2"))
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err = repo.ListKeys(ctx, w.mem)
	got = nil
	for _, k := range l.Keys {
		got = append(got, fmt.Sprintf("%s %t", k.Name, k.Recorded && !k.Lost))
	}
	if want := []string{"key-4 false", "key-5 true", "key-7 true"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("afterwards %q, %v, want %q", got, err, want)
	}
}

// TestKeyLocked: a locked file stays, and nobody says that it went.
func TestKeyLocked(t *testing.T) {
	ctx := t.Context()
	w := base(t, true)
	err := w.with(ctx, func(o *repo.Owner) error {
		if _, err := o.AddKey(ctx, repo.KeyOptions{Passphrase: []byte(newPassphrase), WorkFactor: 4}); err != nil {
			return err
		}
		if err := w.mem.SetLocked("keys/key-1.twin", true); err != nil {
			return err
		}
		is(t, "remove", o.RemoveKey(ctx, "key-1"), repo.ErrKeyLocked)
		_, _, err := o.RotateKey(ctx, "key-1", repo.KeyOptions{Passphrase: []byte("third"), WorkFactor: 4})
		is(t, "rotate", err, repo.ErrKeyLocked)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, w.disk, "key-1", "key-2")
	l, err := repo.ListKeys(ctx, w.disk)
	if err != nil || !l.Keys[0].Locked || l.Keys[1].Locked {
		t.Errorf("%+v, %v", l.Keys, err)
	}
	if err := sound(ctx, w.disk); err != nil {
		t.Error(err)
	}
}

// TestKeyStops cuts the power before every operation of each change of keys. At
// any of them the repository opens with what it should, and the next owner
// leaves no doubt about which keys it has.
func TestKeyStops(t *testing.T) {
	add := func(ctx context.Context, w *world) error {
		return w.with(ctx, func(o *repo.Owner) error {
			_, err := o.AddKey(ctx, repo.KeyOptions{Passphrase: []byte(newPassphrase), WorkFactor: 4})
			return err
		})
	}
	for _, c := range []struct {
		mix
		old bool // the old passphrase opens throughout
	}{
		{mix{name: "add", before: initAndFirst, do: add}, true},
		{mix{name: "rotate", before: initAndFirst, do: func(ctx context.Context, w *world) error {
			return w.with(ctx, func(o *repo.Owner) error {
				_, _, err := o.RotateKey(ctx, "key-1", repo.KeyOptions{Passphrase: []byte(newPassphrase), WorkFactor: 4})
				return err
			})
		}}, false},
		{mix{name: "remove", before: func(ctx context.Context, w *world) error { return errors.Join(initAndFirst(ctx, w), add(ctx, w)) },
			do: func(ctx context.Context, w *world) error {
				return w.with(ctx, func(o *repo.Owner) error { return o.RemoveKey(ctx, "key-2") })
			}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ways := vfs.Crashes(1, 2, 3, 4)
			all, n, err := c.stops(t.Context(), newWorld(true, 1), func(i int, _ string) []vfs.CrashOptions {
				if long {
					return ways
				}
				if i%2 != 0 {
					return nil
				}
				return ways[i/2%len(ways):][:1]
			})
			if err != nil {
				t.Fatal(err)
			}
			if n < 20 {
				t.Errorf("stopped at %d operations", n)
			}
			seen := make(map[string]int)
			for _, s := range all {
				state, err := c.check(t.Context(), s.world, c.old)
				if err != nil {
					t.Fatalf("%v: %v", s, err)
				}
				seen[state]++
			}
			if len(seen) < 2 {
				t.Errorf("%v: want both what was before and what is after", seen)
			}
			t.Logf("stopped at %d operations: %v", n, seen)
		})
	}
}

// check opens an interrupted world, and says which passphrases open it then.
func (m mix) check(ctx context.Context, w *world, old bool) (string, error) {
	before, err := w.opensWith(ctx, passphrase)
	if err != nil {
		return "", err
	}
	opt := w.options()
	if !before {
		opt.Passphrase = []byte(newPassphrase)
	}
	o, err := repo.Own(ctx, w.disk, opt, 0)
	if err != nil {
		return "", err
	}
	_, err = w.backup(ctx, o, w.next(), nil)
	if err = errors.Join(err, o.Close()); err != nil {
		return "", err
	}
	// What was removed may have opened it for the last time.
	first, err := w.opensWith(ctx, passphrase)
	if err != nil {
		return "", err
	}
	if !first {
		opt.Passphrase = []byte(newPassphrase)
	}
	names, err := keyNames(ctx, w.disk)
	if err = errors.Join(err, sound(ctx, w.disk), repotest.Account(w.disk), repotest.OpenAndCompare(ctx, w.disk, opt, w.model())); err != nil {
		return "", err
	}
	second, err := w.opensWith(ctx, newPassphrase)
	if err != nil {
		return "", err
	}
	opens := 0
	for _, b := range []bool{first, second} {
		if b {
			opens++
		}
	}
	switch {
	case old && !first:
		return "", errors.New("the old passphrase does not open it any more")
	case opens != len(names):
		return "", fmt.Errorf("%d of the passphrases open it, with keys %q", opens, names)
	}
	return fmt.Sprintf("old %t new %t", first, second), nil
}
