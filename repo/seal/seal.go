// Package seal turns one frame into the bytes a repository stores, and back:
// compression, encryption, and the keys behind both.
//
//	frame ──Encoder──► compressed ──RecordKey.Seal──► stored
//	frame ◄──Decoder── compressed ◄──RecordKey.Open── stored
//
// The keys of a sealed repository hang from one random master key, which lies
// in the repository only wrapped (File), once for every passphrase or recipient
// that may open it:
//
//	File ──Unwrap──► Master ──Derive──► Keys ─┬─ IDKey: the keyed digests of package chunk
//	                                          ├─ Record(salt): one key per record
//	                                          └─ SealManifest: private parts of manifests
//
// Signer and Public are the Ed25519 pair behind the ledger; they have nothing
// to do with the master key.
//
// The package does no I/O: files are byte slices here. repo/FORMAT.md states
// every byte. Nothing in it prints a key: types that hold one print as
// [redacted], and no error quotes one.
package seal

import (
	"errors"
	"fmt"
	"log/slog"
)

var (
	// ErrFormat says that bytes are not what they should be: damaged, truncated
	// or never written by this program.
	ErrFormat = errors.New("malformed")
	// ErrNewer says that bytes have a version above what this program reads.
	ErrNewer = errors.New("newer version")
	// ErrAuth says that sealed bytes do not authenticate: they, or what they are
	// bound to, were changed, or another key sealed them.
	ErrAuth = errors.New("sealed bytes do not authenticate")
	// ErrWrongKey says that the passphrase or identities given do not open a key
	// file.
	ErrWrongKey = errors.New("wrong passphrase or key")
	// ErrNeedKey says that a key file needs a passphrase, or an identity, and
	// none was given.
	ErrNeedKey = errors.New("passphrase or key needed")
)

// redacted makes whatever embeds it print as [redacted] under every verb, in
// logs and in text encodings: fmt would print unexported fields otherwise.
type redacted struct{}

const redactedText = "[redacted]"

func (redacted) Format(s fmt.State, _ rune)   { _, _ = s.Write([]byte(redactedText)) }
func (redacted) String() string               { return redactedText }
func (redacted) GoString() string             { return redactedText }
func (redacted) LogValue() slog.Value         { return slog.StringValue(redactedText) }
func (redacted) MarshalText() ([]byte, error) { return []byte(redactedText), nil }
