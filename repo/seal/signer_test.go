package seal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSignVerify(t *testing.T) {
	s, err := ParseSigner([]byte(knownPEM))
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePublic([]byte(knownPublic))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Public(3, knownTime), p); diff != "" {
		t.Error(diff)
	}
	message := []byte("segment")
	signature := s.Sign(message)
	if len(signature) != SignatureBytes || !p.Verify(message, signature) {
		t.Fatal("a signature does not verify")
	}
	for i := range signature {
		bad := bytes.Clone(signature)
		bad[i] ^= 1
		if p.Verify(message, bad) {
			t.Errorf("verifies with byte %d flipped", i)
		}
	}
	other, err := NewSigner(bytes.NewReader(run(1, 32)))
	if err != nil {
		t.Fatal(err)
	}
	q := other.Public(3, knownTime)
	switch {
	case p.Verify([]byte("segmens"), signature):
		t.Error("verifies for another message")
	case p.Verify(message, nil), p.Verify(message, signature[:63]):
		t.Error("verifies when cut")
	case q.Verify(message, signature):
		t.Error("verifies under another key")
	case (Public{}).Verify(message, signature):
		t.Error("verifies under no key")
	case q.Fingerprint() == p.Fingerprint():
		t.Error("two keys have one fingerprint")
	}
}

func TestSignerRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string][]byte{
		"empty":         nil,
		"public key":    []byte(knownPublic),
		"two blocks":    []byte(knownPEM + knownPEM),
		"other type":    pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}),
		"no PKCS #8":    pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: []byte{1}}),
		"another curve": pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}),
	} {
		if _, err := ParseSigner(p); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
	if _, err := NewSigner(bytes.NewReader(run(0, 31))); err == nil {
		t.Error("made a key from 31 bytes")
	}
	if _, err := NewMaster(bytes.NewReader(run(0, 31))); err == nil {
		t.Error("made a master key from 31 bytes")
	}
}

func TestParsePublicRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		object string
		want   error
	}{
		"newer":     {`{"version":2,"kind":"signer"}`, ErrNewer},
		"kind":      {`{"version":1,"kind":"passphrase","epoch":3,"public":"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=","created":"2026-11-22T03:00:00Z"}`, ErrFormat},
		"short key": {`{"version":1,"kind":"signer","epoch":3,"public":"A6EH","created":"2026-11-22T03:00:00Z"}`, ErrFormat},
		"epoch":     {`{"version":1,"kind":"signer","epoch":-1,"public":"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=","created":"2026-11-22T03:00:00Z"}`, ErrFormat},
		"time":      {`{"version":1,"kind":"signer","epoch":3,"public":"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=","created":"yesterday"}`, ErrFormat},
	} {
		if _, err := ParsePublic(AddCheck([]byte(c.object))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := (Public{}).Marshal(); !errors.Is(err, ErrFormat) {
		t.Errorf("wrote no key: %v", err)
	}
}

func FuzzParsePublic(f *testing.F) {
	object, err := CutCheck([]byte(knownPublic))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(object)
	f.Fuzz(func(t *testing.T, object []byte) {
		_, _ = ParsePublic(object)
		if len(object) < 6 || object[0] != '{' || object[len(object)-1] != '}' || bytes.IndexByte(object, '\n') >= 0 {
			return
		}
		p, err := ParsePublic(AddCheck(object))
		if err != nil {
			return
		}
		line, err := p.Marshal()
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		if again, err := ParsePublic(line); err != nil || !again.Key.Equal(p.Key) || again.Epoch != p.Epoch {
			t.Errorf("%+v came back as %+v, %v", p, again, err)
		}
		p.Verify([]byte("m"), make([]byte, SignatureBytes))
	})
}

func FuzzParseSigner(f *testing.F) {
	f.Add([]byte(knownPEM))
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := ParseSigner(p)
		if err != nil {
			return
		}
		if public := s.Public(1, knownTime); !public.Verify(p, s.Sign(p)) {
			t.Error("a key that was read does not sign")
		}
	})
}
