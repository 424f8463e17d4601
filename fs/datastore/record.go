package datastore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"holdfast/fs"
)

// A record is one thing that became so in a tree. FORMAT.md draws them.
type record interface {
	// encode appends the record to p.
	encode(p []byte) []byte
}

// kind is the first byte of a record.
type kind uint8

const (
	kindTree kind = iota + 1
	kindCounters
	kindDisk
	kindNode
	kindEntry
	kindGone
	kindForget
	kindBytes
	kindUnits
	kindNote
	kindPage
)

// Limits of what a tree holds, and a record may say.
const (
	maxNameBytes   = 255
	maxTargetBytes = 4096
	maxDisks       = 1024
	maxIno         = 1<<inoBits - 1
	maxSession     = 1<<24 - 1
	maxCookie      = 1 << 62
	maxFileBytes   = 1 << 44 // of a large file: 16 TiB
	maxLinks       = 65000

	// inlineBytes is how long a file is at most whose bytes are in the journal.
	inlineBytes = 64 << 10
)

// keep says where the bytes of an inode are.
type keep uint8

const (
	keepNone   keep = iota // no regular file
	keepInline             // in the journal
	keepLarge              // in a file of its own
	keepDisk               // in a Disk
)

type (
	// treeRec describes the tree itself.
	treeRec struct {
		name  string // of a session's directory when it was made
		quota int64  // 0: none
	}

	// countersRec are lower bounds of what is given next.
	countersRec struct {
		ino, cookie uint64
		session     uint32  // in the root
		clock       fs.Time // no time was given that is later,
		until       fs.Time // but to marked inodes, up to this one
	}

	// diskRec is a disk of a session.
	diskRec struct {
		index uint32
		name  string
		size  int64
	}

	// inode is an inode, all of it but entries and bytes.
	inode struct {
		ino          uint64
		typ          fs.Type
		keep         keep
		exclusive    bool // made with verifier
		marked       bool // its times may have been given later ones, up to countersRec.until
		perm         uint16
		nlink        uint32
		uid, gid     uint32
		major, minor uint32
		size         int64
		atime, mtime fs.Time
		ctime, btime fs.Time
		parent       uint64 // of a directory
		disk         uint32 // of keepDisk
		used         int64  // of keepDisk: as last told
		verifier     [8]byte
		target       string // of a symbolic link
	}

	// entryRec is a name. The child is an inode, or in the root a session.
	entryRec struct {
		dir, cookie uint64
		child       uint64
		session     bool
		name        string
	}

	// goneRec takes the name of that cookie out of a directory.
	goneRec struct{ dir, cookie uint64 }

	// forgetRec ends an inode.
	forgetRec struct{ ino uint64 }

	// bytesRec are bytes written to a file that is in the journal.
	bytesRec struct {
		ino uint64
		off int64
		p   []byte
	}

	// unitsRec says that units of a large file have their bytes in its file.
	unitsRec struct{ ino, first, count uint64 }

	// pageRec are pageUnits units at once, in a snapshot.
	pageRec struct {
		ino, page uint64
		units     *unitPage
	}

	// noteRec is an fs.Note.
	noteRec struct {
		at fs.Time
		p  []byte
	}
)

func appendTime(p []byte, t fs.Time) []byte {
	p = binary.AppendVarint(p, t.Sec)
	return binary.AppendUvarint(p, uint64(t.Nsec))
}

func appendText[T string | []byte](p []byte, s T) []byte {
	p = binary.AppendUvarint(p, uint64(len(s)))
	return append(p, s...)
}

func appendNumbers(p []byte, k kind, list ...uint64) []byte {
	p = append(p, byte(k))
	for _, n := range list {
		p = binary.AppendUvarint(p, n)
	}
	return p
}

func (r treeRec) encode(p []byte) []byte {
	return appendText(appendNumbers(p, kindTree, uint64(r.quota)), r.name)
}

