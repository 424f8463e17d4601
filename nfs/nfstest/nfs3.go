package nfstest

import (
	"fmt"
)

// Procedures of NFS version 3.
const (
	Null = iota
	GetAttr
	SetAttr
	Lookup
	Access
	ReadLink
	Read
	Write
	Create
	Mkdir
	Symlink
	Mknod
	Remove
	Rmdir
	Rename
	Link
	ReadDir
	ReadDirPlus
	FSStat
	FSInfo
	PathConf
	Commit
)

// Status is an nfsstat3 or mountstat3 that is not 0.
type Status uint32

func (s Status) Error() string { return fmt.Sprintf("NFS status %d", uint32(s)) }

// Statuses.
const (
	Perm        Status = 1
	NoEnt       Status = 2
	IO          Status = 5
	Acces       Status = 13
	Exist       Status = 17
	XDev        Status = 18
	NotDir      Status = 20
	IsDir       Status = 21
	Inval       Status = 22
	FBig        Status = 27
	NoSpc       Status = 28
	ROFS        Status = 30
	NameTooLong Status = 63
	NotEmpty    Status = 66
	Stale       Status = 70
	BadHandle   Status = 10001
	NotSync     Status = 10002
	BadCookie   Status = 10003
	NotSupp     Status = 10004
	TooSmall    Status = 10005
	BadType     Status = 10007
	Jukebox     Status = 10008
)

// Handle is a file handle.
type Handle []byte

// Time is an nfstime3.
type Time struct{ Sec, Nsec uint32 }

// Attr is a fattr3.
type Attr struct {
	Type, Mode, Nlink, UID, GID uint32
	Size, Used                  uint64
	Major, Minor                uint32
	FSID, FileID                uint64
	Atime, Mtime, Ctime         Time
}

func (d *Decoder) time() Time { return Time{d.Uint32(), d.Uint32()} }

// Attr decodes a fattr3.
func (d *Decoder) Attr() Attr {
	return Attr{
		d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32(), d.Uint64(), d.Uint64(), d.Uint32(), d.Uint32(),
		d.Uint64(), d.Uint64(), d.time(), d.time(), d.time(),
	}
}

// PostOp decodes a post_op_attr.
func (d *Decoder) PostOp() *Attr {
	if !d.Bool() {
		return nil
	}
	a := d.Attr()
	return &a
}

// Pre is a wcc_attr.
type Pre struct {
	Size         uint64
	Mtime, Ctime Time
}

// Wcc is a wcc_data.
type Wcc struct {
	Before *Pre
	After  *Attr
}

// Wcc decodes a wcc_data.
func (d *Decoder) Wcc() Wcc {
	var w Wcc
	if d.Bool() {
		w.Before = &Pre{d.Uint64(), d.time(), d.time()}
	}
	w.After = d.PostOp()
	return w
}

// NFS makes a call of NFS and decodes the status of its results: a Status as
// error, and what follows it in either case.
func (c *Client) NFS(proc uint32, args ...any) (*Decoder, error) {
	return c.status(c.Call(NFS, 3, proc, Words(args...)))
}

func (c *Client) status(res []byte, err error) (*Decoder, error) {
	if err != nil {
		return nil, err
	}
	d := &Decoder{B: res}
	if s := d.Uint32(); s != 0 {
		return d, Status(s)
	}
	return d, d.err
}

// Mount asks for the handle of a path.
func (c *Client) Mount(path string) (Handle, error) {
	d, err := c.status(c.Call(Mount, 3, 1, Words(path)))
	if err != nil {
		return nil, err
	}
	h := Handle(d.Opaque())
	if n := d.Uint32(); n == 0 || d.Uint32() != 1 {
		return nil, fmt.Errorf("nfstest: %d flavours, AUTH_SYS not the first", n)
	}
	d.B = nil
	return h, d.err
}

// GetAttr asks for attributes.
func (c *Client) GetAttr(h Handle) (Attr, error) {
	d, err := c.NFS(GetAttr, h)
	if err != nil {
		return Attr{}, err
	}
	a := d.Attr()
	return a, d.Err()
}

// Lookup asks for what a directory has under a name.
func (c *Client) Lookup(dir Handle, name string) (Handle, *Attr, error) {
	d, err := c.NFS(Lookup, dir, name)
	if err != nil {
		return nil, nil, err
	}
	h, a := Handle(d.Opaque()), d.PostOp()
	d.PostOp()
	return h, a, d.Err()
}

// ReadResult is a READ3resok.
type ReadResult struct {
	Attr *Attr
	Data []byte
	EOF  bool
}

// Read reads.
func (c *Client) Read(h Handle, off uint64, n uint32) (ReadResult, error) {
	d, err := c.NFS(Read, h, off, n)
	if err != nil {
		return ReadResult{}, err
	}
	return d.read()
}

