package ntfs

import (
	"fmt"

	"holdfast/fs"
)

const (
	unitsBudget = 4 << 20

	// A unit has 16 clusters, of at most 4 KiB when Windows makes it. ntfs-3g
	// compresses on volumes with larger ones too.
	maxUnitBytes = 4 << 20
)

// unitKey names a compression unit or a WOF chunk by its attribute's place.
type unitKey struct {
	rec uint64
	at  int
	n   int64
	wof bool
}

func (a *attribute) unitKey(n int64, wof bool) unitKey {
	return unitKey{a.rec, a.at, n, wof}
}

// stretchCompressed is stretch for a compressed attribute. Its clusters come in
// units of 16. One with all its clusters is stored as it is, one without any is a
// hole, and one with some, then holes, is compressed.
func (f *FS) stretchCompressed(a *attribute, off int64) (fs.Extent, error) {
	per, err := f.unitClusters(a)
	if err != nil {
		return fs.Extent{}, err
	}
	first := off / f.clusterBytes / per * per
	stored, err := f.unitStored(a, first, per)
	if err != nil {
		return fs.Extent{}, err
	}
	if stored > 0 && stored < per {
		end := min((first+per)*f.clusterBytes, a.valid)
		return fs.Extent{Off: off, Len: end - off, Kind: fs.Made}, nil
	}
	r, err := f.runAt(a, off/f.clusterBytes)
	if err != nil {
		return fs.Extent{}, err
	}
	// All whole units that the run holds are of the same kind as this one.
	end := max(min(first+per, r.end()), r.end()/per*per)
	return f.within(a, r, off, end*f.clusterBytes)
}

func (f *FS) unitClusters(a *attribute) (int64, error) {
	if method := a.flags & flagCompressed; method != 1 {
		return 0, fmt.Errorf("compression method %d: %w", method, fs.ErrUnsupported)
	}
	if a.unit == 0 || a.unit > 12 || f.clusterBytes<<a.unit > maxUnitBytes {
		return 0, fmt.Errorf("compression unit of 2^%d clusters of %d: %w", a.unit, f.clusterBytes, fs.ErrUnsupported)
	}
	return 1 << a.unit, nil
}

// unitStored counts the clusters that the unit of per clusters from first on has
// on the volume.
func (f *FS) unitStored(a *attribute, first, per int64) (int64, error) {
	var stored, holes int64
	for at := first; at < first+per; {
		r, err := f.runAt(a, at)
		if err != nil {
			return 0, err
		}
		n := min(r.end(), first+per) - at
		switch {
		case r.cluster < 0:
			holes += n
		case holes > 0:
			return 0, fmt.Errorf("compression unit at cluster %d has data behind a hole: %w", first, fs.ErrDamaged)
		default:
			stored += n
		}
		at += n
	}
	return stored, nil
}

// readCompressed fills p from byte off of a, all in one unit that is compressed.
func (f *FS) readCompressed(a *attribute, p []byte, off int64) error {
	unitBytes := f.clusterBytes << a.unit
	key := a.unitKey(off/unitBytes, false)
	unit, ok := f.units.get(key)
	if !ok {
		var err error
		if unit, err = f.unpackUnit(a, key.n); err != nil {
			return fmt.Errorf("compression unit %d: %w", key.n, err)
		}
		f.units.put(key, unit, int64(len(unit)))
	}
	copy(p, unit[off-key.n*unitBytes:])
	return nil
}

// unpackUnit returns unit n of a up to where a has valid bytes.
func (f *FS) unpackUnit(a *attribute, n int64) ([]byte, error) {
	per := int64(1) << a.unit
	stored, err := f.unitStored(a, n*per, per)
	if err != nil {
		return nil, err
	}
	packed := make([]byte, 0, stored*f.clusterBytes)
	for at := n * per; at < n*per+stored; {
		r, err := f.runAt(a, at)
		if err != nil {
			return nil, err
		}
		clusters := min(r.end(), n*per+stored) - at
		part := packed[len(packed) : int64(len(packed))+clusters*f.clusterBytes]
		if err := f.dev.read(part, (r.cluster+at-r.at)*f.clusterBytes); err != nil {
			return nil, err
		}
		packed = packed[:len(packed)+len(part)]
		at += clusters
	}
	unitBytes := per * f.clusterBytes
	unit := make([]byte, min(unitBytes, a.valid-n*unitBytes))
	return unit, unpackLZNT1(unit, packed)
}
