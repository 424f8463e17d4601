package nfs

import (
	"encoding/binary"

	"holdfast/fs"
	"holdfast/nfs/internal/xdr"
)

// A file handle is 32 bytes, the same for an inode as long as its export keeps
// its ID and Key:
//
//	0   version, 1
//	1   three zeros
//	4   export ID, big-endian, as the rest
//	8   file system within the tree
//	16  inode number
//	24  SipHash-2-4 of the 24 bytes before, under the export's key
const (
	handleBytes    = 32
	handleVersion  = 1
	maxHandleBytes = 64 // NFS3_FHSIZE
)

// handle returns the file handle of an inode.
func (e *export) handle(id fs.ID) (h [handleBytes]byte) {
	h[0] = handleVersion
	binary.BigEndian.PutUint32(h[4:], e.ID)
	binary.BigEndian.PutUint64(h[8:], id.FS)
	binary.BigEndian.PutUint64(h[16:], id.Ino)
	binary.BigEndian.PutUint64(h[24:], sipHash(&e.Key, h[:24]))
	return h
}

func (e *export) putHandle(w *xdr.Writer, id fs.ID) {
	h := e.handle(id)
	w.Opaque(h[:])
}

// resolve finds what a handle stands for. nfsStale where the export is gone,
// nfsBadHandle for what we have not made.
func (x *exports) resolve(h []byte) (*export, fs.ID, error) {
	if len(h) != handleBytes || binary.BigEndian.Uint32(h) != handleVersion<<24 {
		return nil, fs.ID{}, nfsBadHandle
	}
	e := x.byID[binary.BigEndian.Uint32(h[4:])]
	if e == nil {
		return nil, fs.ID{}, nfsStale
	}
	if sipHash(&e.Key, h[:24]) != binary.BigEndian.Uint64(h[24:]) {
		return nil, fs.ID{}, nfsBadHandle
	}
	return e, fs.ID{FS: binary.BigEndian.Uint64(h[8:]), Ino: binary.BigEndian.Uint64(h[16:])}, nil
}

// fileID is an inode's number as clients see it, unique in the export. Trees
// that are one file system show their own numbers; of others those are mixed
// with the file system's.
func (e *export) fileID(id fs.ID) uint64 {
	if id.FS == e.root.FS {
		return id.Ino
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], id.FS)
	binary.BigEndian.PutUint64(b[8:], id.Ino)
	return sipHash(&[16]byte{}, b[:]) | 1<<63
}
