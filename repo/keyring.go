package repo

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

const signersDir = "signers"

// firstEpoch is that of the segment which begins a ledger.
const firstEpoch = 1

// A private signing key lies in the state directory as signers/REPOSITORY.pem,
// or signers/REPOSITORY-EPOCH.pem if it was adopted. None is ever overwritten or
// removed: which of them signs is the ledger's to say.
func signerFile(repository string, epoch uint64) string {
	if epoch == firstEpoch {
		return signersDir + "/" + repository + ".pem"
	}
	return fmt.Sprintf("%s/%s-%d.pem", signersDir, repository, epoch)
}

// saveSigner puts a repository's private signing key into the state directory.
func saveSigner(state vfs.FS, repository string, epoch uint64, s *seal.Signer) error {
	text, err := s.Marshal()
	if err != nil {
		return err
	}
	for _, dir := range []string{signersDir, tmpDir} {
		if err := state.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("keep the signing key: %w", err)
		}
	}
	if err := state.SyncDir("."); err != nil {
		return fmt.Errorf("keep the signing key: %w", err)
	}
	if err := vfs.WriteFile(state, signerFile(repository, epoch), text); err != nil {
		return fmt.Errorf("keep the signing key: %w", err)
	}
	return nil
}

// loadSigners reads the private signing keys that the state directory has for a
// repository. ErrNoSigner when there is none.
func loadSigners(state vfs.FS, repository string) ([]*seal.Signer, error) {
	if state == nil {
		return nil, fmt.Errorf("%w: no state directory", ErrNoSigner)
	}
	infos, err := state.ReadDir(signersDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list signing keys: %w", err)
	}
	var signers []*seal.Signer
	var damaged []error
	for _, info := range infos {
		base, isKey := strings.CutSuffix(info.Name, ".pem")
		if id, _, _ := strings.Cut(base, "-"); !isKey || id != repository {
			continue
		}
		s, err := readSigner(state, signersDir+"/"+info.Name)
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		signers = append(signers, s)
	}
	switch {
	case len(signers) > 0:
		return signers, nil
	case len(damaged) > 0:
		return nil, errors.Join(damaged...)
	}
	return nil, fmt.Errorf("%w: %s is not in the state directory", ErrNoSigner, signerFile(repository, firstEpoch))
}

