package recovery

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"holdfast/repo/vfs"
)

// Keys authenticate the file handles of what is exported. They are kept in the
// redirect directory, beside the numbers that handles are made of:
//
//	exports: magic "HFek" · u16 version 1 · u16 0 · 32 bytes · SHA-256 of all before
//
// so that handles are good as long as these numbers are, and no longer.
type Keys struct {
	Datastore [16]byte

	master [32]byte
}

const (
	keysName    = "exports"
	keysMagic   = "HFek"
	keysVersion = 1
	keysBytes   = 4 + 2 + 2 + 32 + sha256.Size
)

// ExportKeys returns the keys in a redirect directory, which it makes the first
// time.
func ExportKeys(redirect vfs.FS) (*Keys, error) {
	p, err := vfs.ReadFile(redirect, keysName, keysBytes)
	if errors.Is(err, fs.ErrNotExist) {
		var master [32]byte
		_, _ = rand.Read(master[:]) // never fails
		p = encodeKeys(master)
		err = replaceFile(redirect, keysName, p)
	}
	if err != nil {
		return nil, fmt.Errorf("keys of file handles: %w", err)
	}
	master, err := decodeKeys(p)
	if err != nil {
		return nil, fmt.Errorf("keys of file handles: %w", err)
	}
	k := &Keys{master: master}
	copy(k.Datastore[:], k.derive("datastore"))
	return k, nil
}

func encodeKeys(master [32]byte) []byte {
	b := []byte(keysMagic)
	b = binary.LittleEndian.AppendUint16(b, keysVersion)
	b = append(b, 0, 0)
	b = append(b, master[:]...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// ErrKeys says that the file of keys is not as it was written.
var ErrKeys = errors.New("damaged: remove it, and clients have to mount again")

func decodeKeys(p []byte) (master [32]byte, err error) {
	if len(p) != keysBytes || string(p[:4]) != keysMagic || binary.LittleEndian.Uint16(p[4:]) != keysVersion {
		return master, fmt.Errorf("%s: %w", keysName, ErrKeys)
	}
	body := p[:len(p)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], p[len(body):]) {
		return master, fmt.Errorf("%s: %w", keysName, ErrKeys)
	}
	copy(master[:], body[8:])
	return master, nil
}

// Content returns the number and the key of the export that shows a repository's
// backups as files.
func (k *Keys) Content(repository string) (id uint32, key [16]byte) {
	d := k.derive("content " + repository)
	copy(key[:], d)
	return binary.LittleEndian.Uint32(d[16:]) | 1<<31, key // never the datastore's
}

func (k *Keys) derive(what string) []byte {
	h := hmac.New(sha256.New, k.master[:])
	h.Write([]byte(what))
	return h.Sum(nil)
}
