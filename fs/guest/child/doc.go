// Package child reads guest file systems in another process, which can harm
// nothing: what lies in a backed-up disk was written by strangers, and the code
// that makes sense of it is large.
//
// # Who does what
//
// Start begins the program again with a hidden verb (Options.Command), one end
// of a socket pair as its descriptor 3, no other descriptors, no environment.
// There Main gives up all it may do (confine) and then answers questions about
// volumes by means of guest.Direct. It has no disk: blocks are asked of the
// parent, who owns the Disk, and kept in a small cache.
//
// The parent's Child is a guest.Reader, and the trees it opens are fs.Trees.
// The bytes of files cross the border only where they must: the parent asks
// where they lie (fs.Extents) and reads what is fs.Stored from its own Disk;
// holes it fills itself; only fs.Made bytes come from the child.
//
// # Trust
//
// The parent takes every byte from the child as hostile: lengths are bounded
// before anything is allocated, names, attributes, extents and volumes are
// checked against what package fs allows and against the disk's size, and what
// is wrong becomes fs.ErrDamaged. A child that breaks the protocol is killed.
// The child takes what it is told by the parent as true.
//
// A request may take Options.CPU of processor time and Options.Wall without
// waiting for the disk. A child that takes longer, runs out of memory or
// crashes is killed, and the requests under way fail with fs.ErrRetry, the one
// that was at fault with fs.ErrDamaged. The next request starts another child,
// in which trees are opened again as they are used; IDs and cookies stay good.
//
// # Protocol
//
// Both directions carry frames, numbers little-endian:
//
//	uint32 length of the body · uint8 kind · uint64 number · body
//
// The number pairs an answer with its question; each side counts its own. Any
// number of questions may be under way at once, in both directions, up to
// maxCalls and maxReads. A body is at most maxBody bytes. In it, a string or a
// run of bytes has its length before it as uint32, a list its count as uint32.
//
//	config  → protocol version, bytes of memory: the first frame, once
//	hello   ← protocol version, what confines the child, what could not
//	layout  → number and size of a disk
//	open    → number of a tree and of its disk, disk size, volume
//	close   → tree
//	attr, lookup, readDir, readLink, readAt, extents, statfs, xattrs, xattr,
//	streams → tree, then the arguments of the method
//	ahead   → tree, inodes of files of which the first extents are wanted
//	cancel  → the number is that of the question which needs no answer any more
//	answer  ← an error (zero length and bits if none), then the results
//	read    ← disk, offset, length
//	block   → an error, then the bytes
//
// The answer to readDir has the attributes of the entries and, when the parent
// sees that the files are being read too, their first extents: a tree of small
// files then takes one question for each directory. Where that was not seen, the
// extents of files that follow in a directory are asked for together (ahead.go).
//
// An error is uint16 bits for the sentinels that it wraps, uint64 number of the
// disk's error that caused it, or 0, and text. See wire.go and message.go.
package child
