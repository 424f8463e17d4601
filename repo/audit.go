package repo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"holdfast/repo/ledger"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// VerifyOptions say what to hold a ledger to.
type VerifyOptions struct {
	// Signers are the public keys to check signatures with; nil means those in
	// keys/. Whoever can write to the directory can put a key there, so an
	// auditor brings copies.
	Signers []seal.Public

	// Known is a head of this ledger from before, as each run prints it. Zero
	// means none: then nobody can tell a ledger that ends too early.
	Known ledger.Head

	// Packs has every pack read and compared with its digest.
	Packs    bool
	Progress func(done, total int64) // bytes of packs; may be nil
}

// LedgerReport is what VerifyLedger found.
type LedgerReport struct {
	Repository string
	Head       ledger.Head // of the last segment that follows from the first
	Time       time.Time   // of that segment
	Points     int         // kept
	Expired    int
	Void       int
	Packs      int64 // recorded and not swept
	PackBytes  int64
	ReadBytes  int64 // of packs that were read and are what is recorded
	Signers    []SignerSpan
	Problems   []LedgerProblem // in the order in which they were found; none: all is well
}

// A SignerSpan is a stretch of segments that one key signed.
type SignerSpan struct {
	Fingerprint string
	Epoch       uint64
	First, Last uint64 // segments
	Checked     bool   // the public key was there, and each signature is right
}

// A LedgerProblem is one thing that is not as the ledger says, or as it was.
type LedgerProblem struct {
	Kind    string // chain, signature, segment, signer, head, manifest, key or pack
	Segment uint64 // which is wrong, or which records what is; 0 when none does
	File    string // by its path in the repository, if it is about one
	Err     error
}

// The kinds of problems.
const (
	problemChain     = "chain"     // segments do not follow each other
	problemSignature = "signature" // a segment is not signed by whom it should be
	problemSegment   = "segment"   // a segment or its twin is missing or changed
	problemSigner    = "signer"    // a public key is missing or changed
	problemHead      = "head"      // the ledger is not the one that was known
	problemManifest  = "manifest"  // a manifest is missing, changed or not recorded
	problemKey       = "key"       // a key file is missing, changed or not recorded
	problemPack      = "pack"      // a pack is missing or changed
)

// VerifyLedger holds a repository to its ledger, and the ledger to itself, to its
// signers and to a head known from before. It needs no key, takes no lock and
// may run beside an owner. Problems are in the report; an error says that it
// could not look.
func VerifyLedger(ctx context.Context, fsys vfs.FS, opt VerifyOptions) (LedgerReport, error) {
	a := &audit{ctx: ctx, fsys: fsys, opt: &opt, packs: make(map[packKey]recordedPack)}
	if err := a.run(); err != nil {
		return a.LedgerReport, fmt.Errorf("verify ledger: %w", err)
	}
	return a.LedgerReport, nil
}

// audit is one VerifyLedger under way.
type audit struct {
	LedgerReport
	ctx  context.Context
	fsys vfs.FS
	opt  *VerifyOptions

	state  *ledger.State
	broken bool // a segment could not be used, so those after it are not known
	last   uint64
	packs  map[packKey]recordedPack // that must be there
	listed []PointID                // manifests that were there before the ledger was read
}

type recordedPack struct {
	ledger.Pack
	segment uint64
}

func (a *audit) problem(kind string, segment uint64, file string, err error) {
	a.Problems = append(a.Problems, LedgerProblem{kind, segment, file, err})
}

