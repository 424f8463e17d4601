package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/refcount"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// DamagedFile is a file, other than a pack, that is not as it must be.
type DamagedFile struct {
	Path     string
	Problem  string
	HealedBy string // what makes it whole again; empty: nothing here does
}

// What heals files.
const (
	byTwin    = "its twin"
	byOther   = "the other repository"
	byReindex = "reindex"
	byScrub   = "the next scrub"
	bySweep   = "the next sweep"
	byClose   = "the next one who closes it"
	byOwner   = "the next one who writes"
)

// fileFault is a DamagedFile with the bytes that belong there.
type fileFault struct {
	DamagedFile
	good []byte // nil when they can't be had
}

// fileCheck goes over all files that are no packs.
type fileCheck struct {
	*Repository
	inv    *inventory
	own    *Owner        // who writes; nil: perhaps another process
	from   *Repository   // may have what is lost here; nil: none
	state  *ledger.State // up to the first segment that can't be read
	keys   map[string]keyState
	named  map[string]bool // signers' fingerprints
	faults []fileFault
}

// keyState is what the ledger says of a file in keys/.
type keyState struct {
	sum     ledger.Sum
	removed bool
}

// scrubFiles is checkFiles as a report has it.
func (s *scrubber) scrubFiles(ctx context.Context) ([]DamagedFile, error) {
	faults, err := s.checkFiles(ctx, s.inv, s.own, nil)
	list := make([]DamagedFile, len(faults))
	for i := range faults {
		list[i] = faults[i].DamagedFile
	}
	return list, err
}

// checkFiles reads every file but packs, both copies of what has a twin. What is
// lost in both may be had from another repository, nil for none. own is who
// writes, if that is this process.
func (r *Repository) checkFiles(ctx context.Context, inv *inventory, own *Owner, from *Repository) ([]fileFault, error) {
	c := &fileCheck{Repository: r, inv: inv, own: own, from: from, keys: make(map[string]keyState), named: make(map[string]bool)}
	c.dirs()
	for _, step := range []func(context.Context) error{c.segments, c.settingsFiles, c.keyFiles, c.manifests, c.runRecords, c.index, c.savedState} {
		if err := errors.Join(step(ctx), ctx.Err()); err != nil {
			return nil, err
		}
	}
	return c.faults, nil
}

func (c *fileCheck) fault(name, healedBy string, good []byte, format string, args ...any) {
	c.faults = append(c.faults, fileFault{DamagedFile{name, fmt.Sprintf(format, args...), healedBy}, good})
}

// dirs looks for the directories that never change.
func (c *fileCheck) dirs() {
	for _, dir := range skeleton() {
		if info, err := c.fsys.Stat(dir); err != nil || !info.Dir {
			c.fault(dir, "", nil, "directory is missing")
		}
	}
}

// pair reads both copies of a file, of which check accepts the right one, and
// returns its bytes; nil when there is none. Whoever writes may be between the two
// copies of what is newest, so that is looked at again.
func (c *fileCheck) pair(ctx context.Context, name string, newest bool, check func([]byte) error) []byte {
	faults, good := readPair(c.fsys, name, check)
	if newest {
		c.settled(ctx, func() bool {
			faults, good = readPair(c.fsys, name, check)
			return len(faults) == 0
		})
	}
	if good == nil && c.from != nil {
		good = takeFrom(c.from, name, check, faults)
	}
	c.faults = append(c.faults, faults...)
	return good
}

// settled looks until all is well, or until whoever may be writing has had the
// time to end what it is in the middle of. It looks at least once.
func (c *fileCheck) settled(ctx context.Context, look func() bool) {
	if look() {
		return
	}
	if c.own != nil {
		c.own.commit.Lock()
		defer c.own.commit.Unlock()
		look()
		return
	}
	const tries, pause = 20, 50 * time.Millisecond
	for i := 0; i < tries && c.owned() && ctx.Err() == nil && !look(); i++ {
		time.Sleep(pause)
	}
	look()
}

// owned reports whether somebody may be writing.
func (c *fileCheck) owned() bool {
	if _, err := c.fsys.Stat(lockName); err != nil {
		return false
	}
	l, err := c.fsys.Lock(lockName, vfs.Shared)
	if err != nil {
		return errors.Is(err, vfs.ErrLocked)
	}
	_ = l.Unlock() // the file was not written
	return false
}

// readPair is pair, once.
func readPair(fsys vfs.FS, name string, check func([]byte) error) (faults []fileFault, good []byte) {
	names := [2]string{name, name + twinSuffix}
	var data [2][]byte
	var errs [2]error
	for i, n := range names {
		if data[i], errs[i] = vfs.ReadFile(fsys, n, maxTwinBytes); errs[i] == nil {
			errs[i] = check(data[i])
		}
		if errs[i] == nil && good == nil {
			good = data[i]
		}
	}
	for i, n := range names {
		f := fileFault{DamagedFile{Path: n}, nil}
		switch err := errs[i]; {
		case err == nil && bytes.Equal(data[i], good):
			continue
		case err == nil:
			f.Problem = "sound, but another than its twin"
		case errors.Is(err, fs.ErrNotExist):
			f.Problem = "missing"
		default:
			f.Problem = err.Error()
		}
		if err := errs[i]; err != nil && good != nil {
			f.HealedBy, f.good = byTwin, good
		}
		faults = append(faults, f)
	}
	return faults, good
}

// takeFrom looks for the file in another repository, which has it if it is a copy
// of this one, and for its faults to be healed with.
func takeFrom(from *Repository, name string, check func([]byte) error, faults []fileFault) []byte {
	_, good := readPair(from.fsys, name, check)
	for i := range faults {
		if good != nil {
			faults[i].HealedBy, faults[i].good = byOther, good
		}
	}
	return good
}

// segments reads the ledger, and holds it to its chain and signatures.
func (c *fileCheck) segments(ctx context.Context) error {
	c.state = ledger.NewState(c.signers)
	broken := false
	for n := uint64(1); n <= c.inv.last; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		var s *ledger.Segment
		p := c.pair(ctx, segmentPath(n), n == c.inv.last, func(p []byte) error { return parseSegment(p, n, &s) })
		if p == nil {
			broken = true
			continue
		}
		s, err := ledger.ParseSegment(p)
		if err != nil {
			return err
		}
		c.learn(s)
		if broken {
			continue
		}
		if err := c.state.Add(s); err != nil {
			broken = true
			c.fault(segmentPath(n), "", nil, "%v", err)
		}
	}
	infos, err := c.fsys.ReadDir(ledgerDir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if _, ok := ledger.ParseFileName(strings.TrimSuffix(info.Name, twinSuffix)); !ok {
			c.fault(ledgerDir+"/"+info.Name, "", nil, "not the name of a segment")
		}
	}
	return nil
}

// learn takes what a segment says of keys.
func (c *fileCheck) learn(s *ledger.Segment) {
	for _, rec := range s.Records {
		switch rec := rec.(type) {
		case *ledger.Init:
			c.named[rec.Signer] = true
		case *ledger.Adopt:
			c.named[rec.Signer] = true
		case *ledger.Key:
			c.keys[rec.Name] = keyState{rec.SHA256, rec.Action == "remove"}
		}
	}
}

func (c *fileCheck) settingsFiles(ctx context.Context) error {
	id := c.state.Repository()
	c.pair(ctx, settingsName, false, func(p []byte) error {
		s, err := decodeSettings(p)
		if err == nil && id != "" && s.ID != id {
			err = fmt.Errorf("%w: settings of repository %s, the ledger is that of %s", ErrFormat, s.ID, id)
		}
		return err
	})
	return nil
}

// keyFiles reads key files and public signing keys. A key that the ledger does
// not tell of is held to its own checksum, and to not being another key's file.
func (c *fileCheck) keyFiles(ctx context.Context) error {
	infos, err := c.fsys.ReadDir(keysDir)
	if err != nil {
		return err
	}
	names := make(map[string]bool)
	owners := make(map[string]map[string]bool) // bytes → names of pairs that have them
	for _, info := range infos {
		base := strings.TrimSuffix(info.Name, twinSuffix)
		names[base] = true
		if p, err := vfs.ReadFile(c.fsys, keysDir+"/"+info.Name, maxTwinBytes); err == nil {
			if owners[string(p)] == nil {
				owners[string(p)] = make(map[string]bool)
			}
			owners[string(p)][base] = true
		}
	}
	for name, k := range c.keys {
		if !k.removed {
			names[name] = true
		}
	}
	wraps := 0
	for name := range names {
		if k := c.keys[name]; k.removed {
			c.fault(keysDir+"/"+name, "", nil, "the ledger says that this key was removed")
			continue
		}
		if strings.HasPrefix(name, "signer-") {
			c.pair(ctx, keysDir+"/"+name, false, c.checkSigner(name))
			continue
		}
		p := c.pair(ctx, keysDir+"/"+name, false, c.checkKey(name, owners))
		if p != nil {
			wraps++
		}
	}
	for fingerprint := range c.named {
		c.fault(keysDir, "", nil, "the public key %s is missing", fingerprint)
	}
	if c.settings.Sealed && wraps == 0 {
		c.fault(keysDir, "", nil, "no key file is left")
	}
	return nil
}

