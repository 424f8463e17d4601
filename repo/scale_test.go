package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// A store at the scale of years: scaleMachines machines of 100 points each, the
// first of which holds half of the machine's chunks; each other one replaces a
// hundredth of these, in runs of scaleRun neighbours, half of them always the
// same ones. Chunks have made-up ids and
// records of some bytes that nothing could restore, 64 in a pack as if a pack of
// 32 MiB held chunks of 512 KiB. Block maps, index, ledger and manifests are the
// engine's own.
const (
	scaleMachines = 10
	scalePoints   = 100 // of each machine
	scaleRun      = 64
)

// TestSweepScale measures a sweep of one point of a thousand, in a store of
// HOLDFAST_SCALE_CHUNKS chunks: set HOLDFAST_SCALE=1. With HOLDFAST_SCALE_DIR it
// only makes that store there, in repo and state, for others to measure.
func TestSweepScale(t *testing.T) {
	if os.Getenv("HOLDFAST_SCALE") == "" {
		t.Skip("needs HOLDFAST_SCALE=1, half a minute and 1 GB for a million chunks")
	}
	chunks := int64(1_000_000)
	if s := os.Getenv("HOLDFAST_SCALE_CHUNKS"); s != "" {
		var err error
		if chunks, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	dir := os.Getenv("HOLDFAST_SCALE_DIR")
	alone := dir == ""
	if alone {
		dir = t.TempDir()
	}
	var sub [2]*vfs.Dir
	for i, name := range []string{"repo", "state"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if sub[i], err = vfs.OS(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		defer sub[i].Close()
	}
	ctx := t.Context()
	began := time.Now()
	points, err := makeScale(ctx, unsynced{sub[0]}, sub[1], chunks)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d chunks in %d points made in %.1f s", chunks, len(points), time.Since(began).Seconds())
	if !alone {
		return
	}
	o, err := Own(ctx, sub[0], Options{State: sub[1], Log: slog.New(slog.NewTextHandler(t.Output(), nil))}, 0)
	if err != nil {
		t.Fatal(err)
	}
	sweep := func(what string) SweepResult {
		began := time.Now()
		res, err := o.Sweep(ctx, SweepOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.2f s, %+v", what, time.Since(began).Seconds(), res)
		return res
	}
	if res := sweep("first sweep, which counts everything"); res.Packs != 0 || res.DeadBytes != 0 {
		t.Errorf("with all points there it freed something: %+v", res)
	}
	id := points[len(points)/2]
	began = time.Now()
	if _, err := o.Expire(ctx, id, "test"); err != nil {
		t.Fatal(err)
	}
	t.Logf("expired in %.3f s", time.Since(began).Seconds())
	if res := sweep("sweep of one point"); res.Points != 1 || res.Packs == 0 {
		t.Errorf("swept %+v, want one point and some packs", res)
	}
	sweep("sweep of nothing")
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
}

// unsynced is a file system whose changes are made durable by nobody.
type unsynced struct{ vfs.FS }

type unsyncedFile struct{ vfs.File }

func (u unsynced) Create(name string) (vfs.File, error) {
	f, err := u.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (unsynced) SyncDir(string) error { return nil }

func (unsyncedFile) Sync() error                { return nil }
func (unsyncedFile) DropCache(_, _ int64) error { return nil }

// sizeOnly is a disk that nobody reads.
type sizeOnly int64

func (s sizeOnly) Size() int64                                { return int64(s) }
func (sizeOnly) ReadAt([]byte, int64) (int, error)            { return 0, errors.ErrUnsupported }
func (sizeOnly) NextData(int64) (start, end int64, err error) { return 0, 0, io.EOF }

// madeUp is the id of the nth chunk, which nothing hashes to. What tells it from
// others is at its end, behind what index and counts keep.
func madeUp(r *rand.Rand, n uint64) (id chunk.ID) {
	for i := range 3 {
		binary.LittleEndian.PutUint64(id[8*i:], r.Uint64())
	}
	binary.LittleEndian.PutUint64(id[24:], madeUpMark|n)
	return id
}

// madeUpMark is wide enough that no id of a node has it by chance.
const madeUpMark = 0xC0DEC0DE << 32

func isMadeUp(id chunk.ID) bool { return binary.LittleEndian.Uint64(id[24:])>>32 == madeUpMark>>32 }

// makeScale makes the store and returns its points, in order of time.
func makeScale(ctx context.Context, fsys, state vfs.FS, chunks int64) (points []PointID, err error) {
	geo := chunk.Geometry{ChunkBytes: chunk.MinChunkBytes, FrameBytes: chunk.MaxFrameBytes}
	_, err = Create(ctx, fsys, CreateOptions{State: state, Geometry: geo, PackBytes: MinPackBytes, Parity: -1, ReserveBytes: -1})
	if err != nil {
		return nil, err
	}
	o, err := Own(ctx, fsys, Options{State: state}, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	first := chunks * 100 / (scaleMachines * (100 + scalePoints - 1))
	g := &scaleStore{owner: o, rand: rand.New(rand.NewPCG(1, 7)), diskChunks: first}
	for i := range g.last {
		g.last[i].tree = blockmap.NewTree(chunk.Null, first*int64(geo.ChunkBytes), geo)
	}
	for n := range scalePoints {
		for m := range scaleMachines {
			p, err := g.point(ctx, m, n == 0)
			if err != nil {
				return nil, fmt.Errorf("point %d of machine %d: %w", n, m, err)
			}
			points = append(points, p.ID)
		}
	}
	return points, nil
}

// A scaleStore is such a store in the making.
type scaleStore struct {
	owner      *Owner
	rand       *rand.Rand
	diskChunks int64
	made       uint64
	asm        pack.Assembler
	buf        []byte
	last       [scaleMachines]struct {
		point *Point
		tree  blockmap.Tree
	}
}

// point makes the next point of a machine.
func (g *scaleStore) point(ctx context.Context, m int, first bool) (Point, error) {
	o, last := g.owner, &g.last[m]
	geo := o.settings.Geometry
	size := g.diskChunks * int64(geo.ChunkBytes)
	r, err := o.newRun(&BackupOptions{
		Machine: fmt.Sprintf("machine-%d", m), Job: defaultJob, Consistency: "crash",
		Disks: []SourceDisk{{Name: "disk", Source: sizeOnly(size)}},
	})
	if err != nil {
		return Point{}, err
	}
	defer o.end(r)
	r.parent = last.point
	if err := r.prepare(); err != nil {
		return Point{}, err
	}
	r.data.opt.PackBytes = 64 * (pack.HeaderBytes(1) + 8 + pack.EntryBytes)
	// A leaf asks for each of its chunks: all that were made up were stored.
	r.nodes.known = func(id chunk.ID) (bool, error) {
		if isMadeUp(id) {
			return true, nil
		}
		return r.known(id)
	}
	e := blockmap.NewEditor(r.nodes, o.store.layout(), last.tree, g.diskChunks)
	err = g.changes(first, func(n int64) error {
		id, entry, err := g.store(r)
		if err != nil {
			return err
		}
		return e.Set(ctx, n, id, entry)
	})
	if err != nil {
		return Point{}, err
	}
	root, err := e.Finish(ctx)
	if err != nil {
		return Point{}, err
	}
	if err := r.finish(ctx, []chunk.ID{root}); err != nil {
		return Point{}, err
	}
	p := r.result.Point
	last.point, last.tree = &p, blockmap.NewTree(root, size, geo)
	return p, nil
}

// changes calls fn for the chunks of a disk that are new, in order.
func (g *scaleStore) changes(first bool, fn func(n int64) error) error {
	if first {
		for n := range g.diskChunks {
			if err := fn(n); err != nil {
				return err
			}
		}
		return nil
	}
	runs := g.diskChunks / 100 / scaleRun
	every := g.diskChunks / runs
	for i := range runs {
		start := i * every
		if i%2 == 1 {
			start += g.rand.Int64N(every - scaleRun)
		}
		for n := range int64(scaleRun) {
			if err := fn(start + n); err != nil {
				return err
			}
		}
	}
	return nil
}

// store adds a made-up chunk to the run's packs.
func (g *scaleStore) store(r *run) (chunk.ID, *blockmap.Entry, error) {
	g.made++
	id := madeUp(g.rand, g.made)
	a := &g.asm
	a.Begin(g.buf, 1)
	a.Kind, a.ID, a.LogicalBytes = pack.Chunk, id, uint32(g.owner.settings.Geometry.ChunkBytes)
	a.Add(append(a.Bytes(), id[:8]...), chunk.Digest(id), seal.Zstd)
	rec, err := a.Finish()
	if err != nil {
		return id, nil, err
	}
	g.buf = rec
	entry := &blockmap.Entry{Frames: append([]pack.Frame(nil), a.Frames...)}
	return id, entry, r.data.add(id, rec, entry)
}
