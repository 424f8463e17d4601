package ntfs

import (
	"fmt"

	"holdfast/fs"
)

// stride is how far apart the numbers of an update sequence stand, whatever the
// sector size.
const stride = 512

// The volume's own files, by number; people's begin behind them.
const (
	fileMFT     = 0
	fileLog     = 2
	fileVolume  = 3
	fileRoot    = 5
	fileBitmap  = 6
	fileSecure  = 9
	fileUpCase  = 10
	firstPublic = 16
)

const (
	recordInUse = 1 << iota
	recordIsDir
)

// ref is a file reference: a record's number and, above, its sequence number,
// which rises when the record goes to another file.
type ref uint64

func (r ref) num() uint64 { return uint64(r) & (1<<48 - 1) }
func (r ref) seq() uint16 { return uint16(r >> 48) }

// record is one record of the MFT with its update sequence undone.
type record struct {
	num   uint64
	b     []byte // up to the bytes in use
	seq   uint16
	links uint16
	flags uint16
	base  ref // of an extension record: whose it is; else 0
	first int // where the attributes begin
}

// owner is the file that a record is part of.
func (r record) owner() ref {
	if r.base != 0 {
		return r.base
	}
	return ref(r.num | uint64(r.seq)<<48)
}

// record reads a record, in use or not; ErrStale if the MFT has no such or it
// was never used.
func (f *FS) record(num uint64) (record, error) {
	if num >= f.records {
		return record{}, fmt.Errorf("file record %d of %d: %w", num, f.records, fs.ErrStale)
	}
	b := make([]byte, f.recordBytes)
	if err := f.readMFT(b, int64(num)*int64(f.recordBytes)); err != nil {
		return record{}, fmt.Errorf("file record %d: %w", num, err)
	}
	return parseRecord(num, b)
}

// parseRecord takes over b. Source: Linux-NTFS documentation, "FILE Record".
func parseRecord(num uint64, b []byte) (record, error) {
	if [4]byte(b) == [4]byte{} {
		return record{}, fmt.Errorf("file record %d: %w", num, fs.ErrStale)
	}
	if err := fixup(b, "FILE"); err != nil {
		return record{}, fmt.Errorf("file record %d: %w", num, err)
	}
	r := record{
		num:   num,
		seq:   le.Uint16(b[0x10:]),
		links: le.Uint16(b[0x12:]),
		flags: le.Uint16(b[0x16:]),
		base:  ref(le.Uint64(b[0x20:])),
		first: int(le.Uint16(b[0x14:])),
	}
	used := le.Uint32(b[0x18:])
	if used > uint32(len(b)) || r.first%8 != 0 || r.first < 0x28 || r.first+8 > int(used) {
		return record{}, fmt.Errorf("file record %d: attributes at %d and %d bytes in use of %d: %w",
			num, r.first, used, len(b), fs.ErrDamaged)
	}
	r.b = b[:used]
	return r, nil
}

// fixup undoes the update sequence of a record or an index block, and checks
// its magic.
func fixup(b []byte, magic string) error {
	if got := string(b[:4]); got != magic {
		if got == "BAAD" {
			return fmt.Errorf("marked BAAD, which is how chkdsk calls a torn write: %w", fs.ErrDamaged)
		}
		return fmt.Errorf("begins with %q instead of %q: %w", got, magic, fs.ErrDamaged)
	}
	at, count := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if at < 8 || at%2 != 0 || count != len(b)/stride+1 || at+2*count > stride-2 {
		return fmt.Errorf("update sequence of %d at %d: %w", count, at, fs.ErrDamaged)
	}
	number := [2]byte(b[at:])
	for i := 1; i < count; i++ {
		end := i*stride - 2
		if [2]byte(b[end:]) != number {
			return fmt.Errorf("update sequence broken in part %d of %d, so it was written in part: %w", i, count-1, fs.ErrDamaged)
		}
		copy(b[end:end+2], b[at+2*i:])
	}
	return nil
}
