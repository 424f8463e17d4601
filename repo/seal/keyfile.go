package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"filippo.io/age"
)

// Work factors of scrypt: the logarithm of its cost. Memory is 1 KiB << factor,
// 64 MiB at the default, and held only while a key file is made or opened. Any
// backup or restore keeps below 256 MiB, opening the key included; a key file
// that asks for more than 1 GiB is refused.
const (
	DefaultWorkFactor = 16
	MaxWorkFactor     = 20
)

// A Kind says what opens a key file.
type Kind string

const (
	Passphrase Kind = "passphrase"
	Recipient  Kind = "recipient"
)

// File is a key file: the master key, wrapped. It holds no secret in clear.
type File struct {
	Kind      Kind
	Label     string    // for people; at most maxLabelBytes of UTF-8, no control characters
	Created   time.Time // kept to the second, in UTC
	Recipient string    // "age1…", empty for a passphrase
	Wrapped   []byte    // an age v1 file
}

const maxLabelBytes = 256

// errRecipient does not quote the text: people take the secret half for the
// public one.
var errRecipient = errors.New(`not an age recipient ("age1…", X25519)`)

// fileLine gives a File's fields their names and order. Check is added and cut
// around it.
type fileLine struct {
	Version   int       `json:"version"`
	Kind      Kind      `json:"kind"`
	Label     string    `json:"label"`
	Created   time.Time `json:"created"`
	Recipient string    `json:"recipient"`
	Wrapped   []byte    `json:"wrapped"`
}

// WrapPassphrase returns a key file that pass opens. A workFactor of 0 means
// DefaultWorkFactor. The caller adds label and time.
func WrapPassphrase(m Master, pass []byte, workFactor int) (File, error) {
	if workFactor == 0 {
		workFactor = DefaultWorkFactor
	}
	if workFactor < 1 || workFactor > MaxWorkFactor {
		return File{}, fmt.Errorf("wrap master key: scrypt work factor %d, want 1 to %d", workFactor, MaxWorkFactor)
	}
	r, err := age.NewScryptRecipient(string(pass))
	if err != nil {
		return File{}, fmt.Errorf("wrap master key: %w", err)
	}
	r.SetWorkFactor(workFactor)
	return wrap(m, Passphrase, "", r)
}

// WrapRecipient returns a key file that the identity of recipient ("age1…",
// X25519) opens. The caller adds label and time.
func WrapRecipient(m Master, recipient string) (File, error) {
	r, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return File{}, fmt.Errorf("wrap master key: %w", errRecipient)
	}
	return wrap(m, Recipient, r.String(), r)
}

func wrap(m Master, kind Kind, name string, r age.Recipient) (File, error) {
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, r)
	if err != nil {
		return File{}, fmt.Errorf("wrap master key: %w", err)
	}
	if _, err := w.Write(m[:]); err != nil {
		return File{}, fmt.Errorf("wrap master key: %w", err)
	}
	if err := w.Close(); err != nil {
		return File{}, fmt.Errorf("wrap master key: %w", err)
	}
	return File{Kind: kind, Recipient: name, Wrapped: buf.Bytes()}, nil
}

// Marshal returns the file's bytes: one line.
func (f File) Marshal() ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("write key file: %w", err)
	}
	object, err := json.Marshal(fileLine{
		Version: lineVersion, Kind: f.Kind, Label: f.Label, Created: f.Created.UTC().Truncate(time.Second),
		Recipient: f.Recipient, Wrapped: f.Wrapped,
	})
	if err != nil {
		return nil, fmt.Errorf("write key file: %w", err)
	}
	return AddCheck(object), nil
}

// ParseFile reads what Marshal wrote. Anything else gives ErrFormat, a version
// above ours ErrNewer.
func ParseFile(line []byte) (File, error) {
	var l fileLine
	if err := parseLine(line, &l); err != nil {
		return File{}, fmt.Errorf("read key file: %w", err)
	}
	f := File{Kind: l.Kind, Label: l.Label, Created: l.Created.UTC(), Recipient: l.Recipient, Wrapped: l.Wrapped}
	if err := f.check(); err != nil {
		return File{}, fmt.Errorf("read key file: %w", err)
	}
	return f, nil
}

func (f File) check() error {
	switch {
	case f.Kind != Passphrase && f.Kind != Recipient:
		return fmt.Errorf("%w: kind %q", ErrFormat, f.Kind)
	case f.Kind == Passphrase && f.Recipient != "":
		return fmt.Errorf("%w: a passphrase with a recipient", ErrFormat)
	case len(f.Label) > maxLabelBytes || !utf8.ValidString(f.Label) || strings.ContainsFunc(f.Label, unicode.IsControl):
		return fmt.Errorf("%w: label is too long or not printable", ErrFormat)
	case len(f.Wrapped) == 0:
		return fmt.Errorf("%w: no wrapped key", ErrFormat)
	}
	if f.Kind == Recipient {
		if _, err := age.ParseX25519Recipient(f.Recipient); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, errRecipient)
		}
	}
	return nil
}

// Unwrap opens the file with pass or with identities, whichever its kind wants:
// ErrNeedKey when that was not given, ErrWrongKey when it does not fit, and
// ErrFormat when the wrapped bytes are damaged.
func (f File) Unwrap(pass []byte, identities []age.Identity) (Master, error) {
	if err := f.check(); err != nil {
		return Master{}, fmt.Errorf("open key file: %w", err)
	}
	if f.Kind == Passphrase {
		if len(pass) == 0 {
			return Master{}, fmt.Errorf("open key file %q: %w", f.Label, ErrNeedKey)
		}
		id, err := age.NewScryptIdentity(string(pass))
		if err != nil {
			return Master{}, fmt.Errorf("open key file %q: %w", f.Label, err)
		}
		id.SetMaxWorkFactor(MaxWorkFactor)
		identities = []age.Identity{id}
	}
	if len(identities) == 0 {
		return Master{}, fmt.Errorf("open key file %q: %w", f.Label, ErrNeedKey)
	}
	m, err := unwrap(f.Wrapped, identities)
	if err != nil {
		return Master{}, fmt.Errorf("open key file %q: %w", f.Label, err)
	}
	return m, nil
}

func unwrap(wrapped []byte, identities []age.Identity) (Master, error) {
	var m Master
	r, err := age.Decrypt(bytes.NewReader(wrapped), identities...)
	if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
		return Master{}, ErrWrongKey
	}
	if err != nil {
		return Master{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, err := io.ReadFull(r, m[:]); err != nil {
		return Master{}, fmt.Errorf("%w: wrapped key: %w", ErrFormat, err)
	}
	// The end is authenticated too: a longer key is not ours.
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return Master{}, fmt.Errorf("%w: wrapped key does not end after %d bytes", ErrFormat, MasterBytes)
	}
	return m, nil
}
