// Package fat reads FAT12, FAT16 and FAT32 with long names.
//
// # Layout
//
//	boot sector  reserved sectors  FAT  copy of it  root directory  clusters 2, 3 …
//
// The root directory has a place of its own on FAT12 and FAT16; on FAT32 it is a
// chain of clusters like every other. A directory is a row of slots of 32 bytes;
// a file takes one with its short name, and before that as many as its long name
// needs, backwards.
//
// Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03, and
// "Long Filename Specification", 0.5.
//
// # What FAT does not say
//
// Short names are taken as code page 437, which nothing on the disk confirms.
// Times are local to wherever they were set and are given as if that were UTC.
// There are no owners: all is of user and group 0, files have mode 0644 (0444 if
// marked read-only) and directories 0755 (0555). The size of a directory is
// given as one cluster: counting would mean following its chain. Of a long name,
// half a surrogate pair becomes the three bytes that UTF-8 would have for it, so
// that different names stay different. A directory that has a name twice shows
// the first.
//
// # Damage
//
// A chain that leads out of the volume, into free space, or back to itself is an
// error for what lies behind that point, and so is one shorter than the file.
// Clusters of two directories at once belong to the one that was looked at
// first. Two files that share clusters can't be told from files that are right.
package fat

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"holdfast/fs"
)

// rootIno is the number of the root directory. Every other inode has that of
// its slot, counted on the device in slots; the boot sector has the first ones.
const rootIno = 1

// FS is a FAT file system. It implements fs.Tree and fs.NotedTree.
type FS struct {
	dev   io.ReaderAt
	size  int64
	g     *geometry
	table *table
	dirs  *dirs
	files *chains
	label string

	mu    sync.Mutex // guards the following
	notes []string
	free  int64 // clusters; -1: not counted yet
}

var _ fs.NotedTree = (*FS)(nil)

// Open reads the file system on the first size bytes of dev, which must allow
// concurrent ReadAt. fs.ErrDamaged when it is none; fs.ErrUnsupported for a
// FAT32 of another version than 0.
func Open(dev io.ReaderAt, size int64) (*FS, error) {
	g, err := readGeometry(dev, size)
	if err != nil {
		return nil, fmt.Errorf("open FAT: %w", err)
	}
	f := &FS{dev: dev, size: size, g: g, free: -1}
	f.table = newTable(g, dev, f.note)
	f.dirs = newDirs(f)
	f.files = newChains(f.table)
	f.remark()
	if f.label, err = f.findLabel(); err != nil {
		return nil, fmt.Errorf("open FAT: read the root directory: %w", err)
	}
	return f, nil
}

// remark notes what the boot sector and the FAT say of the whole.
func (f *FS) remark() {
	if f.g.bytes > f.size {
		f.note(fmt.Sprintf("the file system has %d bytes, the volume %d: what lies behind can't be read", f.g.bytes, f.size))
	}
	if f.g.copied != "" {
		f.note("the copy of the boot sector was used: " + f.g.copied)
	}
	if f.g.dirty || !f.table.clean() {
		f.note("not unmounted: what was being written may be missing")
	}
	if f.g.activeFAT > 0 {
		f.note(fmt.Sprintf("FAT %d is the only one in use", f.g.activeFAT+1))
	}
}

// maxNotes bounds what a damaged volume can make us remember.
const maxNotes = 50

func (f *FS) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.notes) < maxNotes && !slices.Contains(f.notes, s) {
		f.notes = append(f.notes, s)
	}
}

// Notes tells what was found so far that people should know.
func (f *FS) Notes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.notes)
}

func (f *FS) Root() fs.ID { return fs.ID{Ino: rootIno} }

func (f *FS) Close() error { return nil }

func (f *FS) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	if id == f.Root() {
		return f.rootAttr(), nil
	}
	slot, err := f.dirs.slot(ctx, id)
	if err != nil {
		return fs.Attr{}, err
	}
	return f.attr(id.Ino, slot), nil
}

