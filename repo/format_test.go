package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

var update = flag.Bool("update", false, "write the golden files again")

// golden compares with a golden file. They are the format: a change of any byte
// breaks every repository there is.
func golden(t testing.TB, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: not the bytes of the golden file:\n%s", path, hex.Dump(got))
	}
}

var goldenTime = time.Date(2026, 11, 22, 3, 4, 5, 678_000_000, time.UTC)

const (
	goldenPoint = "265glqqq4mmmmmmmmmmm"
	goldenRun   = "265glqpp2aaaaaaaaaaa"
)

func goldenSettings() Settings {
	return Settings{
		ID: "00112233445566778899aabbccddeeff", Geometry: chunk.Geometry{ChunkBytes: 1 << 20, FrameBytes: 128 << 10},
		PackBytes: 32 << 20, Parity: 3, Compression: seal.Auto, Sealed: true, Created: goldenTime.Truncate(time.Second),
	}
}

func goldenKeys(t testing.TB) *seal.Keys {
	t.Helper()
	m, err := seal.NewMaster(bytes.NewReader(bytes.Repeat([]byte{7}, seal.MasterBytes)))
	if err != nil {
		t.Fatal(err)
	}
	return seal.Derive(m, [seal.RepositoryIDBytes]byte{1, 2, 3})
}

func goldenManifest() *manifest {
	m := new(manifest)
	m.manifestPublic = manifestPublic{
		Point: goldenPoint, Sequence: 2, MachineID: "4c4c4544", Segment: 3, Epoch: 1, Run: goldenRun,
		Time: goldenTime, Roots: []manifestRoot{{Root: chunk.ID{1, 2}, Levels: 1, SizeBytes: 614400}, {Levels: 2, SizeBytes: 1 << 30}},
	}
	m.manifestPrivate = manifestPrivate{
		Name: "web1", Job: "manual", Actor: "root", Host: "vault", Consistency: "crash",
		Disks: []manifestDisk{{Name: "Hard disk 1", Format: "vmdk", Source: "/vm/web1.vmdk", ChangeID: "52/7"}, {Name: "swap"}},
		Counters: Counters{
			ReadBytes: 1, HoleBytes: 2, ZeroBytes: 3, UnchangedBytes: 4, SharedBytes: 5, KnownBytes: 6, NewBytes: 7, StoredBytes: 8,
			PackBytes: 9, ParityBytes: 10, Chunks: 11, Patches: 12, Nodes: 13, SampledBytes: 14,
		},
		Extensions: map[string]json.RawMessage{"ticket": json.RawMessage(`42`)},
	}
	return m
}

func goldenRunRecord(t testing.TB) []byte {
	t.Helper()
	var text []byte
	for _, v := range []any{
		runHead{Run: goldenRun, MachineID: "4c4c4544", Epoch: 1, Started: goldenTime, Host: "vault", PID: 4711},
		ledger.Pack{Name: pack.Name{3: 1, 15: 1}, Kind: pack.Data, Bytes: 4096, SHA256: sha256.Sum256([]byte{1})},
		ledger.Pack{Name: pack.Name{3: 1, 15: 2}, Kind: pack.Meta, Bytes: 8192, SHA256: sha256.Sum256([]byte{2})},
	} {
		line, err := recordLine(v)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, line...)
	}
	return text
}

func goldenSigner(t testing.TB) *seal.Signer {
	t.Helper()
	s, err := seal.NewSigner(bytes.NewReader(bytes.Repeat([]byte{9}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// everyFlip calls check with each bit of p flipped, then with p cut at each
// byte.
func everyFlip(p []byte, check func(q []byte, what string, at int)) {
	q := bytes.Clone(p)
	for i := range 8 * len(q) {
		q[i/8] ^= 1 << (i % 8)
		check(q, "bit flipped in byte", i/8)
		q[i/8] ^= 1 << (i % 8)
	}
	for i := range p {
		check(p[:i], "cut at", i)
	}
}

func TestGoldenSettings(t *testing.T) {
	line, err := goldenSettings().encode()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "format.json", line)
	got, err := decodeSettings(line)
	if err != nil || got != goldenSettings() {
		t.Errorf("got %+v, %v", got, err)
	}
	everyFlip(line, func(q []byte, what string, at int) {
		if s, err := decodeSettings(q); err == nil {
			t.Errorf("%s %d: taken as %+v", what, at, s)
		}
	})
}

// TestSettingsRefused has what is right by its check and can't be.
func TestSettingsRefused(t *testing.T) {
	line, err := goldenSettings().encode()
	if err != nil {
		t.Fatal(err)
	}
	object, err := seal.CutCheck(line)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, old, now string
		want           error
	}{
		{"another format", "holdfast.repository", "holdfast.depository", ErrNotRepository},
		{"a newer version", `"version":1`, `"version":2`, ErrNewerFormat},
		{"version 0", `"version":1`, `"version":0`, ErrFormat},
		{"another digest", "sha256", "blake3", ErrFormat},
		{"a short id", "00112233445566778899aabbccddeeff", "00112233445566778899aabbccddee", ErrFormat},
		{"an id in capitals", "aabbccddeeff", "AABBCCDDEEFF", ErrFormat},
		{"an id that is none", "aabbccddeeff", "aabbccddeefg", ErrFormat},
		{"a chunk of 3 MiB", "1048576", "3145728", chunk.ErrGeometry},
		{"frames longer than chunks", "131072", "2097152", chunk.ErrGeometry},
		{"short packs", "33554432", "1048575", ErrFormat},
		{"long packs", "33554432", "268435457", ErrFormat},
		{"21 % parity", `"parity":3`, `"parity":21`, ErrFormat},
		{"negative parity", `"parity":3`, `"parity":-1`, ErrFormat},
		{"unknown compression", `"auto"`, `"lzma"`, nil},
	}
	for _, tt := range tests {
		text := strings.Replace(string(object), tt.old, tt.now, 1)
		s, err := decodeSettings(seal.AddCheck([]byte(text)))
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %+v, %v, want %v", tt.name, s, err, tt.want)
		}
	}
	// The version is looked at before all else, the check too.
	text := strings.Replace(string(line), `"version":1`, `"version":2`, 1)
	if _, err := decodeSettings([]byte(text)); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer version with another check: %v", err)
	}
}

