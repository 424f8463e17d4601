package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"holdfast/repo/ledger"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// KeyInfo describes a key file. It holds no secret.
type KeyInfo struct {
	Name      string
	Kind      seal.Kind
	Label     string
	Created   time.Time
	Recipient string     // "age1…", empty for a passphrase
	SHA256    ledger.Sum // of the file
	Recorded  bool       // the ledger says that it was added, and not removed
	Locked    bool       // it can't be removed
	Lost      bool       // neither copy is whole: it opens nothing
	Damage    error      // of either copy
}

// SignerInfo describes a signing key of the ledger.
type SignerInfo struct {
	Epoch       uint64 // from which it signs
	Fingerprint string // empty when the file is lost and the ledger does not name it
	Created     time.Time
	InForce     bool  // it signs the next segment
	Adopted     bool  // the ledger names it; false is what an interrupted adoption leaves
	Damage      error // of either copy of its public key
}

// KeyList is what ListKeys finds.
type KeyList struct {
	Repository string
	Sealed     bool
	Keys       []KeyInfo    // in order of their names
	Signers    []SignerInfo // in order of their epochs
	Ledger     error        // why it is not known what the ledger says of them
}

// ListKeys lists the keys of a repository, sealed or not, open or not: no key is
// needed.
func ListKeys(ctx context.Context, fsys vfs.FS) (KeyList, error) {
	l, err := listKeys(ctx, fsys)
	if err != nil {
		return l, fmt.Errorf("list keys: %w", err)
	}
	return l, nil
}

// Keys lists the key files.
func (r *Repository) Keys(ctx context.Context) ([]KeyInfo, error) {
	l, err := ListKeys(ctx, r.fsys)
	return l.Keys, err
}

func listKeys(ctx context.Context, fsys vfs.FS) (KeyList, error) {
	s, err := readSettings(fsys)
	if err != nil {
		return KeyList{}, err
	}
	said, ledgerErr := readKeyRecords(ctx, fsys)
	l, err := listKeyFiles(fsys, s, said)
	l.Ledger = ledgerErr
	return l, err
}

// listKeyFiles lists keys/ beside what the ledger says of it.
func listKeyFiles(fsys vfs.FS, s Settings, said keyRecords) (KeyList, error) {
	l := KeyList{Repository: s.ID, Sealed: s.Sealed}
	names, err := inKeys(fsys)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // keys/ itself may be lost
		return l, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, signerPrefix) {
			l.Signers = append(l.Signers, signerFileInfo(fsys, name, said))
			continue
		}
		f, line, lost := readKey(fsys, name)
		k := keyInfo(name, f, line, false)
		rec := said.keys[name]
		k.Lost, k.Damage = lost != nil, twinDamage(fsys, keysDir+"/"+name, lost)
		k.Recorded = rec.Action == keyAdded && rec.SHA256 == k.SHA256
		if k.Locked, err = lockedTwins(fsys, keysDir+"/"+name); err != nil {
			return l, err
		}
		l.Keys = append(l.Keys, k)
	}
	l.addMissing(said)
	return l, nil
}

func keyInfo(name string, f seal.File, line []byte, recorded bool) KeyInfo {
	return KeyInfo{
		Name: name, Kind: f.Kind, Label: f.Label, Created: f.Created, Recipient: f.Recipient,
		SHA256: sum256(line), Recorded: recorded,
	}
}

// keyRecords is what the ledger says of keys.
type keyRecords struct {
	keys    map[string]ledger.Key
	signers []SignerInfo // whom it names, in order
}

// readKeyRecords reads the ledger for what it says of keys. Signatures and order
// are for VerifyLedger.
func readKeyRecords(ctx context.Context, fsys vfs.FS) (keyRecords, error) {
	said := keyRecords{keys: make(map[string]ledger.Key)}
	last, err := lastSegment(fsys)
	if err != nil {
		return said, err
	}
	err = readLedger(fsys, 1, last, func(s *ledger.Segment) error {
		for _, r := range s.Records {
			switch r := r.(type) {
			case *ledger.Init:
				said.signers = append(said.signers, SignerInfo{Epoch: s.Epoch, Fingerprint: r.Signer, Adopted: true})
			case *ledger.Adopt:
				said.signers = append(said.signers, SignerInfo{Epoch: s.Epoch, Fingerprint: r.Signer, Adopted: true})
			case *ledger.Key:
				said.keys[r.Name] = *r
			}
		}
		return ctx.Err()
	})
	if n := len(said.signers); n > 0 {
		said.signers[n-1].InForce = true
	}
	return said, err
}

// signerFileInfo describes a public key in keys/.
func signerFileInfo(fsys vfs.FS, name string, said keyRecords) SignerInfo {
	var p seal.Public
	_, lost := readTwins(fsys, keysDir+"/"+name, func(b []byte) (err error) {
		p, err = seal.ParsePublic(b)
		return err
	})
	info := SignerInfo{Damage: twinDamage(fsys, keysDir+"/"+name, lost)}
	if lost != nil {
		// Its epoch is in its name, and the ledger may name it.
		fmt.Sscanf(name, signerPrefix+"%d.pub", &info.Epoch) //nolint:errcheck // then it is 0
	} else {
		info.Epoch, info.Fingerprint, info.Created = uint64(p.Epoch), p.Fingerprint(), p.Created
	}
	for _, s := range said.signers {
		if s.Epoch == info.Epoch && (lost != nil || s.Fingerprint == info.Fingerprint) {
			info.Fingerprint, info.Adopted, info.InForce = s.Fingerprint, true, s.InForce
		}
	}
	return info
}

// addMissing adds the keys that the ledger names and that have no file.
func (l *KeyList) addMissing(said keyRecords) {
	for name, rec := range said.keys {
		there := slices.ContainsFunc(l.Keys, func(k KeyInfo) bool { return k.Name == name })
		if rec.Action == keyAdded && !there {
			l.Keys = append(l.Keys, KeyInfo{
				Name: name, Kind: seal.Kind(rec.Kind), SHA256: rec.SHA256, Recorded: true, Lost: true,
				Damage: fmt.Errorf("%s/%s: %w", keysDir, name, fs.ErrNotExist),
			})
		}
	}
	for _, s := range said.signers {
		if !slices.ContainsFunc(l.Signers, func(t SignerInfo) bool { return t.Epoch == s.Epoch && t.Adopted }) {
			s.Damage = fmt.Errorf("%s: %w", signerPath(s.Epoch), fs.ErrNotExist)
			l.Signers = append(l.Signers, s)
		}
	}
	slices.SortFunc(l.Keys, func(a, b KeyInfo) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(l.Signers, func(a, b SignerInfo) int { return int(a.Epoch) - int(b.Epoch) })
}

// twinDamage says what is wrong with either copy of a file. lost is why none of
// them is whole, nil when one is.
func twinDamage(fsys vfs.FS, name string, lost error) error {
	if lost != nil {
		return lost
	}
	var whole []byte
	for _, n := range []string{name, name + twinSuffix} {
		p, err := vfs.ReadFile(fsys, n, maxTwinBytes)
		switch {
		case err != nil:
			return err
		case whole != nil && string(whole) != string(p):
			return fmt.Errorf("%s and its twin differ", name)
		}
		whole = p
	}
	return nil
}

// lockedTwins reports whether a file or its twin can't be removed.
func lockedTwins(fsys vfs.FS, name string) (bool, error) {
	for _, n := range []string{name, name + twinSuffix} {
		locked, err := fsys.Locked(n)
		if locked || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return locked, err
		}
	}
	return false, nil
}
