package child

import (
	"fmt"
	"strings"

	"holdfast/fs"
	"holdfast/fs/guest"
)

// What names and texts of the other side may have.
const (
	maxName  = 4096     // bytes of a name in a directory; file systems stop at 255 characters
	maxText  = 4096     // of a text for people
	maxLink  = 64 << 10 // of a symbolic link's target
	maxNotes = 1000
)

func damaged(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, fs.ErrDamaged)...)
}

// isName says whether s can be an entry of a directory.
func isName(s string) bool {
	return s != "" && len(s) <= maxName && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}

const (
	timeBytes  = 12
	attrBytes  = 16 + 1 + 2 + 3*4 + 2*8 + 2*4 + 4*timeBytes
	entryBytes = 4 + 8 + 1 + 8 + 1
)

func (f frame) id(id fs.ID) frame { return f.u64(id.FS).u64(id.Ino) }
func (c *cursor) id() fs.ID       { return fs.ID{FS: c.u64(), Ino: c.u64()} }

func (f frame) time(t fs.Time) frame { return f.i64(t.Sec).u32(t.Nsec) }
func (c *cursor) time() fs.Time      { return fs.Time{Sec: c.i64(), Nsec: c.u32()} }

func (f frame) attr(a *fs.Attr) frame {
	f = f.id(a.ID).u8(uint8(a.Type)).u16(a.Perm).u32(a.Nlink).u32(a.UID).u32(a.GID)
	f = f.i64(a.Size).i64(a.Used).u32(a.Major).u32(a.Minor)
	return f.time(a.Atime).time(a.Mtime).time(a.Ctime).time(a.Btime)
}

// attr takes an Attr and says whether one can be like that.
func (c *cursor) attr() (fs.Attr, error) {
	a := fs.Attr{ID: c.id(), Type: fs.Type(c.u8()), Perm: c.u16(), Nlink: c.u32(), UID: c.u32(), GID: c.u32(),
		Size: c.i64(), Used: c.i64(), Major: c.u32(), Minor: c.u32(),
		Atime: c.time(), Mtime: c.time(), Ctime: c.time(), Btime: c.time(), Fixed: true}
	switch {
	case c.bad:
		return fs.Attr{}, errProtocol
	case a.ID.FS != 0 || a.ID.Ino == 0:
		return fs.Attr{}, damaged("inode %d/%d", a.ID.FS, a.ID.Ino)
	case a.Type == fs.TypeUnknown || a.Type > fs.TypeSocket:
		return fs.Attr{}, damaged("inode %d is a %v", a.ID.Ino, a.Type)
	case a.Perm > 0o7777 || a.Size < 0 || a.Used < 0:
		return fs.Attr{}, damaged("inode %d: permissions %#o, size %d, used %d", a.ID.Ino, a.Perm, a.Size, a.Used)
	case max(a.Atime.Nsec, a.Mtime.Nsec, a.Ctime.Nsec, a.Btime.Nsec) > 999_999_999:
		return fs.Attr{}, damaged("inode %d: a time of more nanoseconds than a second has", a.ID.Ino)
	}
	return a, nil
}

func (f frame) entry(e *fs.Entry) frame {
	f = f.str(e.Name).u64(e.ID.Ino).u8(uint8(e.Type)).u64(e.Cookie).flag(e.Attr != nil)
	if e.Attr != nil {
		f = f.attr(e.Attr)
	}
	return f
}

func (c *cursor) entry() (fs.Entry, error) {
	e := fs.Entry{Name: c.str(maxName), ID: fs.ID{Ino: c.u64()}, Type: fs.Type(c.u8()), Cookie: c.u64()}
	if c.flag() {
		a, err := c.attr()
		if err != nil {
			return e, err
		}
		if a.ID != e.ID || e.Type != fs.TypeUnknown && e.Type != a.Type {
			return e, damaged("entry %q is not what it leads to", e.Name)
		}
		e.Attr = &a
	}
	switch {
	case c.bad:
		return e, errProtocol
	case !isName(e.Name):
		return e, damaged("entry %q: no name", e.Name)
	case e.ID.Ino == 0 || e.Type > fs.TypeSocket || e.Cookie == 0 || e.Cookie > 1<<63-3:
		return e, damaged("entry %q: inode %d, %v, cookie %d", e.Name, e.ID.Ino, e.Type, e.Cookie)
	}
	return e, nil
}

// entries takes a part of a directory. No name and no cookie is there twice,
// nor is after, the cookie behind which the part begins.
func (c *cursor) entries(after uint64) ([]fs.Entry, error) {
	n := c.count(entryBytes)
	list := make([]fs.Entry, 0, n)
	names := make(map[string]bool, n)
	cookies := map[uint64]bool{after: true}
	for range n {
		e, err := c.entry()
		if err != nil {
			return nil, err
		}
		if names[e.Name] || cookies[e.Cookie] {
			return nil, damaged("entry %q: name or cookie is there twice", e.Name)
		}
		names[e.Name], cookies[e.Cookie] = true, true
		list = append(list, e)
	}
	return list, nil
}

// ahead is a span of a file that comes with its directory.
func (f frame) ahead(list []fs.Extent, last bool) frame { return f.flag(last).extents(list) }

func (c *cursor) ahead(id fs.ID, size int64) (*span, error) {
	s := &span{id: id, last: c.flag(), ahead: true}
	var err error
	if s.extents, err = c.extents(0, size); err != nil || c.bad || len(s.extents) == 0 {
		return nil, err
	}
	s.end = endOf(s.extents)
	return s, nil
}

const extentBytes = 8 + 1 + 8

func (f frame) extents(list []fs.Extent) frame {
	f = f.u32(uint32(len(list)))
	for _, e := range list {
		f = f.i64(e.Len).u8(uint8(e.Kind)).i64(e.At)
	}
	return f
}

