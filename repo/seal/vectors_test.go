package seal

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"holdfast/repo/chunk"
)

// The known answers of this file were computed after repo/FORMAT.md by another
// implementation: Python 3.11 with pyca/cryptography 48.
const (
	knownIDKey       = "30f6d5befbcf34d4ae6ec61a8a8e18b3dcaa4ba8b54f29be713fee6c4eff1fac"
	knownRecordKey   = "63e46ade6782f01afdb854cea8f284e995dfb9fc207c12822c4977c0f0ae0323"
	knownManifestKey = "47a6962e349fe44ac0567cf2fef9971027fc6b4aba00f35b0d40406f100b9802"
	knownFrame       = "fb1b2625d7b318d33fdc8cae7f78f88706f40b6e9c57a6e54fc1cfb441e325d47d32c3124fbb6b8fc8b8d0e58a5208"
	knownManifest    = "101112131415161718191a1b1c1d1e1f2021222324252627f42672411a8868373fd8a1f27a3bd3e566de34d859b0f0273ac8e65822ef"
	knownPEM         = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n"
	knownPublic      = `{"version":1,"kind":"signer","epoch":3,"public":"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=","created":"2026-11-22T03:00:00Z","check":"d662874f1b3b412c752e96c445ca5d33fbbd2c02a9289e4abf15efb3fd7bbf79"}` + "\n"
	knownPrint       = "SHA256:Vkdap1RjR0wChd9dvyvKtz2mUTWIOem3dIGy6rEHcIw"
	knownSignature   = "a86176403b557f4e574921cf7b97d4a0cd8e372e96f630a0ccade4b49fb60ac3695fddb7409e7b27a94fa910bb07df734ef78ffc95a6643285063b08a0db4f0b"
)

var knownTime = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// run returns n bytes counting up from first.
func run(first byte, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = first + byte(i)
	}
	return p
}

func knownKeys() *Keys {
	return Derive(Master(run(0, 32)), [16]byte(run(0xa0, 16)))
}

func knownSigner(t testing.TB) *Signer {
	s, err := NewSigner(bytes.NewReader(run(0, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKnownAnswers(t *testing.T) {
	k := knownKeys()
	salt := [SaltBytes]byte(run(0x10, SaltBytes))
	frame := k.Record(salt).Seal(nil, []byte("the compressed bytes of a frame"), chunk.ID(run(0x40, 32)), 5, 131072, Zstd)
	manifest, err := k.SealManifest(nil, []byte(`{"name":"db1"}`), []byte("all before"), bytes.NewReader(salt[:]))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"K_id", k.IDKey(), knownIDKey},
		{"K_record", k.record, knownRecordKey},
		{"K_manifest", k.manifest, knownManifestKey},
		{"sealed frame", frame, knownFrame},
		{"sealed manifest", manifest, knownManifest},
		{"signature", knownSigner(t).Sign([]byte("segment")), knownSignature},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestKnownFiles(t *testing.T) {
	s := knownSigner(t)
	private, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if string(private) != knownPEM {
		t.Errorf("private key: got %s", private)
	}
	public := s.Public(3, knownTime)
	line, err := public.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if string(line) != knownPublic {
		t.Errorf("public key: got %s, want %s", line, knownPublic)
	}
	if public.Fingerprint() != knownPrint {
		t.Errorf("fingerprint: got %s, want %s", public.Fingerprint(), knownPrint)
	}
}
