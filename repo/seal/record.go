package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"holdfast/repo/chunk"
)

// FrameOverhead is what sealing adds to the length of a frame's stored bytes:
// the tag of AES-GCM.
const FrameOverhead = 16

const nonceBytes = 12

// A RecordKey seals the frames of one record. The key comes from the record's
// salt and the nonce from the frame's number, so a frame number must be sealed
// once at most under one salt: a record that is made anew takes a new salt. It
// is safe for concurrent use and prints as [redacted].
type RecordKey struct {
	redacted
	aead cipher.AEAD
}

// Record returns the key of the record with the given salt.
func (k *Keys) Record(salt [SaltBytes]byte) *RecordKey {
	return &RecordKey{aead: saltedAEAD(k.record, salt[:])}
}

// saltedAEAD is AES-256-GCM under HMAC-SHA-256(key, salt).
func saltedAEAD(key, salt []byte) cipher.AEAD {
	mac := hmac.New(sha256.New, key)
	mac.Write(salt)
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil { // only for keys of another length
		panic("seal: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil { // only for ciphers of another block length
		panic("seal: " + err.Error())
	}
	return aead
}

// Seal appends the sealed form of plain, the compressed bytes of one frame, to
// dst. It is FrameOverhead longer than plain and bound to the record's id, the
// frame's number, its logical length and its codec. To seal in place, let plain
// begin where dst ends; otherwise they must not overlap.
func (r *RecordKey) Seal(dst, plain []byte, id chunk.ID, frame, logicalLen int, codec Codec) []byte {
	b := bind(id, frame, logicalLen, len(plain)+FrameOverhead, codec)
	dst = r.aead.Seal(dst, b.nonce[:], plain, b.ad[:])
	bindings.Put(b)
	return dst
}

// Open appends what Seal was given as plain to dst. Bytes that were changed, or
// belong to another record, frame, length or codec, give ErrAuth and dst as it
// was. To open in place, let sealed begin where dst ends; otherwise they must
// not overlap.
func (r *RecordKey) Open(dst, sealed []byte, id chunk.ID, frame, logicalLen int, codec Codec) ([]byte, error) {
	b := bind(id, frame, logicalLen, len(sealed), codec)
	out, err := r.aead.Open(dst, b.nonce[:], sealed, b.ad[:])
	bindings.Put(b)
	if err != nil {
		return dst, fmt.Errorf("open frame %d of record %s: %w", frame, id.Short(), ErrAuth)
	}
	return out, nil
}

// binding is what a sealed frame is bound to, in the bytes that the cipher takes.
type binding struct {
	nonce [nonceBytes]byte
	ad    [chunk.IDBytes + 4 + 4 + 4 + 1]byte
}

// bindings holds scratch space only: a binding handed to a cipher.AEAD escapes.
var bindings = sync.Pool{New: func() any { return new(binding) }}

// bind fills all of a binding but the last eight bytes of the nonce, which are
// always zero.
func bind(id chunk.ID, frame, logicalLen, storedLen int, codec Codec) *binding {
	b := bindings.Get().(*binding)
	le := binary.LittleEndian
	le.PutUint32(b.nonce[:], uint32(frame))
	copy(b.ad[:], id[:])
	le.PutUint32(b.ad[32:], uint32(frame))
	le.PutUint32(b.ad[36:], uint32(logicalLen))
	le.PutUint32(b.ad[40:], uint32(storedLen))
	b.ad[44] = byte(codec)
	return b
}
