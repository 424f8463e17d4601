package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"time"
)

// SignatureBytes is the length of a signature.
const SignatureBytes = ed25519.SignatureSize

// Signer is the private half of a repository's signing key. The writer keeps it
// outside the repository. It is safe for concurrent use and prints as
// [redacted].
type Signer struct {
	redacted
	key ed25519.PrivateKey
}

// NewSigner makes a signing key from 32 bytes of rand.
func NewSigner(rand io.Reader) (*Signer, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return &Signer{key: ed25519.NewKeyFromSeed(seed)}, nil
}

// pemType is what RFC 7468, section 10, calls a PKCS #8 key.
const pemType = "PRIVATE KEY"

// Marshal returns the private key as PEM of PKCS #8, which openssl reads too.
func (s *Signer) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, fmt.Errorf("write signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParseSigner reads what Marshal wrote. Anything else gives ErrFormat.
func ParseSigner(p []byte) (*Signer, error) {
	// Errors here carry no cause: the parsers' might quote the key.
	block, rest := pem.Decode(p)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("read signing key: %w: not one PEM block of type %q", ErrFormat, pemType)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w: not PKCS #8", ErrFormat)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read signing key: %w: not an Ed25519 key", ErrFormat)
	}
	return &Signer{key: key}, nil
}

// Sign returns the signature of message, SignatureBytes long.
func (s *Signer) Sign(message []byte) []byte { return ed25519.Sign(s.key, message) }

// Public returns the public half as the signer of ledger segments from epoch
// on.
func (s *Signer) Public(epoch uint32, created time.Time) Public {
	return Public{Epoch: epoch, Key: s.key.Public().(ed25519.PublicKey), Created: created.UTC().Truncate(time.Second)}
}

// Public is the public half of a signing key, as keys/signer-EPOCH.pub has it.
type Public struct {
	Epoch   uint32 // the first epoch it signs
	Key     ed25519.PublicKey
	Created time.Time // kept to the second, in UTC
}

// publicLine gives a Public's fields their names and order.
type publicLine struct {
	Version int       `json:"version"`
	Kind    string    `json:"kind"`
	Epoch   uint32    `json:"epoch"`
	Public  []byte    `json:"public"`
	Created time.Time `json:"created"`
}

const kindSigner = "signer"

// Marshal returns the file's bytes: one line.
func (p Public) Marshal() ([]byte, error) {
	if len(p.Key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("write public signing key: %w: %d bytes", ErrFormat, len(p.Key))
	}
	object, err := json.Marshal(publicLine{
		Version: lineVersion, Kind: kindSigner, Epoch: p.Epoch, Public: p.Key, Created: p.Created.UTC().Truncate(time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("write public signing key: %w", err)
	}
	return AddCheck(object), nil
}

// ParsePublic reads what Marshal wrote. Anything else gives ErrFormat, a
// version above ours ErrNewer.
func ParsePublic(line []byte) (Public, error) {
	var l publicLine
	if err := parseLine(line, &l); err != nil {
		return Public{}, fmt.Errorf("read public signing key: %w", err)
	}
	if l.Kind != kindSigner || len(l.Public) != ed25519.PublicKeySize {
		return Public{}, fmt.Errorf("read public signing key: %w: kind %q with %d bytes", ErrFormat, l.Kind, len(l.Public))
	}
	return Public{Epoch: l.Epoch, Key: l.Public, Created: l.Created.UTC()}, nil
}

// Verify reports whether signature is the signer's for message.
func (p Public) Verify(message, signature []byte) bool {
	return len(p.Key) == ed25519.PublicKeySize && ed25519.Verify(p.Key, message, signature)
}

// Fingerprint names the key for people to compare: "SHA256:" and 43 characters of
// base64.
func (p Public) Fingerprint() string {
	sum := sha256.Sum256(p.Key)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
