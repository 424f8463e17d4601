//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"
)

// keysListing is a part of what "repo key list --json" prints.
type keysListing struct {
	Keys []struct {
		Name, Recipient, Damage string
		Recorded, Lost          bool
	}
}

// changeKey returns the command line that adds a key, or removes or replaces one
// that was added; nil if the repository has no keys.
func (u *upkeep) changeKey(at *touched, tk *task) []string {
	u.t.Helper()
	if u.ids == nil || at.keys {
		return nil
	}
	at.keys = true
	added := slices.DeleteFunc(slices.Clone(u.keys), func(k key) bool { return !k.there })
	what := 0
	if len(added) > 0 {
		tk.old = &added[u.rng.IntN(len(added))]
		what = u.rng.IntN(3)
	}
	if what == 1 {
		tk.verb = "key remove"
		return []string{"repo", "key", "remove", u.dir, u.nameOf(*tk.old)}
	}
	k := u.newKey()
	tk.key = &k
	if what == 2 {
		tk.verb = "key rotate"
		return []string{"repo", "key", "rotate", u.dir, u.nameOf(*tk.old), "--recipient", k.recipient}
	}
	tk.verb, tk.old = "key add", nil
	return []string{"repo", "key", "add", u.dir, "--recipient", k.recipient, "--label", "another"}
}

// newKey makes an identity that is no key of the repository yet.
func (u *upkeep) newKey() key {
	u.t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		u.t.Fatal(err)
	}
	k := key{file: filepath.Join(u.scratch, fmt.Sprintf("identity%d", u.rounds)), recipient: id.Recipient().String()}
	if err := os.WriteFile(k.file, []byte(id.String()+"\n"), 0o600); err != nil {
		u.t.Fatal(err)
	}
	u.keys = append(u.keys, k)
	return k
}

// keyList lists the keys.
func (u *upkeep) keyList() keysListing {
	u.t.Helper()
	return decode[keysListing](u.t, u.program.must(u.t, "repo", "key", "list", u.dir, "--json"))
}

func (u *upkeep) nameOf(k key) string {
	u.t.Helper()
	for _, l := range u.keyList().Keys {
		if l.Recipient == k.recipient {
			return l.Name
		}
	}
	u.t.Fatalf("the key of %s is not listed", k.recipient)
	return ""
}

// settleKey finds out what became of keys. The next owner has made each one or
// the other, and who is listed can open the repository, and nobody else. A key
// that is to be replaced goes last, so that of both there is always one.
func (u *upkeep) settleKey(tk *task, o outcome) (done bool) {
	u.t.Helper()
	u.opened(reopen(u.t))
	listed := make(map[string]bool)
	for _, l := range u.keyList().Keys {
		if !l.Recorded || l.Lost || l.Damage != "" {
			u.t.Fatalf("%s, %s; then this key is listed: %+v", tk.verb, o, l)
		}
		listed[l.Recipient] = true
	}
	added := tk.key == nil || listed[tk.key.recipient]
	removed := tk.old == nil || !listed[tk.old.recipient]
	if done = added && removed; o.code == 0 && !done || removed && !added && tk.old != nil {
		u.t.Fatalf("%s: %s; its key is listed: %v, and the one to go is not: %v", tk.verb, o, added, removed)
	}
	for i, k := range u.keys {
		u.keys[i].there = listed[k.recipient]
	}
	for _, k := range []*key{tk.key, tk.old} {
		if k == nil {
			continue
		}
		want := 5
		if listed[k.recipient] {
			want = 0
		}
		p := program{state: u.program.state, flags: []string{"--identity-file", k.file}}
		if o := p.run(u.t, "repo", "points", u.dir); o.code != want {
			u.t.Fatalf("%s: the key is listed: %v, and opening with it: %s", tk.verb, listed[k.recipient], o)
		}
	}
	return done
}
