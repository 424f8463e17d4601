// Package holdfast is the root of a backup-storage appliance. It holds no code,
// only the tests that keep the tree in order; this is the map.
//
//	repo        the repository: create, open, write and read restore points
//	  chunk     frames and chunks: geometry and digests
//	  seal      keys, encryption and compression of one frame
//	  pack      the pack file: records, parity, healing
//	  blockfile sorted rows in blocks: what index and refcount files share
//	  index     chunk or node id → pack, offset, length; on disk and in memory
//	  blockmap  the Merkle tree of one disk: change, compare, walk
//	  ledger    the hash-chained, signed record of what was made
//	  vfs       the few file operations we use: real, crashable, fault-injecting
//	  repotest  a model repository, generators, an invariant checker
//	image       virtual disks as ReadAt, Size, NextData; Open detects the format
//	  vmdk      one format each, reader and writer; vhd, vhdx, qcow2 beside it
//	  part      partition tables
//	  vmtest    machines in qemu, for tests
//	fs          Tree: a file system as inodes; path resolution and walks on it
//	  guest     what is on a Disk: volumes, and a Tree of those we can read
//	    ext4    one file system each; ntfs, fat beside it
//	    child   does the reading in a confined process of its own
//	  content   backups as a Tree: machines, restore points, disks, guests' files
//	  datastore a writable Tree: small files beside redirected disks
//	  extract   files out of a Tree: copies, tar, zip
//	  compare   in what two Trees differ
//	  mount     serves a Tree through FUSE
//	  treetest  the suite that every Tree passes
//	nfs         serves Trees over NFS version 3, with MOUNT and a port mapper
//	  nfstest   a client, and a maker of load
//	  mounttest what a kernel shows of a directory that it has mounted
//	appliance   composes everything
//	  cli       the command line, one file per verb
//	  cmd       the program, holdfast
//	internal    for the project alone: what tests need of a machine (testreq),
//	            the demo of "make run", benchmarks, end-to-end tests
//
// image gives blocks, fs gives names, repo remembers, appliance decides.
// deps_test.go says which package may import which. repo/FORMAT.md is the format
// of everything that is stored.
package holdfast
