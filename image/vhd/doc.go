// Package vhd reads the virtual disks of Virtual PC and of Hyper-V before VHDX:
// fixed, dynamic and differencing.
//
// All numbers are big-endian, places are bytes unless said otherwise, and a
// sector has 512 bytes.
//
//	fixed                   dynamic, differencing
//	─────                   ─────────────────────
//	the disk                copy of the footer     512 bytes
//	footer, 512 bytes       header                 1024 bytes, see header.go
//	                        block table            uint32 per block: its sector, ffffffff absent
//	                        names of the parent    in a differencing disk
//	                        blocks, in any order
//	                        footer                 512 bytes, see footer.go
//
// A block is a bitmap, one bit per sector of the disk and padded to whole
// sectors, and the sectors themselves. The most significant bit of the first
// byte belongs to the first sector. A sector whose bit is set is held; any other
// is the parent's, and zeros in a dynamic disk.
//
// # What is believed
//
// The footer at the end says what the file is; its copy in front, which in a
// fixed disk is a sector of the guest's, counts when there is no footer at the
// end, as after a crash. If both are there and speak of a dynamic disk they must
// agree. The length of the disk is the footer's current size. (QEMU shows less
// for disks of some programs: what cylinders, heads and sectors make.)
//
// The parent's unique ID must be the one that the child recorded. Of time
// stamps, the child records when its parent was last modified, some programs by
// the parent's footer and others by the date of its file; a footer made later
// than that record means that the parent was changed after the child was made,
// and is refused.
//
// Source: Microsoft Virtual Hard Disk Image Format Specification, 1.0.
package vhd