func (r countersRec) encode(p []byte) []byte {
	p = appendNumbers(p, kindCounters, r.ino, r.cookie, uint64(r.session))
	return appendTime(appendTime(p, r.clock), r.until)
}

func (r diskRec) encode(p []byte) []byte {
	return appendText(appendNumbers(p, kindDisk, uint64(r.index), uint64(r.size)), r.name)
}

// Bits in the flags of an inode.
const (
	flagExclusive = 1 << iota
	flagMarked
)

func (r *inode) encode(p []byte) []byte {
	var flags byte
	if r.exclusive {
		flags |= flagExclusive
	}
	if r.marked {
		flags |= flagMarked
	}
	p = appendNumbers(p, kindNode, r.ino)
	p = append(p, byte(r.typ), byte(r.keep), flags)
	for _, n := range [...]uint64{uint64(r.perm), uint64(r.nlink), uint64(r.uid), uint64(r.gid), uint64(r.size)} {
		p = binary.AppendUvarint(p, n)
	}
	for _, t := range [...]fs.Time{r.atime, r.mtime, r.ctime, r.btime} {
		p = appendTime(p, t)
	}
	if r.exclusive {
		p = append(p, r.verifier[:]...)
	}
	switch {
	case r.typ == fs.TypeDir:
		p = binary.AppendUvarint(p, r.parent)
	case r.typ == fs.TypeSymlink:
		p = appendText(p, r.target)
	case r.typ == fs.TypeCharDevice || r.typ == fs.TypeBlockDevice:
		p = binary.AppendUvarint(binary.AppendUvarint(p, uint64(r.major)), uint64(r.minor))
	case r.keep == keepDisk:
		p = binary.AppendUvarint(binary.AppendUvarint(p, uint64(r.disk)), uint64(r.used))
	}
	return p
}

func (r entryRec) encode(p []byte) []byte {
	var session uint64
	if r.session {
		session = 1
	}
	return appendText(appendNumbers(p, kindEntry, r.dir, r.cookie, session, r.child), r.name)
}

func (r goneRec) encode(p []byte) []byte   { return appendNumbers(p, kindGone, r.dir, r.cookie) }
func (r forgetRec) encode(p []byte) []byte { return appendNumbers(p, kindForget, r.ino) }

func (r bytesRec) encode(p []byte) []byte {
	return appendText(appendNumbers(p, kindBytes, r.ino, uint64(r.off)), r.p)
}

func (r unitsRec) encode(p []byte) []byte {
	return appendNumbers(p, kindUnits, r.ino, r.first, r.count)
}

func (r noteRec) encode(p []byte) []byte {
	return appendText(appendTime(append(p, byte(kindNote)), r.at), r.p)
}

func (r pageRec) encode(p []byte) []byte {
	p = appendNumbers(p, kindPage, r.ino, r.page)
	for _, w := range r.units {
		p = binary.LittleEndian.AppendUint64(p, w)
	}
	return p
}

// errRecord says that bytes are no record.
var errRecord = errors.New("no record")

// decoder takes fields off p. After the first that can't be it gives zeros.
type decoder struct {
	p   []byte
	bad bool
}

func (d *decoder) byte() (b byte) {
	if len(d.p) == 0 {
		d.bad = true
		return 0
	}
	b, d.p = d.p[0], d.p[1:]
	return b
}