// checkSigner accepts the public key of that file's epoch.
func (c *fileCheck) checkSigner(name string) func([]byte) error {
	return func(p []byte) error {
		k, err := seal.ParsePublic(p)
		if err != nil {
			return err
		}
		if path.Base(signerPath(uint64(k.Epoch))) != name {
			return fmt.Errorf("%w: it is the key of epoch %d", ErrFormat, k.Epoch)
		}
		delete(c.named, k.Fingerprint())
		return nil
	}
}

// checkKey accepts the key file of that name, as far as that can be told: a
// copy of another key that the two copies there are not both is a stranger.
func (c *fileCheck) checkKey(name string, owners map[string]map[string]bool) func([]byte) error {
	return func(p []byte) error {
		if _, err := seal.ParseFile(p); err != nil {
			return err
		}
		if k, ok := c.keys[name]; ok {
			if k.sum != sum256(p) {
				return fmt.Errorf("%w: not the key that the ledger records", ErrFormat)
			}
			return nil
		}
		if len(owners[string(p)]) > 1 {
			return fmt.Errorf("%w: it is the file of another key", ErrFormat)
		}
		return nil
	}
}

// manifests reads those of all points that have one, and looks for others.
func (c *fileCheck) manifests(ctx context.Context) error {
	states, last, err := c.pointStates()
	if err != nil {
		return err
	}
	infos, err := c.fsys.ReadDir(pointsDir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		base := strings.TrimSuffix(info.Name, twinSuffix)
		if _, known := states[base]; !known {
			c.fault(pointsDir+"/"+info.Name, "", nil, "the ledger does not record such a point")
		}
	}
	for id, ps := range states {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := pointPath(PointID(id))
		there := hasManifest(c.fsys, PointID(id))
		if ps.Void || !there && (ps.Expired != 0 || ps.Segment == last && c.onItsWay(ps.Run)) {
			continue
		}
		c.pair(ctx, name, ps.Segment == last, func(p []byte) error {
			if sum256(p) != ps.Manifest {
				return fmt.Errorf("%w: not the manifest that the ledger records", ErrFormat)
			}
			return nil
		})
	}
	return nil
}

// onItsWay reports whether a point that has no manifest was never finished: the
// record of its run goes after that.
func (c *fileCheck) onItsWay(run string) bool {
	_, err := c.fsys.Stat(runPath(RunID(run)))
	return !errors.Is(err, fs.ErrNotExist)
}

// pointStates is what the ledger says of every point now, as far as it can be
// read.
func (c *fileCheck) pointStates() (map[string]ledger.PointState, uint64, error) {
	last, err := lastSegment(c.fsys)
	if err != nil {
		return nil, 0, err
	}
	states := make(map[string]ledger.PointState)
	for _, ps := range c.state.Points() {
		states[ps.ID] = ps
	}
	for n := c.state.Head().Number + 1; n <= last; n++ {
		s, err := readSegment(c.fsys, n)
		if err != nil {
			continue // said before
		}
		for _, rec := range s.Records {
			switch rec := rec.(type) {
			case *ledger.Point:
				states[rec.ID] = ledger.PointState{Point: *rec, Segment: n}
			case *ledger.Void:
				ps := states[rec.Point]
				ps.Void = true
				states[rec.Point] = ps
			case *ledger.Expire:
				ps := states[rec.Point]
				ps.Expired = n
				states[rec.Point] = ps
			case *ledger.Recall:
				ps := states[rec.Point]
				ps.Expired = 0
				states[rec.Point] = ps
			}
		}
	}
	return states, last, nil
}

func (c *fileCheck) runRecords(context.Context) error {
	ids, err := listRuns(c.fsys)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, _, err := readRunRecord(c.fsys, id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.fault(runPath(id), byOwner, nil, "%v; packs that only it named are no longer found", err)
		}
	}
	return nil
}

