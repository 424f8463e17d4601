package repotest

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// Reach is what lies in the packs of a repository, told apart by whether a
// manifest leads to it.
type Reach struct {
	NeededBytes int64 // records that some point needs, and their bases: one copy of each
	DeadBytes   int64 // all other records, further copies among them
	DeadPacks   int   // packs without a needed record
	Missing     []chunk.ID
}

// Reachable walks from the manifests that are there through all packs that are
// there, with its own eyes but for the parsing of records: no ledger, no index,
// no counts, no key. Of several copies of a record the newest that has its base
// is needed, and of one that another is based on the newest without a base, too.
func Reachable(fsys vfs.FS) (Reach, error) {
	w := &reachWalk{fsys: fsys, places: make(map[chunk.ID][]*stored), seen: make(map[chunk.ID]bool)}
	if err := w.load(); err != nil {
		return Reach{}, err
	}
	for _, list := range w.places {
		slices.SortFunc(list, func(a, b *stored) int {
			return cmp.Or(strings.Compare(b.pack, a.pack), cmp.Compare(b.off, a.off))
		})
	}
	if err := w.manifests(); err != nil {
		return Reach{}, err
	}
	return w.sum(), nil
}

type stored struct {
	pack   string // its name, which sorts by age
	off    uint32
	len    int64
	base   chunk.ID
	node   *blockmap.Node
	needed bool
}

type reachWalk struct {
	fsys    vfs.FS
	places  map[chunk.ID][]*stored
	seen    map[chunk.ID]bool
	missing []chunk.ID
}

func (w *reachWalk) load() error {
	return vfs.Walk(w.fsys, "packs", func(name string, info vfs.Info) (err error) {
		if info.Dir {
			return nil
		}
		f, err := w.fsys.Open(name)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		pf, err := pack.Open(f, info.Size)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		entries, err := pf.Records()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, e := range entries {
			s := &stored{pack: path.Base(name), off: e.Off, len: int64(e.Len), base: e.Base}
			if e.Kind == pack.Node {
				b := make([]byte, e.Len)
				if _, err := f.ReadAt(b, int64(e.Off)); err != nil {
					return err
				}
				h, _, err := pack.ParseHeader(b)
				if err != nil {
					return err
				}
				if s.node, err = blockmap.ParseNode(b[h.Frames[0].Off : h.Frames[0].Off+h.Frames[0].Stored]); err != nil {
					return err
				}
			}
			w.places[e.ID] = append(w.places[e.ID], s)
		}
		return nil
	})
}

// manifests needs every root that a manifest names.
func (w *reachWalk) manifests() error {
	infos, err := w.fsys.ReadDir("points")
	if err != nil {
		return err
	}
	for _, info := range infos {
		if strings.HasSuffix(info.Name, ".twin") {
			continue
		}
		p, err := vfs.ReadFile(w.fsys, path.Join("points", info.Name), 16<<20)
		if err != nil {
			return err
		}
		const head = 16
		var public struct {
			Roots []struct{ Root chunk.ID } `json:"roots"`
		}
		if err := json.Unmarshal(p[head:head+binary.LittleEndian.Uint32(p[8:])], &public); err != nil {
			return err
		}
		for _, r := range public.Roots {
			if err := w.need(r.Root); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *reachWalk) need(id chunk.ID) error {
	if id.IsNull() || w.seen[id] {
		return nil
	}
	w.seen[id] = true
	list := w.places[id]
	if len(list) == 0 {
		w.missing = append(w.missing, id)
		return nil
	}
	s := list[0]
	for _, other := range list {
		if other.base.IsNull() || len(w.places[other.base]) > 0 {
			s = other
			break
		}
	}
	s.needed = true
	if err := w.needBase(s.base); err != nil {
		return err
	}
	if s.node != nil {
		for _, child := range s.node.Children {
			if err := w.need(child); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *reachWalk) needBase(id chunk.ID) error {
	if id.IsNull() {
		return nil
	}
	for i, s := range w.places[id] {
		if i == 0 || s.base.IsNull() {
			s.needed = true
		}
		if s.base.IsNull() {
			return nil
		}
	}
	w.missing = append(w.missing, id)
	return nil
}

func (w *reachWalk) sum() Reach {
	r := Reach{Missing: w.missing}
	living := make(map[string]bool)
	packs := make(map[string]bool)
	for _, list := range w.places {
		for _, s := range list {
			packs[s.pack] = true
			if s.needed {
				r.NeededBytes += s.len
				living[s.pack] = true
			} else {
				r.DeadBytes += s.len
			}
		}
	}
	for name := range packs {
		if !living[name] {
			r.DeadPacks++
		}
	}
	return r
}