// extents takes extents that lie one behind the other from off on, and whose
// bytes lie on a volume of size bytes.
func (c *cursor) extents(off, size int64) ([]fs.Extent, error) {
	n := c.count(extentBytes)
	list := make([]fs.Extent, 0, n)
	for range n {
		e := fs.Extent{Off: off, Len: c.i64(), Kind: fs.ExtentKind(c.u8()), At: c.i64()}
		switch {
		case c.bad:
			return nil, errProtocol
		case e.Len <= 0 || e.Len > 1<<63-1-off:
			return nil, damaged("extent at %d of %d bytes", e.Off, e.Len)
		case e.Kind > fs.Made:
			return nil, damaged("extent at %d of kind %d", e.Off, e.Kind)
		case e.Kind == fs.Stored && (e.At < 0 || e.At > size || e.Len > size-e.At):
			return nil, damaged("extent at %d: bytes %d and %d more are not on a volume of %d", e.Off, e.At, e.Len, size)
		}
		if e.Kind != fs.Stored {
			e.At = 0
		}
		list = append(list, e)
		off += e.Len
	}
	return list, nil
}

func (f frame) statfs(s *fs.StatFS) frame {
	return f.str(s.Type).str(s.Label).i64(s.BlockBytes).i64(s.Bytes).i64(s.FreeBytes).u64(s.Files).u64(s.FreeFiles).u32(uint32(s.NameBytes))
}

func (c *cursor) statfs() (fs.StatFS, error) {
	s := fs.StatFS{Type: c.str(maxName), Label: c.str(maxText), BlockBytes: c.i64(), Bytes: c.i64(), FreeBytes: c.i64(), Files: c.u64(), FreeFiles: c.u64(), NameBytes: int(c.u32())}
	if err := c.end(); err != nil {
		return fs.StatFS{}, err
	}
	if s.Type == "" || s.BlockBytes <= 0 || s.Bytes < 0 || s.FreeBytes < 0 || s.FreeBytes > s.Bytes || s.FreeFiles > s.Files || s.NameBytes > maxName {
		return fs.StatFS{}, damaged("file system of %d bytes in blocks of %d, %d free", s.Bytes, s.BlockBytes, s.FreeBytes)
	}
	return s, nil
}

func (f frame) streams(list []fs.Stream) frame {
	f = f.u32(uint32(len(list)))
	for _, s := range list {
		f = f.str(s.Name).u64(s.ID.Ino).i64(s.Size)
	}
	return f
}

func (c *cursor) streams() ([]fs.Stream, error) {
	n := c.count(4 + 8 + 8)
	var list []fs.Stream
	seen := map[string]bool{}
	for range n {
		s := fs.Stream{Name: c.str(maxName), ID: fs.ID{Ino: c.u64()}, Size: c.i64()}
		if s.Name == "" || strings.ContainsAny(s.Name, "/\x00") || s.ID.Ino == 0 || s.Size < 0 || seen[s.Name] {
			return nil, damaged("stream %q: inode %d, %d bytes", s.Name, s.ID.Ino, s.Size)
		}
		seen[s.Name] = true
		list = append(list, s)
	}
	return list, c.end()
}

func (c *cursor) xattrs() ([]string, error) {
	list := c.strs(maxName)
	if err := c.end(); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, name := range list {
		if name == "" || strings.ContainsRune(name, 0) || seen[name] {
			return nil, damaged("attribute %q", name)
		}
		seen[name] = true
	}
	return list, nil
}

func (f frame) volume(v *guest.Volume) frame {
	return f.str(v.Name).i64(v.Off).i64(v.Size).str(v.Format).str(v.Label).str(v.UUID).str(v.PartName).str(v.PartType).str(v.Why)
}

func (c *cursor) volume() guest.Volume {
	return guest.Volume{Name: c.str(maxName), Off: c.i64(), Size: c.i64(), Format: c.str(maxText), Label: c.str(maxText),
		UUID: c.str(maxText), PartName: c.str(maxText), PartType: c.str(maxText), Why: c.str(maxText)}
}

func (f frame) layout(l *guest.Layout) frame {
	f = f.str(l.Table).u32(uint32(l.SectorBytes)).u32(uint32(len(l.Volumes)))
	for i := range l.Volumes {
		f = f.volume(&l.Volumes[i])
	}
	return f.strs(l.Notes)
}

// layout takes the layout of a disk of size bytes.
func (c *cursor) layout(size int64) (guest.Layout, error) {
	l := guest.Layout{Table: c.str(maxName), SectorBytes: int(c.u32())}
	seen := map[string]bool{}
	for range c.count(4*7 + 16) {
		v := c.volume()
		switch {
		case c.bad:
			return guest.Layout{}, errProtocol
		case !isName(v.Name) || seen[v.Name]:
			return guest.Layout{}, damaged("volume %q: no name, or another's", v.Name)
		case v.Why == "" && !onDisk(v, size), v.Off < 0, v.Size < 0:
			return guest.Layout{}, damaged("volume %q: %d bytes at %d are not on a disk of %d", v.Name, v.Size, v.Off, size)
		}
		seen[v.Name] = true
		l.Volumes = append(l.Volumes, v)
	}
	l.Notes = c.strs(maxText)
	if l.SectorBytes <= 0 || l.SectorBytes > 1<<20 {
		return guest.Layout{}, damaged("sectors of %d bytes", l.SectorBytes)
	}
	return l, c.end()
}

// onDisk says whether a volume lies on a disk of size bytes.
func onDisk(v guest.Volume, size int64) bool {
	return v.Off >= 0 && v.Size >= 0 && v.Off <= size && v.Size <= size-v.Off
}
