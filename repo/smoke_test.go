package repo

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

type memSource []byte

func (m memSource) Size() int64 { return int64(len(m)) }
func (m memSource) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}
func (m memSource) NextData(off int64) (int64, int64, error) {
	if off >= m.Size() {
		return 0, 0, io.EOF
	}
	return off, m.Size(), nil
}

type memTarget []byte

func (m memTarget) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

func TestSmoke(t *testing.T) {
	for _, pass := range []string{"", "secret"} {
		fsys, state := vfs.NewMem(), vfs.NewMem()
		opt := CreateOptions{State: state, WorkFactor: 4, ReserveBytes: 4096, PackBytes: 1 << 20,
			Geometry: chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 64 << 10}}
		if pass != "" {
			opt.Passphrase = []byte(pass)
		}
		ctx := t.Context()
		if _, err := Create(ctx, fsys, opt); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		disk := make([]byte, 5<<20+12345)
		for i := range disk {
			if i>>20 != 2 {
				disk[i] = byte(rng.Uint32() % 20)
			}
		}
		o, err := Own(ctx, fsys, Options{State: state, Passphrase: opt.Passphrase}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			run, err := o.Backup(ctx, BackupOptions{Machine: "m", Disks: []SourceDisk{{Name: "d", Source: memSource(disk)}}})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("run %d: %+v", i, run.Point.Counters)
			r, err := o.OpenPoint(run.Point.ID)
			if err != nil {
				t.Fatal(err)
			}
			d, err := r.Disk("")
			if err != nil {
				t.Fatal(err)
			}
			got := make(memTarget, len(disk))
			if _, err := d.Restore(ctx, got, RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, disk) {
				t.Fatal("restore differs")
			}
			clear(got)
			if n, err := io.ReadFull(io.NewSectionReader(d, 0, d.Size()), got); err != nil || n != len(disk) || !bytes.Equal(got, disk) {
				t.Fatal("read differs", n, err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				disk[rng.IntN(len(disk))]++
			}
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		rr, err := Open(ctx, fsys, Options{Passphrase: opt.Passphrase})
		if err != nil {
			t.Fatal(err)
		}
		ps, err := rr.Points(ctx)
		if err != nil || len(ps) != 3 {
			t.Fatal(ps, err)
		}
		if err := rr.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