func (a *audit) run() error {
	s, err := readSettings(a.fsys)
	if err != nil {
		return err
	}
	a.Repository = s.ID
	signers := a.opt.Signers
	if signers == nil {
		if signers, err = readSigners(a.fsys, slog.New(slog.DiscardHandler)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	a.state = ledger.NewState(signers)
	// Before the ledger, so that whatever is listed has been recorded by then.
	if a.listed, err = manifestIDs(a.fsys); err != nil {
		return err
	}
	if err := a.readOn(); err != nil {
		return err
	}
	if got := a.state.Repository(); got != s.ID && !a.broken {
		a.problem(problemChain, 1, "", fmt.Errorf("the ledger is that of repository %q", got))
	}
	if a.last < a.opt.Known.Number {
		a.problem(problemHead, a.last, "", fmt.Errorf("the ledger ends at segment %d, but had %d", a.last, a.opt.Known.Number))
	}
	if err := a.checkPoints(); err != nil {
		return err
	}
	if a.opt.Packs {
		if err := a.checkPacks(); err != nil {
			return err
		}
	}
	if err := a.checkKeys(s); err != nil {
		return err
	}
	a.sum()
	return nil
}

// manifestIDs lists points/.
func manifestIDs(fsys vfs.FS) ([]PointID, error) {
	infos, err := fsys.ReadDir(pointsDir)
	if err != nil {
		return nil, fmt.Errorf("list points: %w", err)
	}
	var ids []PointID
	for _, info := range infos {
		if id := strings.TrimSuffix(info.Name, twinSuffix); isID(id) && !info.Dir {
			ids = append(ids, PointID(id))
		}
	}
	return slices.Compact(ids), nil // sorted: a twin follows what it is the twin of
}

// readOn folds in the segments after the last one seen, up to the last there is.
func (a *audit) readOn() error {
	last, err := lastSegment(a.fsys)
	if err != nil {
		return err
	}
	a.last = max(a.last, last)
	for n := a.state.Head().Number + 1; n <= a.last && !a.broken; n++ {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if s := a.segment(n); s != nil {
			a.fold(s)
		}
	}
	return nil
}

// segment reads both copies of a segment; nil when neither can be used, which is
// then said. A file that can't be read, for whatever reason, is damaged: to find
// that is what an audit is for.
func (a *audit) segment(n uint64) *ledger.Segment {
	var copies [2]*ledger.Segment
	var errs [2]error
	for i, name := range []string{segmentPath(n), segmentPath(n) + twinSuffix} {
		p, err := vfs.ReadFile(a.fsys, name, maxTwinBytes)
		if err == nil {
			err = parseSegment(p, n, &copies[i])
		}
		if errs[i] = err; err != nil {
			copies[i] = nil
		}
	}
	switch {
	case copies[0] == nil && copies[1] == nil:
		a.broken = true
		if errors.Is(errs[0], fs.ErrNotExist) {
			errs[0] = errs[1] // says more, or the same
		}
		if errors.Is(errs[0], fs.ErrNotExist) {
			errs[0] = errors.New("it is missing, and later ones are there")
		}
		a.problem(problemSegment, n, segmentPath(n), errs[0])
		return nil
	case copies[0] == nil:
		a.oneCopy(n, segmentPath(n), errs[0])
		return copies[1]
	case copies[1] == nil:
		a.oneCopy(n, segmentPath(n)+twinSuffix, errs[1])
		return copies[0]
	case copies[0].Sum != copies[1].Sum:
		a.problem(problemSegment, n, segmentPath(n), errors.New("it and its twin are two different segments"))
		if key, known := a.state.SignerKey(); copies[0].Prev != a.state.Head().Sum || known && !copies[0].SignedBy(key) {
			return copies[1]
		}
	}
	return copies[0]
}

// oneCopy notes a copy that can't be used. One of the last segment that is not
// there is being written, or the next owner completes it.
func (a *audit) oneCopy(n uint64, file string, err error) {
	if n < a.last || !errors.Is(err, fs.ErrNotExist) {
		a.problem(problemSegment, n, file, err)
	}
}

// fold adds a segment to what the ledger says.
func (a *audit) fold(s *ledger.Segment) {
	if err := a.state.Add(s); err != nil {
		kind := problemSegment
		switch {
		case errors.Is(err, ledger.ErrChain):
			kind = problemChain
		case errors.Is(err, ledger.ErrSignature):
			kind = problemSignature
		}
		a.problem(kind, s.Number, segmentPath(s.Number), err)
		a.broken = true
		return
	}
	a.Head, a.Time = s.Head, s.Time
	if known := a.opt.Known; s.Number == known.Number && s.Sum != known.Sum {
		a.problem(problemHead, s.Number, segmentPath(s.Number), fmt.Errorf("it is not the segment that was here before: its digest is %s, and was %s", s.Sum, known.Sum))
	}
	name, epoch := a.state.Signer()
	if n := len(a.Signers); n == 0 || a.Signers[n-1].Fingerprint != name || a.Signers[n-1].Epoch != epoch {
		_, checked := a.state.SignerKey()
		a.Signers = append(a.Signers, SignerSpan{Fingerprint: name, Epoch: epoch, First: s.Number, Checked: checked})
	}
	a.Signers[len(a.Signers)-1].Last = s.Number
	for _, p := range s.Packs {
		a.packs[packKey{p.Kind, p.Name}] = recordedPack{p, s.Number}
	}
	for _, r := range s.Records {
		if sweep, ok := r.(*ledger.Sweep); ok {
			for _, p := range sweep.Packs {
				delete(a.packs, packKey{p.Kind, p.Name})
			}
		}
	}
}

// checkPoints compares the manifests with the ledger.
func (a *audit) checkPoints() error {
	ids := make(map[PointID]bool)
	for _, ps := range a.state.Points() {
		ids[PointID(ps.ID)] = true
	}
	for _, id := range a.listed {
		ids[id] = true
	}
	return settleWith(a, slices.Sorted(maps.Keys(ids)), a.checkPoint)
}

// settleWith checks items, and those with problems again while an owner writes
// on: what looks wrong may be what a segment since then has changed.
func settleWith[T any](a *audit, items []T, check func(T) []LedgerProblem) error {
	for {
		var found []LedgerProblem
		var again []T
		for _, item := range items {
			if err := a.ctx.Err(); err != nil {
				return err
			}
			if p := check(item); len(p) > 0 {
				found, again = append(found, p...), append(again, item)
			}
		}
		if err := a.ctx.Err(); err != nil {
			return err
		}
		before := a.state.Head()
		if len(again) > 0 && !a.broken {
			if err := a.readOn(); err != nil {
				return err
			}
		}
		if a.state.Head() == before {
			a.Problems = append(a.Problems, found...)
			return nil
		}
		items = again
	}
}

// checkPoint compares both copies of a manifest with what the ledger says.
func (a *audit) checkPoint(id PointID) (found []LedgerProblem) {
	ps, recorded := a.state.Point(string(id))
	bad := func(file string, err error) {
		found = append(found, LedgerProblem{problemManifest, ps.Segment, file, err})
	}
	missing := 0
	files := []string{pointPath(id), pointPath(id) + twinSuffix}
	for _, file := range files {
		p, err := vfs.ReadFile(a.fsys, file, maxTwinBytes)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing++
		case !recorded && a.broken: // perhaps by a segment that could not be used
		case !recorded:
			bad(file, errors.New("no segment records this manifest"))
		case ps.Void:
			bad(file, errors.New("the ledger says that this point never had a manifest"))
		case err != nil:
			bad(file, err)
		case sum256(p) != ps.Manifest:
			bad(file, errors.New("it is not the manifest that the ledger records"))
		}
	}
	// The last segment's point is being committed, or was when somebody was
	// interrupted: the next owner completes it or says that it is void. Beyond a
	// broken segment it may have expired.
	tip := ps.Segment == a.state.Head().Number
	if recorded && ps.Live() && missing > 0 && !tip && !(a.broken && missing == len(files)) {
		for _, file := range files {
			if _, err := a.fsys.Stat(file); errors.Is(err, fs.ErrNotExist) {
				bad(file, errors.New("it is missing"))
			}
		}
	}
	return found
}

// checkPacks reads every pack that must be there.
func (a *audit) checkPacks() error {
	list := slices.SortedFunc(maps.Values(a.packs), func(p, q recordedPack) int {
		return strings.Compare(p.Name.Path(p.Kind), q.Name.Path(q.Kind))
	})
	var total, done int64
	for _, p := range list {
		total += p.Bytes
	}
	buf := make([]byte, 1<<20)
	return settleWith(a, list, func(p recordedPack) []LedgerProblem {
		if _, wanted := a.packs[packKey{p.Kind, p.Name}]; !wanted {
			return nil // swept meanwhile
		}
		err := checkPack(a.ctx, a.fsys, &p.Pack, buf)
		done = min(done+p.Bytes, total) // a second look at one is not counted twice
		if a.opt.Progress != nil {
			a.opt.Progress(done, total)
		}
		if err != nil {
			return []LedgerProblem{{problemPack, p.segment, p.Name.Path(p.Kind), err}}
		}
		a.ReadBytes += p.Bytes
		return nil
	})
}

var errPackChanged = errors.New("it is not the pack that the ledger records")

// checkPack reads a pack and compares its length and digest.
func checkPack(ctx context.Context, fsys vfs.FS, p *ledger.Pack, buf []byte) (err error) {
	f, err := fsys.Open(p.Name.Path(p.Kind))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size != p.Bytes {
		return fmt.Errorf("%w: %d bytes, not %d", errPackChanged, size, p.Bytes)
	}
	h := sha256.New()
	for off := int64(0); off < size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := buf[:min(int64(len(buf)), size-off)]
		if n, err := f.ReadAt(piece, off); n < len(piece) {
			return fmt.Errorf("read at %d: %w", off, err)
		}
		h.Write(piece)
	}
	if ledger.Sum(h.Sum(nil)) != p.SHA256 {
		return fmt.Errorf("%w: another digest", errPackChanged)
	}
	return f.DropCache(0, 0)
}

