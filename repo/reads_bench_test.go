package repo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// BenchmarkReads reads at random: hot, all frames in memory, and cold, none.
func BenchmarkReads(b *testing.B) {
	disk := repotest.New(rand.New(rand.NewPCG(1, 1)), repotest.Text, 24<<20)
	mem, state := vfs.NewMem(), vfs.NewMem()
	if _, err := repo.Create(b.Context(), mem, repo.CreateOptions{State: state, Compression: "zstd", ReserveBytes: -1}); err != nil {
		b.Fatal(err)
	}
	run, err := repo.PerformBackup(b.Context(), mem, repo.Options{State: state}, 0, repo.BackupOptions{Machine: "m", Disks: []repo.SourceDisk{{Name: "d", Source: repotest.NewSource(disk)}}})
	if err != nil {
		b.Fatal(err)
	}
	for _, cache := range []struct {
		name  string
		bytes int64
	}{{"hot", 64 << 20}, {"cold", 1}} {
		for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
			d := benchDisk(b, mem, run.Point.ID, cache.bytes)
			rng := rand.New(rand.NewPCG(2, 2))
			next := func() int64 { return rng.Int64N(disk.Size()/int64(size)) * int64(size) }
			name := fmt.Sprintf("%s/%dKiB", cache.name, size>>10)
			b.Run(name+"/copied", func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				p := make([]byte, size)
				for b.Loop() {
					if _, err := d.ReadAt(p, next()); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(name+"/lent", func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					_, _, release, err := d.Borrow(b.Context(), next(), size)
					if err != nil {
						b.Fatal(err)
					}
					release()
				}
			})
			b.Run(name+"/asked", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					d.Cached(next(), size)
				}
			})
		}
	}
}

// benchDisk opens a disk and reads it once.
func benchDisk(b *testing.B, mem *vfs.Mem, id repo.PointID, cacheBytes int64) *repo.Disk {
	r, err := repo.Open(b.Context(), mem, repo.Options{Frames: repo.NewFrameCache(cacheBytes, 1)})
	if err != nil {
		b.Fatal(err)
	}
	reader, err := r.OpenPoint(id)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = errors.Join(reader.Close(), r.Close()) })
	d, err := reader.Disk("")
	if err == nil {
		_, err = d.ReadAt(make([]byte, d.Size()), 0)
	}
	if err != nil {
		b.Fatal(err)
	}
	return d
}
