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

// changeKey returns the command line that adds a key, or removes one that was
// added; nil if the repository has no keys.
func (u *upkeep) changeKey(at *touched, tk *task) []string {
	u.t.Helper()
	if u.ids == nil || at.keys {
		return nil
	}
	at.keys = true
	added := slices.DeleteFunc(slices.Clone(u.keys), func(k key) bool { return !k.there })
	if len(added) > 0 && u.rng.IntN(2) == 0 {
		k := added[u.rng.IntN(len(added))]
		tk.verb, tk.key = "key remove", &k
		return []string{"repo", "key", "remove", u.dir, u.nameOf(k)}
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		u.t.Fatal(err)
	}
	k := key{file: filepath.Join(u.scratch, fmt.Sprintf("identity%d", u.rounds)), recipient: id.Recipient().String()}
	if err := os.WriteFile(k.file, []byte(id.String()+"\n"), 0o600); err != nil {
		u.t.Fatal(err)
	}
	u.keys = append(u.keys, k)
	tk.verb, tk.key = "key add", &k
	return []string{"repo", "key", "add", u.dir, "--recipient", k.recipient, "--label", "another"}
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

// settleKey finds out what became of a key. The next owner has made it one or
// the other, and who is listed can open the repository, and nobody else.
func (u *upkeep) settleKey(tk *task, o outcome) (done bool) {
	u.t.Helper()
	u.opened(reopen(u.t))
	there := false
	for _, l := range u.keyList().Keys {
		if !l.Recorded || l.Lost || l.Damage != "" {
			u.t.Fatalf("%s, %s; then this key is listed: %+v", tk.verb, o, l)
		}
		there = there || l.Recipient == tk.key.recipient
	}
	done = there == (tk.verb == "key add")
	if o.code == 0 && !done {
		u.t.Fatalf("%s: %s; the key is listed: %v", tk.verb, o, there)
	}
	for i := range u.keys {
		if u.keys[i].recipient == tk.key.recipient {
			u.keys[i].there = there
		}
	}
	want := 5
	if there {
		want = 0
	}
	p := program{state: u.program.state, flags: []string{"--identity-file", tk.key.file}}
	if o := p.run(u.t, "repo", "points", u.dir); o.code != want {
		u.t.Fatalf("%s: the key is listed: %v, and opening with it: %s", tk.verb, there, o)
	}
	return done
}
