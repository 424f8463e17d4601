package repo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// lies are frame tables that no writer makes but every check passes.
var lies = map[string]func(e *blockmap.Entry){
	"offsets one on":   func(e *blockmap.Entry) { eachFrame(e, func(f *pack.Frame) { f.Off++ }) },
	"offsets far away": func(e *blockmap.Entry) { eachFrame(e, func(f *pack.Frame) { f.Off = 0xfffffff0 }) },
	"lengths of 1":     func(e *blockmap.Entry) { eachFrame(e, func(f *pack.Frame) { f.Stored = 1 }) },
	"long lengths": func(e *blockmap.Entry) {
		off := e.Frames[0].Off
		eachFrame(e, func(f *pack.Frame) { f.Off, f.Stored, off = off, 1<<24-1, off+1<<24-1 })
	},
	"raw":         func(e *blockmap.Entry) { eachFrame(e, func(f *pack.Frame) { f.Codec = seal.Raw }) },
	"zstd":        func(e *blockmap.Entry) { eachFrame(e, func(f *pack.Frame) { f.Codec = seal.Zstd }) },
	"one zeros":   func(e *blockmap.Entry) { e.Frames[0].Codec, e.Frames[0].Stored = seal.Zero, 0 },
	"all zeros":   func(e *blockmap.Entry) { eachFrame(e, func(f *pack.Frame) { f.Codec, f.Stored = seal.Zero, 0 }) },
	"no entry":    nil,
	"salt":        func(e *blockmap.Entry) { e.Salt[3] ^= 1 },
	"base's salt": func(e *blockmap.Entry) { e.BaseSalt[3] ^= 1 },
	"one digest":  func(e *blockmap.Entry) { e.Frames[1].Digest[7] ^= 1 },
	"digests swapped": func(e *blockmap.Entry) {
		e.Frames[0].Digest, e.Frames[1].Digest = e.Frames[1].Digest, e.Frames[0].Digest
	},
	"a patch": func(e *blockmap.Entry) {
		e.Patch, e.Base = !e.Patch, chunk.ID{1}
		eachFrame(e, func(f *pack.Frame) { f.InBase = false })
		if e.Patch {
			e.Frames[0].InBase = true
		} else {
			e.Base = chunk.Null
		}
	},
}

func eachFrame(e *blockmap.Entry, do func(f *pack.Frame)) {
	for i := range e.Frames {
		if e.Frames[i].Codec != seal.Zero {
			do(&e.Frames[i])
		}
	}
}

// TestLyingFrameTable reads through leaves whose frame tables say what is not
// so. They are hints: all must read right.
func TestLyingFrameTable(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		for name, lie := range lies {
			lied := 0
			for i := range s.points {
				lied += s.readLied(t, name, lie, &s.points[i])
			}
			if lied == 0 && lie != nil && (s.shape.sealed || !strings.HasSuffix(name, "salt")) {
				t.Errorf("%s: no table can hold it", name)
			}
		}
	})
}

// readLied puts a leaf with a lying table where the true one would be cached. It
// returns the number of entries that lie.
func (s *sample) readLied(t *testing.T, name string, lie func(*blockmap.Entry), p *samplePoint) (lied int) {
	t.Helper()
	r, err := Open(t.Context(), s.clone(), s.options(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // in memory
	reader, err := r.OpenPoint(p.id)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // in memory
	d, err := reader.Disk(smallDisk)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := r.store.Leaf(t.Context(), d.tree.Root)
	if err == nil {
		leaf, err = blockmap.Resolve(t.Context(), r.store, leaf)
	}
	if err != nil {
		t.Fatal(err)
	}
	table := blockmap.NewTable(r.store.layout())
	for i := range leaf.Node.Children {
		var e blockmap.Entry
		if leaf.Entry(i, &e) && lie != nil {
			if lie(&e); e.Salt != [pack.SaltBytes]byte{} && !s.shape.sealed || table.Append(i, &e) != nil {
				continue
			}
			lied++
		}
	}
	lying, err := blockmap.NewLeaf(leaf.Node, table, chunk.Null)
	if err != nil {
		t.Fatal(err)
	}
	r.store.leaves.put(&cachedNode{id: d.tree.Root, node: leaf.Node, leaf: lying})
	got := make(memTarget, len(p.small))
	if _, err := d.Restore(t.Context(), got, RestoreOptions{}); err != nil || !bytes.Equal(got, p.small) {
		t.Errorf("%s: restore gives wrong bytes or %v", name, err)
	}
	clear(got)
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, p.small) {
		t.Errorf("%s: read gives wrong bytes or %v", name, err)
	}
	return lied
}

// TestDamagedBase damages the base of patches in the frames that they share:
// with parity it heals, without the error names the base's pack, and what the
// patch has itself reads on.
func TestDamagedBase(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		type place struct {
			pack string
			at   pack.Entry
		}
		places := map[chunk.ID]place{}
		var patches []pack.Header
		for _, name := range s.files(t, dataDir) {
			file := s.data(t, name)
			for _, e := range packRecords(t, file) {
				h, _, err := pack.ParseHeader(file[e.Off:])
				if err != nil {
					t.Fatal(err)
				}
				places[e.ID] = place{name, e}
				if h.Kind == pack.Patch {
					patches = append(patches, h)
				}
			}
		}
		for _, h := range patches {
			base, mem := places[h.Base], s.clone()
			shared := 0
			for _, f := range h.Frames {
				if f.InBase {
					shared++
					if err := mem.Corrupt(base.pack, int64(base.at.Off+f.Off), 0x80); err != nil {
						t.Fatal(err)
					}
				}
			}
			f := s.readAll(t, mem)
			what := fmt.Sprintf("patch %s", h.ID.Short())
			s.mustBlame(t, what, f, base.pack)
			if s.shape.parity > 0 && (len(f.errs) > 0 || !f.names("healed")) {
				t.Errorf("%s: not healed: %v", what, f)
			}
			// Each point has the base or a patch over it: the shared frames are
			// lost to all of them, no other is.
			if s.shape.parity < 0 && (len(f.errs) < shared || len(f.errs) > len(s.points)*shared) {
				t.Errorf("%s: %d errors for %d frames of %d points: %v", what, len(f.errs), shared, len(s.points), errors.Join(f.errs...))
			}
		}
		if len(patches) < 2 {
			t.Errorf("%d patches", len(patches))
		}
	})
}
