// Package datastore is the tree of one NFS datastore: what a hypervisor mounts
// once and leaves, and where every instant recovery is a directory.
//
// The root has a small writable tree of its own, with a quota. Each session is a
// directory in it whose small files (vmx, descriptors, logs, locks, swap) are
// kept here and whose disks are something else's: a [Disk], in general a restore
// point under a redirect layer. A [Store] is an fs.WriteTree, and all that nfs
// likes a tree to be besides.
//
// # Numbers that stay
//
// An inode's number is the 24-bit number of its session, 0 for the root, above a
// 40-bit number within it. Neither is given twice, not even after a session was
// removed or the power went. So file handles are good for as long as the object
// is there, and never lead to another one. Places in directories come from a
// counter that is stored too.
//
// # What is where
//
//	lock              held while the store is open
//	root/             the root's own tree
//	sNNNNNN/          a session's, its number in hex
//	  journal.0 .1    two files that take turns
//	  fNNNNNNNNNN     bytes of a file that is large, its inode in hex
//
// A journal begins with a snapshot of the whole tree; changes follow. Files up
// to 64 KiB are in the journal with their names, larger ones have a sparse file
// of their own. FORMAT.md has the bytes. A store knows nothing of other files in
// these directories, and leaves them alone.
//
// # What is durable when
//
// A change of a name or of attributes is in the journal when the call returns,
// and one sync serves all who wait. Nobody sees a change before it is durable:
// who looks at an inode that is being changed waits for the sync. Space for a
// change is taken before it is made; both journal files are preallocated for
// what the tree needs, so that lock files can be made and written, and the
// journal be turned, on a volume without a free byte.
//
// Written bytes that need not be durable yet are in memory or in the page cache
// until Commit. Before the first such write to a file is answered, its inode is
// marked in the journal: after a crash the times of marked inodes are later than
// any that were seen.
//
// # When a sync fails
//
// What it was to make durable counts as lost. The tree of that session goes back
// to its last durable state, in another journal file, the verifier changes, and
// everybody who waited gets an error. The second time the session becomes
// read-only. A journal that contradicts itself takes its session offline, and no
// other.
package datastore