func (d *Decoder) read() (ReadResult, error) {
	r := ReadResult{Attr: d.PostOp()}
	count := d.Uint32()
	r.EOF = d.Bool()
	r.Data = d.Opaque()
	if err := d.Err(); err != nil || int(count) != len(r.Data) {
		return r, ErrReply
	}
	return r, nil
}

// How WRITE is to be done, and was.
const (
	Unstable = iota
	DataSync
	FileSync
)

// WriteResult is a WRITE3resok.
type WriteResult struct {
	Wcc       Wcc
	Count     uint32
	Committed uint32
	Verifier  uint64
}

// Write writes.
func (c *Client) Write(h Handle, off uint64, p []byte, how uint32) (WriteResult, error) {
	d, err := c.NFS(Write, h, off, len(p), how, p)
	if err != nil {
		return WriteResult{}, err
	}
	return d.write()
}

func (d *Decoder) write() (WriteResult, error) {
	r := WriteResult{d.Wcc(), d.Uint32(), d.Uint32(), d.Uint64()}
	return r, d.Err()
}

// Commit commits all of a file.
func (c *Client) Commit(h Handle) (verifier uint64, err error) {
	d, err := c.NFS(Commit, h, uint64(0), 0)
	if err != nil {
		return 0, err
	}
	d.Wcc()
	v := d.Uint64()
	return v, d.Err()
}

// How CREATE is to be done.
const (
	Unchecked = iota
	Guarded
	Exclusive
)

// NoAttr is a sattr3 that sets nothing; Size sets the size, Mode the mode.
var NoAttr = Raw(Words(false, false, false, false, 0, 0))

func Size(n uint64) Raw { return Words(false, false, false, true, n, 0, 0) }
func Mode(m int) Raw    { return Words(true, m, false, false, false, 0, 0) }

// Made decodes the results of CREATE, MKDIR, SYMLINK and MKNOD.
func (d *Decoder) Made() (h Handle, a *Attr, dir Wcc) {
	if d.Bool() {
		h = Handle(d.Opaque())
	}
	return h, d.PostOp(), d.Wcc()
}

// Create makes a file, unchecked or guarded.
func (c *Client) Create(dir Handle, name string, how uint32) (Handle, error) {
	d, err := c.NFS(Create, dir, name, how, NoAttr)
	if err != nil {
		return nil, err
	}
	h, _, _ := d.Made()
	return h, d.Err()
}

// Mkdir makes a directory.
func (c *Client) Mkdir(dir Handle, name string) (Handle, error) {
	d, err := c.NFS(Mkdir, dir, name, NoAttr)
	if err != nil {
		return nil, err
	}
	h, _, _ := d.Made()
	return h, d.Err()
}

// Remove removes a name; Rmdir is for directories.
func (c *Client) Remove(dir Handle, name string) error {
	d, err := c.NFS(Remove, dir, name)
	if err != nil {
		return err
	}
	d.Wcc()
	return d.Err()
}

// Rename renames.
func (c *Client) Rename(from Handle, name string, to Handle, toName string) error {
	d, err := c.NFS(Rename, from, name, to, toName)
	if err != nil {
		return err
	}
	d.Wcc()
	d.Wcc()
	return d.Err()
}

// Entry is an entryplus3.
type Entry struct {
	FileID uint64
	Name   string
	Cookie uint64
	Attr   *Attr
	Handle Handle
}

// ReadDirPlus reads a part of a directory.
func (c *Client) ReadDirPlus(dir Handle, cookie uint64, dircount, maxcount uint32) (list []Entry, eof bool, err error) {
	d, err := c.NFS(ReadDirPlus, dir, cookie, uint64(0), dircount, maxcount)
	if err != nil {
		return nil, false, err
	}
	return d.entries(true)
}

// ReadDir reads a part of a directory.
func (c *Client) ReadDir(dir Handle, cookie uint64, count uint32) (list []Entry, eof bool, err error) {
	d, err := c.NFS(ReadDir, dir, cookie, uint64(0), count)
	if err != nil {
		return nil, false, err
	}
	return d.entries(false)
}

func (d *Decoder) entries(plus bool) (list []Entry, eof bool, err error) {
	d.PostOp()
	d.Uint64()
	for d.Bool() {
		e := Entry{FileID: d.Uint64(), Name: string(d.Opaque()), Cookie: d.Uint64()}
		if plus {
			e.Attr = d.PostOp()
			if d.Bool() {
				e.Handle = Handle(d.Opaque())
			}
		}
		list = append(list, e)
	}
	eof = d.Bool()
	return list, eof, d.Err()
}
