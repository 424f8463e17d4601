package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// Which pack was verified when stands in index/verified-NNNNNNNN. A scrub writes
// a file every few seconds, and each takes up the rows of those before it that
// are not much larger, so that there are few. All of them count: of a pack that
// stands in several, the row with the latest time. A file that is damaged costs
// what it says: its packs are verified again. See FORMAT.md, "Verified packs".

const (
	verifiedMagic   = "HFvf"
	verifiedVersion = 1
	verifiedHead    = 4 + 2 + 2 + 8 + 8 + 4
	verifiedRowLen  = 24

	maxVerifiedBytes = verifiedHead + 4 + verifiedRowLen<<24
)

// A verifiedHow says what was found to be as written.
type verifiedHow uint8

const (
	verifiedBytes   verifiedHow = 1 // the digest of the file
	verifiedRecords verifiedHow = 2 // and every record's digests
)

// A verifiedRow says when a pack was verified, in seconds since 1970.
type verifiedRow struct {
	name pack.Name
	at   uint32
	how  verifiedHow
}

func compareRows(a, b verifiedRow) int { return bytes.Compare(a.name[:], b.name[:]) }

// verifiedFile is one file in memory.
type verifiedFile struct {
	number uint64
	begun  int64         // when the scrub began that is not finished; 0: none
	rows   []verifiedRow // ascending by name, each name once
}

func (v *verifiedFile) encode() []byte {
	p := make([]byte, 0, verifiedHead+verifiedRowLen*len(v.rows)+4)
	p = append(p, verifiedMagic...)
	p = le.AppendUint16(p, verifiedVersion)
	p = le.AppendUint16(p, 0)
	p = le.AppendUint64(p, v.number)
	p = le.AppendUint64(p, uint64(v.begun))
	p = le.AppendUint32(p, uint32(len(v.rows)))
	for i := range v.rows {
		p = append(p, v.rows[i].name[:]...)
		p = le.AppendUint32(p, v.rows[i].at)
		p = append(p, byte(v.rows[i].how), 0, 0, 0)
	}
	return p
}

// parseVerified reads what encode wrote, and nothing else.
func parseVerified(number uint64, p []byte) (*verifiedFile, error) {
	if len(p) < verifiedHead || string(p[:4]) != verifiedMagic {
		return nil, fmt.Errorf("%w: no list of verified packs", ErrFormat)
	}
	if v := le.Uint16(p[4:]); v != verifiedVersion {
		return nil, fmt.Errorf("%w: list of verified packs of version %d, this program reads %d", ErrNewerFormat, v, verifiedVersion)
	}
	v := &verifiedFile{number: le.Uint64(p[8:]), begun: int64(le.Uint64(p[16:]))}
	if n := uint64(le.Uint32(p[24:])); n*verifiedRowLen != uint64(len(p)-verifiedHead) || v.number != number || v.begun < 0 {
		return nil, fmt.Errorf("%w: list %d of %d verified packs, in %d bytes", ErrFormat, v.number, n, len(p))
	}
	for p := p[verifiedHead:]; len(p) > 0; p = p[verifiedRowLen:] {
		v.rows = append(v.rows, verifiedRow{name: pack.Name(p[:16]), at: le.Uint32(p[16:]), how: verifiedHow(p[20])})
	}
	rise := slices.IsSortedFunc(v.rows, compareRows) && len(slices.CompactFunc(slices.Clone(v.rows), func(a, b verifiedRow) bool { return a.name == b.name })) == len(v.rows)
	if !rise || !bytes.Equal(v.encode(), p) {
		return nil, fmt.Errorf("%w: list of verified packs out of order, or with reserved bits set", ErrFormat)
	}
	return v, nil
}

// verified is all that is known of when packs were verified. Not safe for
// concurrent use.
type verified struct {
	fsys  vfs.FS
	files []*verifiedFile // oldest first
	next  uint64
	fresh map[pack.Name]verifiedRow // not in a file yet
}

func verifiedFiles(fsys vfs.FS) saved { return saved{fsys, "verified", maxVerifiedBytes} }

// readVerified reads what there is.
func readVerified(fsys vfs.FS, log *slog.Logger) (*verified, error) {
	files := verifiedFiles(fsys)
	list, err := files.numbers()
	if err != nil {
		return nil, fmt.Errorf("list what was verified: %w", err)
	}
	v := &verified{fsys: fsys, next: 1, fresh: make(map[pack.Name]verifiedRow)}
	if len(list) > 0 {
		v.next = list[0] + 1
	}
	for _, n := range slices.Backward(list) {
		f, err := readVerifiedFile(files, n)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // a later one has taken it up
		case err != nil:
			log.Warn("which packs were verified is not known of all", "err", err)
			continue
		}
		v.files = append(v.files, f)
	}
	return v, nil
}

