// Package vmdk reads and writes VMware virtual disks.
//
// Read are the text descriptor with FLAT, VMFS, ZERO, SPARSE, VMFSSPARSE and
// SESPARSE extents (monolithicFlat, vmfs, twoGbMaxExtentFlat,
// twoGbMaxExtentSparse, vmfsSparse, seSparse) and the hosted sparse extent with
// its descriptor inside (monolithicSparse, streamOptimized). Written are
// streamOptimized, as a stream, and the descriptor of monolithicFlat; views show
// both as files that are stored nowhere.
//
// A disk with a parent, as every snapshot makes one, holds what was written
// since. What its extents say is absent is read from the parent, which the
// caller opens by the name in the descriptor, and which must have the CID that
// the descriptor gives. Grains that read as zeros are not absent.
//
// All three kinds of extent keep grains, in any order, that a table per stretch
// of the disk points to, and a directory of the tables: cowd.go and sesparse.go
// have the other two.
//
// # The hosted sparse extent
//
// All numbers are little-endian; all places and most lengths count sectors of
// 512 bytes.
//
//	header        one sector, see header.go
//	descriptor    text, when the file is a whole disk
//	grains        grainSize sectors each, in any order
//	grain tables  512 x uint32: the sector of each grain; 0 absent, 1 zeros
//	directory     one uint32 per grain table: its sector; 0 absent
//
// A streamOptimized extent is made to be written and read from front to back.
// Each grain is a zlib stream behind a marker, padded to a sector, and tables
// follow what they describe; the header says "directory at the end", and a copy
// of the header just before the end, the footer, says where it is:
//
//	header  descriptor  (marker grain)*  GT marker, table  …  GD marker, directory
//	footer marker, footer  end-of-stream marker
//
//	grain marker     uint64 first sector of the grain in the disk, uint32 bytes
//	                 of the zlib stream, which follows at once
//	other marker     uint64 sectors that follow, uint32 0, uint32 kind, to 512 bytes
//
// Source: VMware Virtual Disk Format 5.0.
package vmdk
