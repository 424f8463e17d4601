package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
)

const (
	// MasterBytes is the length of a master key, and of every key from it.
	MasterBytes = 32
	// RepositoryIDBytes is the length of a repository's id, which settings
	// write as hexadecimal digits.
	RepositoryIDBytes = 16
	// SaltBytes is the length of the random salt of a record or a manifest.
	SaltBytes = 24
)

// The info texts of the derived keys.
const (
	infoID       = "holdfast id"
	infoRecord   = "holdfast record"
	infoManifest = "holdfast manifest"
)

// Master is the one secret of a sealed repository. It prints as [redacted].
type Master [MasterBytes]byte

// NewMaster reads a master key from rand, which is crypto/rand.Reader but in
// tests.
func NewMaster(rand io.Reader) (Master, error) {
	var m Master
	if _, err := io.ReadFull(rand, m[:]); err != nil {
		return Master{}, fmt.Errorf("make a master key: %w", err)
	}
	return m, nil
}

// Format writes [redacted], whatever the verb.
func (Master) Format(s fmt.State, verb rune) { redacted{}.Format(s, verb) }

// String returns [redacted].
func (Master) String() string { return redactedText }

// GoString returns [redacted].
func (Master) GoString() string { return redactedText }

// LogValue returns [redacted].
func (Master) LogValue() slog.Value { return redacted{}.LogValue() }

// MarshalText returns [redacted]: a master key leaves memory only wrapped.
func (Master) MarshalText() ([]byte, error) { return []byte(redactedText), nil }

// Keys are what is derived from a master key for one repository. They are safe
// for concurrent use and print as [redacted].
type Keys struct {
	redacted
	id, record, manifest []byte
}

// Derive returns the keys of the repository with the given id, in its binary
// form: HKDF-SHA-256 with the id as salt.
func Derive(m Master, repositoryID [RepositoryIDBytes]byte) *Keys {
	key := func(info string) []byte {
		k, err := hkdf.Key(sha256.New, m[:], repositoryID[:], info, MasterBytes)
		if err != nil { // only for lengths beyond 255 digests
			panic("seal: derive: " + err.Error())
		}
		return k
	}
	return &Keys{id: key(infoID), record: key(infoRecord), manifest: key(infoManifest)}
}

// IDKey returns the key of the repository's digests, for chunk.NewHasher. It
// must not be changed.
func (k *Keys) IDKey() []byte { return k.id }