func readVerifiedFile(files saved, n uint64) (*verifiedFile, error) {
	p, err := vfs.ReadFile(files.fsys, files.path(n), files.max)
	if err != nil {
		return nil, err
	}
	var f *verifiedFile
	if p, err = cutSum(p); err == nil {
		f, err = parseVerified(n, p)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files.path(n), err)
	}
	return f, nil
}

// get returns when a pack was verified last; a zero row for never.
func (v *verified) get(name pack.Name) verifiedRow {
	best := v.fresh[name]
	for _, f := range v.files {
		i, found := slices.BinarySearchFunc(f.rows, verifiedRow{name: name}, compareRows)
		if found && f.rows[i].at > best.at {
			best = f.rows[i]
		}
	}
	return best
}

// begun says when the scrub began that was not finished; the zero time: none.
func (v *verified) begun() time.Time {
	if n := len(v.files); n > 0 && v.files[n-1].begun > 0 {
		return time.Unix(v.files[n-1].begun, 0)
	}
	return time.Time{}
}

func (v *verified) add(name pack.Name, at time.Time, how verifiedHow) {
	v.fresh[name] = verifiedRow{name, uint32(at.Unix()), how}
}

// forget drops what is said of a pack that turned out damaged. It lasts as long
// as v: the list of damage says the same to others.
func (v *verified) forget(name pack.Name) {
	delete(v.fresh, name)
	for _, f := range v.files {
		f.rows = slices.DeleteFunc(f.rows, func(r verifiedRow) bool { return r.name == name })
	}
}

// flush makes durable what was added, and that the scrub begun then is not
// finished, unless that is the zero time.
func (v *verified) flush(begun time.Time) error {
	keep, rows := len(v.files), len(v.fresh)
	for keep > 0 && len(v.files[keep-1].rows) <= 2*rows+16 {
		keep--
		rows += len(v.files[keep].rows)
	}
	return v.rewrite(keep, begun, nil)
}

// finish writes everything into one file, without packs that are gone.
func (v *verified) finish(begun time.Time, there func(pack.Name) bool) error {
	return v.rewrite(0, begun, there)
}

func (v *verified) rewrite(keep int, begun time.Time, there func(pack.Name) bool) error {
	rows := make([]verifiedRow, 0, len(v.fresh))
	for _, r := range v.fresh {
		rows = append(rows, r)
	}
	for _, f := range v.files[keep:] {
		rows = append(rows, f.rows...)
	}
	slices.SortFunc(rows, func(a, b verifiedRow) int { return cmp.Or(compareRows(a, b), cmp.Compare(b.at, a.at)) })
	rows = slices.CompactFunc(rows, func(a, b verifiedRow) bool { return a.name == b.name })
	if there != nil {
		rows = slices.DeleteFunc(rows, func(r verifiedRow) bool { return !there(r.name) })
	}
	f := &verifiedFile{number: v.next, rows: rows}
	if !begun.IsZero() {
		f.begun = begun.Unix()
	}
	files := verifiedFiles(v.fsys)
	if err := vfs.WriteFile(v.fsys, files.path(f.number), appendSum(f.encode())); err != nil {
		return fmt.Errorf("note what was verified: %w", err)
	}
	v.next++
	list, err := files.numbers()
	if err != nil {
		return err
	}
	kept := append(slices.Clone(v.files[:keep]), f)
	list = slices.DeleteFunc(list, func(n uint64) bool {
		return slices.ContainsFunc(kept, func(f *verifiedFile) bool { return f.number == n })
	})
	v.files, v.fresh = kept, make(map[pack.Name]verifiedRow)
	return files.remove(list)
}

// Verified says how long ago what a repository stores was last found to be as
// it was written.
type Verified struct {
	Packs, Bytes           int64
	NeverPacks, NeverBytes int64 // no scrub has read these

	// Oldest is when the pack was verified that was longest ago; of a pack that
	// never was, when it was written. The zero time when there are no packs.
	Oldest time.Time

	// Begun is when a scrub began that is not finished; the zero time: none.
	Begun time.Time
}

// Verified tells what scrubs have noted. It reads the ledger.
func (r *Repository) Verified(ctx context.Context) (Verified, error) {
	inv, err := r.inventory(ctx)
	if err != nil {
		return Verified{}, err
	}
	v, err := readVerified(r.fsys, r.log)
	if err != nil {
		return Verified{}, err
	}
	return v.sum(inv.packs), nil
}

func (v *verified) sum(packs []storedPack) Verified {
	sum := Verified{Begun: v.begun()}
	for i := range packs {
		p := &packs[i]
		sum.Packs++
		sum.Bytes += p.Bytes
		at := p.recorded
		if row := v.get(p.Name); row.at > 0 {
			at = int64(row.at)
		} else {
			sum.NeverPacks++
			sum.NeverBytes += p.Bytes
		}
		if t := time.Unix(at, 0).UTC(); sum.Oldest.IsZero() || t.Before(sum.Oldest) {
			sum.Oldest = t
		}
	}
	return sum
}
