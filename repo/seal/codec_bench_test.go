package seal

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"holdfast/repo/chunk"
)

const corpusBytes = 16 << 20

// corpus is real files, as they would lie on a disk: half programs and
// libraries, half the sources of the Go tree. What a machine lacks is made up
// of the test's own program.
func corpus(b *testing.B) []byte {
	p := gather(nil, corpusBytes/2, "/usr/lib", "/usr/bin")
	p = gather(p, corpusBytes, filepath.Join(build.Default.GOROOT, "src"))
	for len(p) < corpusBytes {
		own, err := os.ReadFile(os.Args[0])
		if err != nil {
			b.Fatal(err)
		}
		p = append(p, own...)
	}
	return p[:corpusBytes]
}

// gather appends files below the directories, 256 KiB of each at most, until p
// has size bytes.
func gather(p []byte, size int, dirs ...string) []byte {
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if len(p) >= size {
				return fs.SkipAll
			}
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if data, err := os.ReadFile(path); err == nil {
				p = append(p, data[:min(len(data), 256<<10)]...)
			}
			return nil
		})
	}
	return p[:min(len(p), size)]
}

func BenchmarkEncode(b *testing.B) {
	data := corpus(b)
	for _, c := range settings {
		b.Run(string(c), func(b *testing.B) {
			e := newEncoder(b, c)
			var buf []byte
			stored := 0
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				stored = 0
				for o := 0; o < len(data); o += chunk.DefaultFrameBytes {
					buf, _ = e.Encode(buf[:0], data[o:o+chunk.DefaultFrameBytes])
					stored += len(buf)
				}
			}
			b.ReportMetric(float64(len(data))/float64(stored), "ratio")
		})
	}
}

func BenchmarkEncodeNoise(b *testing.B) {
	frame := frames()["noise"].bytes
	for _, c := range settings {
		b.Run(string(c), func(b *testing.B) {
			e := newEncoder(b, c)
			var buf []byte
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				buf, _ = e.Encode(buf[:0], frame)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	data := corpus(b)
	for _, c := range settings {
		b.Run(string(c), func(b *testing.B) {
			e, d := newEncoder(b, c), NewDecoder()
			type frame struct {
				stored []byte
				codec  Codec
			}
			var all []frame
			for o := 0; o < len(data); o += chunk.DefaultFrameBytes {
				stored, codec := e.Encode(nil, data[o:o+chunk.DefaultFrameBytes])
				all = append(all, frame{stored, codec})
			}
			buf := make([]byte, 0, chunk.DefaultFrameBytes)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				for _, f := range all {
					if _, err := d.Decode(buf, f.stored, f.codec, chunk.DefaultFrameBytes); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
