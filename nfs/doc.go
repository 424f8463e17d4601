// Package nfs serves trees of files over NFS version 3 (RFC 1813), for
// hypervisors that run machines from them: a server with the MOUNT protocol on
// the same port and a port mapper beside it. CONFORMANCE.md goes through the
// specification section by section.
//
// # How a request is served
//
//	conn        reads records, decodes the header, finds the object
//	 ├ inline   what a tree has in memory is answered at once, many replies in one write
//	 ├ replies  what changes something and was asked before is answered from memory
//	 └ sched    everything else goes to workers: attributes, reads, writes and
//	            changes of names have their own, so none waits behind another kind
//	sender      replies leave in any order, short ones first, without making anybody
//	            wait but the client that doesn't take them
//
// Bytes held for requests and replies are counted for each connection and for
// all; see Options. Nothing that a client sends ends the process: what can't be
// decoded is refused as RFC 5531 says, what panics is answered SYSTEM_ERR.
//
// # What clients rely on
//
// A file handle names an inode, not a path, and is good for as long as the
// export keeps its id and key. Bytes are on disk when a reply says FILE_SYNC, or
// when COMMIT gives the verifier that the WRITE gave. What changes names is done
// once, even if the reply was lost and the server ended meanwhile, if the tree
// is an fs.RecordTree. A READ is short only at the end of the file.
package nfs
