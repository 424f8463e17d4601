package seal

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"testing"

	"holdfast/repo/chunk"
)

// A sealed frame, and what it is bound to.
type sealed struct {
	keys    *Keys
	salt    [SaltBytes]byte
	bytes   []byte
	id      chunk.ID
	frame   int
	logical int
	codec   Codec
}

func (s sealed) open() ([]byte, error) {
	return s.keys.Record(s.salt).Open(nil, s.bytes, s.id, s.frame, s.logical, s.codec)
}

func TestOpenRefusesOtherBinding(t *testing.T) {
	plain := []byte("the compressed bytes of a frame")
	good := sealed{knownKeys(), [SaltBytes]byte{1}, nil, chunk.ID{2}, 3, 131072, S2}
	good.bytes = good.keys.Record(good.salt).Seal(nil, plain, good.id, good.frame, good.logical, good.codec)
	if len(good.bytes) != len(plain)+FrameOverhead {
		t.Fatalf("sealed %d bytes to %d", len(plain), len(good.bytes))
	}
	if got, err := good.open(); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	for name, change := range map[string]func(*sealed){
		"master":             func(s *sealed) { s.keys = Derive(Master{9}, [16]byte(run(0xa0, 16))) },
		"repository":         func(s *sealed) { s.keys = Derive(Master(run(0, 32)), [16]byte{}) },
		"salt":               func(s *sealed) { s.salt[SaltBytes-1]++ },
		"id, first":          func(s *sealed) { s.id[0]++ },
		"id, last":           func(s *sealed) { s.id[31]++ },
		"frame":              func(s *sealed) { s.frame++ },
		"logical":            func(s *sealed) { s.logical++ },
		"codec":              func(s *sealed) { s.codec = Zstd },
		"cut":                func(s *sealed) { s.bytes = s.bytes[:len(s.bytes)-1] },
		"longer":             func(s *sealed) { s.bytes = append(s.bytes, 0) },
		"shorter than a tag": func(s *sealed) { s.bytes = s.bytes[:FrameOverhead-1] },
		"nothing":            func(s *sealed) { s.bytes = nil },
	} {
		s := good
		s.bytes = bytes.Clone(good.bytes)
		change(&s)
		if got, err := s.open(); !errors.Is(err, ErrAuth) || len(got) != 0 {
			t.Errorf("other %s: Open = %q, %v, want ErrAuth", name, got, err)
		}
	}
	for i := range good.bytes {
		s := good
		s.bytes = bytes.Clone(good.bytes)
		s.bytes[i] ^= 0x10
		if _, err := s.open(); !errors.Is(err, ErrAuth) {
			t.Errorf("flipped byte %d: %v, want ErrAuth", i, err)
		}
	}
}

// Length is bound by itself too, not only by the cipher's tag: the additional
// data of two lengths must differ.
func TestBindingCoversEveryField(t *testing.T) {
	id := chunk.ID(run(1, 32))
	seen := map[string]bool{}
	for _, b := range []*binding{
		bind(id, 1, 2, 3, S2), bind(id, 2, 2, 3, S2), bind(id, 1, 3, 3, S2), bind(id, 1, 2, 4, S2), bind(id, 1, 2, 3, Zstd), bind(chunk.ID{}, 1, 2, 3, S2),
	} {
		if seen[string(b.ad[:])] {
			t.Errorf("additional data %x twice", b.ad)
		}
		seen[string(b.ad[:])] = true
		if !bytes.Equal(b.nonce[4:], make([]byte, 8)) {
			t.Errorf("nonce %x", b.nonce)
		}
	}
}

// Equal frames must not give equal bytes under another salt or number, or they
// would show what repeats.
func TestSealSeparates(t *testing.T) {
	k, plain := knownKeys(), make([]byte, 64)
	a := k.Record([SaltBytes]byte{1}).Seal(nil, plain, chunk.ID{}, 0, 64, Raw)
	seen := map[string]string{string(a[:64]): "first"}
	for name, p := range map[string][]byte{
		"salt":  k.Record([SaltBytes]byte{2}).Seal(nil, plain, chunk.ID{}, 0, 64, Raw),
		"frame": k.Record([SaltBytes]byte{1}).Seal(nil, plain, chunk.ID{}, 1, 64, Raw),
	} {
		if was, ok := seen[string(p[:64])]; ok {
			t.Errorf("another %s gives the bytes of %s", name, was)
		}
		seen[string(p[:64])] = name
	}
	if bytes.Equal(k.id, k.record) || bytes.Equal(k.record, k.manifest) || bytes.Equal(k.id, k.manifest) {
		t.Error("two derived keys are equal")
	}
}