func readSigner(state vfs.FS, name string) (*seal.Signer, error) {
	const limit = 4096
	text, err := vfs.ReadFile(state, name, limit)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	s, err := seal.ParseSigner(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// fingerprintOf names a signing key.
func fingerprintOf(s *seal.Signer) string { return s.Public(0, time.Time{}).Fingerprint() }

// pickSigner takes that one of the private keys which the ledger names. With
// another the next segment would be one that nobody accepts, and no owner could
// ever open the repository again. A lost public key is made again from it.
func (o *Owner) pickSigner() error {
	want, epoch := o.state.Signer()
	var have []string
	for _, s := range o.mine {
		name := fingerprintOf(s)
		if name == want {
			o.signer = s
			return o.keepPublic(epoch)
		}
		have = append(have, name)
	}
	if o.opt.adopting {
		return o.beginAdoption(want)
	}
	return fmt.Errorf("%w: the repository's is %s, the state directory has %s", ErrNoSigner, want, strings.Join(have, ", "))
}

// keepPublic writes the owner's public key if it is in keys/ no more.
func (o *Owner) keepPublic(epoch uint64) error {
	if _, known := o.state.SignerKey(); known {
		return nil
	}
	p, err := writePublic(o.fsys, o.signer, epoch, o.now())
	if errors.Is(err, fs.ErrExist) {
		o.log.Error("public signing key is damaged", "key", signerPath(epoch))
		return nil // what it is needed for is auditing, not writing
	}
	if err != nil {
		return err
	}
	o.log.Warn("public signing key was lost and is there again", "key", signerPath(epoch))
	o.learnSigner(p)
	return nil
}

// learnSigner makes a public key known for checking signatures.
func (o *Owner) learnSigner(p seal.Public) {
	o.signers = append(slices.Clip(o.signers), p)
	o.state.AddSigner(p)
}

// writePublic puts the public half of a signing key into keys/. fs.ErrExist when
// the name is taken by something else; a copy of the same key is completed.
func writePublic(fsys vfs.FS, s *seal.Signer, epoch uint64, now time.Time) (seal.Public, error) {
	name := signerPath(epoch)
	var p seal.Public
	line, err := readTwins(fsys, name, func(b []byte) (err error) {
		p, err = seal.ParsePublic(b)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p = s.Public(uint32(epoch), now)
		if line, err = p.Marshal(); err != nil {
			return p, err
		}
	case err != nil || p.Fingerprint() != fingerprintOf(s) || uint64(p.Epoch) != epoch:
		return p, fmt.Errorf("%s: %w", name, errors.Join(fs.ErrExist, err))
	}
	return p, writeTwins(fsys, name, line)
}

// openKeys returns the keys of a sealed repository, by whichever key file opens
// with the passphrase or an identity.
func openKeys(fsys vfs.FS, s Settings, pass []byte, identities []age.Identity) (*seal.Keys, error) {
	var id [seal.RepositoryIDBytes]byte
	if _, err := hex.Decode(id[:], []byte(s.ID)); err != nil {
		return nil, fmt.Errorf("%w: repository id: %w", ErrFormat, err)
	}
	m, _, err := openMaster(fsys, pass, identities)
	if err != nil {
		return nil, err
	}
	defer clear(m[:])
	return seal.Derive(m, id), nil
}

// openMaster returns the master key, which the caller clears soon, and the name
// of the key file that opened.
func openMaster(fsys vfs.FS, pass []byte, identities []age.Identity) (seal.Master, string, error) {
	if len(pass) == 0 && len(identities) == 0 {
		return seal.Master{}, "", ErrNeedKey
	}
	names, err := keyNames(fsys)
	if err != nil {
		return seal.Master{}, "", err
	}
	var damaged []error
	for _, name := range names {
		f, _, err := readKey(fsys, name)
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		m, err := f.Unwrap(pass, identities)
		switch {
		case err == nil:
			return m, name, nil
		case !errors.Is(err, seal.ErrWrongKey) && !errors.Is(err, seal.ErrNeedKey):
			damaged = append(damaged, fmt.Errorf("key %s: %w", name, err))
		}
	}
	return seal.Master{}, "", errors.Join(append([]error{ErrWrongKey}, damaged...)...)
}

const signerPrefix = "signer-"

// keyNames lists the key files, in order of their names.
func keyNames(fsys vfs.FS) ([]string, error) {
	names, err := inKeys(fsys)
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, signerPrefix) }), err
}

// inKeys lists the files in keys/, twins and what they are twins of once.
func inKeys(fsys vfs.FS) ([]string, error) {
	infos, err := fsys.ReadDir(keysDir)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var names []string
	for _, info := range infos {
		if !info.Dir {
			names = append(names, strings.TrimSuffix(info.Name, twinSuffix))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// readKey reads a key file, or its twin, and its bytes.
func readKey(fsys vfs.FS, name string) (f seal.File, line []byte, err error) {
	line, err = readTwins(fsys, keysDir+"/"+name, func(p []byte) (err error) {
		f, err = seal.ParseFile(p)
		return err
	})
	return f, line, err
}

// completeKeys gives each key file and public signing key its missing copy. One
// that is damaged is left as it is, for others open the repository too.
func completeKeys(fsys vfs.FS, log *slog.Logger) error {
	names, err := inKeys(fsys)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, err := completeTwins(fsys, keysDir+"/"+name, func(p []byte) (err error) {
			if strings.HasPrefix(name, signerPrefix) {
				_, err = seal.ParsePublic(p)
			} else {
				_, err = seal.ParseFile(p)
			}
			return err
		})
		switch {
		case errors.Is(err, seal.ErrFormat), errors.Is(err, seal.ErrNewer):
			log.Warn("key file has one copy, and that is damaged", "key", name, "err", err)
		case err != nil:
			return fmt.Errorf("complete %s/%s: %w", keysDir, name, err)
		}
	}
	return nil
}

// readSigners returns the public signing keys in keys/. One that is damaged
// beyond its twin makes signatures unknown and is no reason not to read.
func readSigners(fsys vfs.FS, log *slog.Logger) ([]seal.Public, error) {
	names, err := inKeys(fsys)
	if err != nil {
		return nil, err
	}
	var signers []seal.Public
	for _, name := range names {
		if !strings.HasPrefix(name, signerPrefix) {
			continue
		}
		var p seal.Public
		_, err := readTwins(fsys, keysDir+"/"+name, func(b []byte) (err error) {
			p, err = seal.ParsePublic(b)
			return err
		})
		if err != nil {
			log.Error("public signing key can't be read", "err", err)
			continue
		}
		signers = append(signers, p)
	}
	return signers, nil
}
