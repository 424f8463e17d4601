package repo

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

// The samples are repositories written by the first program of each version of
// the format. Every later one reads them. Each is a zip of the repository below
// repository/ and of sums, which has a line for every disk: point, SHA-256 of the
// disk, its name. The sealed one opens with samplePass. -update makes those of
// FormatVersion again, and only before a release.

func sampleName(sealed bool) string {
	shape := "plain"
	if sealed {
		shape = "sealed"
	}
	return fmt.Sprintf("testdata/sample-v%d-%s.zip", FormatVersion, shape)
}

func TestSampleRepositories(t *testing.T) {
	if *update {
		for _, sealed := range []bool{false, true} {
			if err := os.WriteFile(sampleName(sealed), zipSample(t, sealed), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"sample-v1-plain.zip", "sample-v1-sealed.zip"} {
		t.Run(name, func(t *testing.T) { readSample(t, "testdata/"+name) })
	}
}

func readSample(t *testing.T, name string) {
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(file) > 150<<10 {
		t.Errorf("%s has %d bytes: too many for a source tree", name, len(file))
	}
	mem, sums := unzipSample(t, file)
	var log bytes.Buffer
	s := &sample{shape: sampleShape{sealed: true}}
	r, err := Open(t.Context(), mem, s.options(&log))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // in memory
	points, err := r.Points(t.Context())
	if err != nil || len(points) != 2 || points[0].Full == points[1].Full || !points[1].Signed {
		t.Fatalf("%+v, %v", points, err)
	}
	var got strings.Builder
	for _, p := range points {
		reader, err := r.OpenPoint(p.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range p.Disks {
			d, err := reader.Disk(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			if _, err := io.Copy(h, io.NewSectionReader(d, 0, d.Size())); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&got, "%s %x %s\n", p.ID, h.Sum(nil), info.Name)
		}
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != sums {
		t.Errorf("got\n%swant\n%s", &got, sums)
	}
	if log.Len() > 0 {
		t.Errorf("reading met\n%s", &log)
	}
}

func unzipSample(t *testing.T, file []byte) (mem *vfs.Mem, sums string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	mem = vfs.NewMem()
	if err := makeSkeleton(t.Context(), mem); err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		p, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name == "sums" {
			sums = string(p)
		} else if err := vfs.WriteFile(mem, strings.TrimPrefix(f.Name, "repository/"), p); err != nil {
			t.Fatal(err)
		}
	}
	return mem, sums
}

// zipSample makes a sample: text, noise, zeros and a hole; the second point
// changes a frame of the first chunk, so there is a patch.
func zipSample(t *testing.T, sealed bool) []byte {
	t.Helper()
	s := &sample{shape: sampleShape{sealed: sealed}, fs: vfs.NewMem(), state: vfs.NewMem()}
	opt := CreateOptions{
		State: s.state, WorkFactor: 4, ReserveBytes: -1, PackBytes: MinPackBytes, Parity: 1,
		Geometry: chunk.Geometry{ChunkBytes: sampleChunk, FrameBytes: sampleFrame},
	}
	if sealed {
		opt.Passphrase = []byte(samplePass)
	}
	if _, err := Create(t.Context(), s.fs, opt); err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, 600<<10)
	rng := rand.New(rand.NewPCG(11, 12))
	for i := range disk {
		switch {
		case i < 100<<10:
			disk[i] = byte(i/100) + byte(i)%7
		case i < 116<<10:
			disk[i] = byte(rng.Uint32())
		case i >= 590<<10:
			disk[i] = 'x'
		}
	}
	var sums strings.Builder
	o := s.own(t, s.fs)
	for range 2 {
		run, err := o.Backup(t.Context(), BackupOptions{Machine: "sample", MachineID: "sample-1", Disks: []SourceDisk{
			{Name: smallDisk, Source: memSource(disk), Format: "raw"}}})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%s %x %s\n", run.Point.ID, sha256.Sum256(disk), smallDisk)
		disk[70<<10]++
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	add := func(name string, p []byte) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)})
		if err == nil {
			_, err = w.Write(p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("sums", []byte(sums.String()))
	for _, name := range s.files(t, ".") {
		if path.Dir(name) == leasesDir || name == lockName || name == sockName {
			continue
		}
		add("repository/"+name, s.data(t, name))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestSampleWithoutState: without the signing key nobody becomes owner, and the
// repository stays as it is.
func TestSampleWithoutState(t *testing.T) {
	file, err := os.ReadFile(sampleName(false))
	if err != nil {
		t.Fatal(err)
	}
	mem, _ := unzipSample(t, file)
	before := mem.Dump()
	_, err = Own(t.Context(), mem, Options{State: vfs.NewMem()}, 0)
	if !errors.Is(err, ErrNoSigner) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNoSigner", err)
	}
	if mem.Dump() != before {
		t.Error("the repository was changed all the same")
	}
}