func TestSealInPlace(t *testing.T) {
	r := knownKeys().Record([SaltBytes]byte{1})
	plain := bytes.Repeat([]byte("plain "), 1000)
	want := r.Seal(nil, plain, chunk.ID{1}, 0, 9000, Raw)
	buf := append(make([]byte, 0, len(plain)+100), "head"...)
	buf = append(buf, plain...)
	got := r.Seal(buf[:4], buf[4:], chunk.ID{1}, 0, 9000, Raw)
	if &got[0] != &buf[0] || string(got[:4]) != "head" || !bytes.Equal(got[4:], want) {
		t.Fatal("sealing in place moved or differs")
	}
	back, err := r.Open(got[:4], got[4:], chunk.ID{1}, 0, 9000, Raw)
	if err != nil || &back[0] != &got[0] || !bytes.Equal(back[4:], plain) {
		t.Fatalf("opening in place moved or differs: %v", err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties pools
	if n := testing.AllocsPerRun(50, func() {
		p := r.Seal(buf[:4], buf[4:4+len(plain)], chunk.ID{1}, 0, 9000, Raw)
		if _, err := r.Open(p[:4], p[4:], chunk.ID{1}, 0, 9000, Raw); err != nil {
			t.Fatal(err)
		}
	}); n > 0 && !raceEnabled {
		t.Errorf("%v allocations to seal and open", n)
	}
}

func TestRecordKeyConcurrent(t *testing.T) {
	r := knownKeys().Record([SaltBytes]byte{1})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			plain := bytes.Repeat([]byte{byte(g)}, 100)
			for i := range 200 {
				p := r.Seal(nil, plain, chunk.ID{byte(g)}, i, 100, Raw)
				if got, err := r.Open(nil, p, chunk.ID{byte(g)}, i, 100, Raw); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("frame %d of %d: %v", i, g, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenManifestRefuses(t *testing.T) {
	k, ad, plain := knownKeys(), []byte("all before"), []byte("private")
	good, err := k.SealManifest(nil, plain, ad, bytes.NewReader(run(0, SaltBytes)))
	if err != nil || len(good) != len(plain)+ManifestOverhead {
		t.Fatalf("SealManifest gave %d bytes, %v", len(good), err)
	}
	if got, err := k.OpenManifest([]byte("head"), good, ad); err != nil || string(got) != "headprivate" {
		t.Fatalf("OpenManifest = %q, %v", got, err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if got, err := k.OpenManifest([]byte("head"), bad, ad); !errors.Is(err, ErrAuth) || string(got) != "head" {
			t.Errorf("flipped byte %d: %q, %v, want ErrAuth", i, got, err)
		}
	}
	if _, err := k.OpenManifest(nil, good, []byte("all befor")); !errors.Is(err, ErrAuth) {
		t.Errorf("other head: %v, want ErrAuth", err)
	}
	if _, err := Derive(Master{1}, [16]byte(run(0xa0, 16))).OpenManifest(nil, good, ad); !errors.Is(err, ErrAuth) {
		t.Errorf("other master: %v, want ErrAuth", err)
	}
	if _, err := k.OpenManifest(nil, good[:ManifestOverhead-1], ad); !errors.Is(err, ErrFormat) {
		t.Errorf("too short: %v, want ErrFormat", err)
	}
	if _, err := k.SealManifest(nil, plain, ad, bytes.NewReader(nil)); err == nil {
		t.Error("sealed a manifest without randomness")
	}
}

func BenchmarkSeal(b *testing.B) {
	r := knownKeys().Record([SaltBytes]byte{1})
	for _, size := range []int{16 << 10, 128 << 10} {
		buf := make([]byte, size, size+FrameOverhead)
		b.Run(fmt.Sprintf("seal/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r.Seal(buf[:0], buf[:size], chunk.ID{1}, 0, size, Raw)
			}
		})
		p := r.Seal(nil, buf[:size], chunk.ID{1}, 0, size, Raw)
		b.Run(fmt.Sprintf("open/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Open(buf[:0], p, chunk.ID{1}, 0, size, Raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	k := knownKeys()
	b.Run("key", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k.Record([SaltBytes]byte{1})
		}
	})
}