// rootAttr describes the root directory, which has no slot.
func (f *FS) rootAttr() fs.Attr {
	size := f.g.clusterBytes
	if f.g.bits != 32 {
		size = int64(f.g.rootSlots) * slotBytes
	}
	return fs.Attr{ID: f.Root(), Type: fs.TypeDir, Perm: 0o755, Nlink: 1, Size: size, Used: size, Fixed: true}
}

// attr describes what a slot stands for.
func (f *FS) attr(ino uint64, slot []byte) fs.Attr {
	a := fs.Attr{
		ID: fs.ID{Ino: ino}, Type: fs.TypeFile, Perm: 0o644, Nlink: 1, Fixed: true,
		Size:  int64(le.Uint32(slot[28:])),
		Mtime: slotTime(slot[24:], slot[22:], 0),
		Btime: slotTime(slot[16:], slot[14:], slot[13]),
		Atime: slotTime(slot[18:], nil, 0),
	}
	if slot[11]&attrDir != 0 {
		a.Type, a.Perm, a.Size = fs.TypeDir, 0o755, f.g.clusterBytes
	}
	if slot[11]&attrReadOnly != 0 {
		a.Perm &^= 0o222
	}
	a.Ctime = a.Mtime
	a.Used = (a.Size + f.g.clusterBytes - 1) &^ (f.g.clusterBytes - 1)
	return a
}

func (f *FS) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	if _, err := f.Attr(ctx, id); err != nil {
		return "", err
	}
	return "", fmt.Errorf("read link %d: %w", id.Ino, fs.ErrInvalid)
}

func (f *FS) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	if _, err := f.Attr(ctx, id); err != nil {
		return fs.StatFS{}, err
	}
	free, err := f.freeClusters(ctx)
	if err != nil {
		return fs.StatFS{}, fmt.Errorf("count free clusters: %w", err)
	}
	return fs.StatFS{
		Type: f.g.name(), Label: f.label, BlockBytes: f.g.clusterBytes,
		Bytes: int64(f.g.clusters) * f.g.clusterBytes, FreeBytes: free * f.g.clusterBytes,
		NameBytes: 3 * maxUnits, // of UTF-8 for 255 units of UTF-16
	}, nil
}

// freeClusters counts free clusters once, unless FAT32's FSInfo has a number.
func (f *FS) freeClusters(ctx context.Context) (int64, error) {
	f.mu.Lock()
	free := f.free
	f.mu.Unlock()
	if free >= 0 {
		return free, nil
	}
	free, ok := f.infoFree()
	if !ok {
		free = 0
		w := walker{t: f.table}
		for c := range f.g.clusters {
			if c%(1<<16) == 0 && ctx.Err() != nil {
				return 0, ctx.Err()
			}
			v, err := w.next(c + 2)
			if err != nil {
				return 0, err
			}
			if v == entryFree {
				free++
			}
		}
	}
	f.mu.Lock()
	f.free = free
	f.mu.Unlock()
	return free, nil
}

// infoFree takes the number of free clusters from the FSInfo sector.
//
// Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03, "FAT32
// FSInfo Sector Structure".
func (f *FS) infoFree() (int64, bool) {
	if f.g.infoOff == 0 {
		return 0, false
	}
	b := make([]byte, bootBytes)
	if n, _ := f.dev.ReadAt(b, f.g.infoOff); n < len(b) {
		return 0, false
	}
	free := le.Uint32(b[488:])
	return int64(free), string(b[:4]) == "RRaA" && string(b[484:488]) == "rrAa" && free <= f.g.clusters
}

// Summary is what Probe finds.
type Summary struct {
	Format string // "fat12", "fat16" or "fat32"
	Label  string
	UUID   string
	Bytes  int64 // that the file system takes, as it says
}

// Probe says what is on dev if Detect knows it. The label is the root
// directory's, or the boot sector's where that has none or can't be read.
func Probe(dev io.ReaderAt, size int64) (Summary, bool) {
	g, err := readGeometry(dev, size)
	if err != nil {
		return Summary{}, false
	}
	s := Summary{Format: g.name(), Label: g.label, UUID: g.uuid(), Bytes: g.bytes}
	if f, err := Open(dev, size); err == nil {
		s.Label = f.label
	}
	return s, true
}
