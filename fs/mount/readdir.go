package mount

import (
	"context"
	"errors"
	"math"
	"strings"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
)

// Places in a directory, as the kernel has them: what an entry has stands for
// what is behind it.
const (
	placeDot     = 1 // behind "."
	placeDots    = 2 // behind "..": the beginning of the tree's own entries
	maxCookie    = math.MaxInt64 - placeDots
	maxNameBytes = 1024 // of the kernel's FUSE; NTFS has names of 765
)

// What an entry takes in an answer beside its name, which is padded to 8 bytes.
// Source: linux/fuse.h, fuse_dirent and fuse_direntplus.
const (
	direntBytes     = 24
	direntPlusBytes = int(unsafe.Sizeof(fuse.EntryOut{})) + direntBytes
)

func (s *served) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := s.node(&in.InHeader)
	if err != nil {
		return s.status(err)
	}
	s.opened.Add(1)
	if n.fixed {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	}
	return fuse.OK
}

func (s *served) ReleaseDir(*fuse.ReleaseIn) { s.opened.Add(-1) }

// ReadDir answers with names only.
func (s *served) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r := s.begin(cancel)
	defer r.end()
	return s.readDir(r, in, func(_ node, e fs.Entry, d fuse.DirEntry) bool { return out.AddDirEntry(d) }, direntBytes)
}

// ReadDirPlus answers with attributes too, where they can be had: what can't be
// described is there by its name, and asking for it tells why. It is what every
// listing asks for. (Linux would also decide that by itself, but with the first
// part of a directory, and most programs list all of it before they look at what
// is in it. Then each file is a question of its own, which takes eight times as
// long as this takes for a file that nobody looks at.)
func (s *served) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r := s.begin(cancel)
	defer r.end()
	return s.readDir(r, in, func(dir node, e fs.Entry, d fuse.DirEntry) bool {
		a := e.Attr
		if a == nil && d.Name != "." && d.Name != ".." {
			// One after the other here is cheaper than one question each from
			// whoever lists a directory to look at what is in it.
			if got, err := s.tree.Attr(r, e.ID); err == nil {
				a = &got
			}
		}
		describe := a != nil && checkAttr(*a) == nil
		if describe {
			d.Mode = typeMode(a.Type)
		}
		entry := out.AddDirLookupEntry(d)
		if entry != nil && describe {
			s.fillEntry(entry, dir, *a)
		}
		return entry != nil
	}, direntPlusBytes)
}

// readDir calls add for the entries from in.Offset on, as many as fit.
func (s *served) readDir(r *request, in *fuse.ReadIn, add func(dir node, e fs.Entry, d fuse.DirEntry) bool, each int) fuse.Status {
	dir, err := s.node(&in.InHeader)
	if err != nil {
		return s.status(err)
	}
	if in.Offset > math.MaxInt64 {
		return fuse.EINVAL
	}
	place := in.Offset
	if place < placeDot {
		add(dir, fs.Entry{}, fuse.DirEntry{Name: ".", Ino: shown(dir.id), Mode: syscall.S_IFDIR, Off: placeDot})
		place = placeDot
	}
	if place < placeDots {
		up, err := s.parent(r, dir)
		if err != nil {
			return s.status(err)
		}
		add(dir, fs.Entry{}, fuse.DirEntry{Name: "..", Ino: shown(up), Mode: syscall.S_IFDIR, Off: placeDots})
		place = placeDots
	}
	// What adds nothing to the answer would look like the end of the directory.
	for cookie := place - placeDots; ; {
		entries, err := s.entries(r, dir, cookie, int(in.Size), each)
		told := 0
		for _, e := range entries {
			if e.Cookie > maxCookie {
				return fuse.Status(syscall.EOVERFLOW)
			}
			cookie = e.Cookie
			if !nameable(e.Name) {
				s.reasons.tell("a name that Linux can't show was left out", "name", e.Name)
				continue
			}
			if !add(dir, e, fuse.DirEntry{Name: e.Name, Ino: shown(e.ID), Mode: typeMode(e.Type), Off: e.Cookie + placeDots}) {
				return fuse.OK
			}
			told++
		}
		if told > 0 {
			return fuse.OK // if there was an error it comes again when the kernel goes on here
		}
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return s.status(err)
		}
		if len(entries) == 0 {
			return fuse.OK
		}
	}
}

// parent is the directory above one. Nobody needs its number to get there, so
// that one whose parent damage has hidden is listed all the same, with its own.
func (s *served) parent(r *request, dir node) (fs.ID, error) {
	up, err := s.tree.Lookup(r, dir.id, "..")
	switch {
	case err == nil:
		return up.ID, nil
	case r.Err() != nil, errors.Is(err, fs.ErrRetry), errors.Is(err, context.Canceled):
		return fs.ID{}, err
	}
	s.reasons.tell("a directory is listed without its parent", "err", err)
	return dir.id, nil
}

// entries lists what is in a directory behind cookie, as much as fits into room
// bytes but at least one entry. The tree may hold locks while it lists, so it is
// asked about them afterwards.
func (s *served) entries(r *request, dir node, cookie uint64, room, each int) (list []fs.Entry, err error) {
	err = s.tree.ReadDir(r, dir.id, cookie, func(e fs.Entry) bool {
		room -= each + (len(e.Name)+7)&^7
		if room >= 0 || len(list) == 0 {
			list = append(list, e)
		}
		return room >= 0
	})
	return list, err
}

// nameable says whether the kernel takes a name. One that it doesn't take would
// hide the whole directory.
func nameable(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxNameBytes && !strings.ContainsAny(name, "/\x00")
}
