// Package vhdx reads the virtual disks of Hyper-V, and shows a disk as one.
//
// All numbers are little-endian. What follows lies on borders of 1 MiB.
//
//	0        file type identifier "vhdxfile", and who made the file
//	64 KiB   header, and at 128 KiB another: the newer one counts, see header.go
//	192 KiB  region table, and at 256 KiB a copy: where log, metadata and BAT lie
//	…        log, a ring of entries of 4 KiB and more, see log.go
//	…        metadata: sizes of disk, block and sectors; the parent; see metadata.go
//	…        BAT: a uint64 for each block, see bat.go
//	…        blocks, in any order
//
// A payload block holds BlockSize bytes of the disk. In a differencing disk the
// sectors of a block may be partly here and partly in the parent; a bit for each
// of 2^23 sectors then stands in a sector bitmap block, least significant bit
// first, and such a group of sectors is a chunk. The BAT has the entry of the
// sector bitmap block behind those of the payload blocks of its chunk.
//
// # The log
//
// Changes to BAT, bitmaps and metadata go through the log, so the file of a host
// that crashed is right only once its log is replayed. Open finds the active
// sequence of entries and lays what they write over the file, in memory; the
// file is not touched. Memory holds some 40 bytes for each write in the log, of
// at most 2^18: what is written is read from the log.
//
// Source: [MS-VHDX] Virtual Hard Disk v2 (VHDX) File Format, 8.0.
package vhdx
