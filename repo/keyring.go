package repo

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"filippo.io/age"

	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

const signersDir = "signers"

// saveSigner puts a repository's private signing key into the state directory.
func saveSigner(state vfs.FS, repository string, s *seal.Signer) error {
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
	if err := vfs.WriteFile(state, signersDir+"/"+repository+".pem", text); err != nil {
		return fmt.Errorf("keep the signing key: %w", err)
	}
	return nil
}

// loadSigner reads the private signing key. ErrNoSigner when it isn't there.
func loadSigner(state vfs.FS, repository string) (*seal.Signer, error) {
	if state == nil {
		return nil, fmt.Errorf("%w: no state directory", ErrNoSigner)
	}
	name := signersDir + "/" + repository + ".pem"
	const limit = 4096
	text, err := vfs.ReadFile(state, name, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is not in the state directory", ErrNoSigner, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	return seal.ParseSigner(text)
}

// openKeys returns the keys of a sealed repository, by whichever key file opens
// with the passphrase or an identity.
func openKeys(fsys vfs.FS, s Settings, pass []byte, identities []age.Identity) (*seal.Keys, error) {
	if len(pass) == 0 && len(identities) == 0 {
		return nil, ErrNeedKey
	}
	infos, err := fsys.ReadDir(keysDir)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var id [seal.RepositoryIDBytes]byte
	if _, err := hex.Decode(id[:], []byte(s.ID)); err != nil {
		return nil, fmt.Errorf("%w: repository id: %w", ErrFormat, err)
	}
	var damaged []error
	tried := make(map[string]bool)
	for _, info := range infos {
		name := strings.TrimSuffix(info.Name, twinSuffix)
		if info.Dir || tried[name] || strings.HasPrefix(name, "signer-") {
			continue
		}
		tried[name] = true
		var f seal.File
		_, err := readTwins(fsys, keysDir+"/"+name, func(p []byte) (err error) {
			f, err = seal.ParseFile(p)
			return err
		})
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		m, err := f.Unwrap(pass, identities)
		switch {
		case err == nil:
			return seal.Derive(m, id), nil
		case !errors.Is(err, seal.ErrWrongKey) && !errors.Is(err, seal.ErrNeedKey):
			damaged = append(damaged, fmt.Errorf("key %s: %w", name, err))
		}
	}
	return nil, errors.Join(append([]error{ErrWrongKey}, damaged...)...)
}

// completeKeys gives each key file and public signing key its missing copy. One
// that is damaged is left as it is, for others open the repository too.
func completeKeys(fsys vfs.FS, log *slog.Logger) error {
	infos, err := fsys.ReadDir(keysDir)
	if err != nil {
		return fmt.Errorf("list keys: %w", err)
	}
	for _, info := range infos {
		name := strings.TrimSuffix(info.Name, twinSuffix)
		_, err := completeTwins(fsys, keysDir+"/"+name, func(p []byte) (err error) {
			if strings.HasPrefix(name, "signer-") {
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
	infos, err := fsys.ReadDir(keysDir)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var signers []seal.Public
	tried := make(map[string]bool)
	for _, info := range infos {
		name := strings.TrimSuffix(info.Name, twinSuffix)
		if tried[name] || !strings.HasPrefix(name, "signer-") {
			continue
		}
		tried[name] = true
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
