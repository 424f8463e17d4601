// Package pack reads and writes packs, the files that hold a repository's
// chunks and nodes, and the records inside them. FORMAT.md, sections Records,
// Packs and Parity, has every byte.
//
//	┌────────┬────────┬─ … ─┬────────┬───────┐┌──────┐┌────────┐┌──────┐
//	│ header │ record │     │ record │ table ││tail A││ parity ││tail B│
//	└────────┴────────┴─ … ─┴────────┴───────┘└──────┘└────────┘└──────┘
//	 N blocks of 4 KiB, striped               T blocks m×S      T blocks
//
// A pack is read in three ways, each needing less than the one before: by the
// offsets of an index or of the record table; by the CRC table and the parity,
// which find and mend damage; and by a forward scan, which needs nothing but
// the records themselves.
//
// An Assembler lays out one record, a Builder one pack in memory. Open gives a
// File, which verifies, heals and rebuilds a pack through an io.ReaderAt. The
// package opens no files.
package pack

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// BlockBytes is the unit of damage: what has one CRC and is one shard of a
// stripe.
const BlockBytes = 4096

// Errors of this package; callers use errors.Is.
var (
	// ErrFormat says that bytes are not what the format asks for.
	ErrFormat = errors.New("not in the pack format")
	// ErrVersion says that bytes are sound, but of a version not known here.
	ErrVersion = errors.New("unknown version")
	// ErrDamaged says that bytes are lost: more blocks are bad than the parity
	// makes good, or what would tell good from bad is itself lost.
	ErrDamaged = errors.New("damaged beyond what parity heals")
	// ErrBase says that a record has a base, and that its header, which names
	// the base, is lost. It comes with ErrDamaged.
	ErrBase = errors.New("base of a record is not known")
	// ErrName says that a text is not the name or the path of a pack.
	ErrName = errors.New("not the name of a pack")
	// ErrFull says that a record does not fit the pack under construction.
	ErrFull = errors.New("pack is full")
)

// CorruptError names the place in a pack that could not be read as written.
type CorruptError struct {
	Pack   Name
	Offset int64 // in bytes from the pack's start
	Err    error // wraps ErrFormat, ErrVersion or ErrDamaged
}

// Error names pack, offset and cause.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("pack %s at %d: %v", e.Pack, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// castagnoli is only read once made.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }
