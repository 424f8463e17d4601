package ntfs

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"holdfast/fs"
)

const (
	volumeDirty = 1

	// maxSmall bounds values of which the format has small ones only.
	maxSmall = 64 << 10
)

// readVolume reads label, version and the dirty flag. Source: Linux-NTFS
// documentation, "$VOLUME_INFORMATION".
func (f *FS) readVolume() {
	n, err := f.node(fileVolume)
	if err != nil {
		f.note("The volume's name and state can't be read: %v.", err)
		return
	}
	if a := n.find(typeVolumeName, ""); a != nil {
		if b, err := f.readWhole(a, maxSmall); err == nil {
			f.label = decodeName(b)
		}
	}
	a := n.find(typeVolumeInfo, "")
	if a == nil || !a.resident || len(a.value) < 12 {
		f.note("The volume's version and state are not known.")
		return
	}
	if major := a.value[8]; major < 3 {
		f.note("NTFS version %d.%d is older than those we know.", major, a.value[9])
	}
	if le.Uint16(a.value[10:])&volumeDirty != 0 {
		f.note("The volume is marked dirty: it was not unmounted, or chkdsk is due. Some of what was changed last may be missing or contradict itself.")
	}
}

// readHibernation notes whether Windows lies asleep on the volume, as after a
// shutdown with fast startup. Errors are other callers' to find.
func (f *FS) readHibernation() {
	root, err := f.node(fileRoot)
	if err != nil {
		return
	}
	n, _, err := f.lookFolded(root, "hiberfil.sys")
	if err != nil || n.data() == nil || n.data().bytes() < 4096 {
		return
	}
	b := make([]byte, 4)
	if f.readPart(n.data(), b, 0) == nil && strings.EqualFold(string(b), "hibr") {
		f.note("Windows is hibernated (or was shut down with fast startup): what it had not written yet is missing.")
	}
}

// capitals returns the volume's table of capitals, which is read once.
func (f *FS) capitals() (upCase, error) {
	f.upMu.Lock()
	defer f.upMu.Unlock()
	if f.up != nil || f.upErr != nil {
		return f.up, f.upErr
	}
	up, err := f.readCapitals()
	if err != nil {
		err = fmt.Errorf("table of capitals: %w", err)
	}
	f.up = up
	if errors.Is(err, fs.ErrDamaged) {
		f.upErr = err
	}
	return up, err
}

func (f *FS) readCapitals() (upCase, error) {
	n, err := f.node(fileUpCase)
	if errors.Is(err, fs.ErrStale) {
		err = fmt.Errorf("%w: %w", err, fs.ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	a := n.data()
	if a == nil || a.bytes() != 1<<17 {
		return nil, fmt.Errorf("not there: %w", fs.ErrDamaged)
	}
	b, err := f.readWhole(a, 1<<17)
	if err != nil {
		return nil, err
	}
	return utf16Of(b), nil
}

// StatFS counts the free clusters in the volume's bitmap, once: that takes a
// bit for each that the device has, of however many the volume speaks.
func (f *FS) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	if _, _, err := f.at(ctx, id); err != nil {
		return fs.StatFS{}, err
	}
	f.statMu.Lock()
	defer f.statMu.Unlock()
	if f.stat == nil {
		s, err := f.count(ctx)
		if err != nil {
			return fs.StatFS{}, err
		}
		f.stat = &s
	}
	return *f.stat, nil
}

func (f *FS) count(ctx context.Context) (fs.StatFS, error) {
	f.state()
	s := fs.StatFS{
		Type:       "ntfs",
		Label:      f.label,
		BlockBytes: f.clusterBytes,
		Bytes:      f.clusters * f.clusterBytes,
		Files:      f.records,
		NameBytes:  3 * 255,
	}
	for _, of := range []struct {
		file  uint64
		typ   uint32
		total int64
		free  func(n int64)
	}{
		{fileBitmap, typeData, min(f.clusters, f.dev.size/f.clusterBytes), func(n int64) { s.FreeBytes = n * f.clusterBytes }},
		{fileMFT, typeBitmap, min(int64(f.records), f.dev.size/int64(f.recordBytes)), func(n int64) { s.FreeFiles = uint64(n) }},
	} {
		n, err := f.node(of.file)
		if err != nil {
			return s, err
		}
		used, err := f.countOnes(ctx, n.find(of.typ, ""), of.total)
		if err != nil {
			return s, fmt.Errorf("bitmap in file record %d: %w", of.file, err)
		}
		of.free(of.total - used)
	}
	return s, nil
}

// countOnes counts the ones among the first total bits of a.
func (f *FS) countOnes(ctx context.Context, a *attribute, total int64) (int64, error) {
	if a == nil || a.bytes() < (total+7)/8 {
		return 0, fmt.Errorf("too short for %d bits: %w", total, fs.ErrDamaged)
	}
	var ones int64
	b := make([]byte, 256<<10)
	for off := int64(0); off < (total+7)/8; off += int64(len(b)) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b = b[:min(int64(len(b)), (total+7)/8-off)]
		if _, err := f.readAttribute(a, b, off, f.dev.read); err != nil {
			return 0, err
		}
		if rest := total - off*8; rest < int64(len(b))*8 {
			b[len(b)-1] &= 1<<(rest%8) - 1 // the total is no multiple of eight
		}
		for _, c := range b {
			ones += int64(bits.OnesCount8(c))
		}
	}
	return ones, nil
}
