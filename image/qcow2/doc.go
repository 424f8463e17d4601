// Package qcow2 reads QEMU's copy-on-write disks, versions 2 and 3: plain and
// compressed (deflate, zstd) clusters, extended L2 entries, and a backing file,
// which the caller finds and opens. The disk is the active one; snapshots inside
// the file are passed over. Encrypted disks and disks with their data in another
// file are refused by name. A View shows any disk as a qcow2 file.
//
// # The format
//
// All numbers are big-endian, all places are bytes in the file. The disk is cut
// into clusters of 512 bytes to 2 MiB.
//
//	header, its extensions, the name of the backing file    the first cluster
//	L1 table    uint64 per L2 table: bits 9-55 its place, 0 absent
//	L2 table    one cluster of entries, uint64 each, or 2 x uint64 if extended
//	clusters    in any order
//
// An L2 entry is absent (the cluster is that of the backing file, zeros without
// one), a place in bits 9-55, or compressed (bit 62): with x = 62 - (cluster
// bits - 8), the place in bits 0 to x-1, and in bits x to 61 how many further
// sectors of 512 bytes the stream touches. Bit 0 says that a cluster reads as
// zeros. An extended entry has a second word for the 32 subclusters: bit i says
// that subcluster i is at the place, bit 32+i that it reads as zeros.
//
// Source: QEMU, docs/interop/qcow2.txt.
package qcow2
