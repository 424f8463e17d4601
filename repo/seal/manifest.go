package seal

import (
	"fmt"
	"io"
)

// ManifestOverhead is what sealing adds to the length of a manifest's private
// part: its salt and the tag.
const ManifestOverhead = SaltBytes + FrameOverhead

// SealManifest appends the sealed form of plain, the private part of a manifest,
// to dst. It is bound to ad, all the manifest's bytes before it. The salt comes
// from rand. dst must overlap neither plain nor ad; dst may be what holds ad.
func (k *Keys) SealManifest(dst, plain, ad []byte, rand io.Reader) ([]byte, error) {
	var salt [SaltBytes]byte
	if _, err := io.ReadFull(rand, salt[:]); err != nil {
		return dst, fmt.Errorf("seal manifest: make a salt: %w", err)
	}
	out := append(dst, salt[:]...)
	return saltedAEAD(k.manifest, salt[:]).Seal(out, make([]byte, nonceBytes), plain, ad), nil
}

// OpenManifest appends what SealManifest was given as plain to dst. Bytes that
// were changed, or whose ad was, give ErrAuth; too few give ErrFormat. dst must
// overlap neither.
func (k *Keys) OpenManifest(dst, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < ManifestOverhead {
		return dst, fmt.Errorf("open manifest: %w: private part of %d bytes", ErrFormat, len(sealed))
	}
	salt, text := sealed[:SaltBytes], sealed[SaltBytes:]
	out, err := saltedAEAD(k.manifest, salt).Open(dst, make([]byte, nonceBytes), text, ad)
	if err != nil {
		return dst, fmt.Errorf("open manifest: %w", ErrAuth)
	}
	return out, nil
}
