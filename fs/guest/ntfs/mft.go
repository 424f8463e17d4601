package ntfs

import (
	"errors"
	"fmt"
	"slices"

	"holdfast/fs"
)

// maxMFTRuns bounds the one mapping that is always in memory.
const maxMFTRuns = 1 << 20

// loadMFT finds where the MFT lies. It is a file described by its own first
// record, and perhaps by others that it has itself.
func (f *FS) loadMFT() error {
	r, err := f.firstRecord(f.geometry.mft)
	if err != nil {
		var cerr error
		if r, cerr = f.firstRecord(f.mirror); cerr != nil {
			return errors.Join(err, fmt.Errorf("its copy: %w", cerr))
		}
		f.note("The first record of the MFT is damaged; its copy was used.")
	}
	// What the record says itself is enough to read the records with the rest.
	var data *attribute
	err = r.eachAttribute(func(a attribute) error {
		if a.typ == typeData && a.name == "" && !a.resident && a.pieces[0].first == 0 {
			data = &a
		}
		return nil
	})
	if err != nil {
		return err
	}
	if data == nil || data.flags&(flagCompressed|flagEncrypted) != 0 {
		return fmt.Errorf("has no data: %w", fs.ErrDamaged)
	}
	// The copy holds four records. The volume is of no use without the rest.
	f.records = uint64(data.valid) / uint64(f.recordBytes)
	if f.records <= fileRoot || data.valid > f.clusters*f.clusterBytes {
		return fmt.Errorf("%d records: %w", f.records, fs.ErrDamaged)
	}
	runs, err := f.runsOf(data, data.pieces[0])
	if err != nil {
		return err
	}
	if len(runs) == 0 {
		return fmt.Errorf("has no clusters: %w", fs.ErrDamaged)
	}
	f.mft = slices.Clone(runs) // which mapMFT adds to
	all, err := f.attributes(r)
	if err != nil {
		return err
	}
	for i := range all {
		if a := &all[i]; a.typ == typeData && a.name == "" {
			return f.mapMFT(a)
		}
	}
	return fmt.Errorf("has no data in its attribute list: %w", fs.ErrDamaged)
}

func (f *FS) firstRecord(at int64) (record, error) {
	b := make([]byte, f.recordBytes)
	if err := f.dev.readMeta(b, at); err != nil {
		return record{}, err
	}
	r, err := parseRecord(fileMFT, b)
	if err == nil && (r.flags&recordInUse == 0 || r.base != 0) {
		err = fmt.Errorf("file record 0 not in use: %w", fs.ErrDamaged)
	}
	return r, err
}

// mapMFT adds piece after piece, each read by way of those before it.
func (f *FS) mapMFT(a *attribute) error {
	for _, p := range a.pieces[1:] {
		list, err := f.runsOf(a, p)
		if err != nil {
			return err
		}
		last := f.mft[len(f.mft)-1].end()
		if p.first != last || len(f.mft)+len(list) > maxMFTRuns {
			return fmt.Errorf("cluster %d behind %d: %w", p.first, last, fs.ErrDamaged)
		}
		f.mft = append(f.mft, list...)
	}
	if last := f.mft[len(f.mft)-1].end(); last*f.clusterBytes < a.valid {
		return fmt.Errorf("%d bytes in %d clusters: %w", a.valid, last, fs.ErrDamaged)
	}
	return nil
}

// readMFT fills p from byte off of the MFT.
func (f *FS) readMFT(p []byte, off int64) error {
	for len(p) > 0 {
		r, ok := findRun(f.mft, off/f.clusterBytes)
		if !ok || r.cluster < 0 {
			return fmt.Errorf("byte %d of the MFT is mapped nowhere: %w", off, fs.ErrDamaged)
		}
		part := p[:min(int64(len(p)), r.end()*f.clusterBytes-off)]
		if err := f.dev.readMeta(part, r.cluster*f.clusterBytes+off-r.at*f.clusterBytes); err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}