// index reads the index from its files, and compares its packs with the
// ledger's.
func (c *fileCheck) index(ctx context.Context) error {
	if c.own != nil {
		if err := c.own.writeIndex(); err != nil {
			return err
		}
	}
	x, err := index.Open(c.fsys, indexDir, index.Options{CacheBytes: 1 << 20})
	if err != nil {
		c.fault(indexDir, byReindex, nil, "%v", err)
		return nil
	}
	defer x.Close() //nolint:errcheck // nothing was written
	if err := x.Skipped(); err != nil {
		c.fault(indexDir, byOwner, nil, "%v", err)
	}
	err = x.Verify(ctx)
	var damage *index.DamageError
	switch {
	case errors.As(err, &damage):
		c.fault(damage.File, byReindex, nil, "%v", err)
		return nil
	case err != nil:
		return err
	}
	if last, err := lastSegment(c.fsys); err != nil {
		return err
	} else if covers := x.Covers(); covers > last {
		// It is written after the segment that it names.
		c.fault(segmentPath(covers), "", nil, "missing: the ledger ends at segment %d, and had %d", last, covers)
		return nil
	}
	covers := x.Covers()
	c.settled(ctx, func() bool {
		covers = max(covers, c.coversNow())
		return covers >= c.inv.last
	})
	for i := range c.inv.packs {
		// Those of runs are added when they are asked for.
		if p := &c.inv.packs[i]; !p.unfinished && p.segment > covers {
			c.fault(indexDir, byOwner, nil, "the index goes to ledger segment %d of %d", covers, c.inv.last)
			break
		}
	}
	return nil
}

// writeIndex has the files of the index say what the owner knows.
func (o *Owner) writeIndex() error {
	o.commit.Lock()
	defer o.commit.Unlock()
	return o.flushIndex()
}

// coversNow asks the newest index files; 0 when they can't tell.
func (c *fileCheck) coversNow() uint64 {
	x, err := index.Open(c.fsys, indexDir, index.Options{CacheBytes: 1 << 20})
	if err != nil {
		return 0
	}
	defer x.Close() //nolint:errcheck // nothing was written
	return x.Covers()
}

// savedState reads what can be made again and lies beside the index.
func (c *fileCheck) savedState(ctx context.Context) error {
	if err := errors.Join(c.checkpoints(), c.counts(ctx)); err != nil {
		return err
	}
	verified := verifiedFiles(c.fsys)
	list, err := verified.numbers()
	if err != nil {
		return err
	}
	for _, n := range list {
		if _, err := readVerifiedFile(verified, n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.fault(verified.path(n), byScrub, nil, "%v", err)
		}
	}
	known := damageFiles(c.store)
	n, err := known.read(func(n uint64, p []byte) error { _, err := parseDamage(n, p); return err })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.fault(known.path(n), byScrub, nil, "%v", err)
	}
	return nil
}

// checkpoints holds saved states of the ledger to the ledger. Those that are
// sealed need the key.
func (c *fileCheck) checkpoints() error {
	list, err := listCheckpoints(c.fsys)
	if err != nil {
		return notThere(err)
	}
	for _, n := range list {
		_, err := c.readCheckpoint(n)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNeedKey) {
			c.fault(checkpointPath(n), byClose, nil, "%v", err)
		}
	}
	return nil
}

// counts reads the reference counts. While a sweep is at work its files come and
// go.
func (c *fileCheck) counts(ctx context.Context) error {
	var err error
	c.settled(ctx, func() bool {
		err = readCounts(ctx, c.fsys)
		return !errors.Is(err, fs.ErrNotExist)
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, refcount.ErrDamaged) {
		c.fault(refsDir, bySweep, nil, "%v", err)
		return nil
	}
	return err
}

// readCounts reads all there is of them; that may be nothing.
func readCounts(ctx context.Context, fsys vfs.FS) error {
	if _, err := fsys.Stat(refsDir); err != nil {
		return notThere(err)
	}
	t, err := refcount.Open(fsys, refsDir, refcount.Options{})
	if err != nil {
		return err
	}
	err = t.Skipped()
	if err == nil {
		err = t.Walk(func([refcount.PrefixBytes]byte, int64) error { return ctx.Err() })
	}
	return errors.Join(err, t.Close())
}