// number takes one of at most limit.
func (d *decoder) number(limit uint64) uint64 {
	n, k := binary.Uvarint(d.p)
	if k <= 0 || n > limit {
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[k:]
	return n
}

func (d *decoder) uint32() uint32 { return uint32(d.number(1<<32 - 1)) }

func (d *decoder) size() int64 { return int64(d.number(1<<63 - 1)) }

func (d *decoder) time() fs.Time {
	sec, k := binary.Varint(d.p)
	if k <= 0 {
		d.bad, d.p = true, nil
		return fs.Time{}
	}
	d.p = d.p[k:]
	return fs.Time{Sec: sec, Nsec: uint32(d.number(999_999_999))}
}

// text takes at most limit bytes, which stay those of the decoder.
func (d *decoder) text(limit int) []byte {
	n := int(d.number(uint64(limit)))
	if d.bad || n > len(d.p) {
		d.bad, d.p = true, nil
		return nil
	}
	var s []byte
	s, d.p = d.p[:n:n], d.p[n:]
	return s
}

// record takes one record.
func (d *decoder) record() (record, error) {
	var r record
	k := kind(d.byte())
	switch k {
	case kindTree:
		r = treeRec{quota: d.size(), name: string(d.text(maxNameBytes))}
	case kindCounters:
		r = countersRec{d.number(maxIno), d.number(maxCookie), uint32(d.number(maxSession + 1)), d.time(), d.time()}
	case kindDisk:
		r = diskRec{uint32(d.number(maxDisks - 1)), "", d.size()}.named(string(d.text(maxNameBytes)))
	case kindNode:
		r = d.inode()
	case kindEntry:
		r = entryRec{dir: d.number(maxIno), cookie: d.number(maxCookie), session: d.number(1) == 1, child: d.number(maxIno), name: string(d.text(maxNameBytes))}
	case kindGone:
		r = goneRec{d.number(maxIno), d.number(maxCookie)}
	case kindForget:
		r = forgetRec{d.number(maxIno)}
	case kindBytes:
		r = bytesRec{d.number(maxIno), int64(d.number(inlineBytes)), d.text(inlineBytes)}
	case kindUnits:
		r = unitsRec{d.number(maxIno), d.number(maxFileBytes / unitBytes), d.number(maxFileBytes / unitBytes)}
	case kindNote:
		r = noteRec{d.time(), d.text(fs.MaxNoteBytes)}
	case kindPage:
		r = pageRec{d.number(maxIno), d.number(maxFileBytes/unitBytes/pageUnits - 1), d.page()}
	default:
		return nil, fmt.Errorf("%w: kind %d", errRecord, k)
	}
	if d.bad {
		return nil, fmt.Errorf("%w: kind %d is cut short or says what can't be", errRecord, k)
	}
	return r, nil
}

func (r diskRec) named(name string) diskRec {
	r.name = name
	return r
}

func (d *decoder) page() *unitPage {
	const n = pageUnits / 8
	if len(d.p) < n {
		d.bad, d.p = true, nil
		return nil
	}
	var page unitPage
	for i := range page {
		page[i] = binary.LittleEndian.Uint64(d.p[8*i:])
	}
	d.p = d.p[n:]
	return &page
}

func (d *decoder) inode() *inode {
	r := &inode{ino: d.number(maxIno), typ: fs.Type(d.byte()), keep: keep(d.byte())}
	flags := d.byte()
	r.exclusive, r.marked = flags&flagExclusive != 0, flags&flagMarked != 0
	d.bad = d.bad || flags >= 4
	r.perm, r.nlink = uint16(d.number(0o7777)), d.uint32()
	r.uid, r.gid, r.size = d.uint32(), d.uint32(), d.size()
	r.atime, r.mtime, r.ctime, r.btime = d.time(), d.time(), d.time(), d.time()
	if r.exclusive {
		for i := range r.verifier {
			r.verifier[i] = d.byte()
		}
	}
	switch {
	case r.typ == fs.TypeDir:
		r.parent = d.number(maxIno)
	case r.typ == fs.TypeSymlink:
		r.target = string(d.text(maxTargetBytes))
	case r.typ == fs.TypeCharDevice || r.typ == fs.TypeBlockDevice:
		r.major, r.minor = d.uint32(), d.uint32()
	case r.keep == keepDisk:
		r.disk, r.used = uint32(d.number(maxDisks-1)), d.size()
	}
	return r
}
