package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"holdfast/repo/seal"
)

// maxMemory bounds what decoding may take: in proportion to the input, with room
// for what encoding/json keeps.
func maxMemory(t *testing.T, input int, decode func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	decode()
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+200*input); got > limit {
		t.Errorf("%d bytes of input took %d bytes of memory", input, got)
	}
}

// FuzzSettings also gives each object its right check, behind which no bit flip
// gets.
func FuzzSettings(f *testing.F) {
	line, err := goldenSettings().encode()
	if err != nil {
		f.Fatal(err)
	}
	object, err := seal.CutCheck(line)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add(object)
	f.Add(bytes.Replace(object, []byte(`"version":1`), []byte(`"version":2`), 1))
	f.Add(bytes.Replace(object, []byte(`1048576`), []byte(`-1048576`), 1))
	f.Fuzz(func(t *testing.T, p []byte) {
		texts := [][]byte{p}
		if json.Valid(p) && len(p) > 6 && p[0] == '{' && p[len(p)-1] == '}' && bytes.IndexByte(p, '\n') < 0 {
			texts = append(texts, seal.AddCheck(p))
		}
		for _, text := range texts {
			s, err := decodeSettings(text)
			if err != nil {
				continue
			}
			if err := s.check(); err != nil || s.Geometry.Frames() < 1 {
				t.Errorf("taken: %+v, %v", s, err)
			}
			line, err := s.encode()
			if err != nil {
				return // a time that RFC 3339 can't have
			}
			if again, err := decodeSettings(line); err != nil || again != s && !again.Created.Equal(s.Created) {
				t.Errorf("got %+v, %v, want %+v", again, err, s)
			}
		}
	})
}

// FuzzManifest also gives the bytes their right digest.
func FuzzManifest(f *testing.F) {
	keys := goldenKeys(f)
	for _, k := range []*seal.Keys{nil, keys} {
		file, err := goldenManifest().encode(k, bytes.NewReader(bytes.Repeat([]byte{5}, seal.SaltBytes)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
		f.Add(file[:len(file)-32])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		sum := sum256(p)
		for _, file := range [][]byte{p, append(slices.Clone(p), sum[:]...)} {
			for _, k := range []*seal.Keys{nil, keys} {
				maxMemory(t, len(file), func() {
					m, err := decodeManifest(file, k)
					if err != nil {
						return
					}
					if err := m.check(k == nil && file[6] != 0); err != nil {
						t.Error("taken:", err)
					}
					point := pointOf(m, true, "") // must not panic
					if point.SizeBytes() < 0 && len(point.Disks) == 1 {
						t.Errorf("%d bytes", point.SizeBytes())
					}
				})
			}
		}
	})
}

// FuzzRunRecord also gives each line its right checksum.
func FuzzRunRecord(f *testing.F) {
	text := goldenRunRecord(f)
	f.Add(text)
	f.Add(text[:len(text)-9])
	f.Add([]byte("{\"run\":\"x\",\"machine\":\"m\"}\n{\"name\":\"00000001-000000000000000000000001\",\"kind\":\"data\",\"bytes\":1}\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var sealed []byte
		for line := range bytes.Lines(p) {
			if line = bytes.TrimSuffix(line, []byte("\n")); json.Valid(line) && line[0] == '{' {
				line, err := recordLine(json.RawMessage(line))
				if err != nil {
					t.Fatal(err)
				}
				sealed = append(sealed, line...)
			}
		}
		for _, text := range [][]byte{p, sealed} {
			maxMemory(t, len(text), func() {
				_, packs, _ := parseRunRecord(text)
				if len(packs) > bytes.Count(text, []byte("\n")) {
					t.Errorf("%d packs in %d lines", len(packs), bytes.Count(text, []byte("\n")))
				}
				for _, pk := range packs {
					if pk.Bytes <= 0 || pk.Name.Path(pk.Kind) == "" {
						t.Errorf("taken: %+v", pk)
					}
				}
			})
		}
	})
}

func FuzzChanges(f *testing.F) {
	f.Add("base p size 100 disk \"Hard disk 1.vmdk\" change 52/7\n0 10\n5 10 # x\n90 10\nbase q disk b size 5\n")
	f.Add("base \"\\u00e9\\x41\" size 9223372036854775807\n9223372036854775806 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := ParseChanges(strings.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrChanges) {
				t.Errorf("not ErrChanges: %v", err)
			}
			return
		}
		for _, c := range set.Disks {
			last := int64(-1)
			for _, r := range c.Ranges {
				if r.Off <= last || r.Len <= 0 || r.Off > c.SizeBytes-r.Len {
					t.Fatalf("ranges %v of %d bytes", c.Ranges, c.SizeBytes)
				}
				last = r.Off + r.Len
			}
			const count = 7
			for _, r := range widen(c.Ranges, 1<<20, count) {
				if r.Off < 0 || r.Len <= 0 || r.Off+r.Len > count {
					t.Fatalf("chunks %v", r)
				}
			}
		}
	})
}