func TestGoldenSigner(t *testing.T) {
	line, err := goldenSigner(t).Public(1, goldenTime).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "signer-1.pub", line)
	everyFlip(line, func(q []byte, what string, at int) {
		if _, err := seal.ParsePublic(q); err == nil {
			t.Errorf("%s %d: taken", what, at)
		}
	})
}

func TestGoldenManifest(t *testing.T) {
	keys := goldenKeys(t)
	for name, k := range map[string]*seal.Keys{"manifest-plain": nil, "manifest-sealed": keys} {
		file, err := goldenManifest().encode(k, bytes.NewReader(bytes.Repeat([]byte{5}, seal.SaltBytes)))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, file)
		got, err := decodeManifest(file, k)
		if err != nil || !reflect.DeepEqual(got, goldenManifest()) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		everyFlip(file, func(q []byte, what string, at int) {
			if _, err := decodeManifest(q, k); err == nil {
				t.Errorf("%s, %s %d: taken", name, what, at)
			}
		})
		if k == nil {
			continue
		}
		got, err = decodeManifest(file, nil)
		if err != nil || !reflect.DeepEqual(got.manifestPublic, goldenManifest().manifestPublic) || got.Name != "" || got.Disks != nil {
			t.Errorf("without keys: got %+v, %v", got, err)
		}
		if bytes.Contains(file, []byte("web1")) || bytes.Contains(file, []byte("ticket")) {
			t.Error("the private part stands in clear")
		}
	}
}

func TestGoldenRunRecord(t *testing.T) {
	text := goldenRunRecord(t)
	golden(t, "run", text)
	head, packs, err := parseRunRecord(text)
	if err != nil || head.Run != goldenRun || len(packs) != 2 {
		t.Fatal(head, packs, err)
	}
	everyFlip(text, func(q []byte, what string, at int) {
		gotHead, got, err := parseRunRecord(q)
		torn := what == "cut at" || at >= bytes.LastIndexByte(text[:len(text)-1], '\n')
		if err == nil && !torn || len(got) > 2 || gotHead != head && gotHead != (runHead{}) {
			t.Errorf("%s %d: %+v, %v, %v", what, at, gotHead, got, err)
		}
		for _, p := range got {
			if p != packs[0] && p != packs[1] {
				t.Errorf("%s %d: got the pack %+v", what, at, p)
			}
		}
	})
}

// The examples in FORMAT.md are golden files, of this package and of those
// below that have no such test of their own.
func TestFormatExamples(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		p, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	has := func(what, text string) {
		if text = strings.TrimSpace(text); !strings.Contains(string(doc), text) {
			t.Errorf("FORMAT.md lacks the %s:\n%s", what, text)
		}
	}
	has("settings", string(read("testdata/format.json")))
	has("signer", string(read("testdata/signer-1.pub")))
	has("run record", string(read("testdata/run")))

	m := read("testdata/manifest-plain")
	pub := manifestHead + int(m[8]) + int(m[9])<<8
	has("manifest's head", hex.Dump(m[:manifestHead]))
	has("manifest's public part", string(m[manifestHead:pub]))
	has("manifest's private part", string(m[pub:len(m)-sha256.Size]))
	has("manifest's digest", hex.EncodeToString(m[len(m)-sha256.Size:]))

	seg := read("ledger/testdata/00000002")
	const head, tail = 56, seal.SignatureBytes + sha256.Size
	body := head + int(binary.LittleEndian.Uint32(seg[48:]))
	has("segment's head", hex.Dump(seg[:head]))
	has("segment's body", string(seg[head:body]))
	has("segment's packs", hex.Dump(seg[body:len(seg)-tail]))
	has("segment's signature and digest", hex.Dump(seg[len(seg)-tail:]))

	has("leaf's payload", hex.Dump(read("blockmap/testdata/leaf")))
	has("frame table", hex.Dump(read("blockmap/testdata/table-plain")))
	has("index list", hex.Dump(read("index/testdata/list")))
	has("list of verified packs", hex.Dump(read("testdata/verified")))
	has("list of known damage", hex.Dump(read("testdata/damage")))
}
