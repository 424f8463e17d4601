package pack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/seal"
)

// benchRecord is a chunk of 1 MiB that got a third shorter.
func benchRecord(b *testing.B) []byte {
	r := newRand(b, 30)
	var a Assembler
	a.Begin(nil, 8)
	a.Kind, a.ID, a.LogicalBytes = Chunk, fill32(r), 1<<20
	for range 8 {
		a.Add(append(a.Bytes(), randBytes(r, 88<<10)...), fill32(r), seal.Zstd)
	}
	return finish(&a)
}

func benchPack(b *testing.B, bu *Builder, rec []byte) []byte {
	bu.Reset(Name{})
	for !bu.Full() {
		if _, err := bu.Add(rec); err != nil {
			b.Fatal(err)
		}
	}
	file, _, _ := bu.Finish()
	return file
}

// BenchmarkBuilder is the cost of a finished pack per byte of records: copy,
// block CRCs, SHA-256 and parity.
func BenchmarkBuilder(b *testing.B) {
	rec := benchRecord(b)
	for _, parity := range []int{0, 1, 3, 6, 20} {
		b.Run(fmt.Sprintf("parity=%d", parity), func(b *testing.B) {
			bu, err := NewBuilder(Data, Name{}, Options{Parity: parity, PackBytes: 64 << 20, RecordBytes: len(rec)})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				benchPack(b, bu, rec)
				b.SetBytes(int64(bu.entries[len(bu.entries)-1].Off))
			}
		})
	}
}

// BenchmarkParity is the cost of Reed–Solomon alone.
func BenchmarkParity(b *testing.B) {
	for _, parity := range []int{1, 3, 20} {
		b.Run(fmt.Sprintf("parity=%d", parity), func(b *testing.B) {
			l := layoutOf(64<<20/BlockBytes, parity)
			data := make([]byte, l.Data*BlockBytes)
			out := make([]byte, l.Parity*l.Stripes*BlockBytes)
			c := newCoder(parity)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				c.encode(l, data, out)
			}
		})
	}
}

func BenchmarkAssemble(b *testing.B) {
	var a Assembler
	frame := make([]byte, 88<<10)
	buf := make([]byte, 0, 1<<20)
	b.SetBytes(8 * int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		a.Begin(buf, 8)
		a.Kind, a.ID, a.LogicalBytes = Chunk, chunk.ID{1}, 1<<20
		for range 8 {
			a.Add(append(a.Bytes(), frame...), chunk.Digest{}, seal.Zstd)
		}
		if _, err := a.Finish(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseHeader(b *testing.B) {
	rec := benchRecord(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseHeader(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) { benchFile(b, func(f *File) { f.Check(context.Background()) }) }
func BenchmarkRebuild(b *testing.B) {
	benchFile(b, func(f *File) { f.Rebuild(context.Background(), io.Discard) })
}
func BenchmarkScan(b *testing.B) {
	benchFile(b, func(f *File) { Scan(f.r, f.size, func(Entry, *Header) error { return nil }) })
}

// benchFile runs fn on a pack that lacks 3 % of its bytes, all at one place.
func benchFile(b *testing.B, fn func(*File)) {
	rec := benchRecord(b)
	bu, err := NewBuilder(Data, Name{}, Options{Parity: 3, PackBytes: 64 << 20, RecordBytes: len(rec)})
	if err != nil {
		b.Fatal(err)
	}
	file := bytes.Clone(benchPack(b, bu, rec))
	clear(file[20<<20:][:64<<20*3/100])
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		f, err := Open(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			b.Fatal(err)
		}
		fn(f)
	}
}