func FuzzPointSpec(f *testing.F) {
	for _, spec := range []string{"aaaab", "web@latest", "a@b@2026-03-29", "web@2026-03-29T21:59:59Z", "web@2026-03-29T21:59", "@", "web@", "é@9999-12-31"} {
		f.Add(spec)
	}
	points := findPoints()
	f.Fuzz(func(t *testing.T, spec string) {
		before := slices.Clone(points)
		p, err := findPoint(points, spec, time.UTC)
		var many *AmbiguousError
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrTime) && !errors.As(err, &many) {
			t.Errorf("%q: %v", spec, err)
		}
		if err == nil && !slices.ContainsFunc(points, func(q Point) bool { return q.ID == p.ID }) {
			t.Errorf("%q gives %+v", spec, p)
		}
		if !reflect.DeepEqual(points, before) {
			t.Fatal("the list of points was changed")
		}
	})
}

func FuzzCheckName(f *testing.F) {
	f.Add("Hard disk 1.vmdk")
	f.Add("..")
	f.Add("a/b\x00\xff")
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName("disk", name) != nil {
			return
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00\n") || !utf8.ValidString(name) || len(name) > 255 {
			t.Errorf("%q is taken", name)
		}
	})
}

// FuzzMachineFiles takes whatever a manifest may have for files.
func FuzzMachineFiles(f *testing.F) {
	packed, err := packFiles([]MachineFile{{"a.vmx", bytes.Repeat([]byte("memSize = \"4\"\n"), 50)}, {"b", nil}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a.vmx", packed[0].SizeBytes, packed[0].Deflate)
	f.Add("a.vmx", packed[0].SizeBytes-1, packed[0].Deflate)
	f.Add("..", int64(0), packed[1].Deflate)
	f.Add("x", int64(-1), []byte{})
	f.Fuzz(func(t *testing.T, name string, size int64, p []byte) {
		files, err := unpackFiles([]manifestFile{{name, size, p}, {name + "2", size, p}})
		if err != nil {
			return
		}
		if len(files) != 2 || int64(len(files[0].Data)) != size || 2*size > MaxMachineFileBytes {
			t.Errorf("taken: %d bytes as %d", len(files[0].Data), size)
		}
	})
}

// FuzzLent takes whatever the other side of a lent backup may send.
func FuzzLent(f *testing.F) {
	f.Add(appendLent(nil, lentBytes, []byte("abc")))
	f.Add(appendLent(nil, lentPairs, appendPair(nil, Range{1, 2})))
	f.Add(appendLent(nil, lentEnd, nil))
	f.Add(appendLent(nil, lentError, []byte("broken")))
	f.Add(lendRequest{lendRanges, 0, 1, 0}.bytes())
	f.Add(lendRequest{lendRead, 0, 1 << 31, 1 << 40}.bytes())
	x := &lender{disks: []SourceDisk{{Source: memSource("some bytes"), Changes: &Changes{Ranges: []Range{{0, 4}, {6, 1}}}}}}
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, want := range []uint8{lentBytes, lentPairs} {
			got, err := readLent(bytes.NewReader(p), want, nil, 100)
			if err == nil && len(got) > 100 {
				t.Errorf("taken: %d bytes", len(got))
			}
			if errors.Is(err, io.EOF) && p[0] != lentEnd {
				t.Errorf("an end that nobody told of: %v", err)
			}
		}
		var req lendRequest
		if req.readFrom(bytes.NewReader(p)) == nil && len(x.answer(nil, req)) > maxLentRead+5 {
			t.Errorf("answer to %+v", req)
		}
	})
}