// checkKeys compares keys/ with the ledger. A key file is there for a moment
// before its record is, so what is wrong is looked at again for a while.
func (a *audit) checkKeys(s Settings) error {
	if a.broken {
		return nil
	}
	const patience = 10
	for i := 0; ; i++ {
		found, err := a.keyProblems(s)
		if err != nil {
			return err
		}
		if len(found) == 0 || i == patience {
			a.Problems = append(a.Problems, found...)
			break
		}
		select {
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if err := a.readOn(); err != nil {
			return err
		}
	}
	for _, s := range a.Signers {
		if !s.Checked {
			a.problem(problemSigner, s.First, signerPath(s.Epoch),
				fmt.Errorf("segments %d to %d are signed by %s, whose public key is not there: not checked", s.First, s.Last, s.Fingerprint))
		}
	}
	return nil
}

func (a *audit) keyProblems(s Settings) (found []LedgerProblem, err error) {
	said := keyRecords{keys: make(map[string]ledger.Key)}
	for _, k := range a.state.Keys() {
		said.keys[k.Name] = k
	}
	for _, s := range a.Signers {
		said.signers = append(said.signers, SignerInfo{Epoch: s.Epoch, Fingerprint: s.Fingerprint, Adopted: true})
	}
	l, err := listKeyFiles(a.fsys, s, said)
	if err != nil {
		return nil, err
	}
	for _, k := range l.Keys {
		rec, known := said.keys[k.Name]
		err := k.Damage
		switch {
		case err != nil:
		case !known:
			err = errors.New("no segment records this key")
		case rec.SHA256 != k.SHA256:
			err = errors.New("it is not the key that the ledger records")
		case rec.Action == keyRemoved:
			err = errors.New("the ledger says that it was removed, and it is still there")
		}
		if err != nil {
			found = append(found, LedgerProblem{problemKey, 0, path.Join(keysDir, k.Name), err})
		}
	}
	for _, s := range l.Signers {
		if s.Damage != nil && s.Adopted {
			found = append(found, LedgerProblem{problemSigner, 0, signerPath(s.Epoch), s.Damage})
		}
	}
	return found, nil
}

func (a *audit) sum() {
	for _, ps := range a.state.Points() {
		switch {
		case ps.Void:
			a.Void++
		case ps.Expired != 0:
			a.Expired++
		default:
			a.Points++
		}
	}
	a.Packs, a.PackBytes = a.state.Packs()
}

// LedgerHead reads the head of a repository's ledger, and when it was written. No
// key is needed; nothing before it is read.
func LedgerHead(fsys vfs.FS) (ledger.Head, time.Time, error) {
	s, err := newestSegment(fsys)
	if err != nil {
		return ledger.Head{}, time.Time{}, fmt.Errorf("ledger head: %w", err)
	}
	return s.Head, s.Time, nil
}

func newestSegment(fsys vfs.FS) (*ledger.Segment, error) {
	if _, err := readSettings(fsys); err != nil {
		return nil, err
	}
	last, err := lastSegment(fsys)
	if err != nil {
		return nil, err
	}
	return readSegment(fsys, last)
}

// LedgerSegments calls each with the segments of a repository's ledger, newest
// first, until each returns false. No key is needed, and nothing is verified but
// that each segment is whole.
func LedgerSegments(ctx context.Context, fsys vfs.FS, each func(*ledger.Segment) bool) error {
	s, err := newestSegment(fsys)
	for ; err == nil && each(s) && s.Number > 1; s, err = readSegment(fsys, s.Number-1) {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	return nil
}
