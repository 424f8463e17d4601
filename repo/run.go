package repo

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// A run is one execution of Backup.
type run struct {
	owner     *Owner
	store     *store
	rand      io.Reader
	log       *slog.Logger
	opt       *BackupOptions
	id        RunID
	machineID string
	host      string
	started   time.Time

	record *runRecord
	data   *packWriter
	meta   *packWriter
	nodes  *nodeWriter

	pins     *pins   // what the run was told is stored
	copied   *copied // the point that this one is a copy of; nil: it is new
	parent   *Point  // the machine's latest; nil when there is none or it is not wanted
	reader   *Reader // keeps the parent's lease
	result   Run
	progress Progress
}

// parentDisk is the disk of the parent point that has the same name.
type parentDisk struct {
	point PointID
	info  DiskInfo
}

func (p *parentDisk) tree(g chunk.Geometry) blockmap.Tree {
	return blockmap.NewTree(p.info.Root, p.info.SizeBytes, g)
}

// defaultJob is the job of points that no job made.
const defaultJob = "manual"

// Backup reads disks and makes them a restore point. When it returns an error
// there is no point; what was stored by then stays and is found by the next
// run of the machine. Cancelling the context is such an error. Only a medium
// that fails for good in the very last step can leave a point all the same,
// whole, which the next owner finds.
func (o *Owner) Backup(ctx context.Context, opt BackupOptions) (*Run, error) {
	if opt.Job == "" {
		opt.Job = defaultJob
	}
	if opt.Compression == "" {
		opt.Compression = o.settings.Compression
	}
	if opt.Consistency == "" {
		opt.Consistency = "crash"
	}
	if err := checkDisks(&opt); err != nil {
		return nil, err
	}
	if err := CheckName("job", opt.Job); err != nil {
		return nil, err
	}
	r, err := o.begin(ctx, &opt)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", opt.Machine, readOnly(err))
	}
	defer o.end(r)
	if err := r.execute(ctx); err != nil {
		r.abandon()
		return nil, fmt.Errorf("back up %s: %w", opt.Machine, readOnly(err))
	}
	return &r.result, nil
}

// begin claims the machine, finds the parent and makes the run's record.
func (o *Owner) begin(ctx context.Context, opt *BackupOptions) (*run, error) {
	if o.store.keyless() {
		return nil, ErrNeedKey
	}
	r, err := o.newRun(opt)
	if err != nil {
		return nil, err
	}
	if err = r.findParent(ctx); err == nil {
		err = r.prepare()
	}
	if err != nil {
		o.end(r)
		return nil, err
	}
	return r, nil
}

// newRun claims the machine for a run, which end gives up.
func (o *Owner) newRun(opt *BackupOptions) (*run, error) {
	now := o.now()
	id, err := newID(now, o.rand)
	if err != nil {
		return nil, err
	}
	machine, err := o.claim(opt, RunID(id))
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // for people; unknown is no reason to refuse
	r := &run{
		owner: o, store: o.store, rand: o.rand, log: o.log, opt: opt,
		id: RunID(id), machineID: machine, host: host, started: now, pins: o.guard.begin(),
	}
	r.result.Disks = make([]DiskRun, len(opt.Disks))
	for i, d := range opt.Disks {
		r.result.Disks[i].Name = d.Name
		r.progress.Total += d.Source.Size()
	}
	return r, nil
}

// claim decides the machine's identity and keeps a second run of it out.
func (o *Owner) claim(opt *BackupOptions, run RunID) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.names[opt.Machine]
	id := opt.MachineID
	switch {
	case id == "" && known != "":
		id = known
	case id == "" && o.left[o.store.ledgerJob(opt.Machine)] != "":
		// Its first runs have failed, and what they stored is that machine's.
		id = o.left[o.store.ledgerJob(opt.Machine)]
	case id == "":
		var b [16]byte
		if _, err := io.ReadFull(o.rand, b[:]); err != nil {
			return "", fmt.Errorf("make a machine id: %w", err)
		}
		id = hex.EncodeToString(b[:])
	case known != "" && known != id && !opt.Adopt:
		return "", fmt.Errorf("%w: %q is %s here, not %s", ErrMachine, opt.Machine, known, id)
	}
	if err := CheckName("machine id", id); err != nil {
		return "", err
	}
	if _, busy := o.busy[id]; busy || o.busyName(opt.Machine) {
		return "", &BusyError{Holder{PID: os.Getpid(), Doing: "backup of " + opt.Machine, Since: o.now()}}
	}
	o.busy[id] = busyRun{run, opt.Machine}
	return id, nil
}

// busyName reports whether a run under way makes a point of that name. Two
// first runs of one name would make two machines of it. The caller holds mu.
func (o *Owner) busyName(name string) bool {
	for _, b := range o.busy {
		if b.machine == name {
			return true
		}
	}
	return false
}

func (o *Owner) end(r *run) {
	var errs []error
	if r.record != nil {
		errs = append(errs, r.record.close())
	}
	if r.reader != nil {
		errs = append(errs, r.reader.Close())
	}
	if err := errors.Join(errs...); err != nil {
		o.log.Warn("end of run", "run", r.id, "err", err)
	}
	o.mu.Lock()
	delete(o.busy, r.machineID)
	o.mu.Unlock()
	r.pins.end()
}

// known reports whether a chunk or node is stored already, with what it is based
// on and in places that are not known to be damaged, and sees to it that both
// stay until the run has ended.
func (r *run) known(id chunk.ID) (bool, error) { return r.stored(id, false) }

// knownBase is known for what a record is to be based on: a copy that has a base
// itself does not count.
func (r *run) knownBase(id chunk.ID) (bool, error) { return r.stored(id, true) }

func (r *run) stored(id chunk.ID, whole bool) (bool, error) {
	for {
		asked := r.pins.asking()
		locs, err := r.store.lookup(id)
		if err != nil {
			return false, err
		}
		known, current, err := r.hold(asked, id, r.store.sound(locs), whole)
		if current || err != nil {
			return known, err
		}
	}
}

// hold pins the first of the places where a record can be used, and reports
// whether there is one. What it says counts only if it is current (pins.hold).
func (r *run) hold(asked uint64, id chunk.ID, locs []index.Location, whole bool) (known, current bool, err error) {
	for {
		loc, current := r.pins.hold(asked, locs)
		if loc == nil {
			return false, current, nil
		}
		locs = locs[slices.Index(locs, *loc)+1:]
		switch {
		case loc.Kind == pack.Chunk:
			return true, true, nil
		case loc.Kind == pack.Patch && whole:
			continue
		}
		// A patch or leaf that no point needs may have outlived its base.
		h, err := r.store.headerAt(loc)
		if err != nil || h.ID != id || whole && !h.Base.IsNull() {
			continue
		}
		known := h.Base.IsNull()
		if !known {
			if known, err = r.knownBase(h.Base); err != nil {
				return false, true, err
			}
		}
		if known {
			return true, true, nil
		}
	}
}

// prepare makes the run's record and opens its packs.
func (r *run) prepare() (err error) {
	o := r.owner
	epoch := o.currentEpoch()
	head := runHead{
		Run: r.id, MachineID: r.machineID, Name: o.store.ledgerJob(r.opt.Machine), Epoch: epoch, Started: r.started.UTC(), PID: os.Getpid(),
	}
	if !o.settings.Sealed {
		head.Host = r.host
	}
	r.record, err = createRunRecord(o.fsys, head)
	if err != nil {
		return err
	}
	r.data, r.meta = o.newPackWriter(pack.Data, r.record, r.pins, epoch), o.newPackWriter(pack.Meta, r.record, r.pins, epoch)
	enc, err := seal.NewEncoder(seal.Auto)
	if err != nil {
		return err
	}
	r.nodes = &nodeWriter{store: r.store, known: r.known, knownBase: r.isKnownBase, data: r.data, out: r.meta, rand: r.rand, enc: enc}
	return nil
}

// packStored notes a durable pack for the next segment.
func (o *Owner) packStored(p ledger.Pack) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unrecorded = append(o.unrecorded, p)
}

// findParent opens the parent that was asked for, or else the machine's latest
// point, and keeps its lease until the run ends; a latest one whose manifest turns
// out lost is passed over. A full has no parent.
func (r *run) findParent(ctx context.Context) error {
	switch {
	case r.opt.Full:
		return nil
	case r.opt.Parent != "":
		reader, err := r.owner.openLeased(r.opt.Parent)
		if err != nil {
			return fmt.Errorf("open the parent: %w", err)
		}
		p := reader.Point()
		r.reader, r.parent = reader, &p
		return nil
	}
	points, err := r.owner.list(ctx, func(ps *ledger.PointState) bool { return ps.Live() && ps.Machine == r.machineID })
	if err != nil {
		return fmt.Errorf("find the machine's points: %w", err)
	}
	slices.SortFunc(points, func(a, b Point) int { return cmp.Compare(b.Sequence, a.Sequence) })
	for _, p := range points {
		reader, err := r.owner.openLeased(p.ID)
		switch {
		case err == nil:
			p := reader.Point()
			r.reader, r.parent = reader, &p
			return nil
		case !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrFormat):
			return err
		}
		r.log.Error("parent can't be used", "machine", r.opt.Machine, "point", p.ID, "err", err)
	}
	return nil
}

// openLeased is OpenPoint for what a new point is to share with this one: without a
// lease, as readers go on with on a full volume, it might be freed before that.
func (o *Owner) openLeased(id PointID) (*Reader, error) {
	r, err := o.OpenPoint(id)
	if err != nil || r.lease != nil {
		return r, err
	}
	if r.lease, err = o.fsys.Lock(leasePath(id), vfs.Shared); err != nil {
		return nil, fmt.Errorf("lease point %s: %w", id, err)
	}
	if !hasManifest(o.fsys, id) {
		return nil, errors.Join(fmt.Errorf("point %s: %w", id, ErrNotFound), r.Close())
	}
	return r, nil
}

func (r *run) parentDisk(name string) *parentDisk {
	if r.parent == nil {
		return nil
	}
	for _, d := range r.parent.Disks {
		if d.Name == name {
			return &parentDisk{point: r.parent.ID, info: d}
		}
	}
	return nil
}

// execute backs up every disk and commits.
func (r *run) execute(ctx context.Context) error {
	roots := make([]chunk.ID, len(r.opt.Disks))
	for i, d := range r.opt.Disks {
		root, err := r.backupDisk(ctx, i, d)
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
		roots[i] = root
	}
	return r.finish(ctx, roots)
}

// finish stores what is left of the packs, and commits.
func (r *run) finish(ctx context.Context, roots []chunk.ID) error {
	if err := errors.Join(r.data.finish(), r.meta.finish()); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, root := range roots {
		if known, err := r.nodes.stored(root); err != nil || !known && !root.IsNull() {
			return errors.Join(err, fmt.Errorf("%w: root %s", ErrClosure, root.Short()))
		}
	}
	return r.commit(roots)
}

// abandon keeps what the run has stored for the next one: the packs that are
// not full yet become packs too, as far as there is room, and the run's record
// stays. A record of nothing is removed.
func (r *run) abandon() {
	o := r.owner
	// These errors are the failure that ended the run, or add nothing to it.
	if err := errors.Join(r.data.finish(), r.meta.wait()); err != nil {
		o.log.Debug("last pack of a failed run", "run", r.id, "err", err)
	}
	if r.data.loose || r.meta.loose {
		// Only the run's record knows of that pack, so no commit of this owner
		// may remove it. The next owner looks what there is.
		o.log.Warn("what the failed run stored is found when the repository is opened again", "run", r.id)
		return
	}
	head, packs, rerr := readRunRecord(o.fsys, r.id)
	if rerr == nil && len(packs) == 0 {
		rerr = o.fsys.Remove(runPath(r.id))
	} else if rerr == nil {
		o.leave(head, r.id, packs)
	}
	if rerr != nil {
		o.log.Warn("what the failed run stored is not tidied up until the repository is opened again", "run", r.id, "err", rerr)
	}
}

func (r *run) total() Counters {
	var c Counters
	for _, d := range r.result.Disks {
		c.add(d.Counters)
	}
	return c
}

// pick chooses up to n chunk numbers below total, at random.
func (r *run) pick(total int64, n int) []int64 {
	var seed [32]byte
	if _, err := io.ReadFull(r.rand, seed[:]); err != nil || total <= 0 {
		return nil
	}
	rng := rand.New(rand.NewChaCha8(seed))
	var picked []int64
	for range n {
		picked = append(picked, rng.Int64N(total))
	}
	slices.Sort(picked)
	return slices.Compact(picked)
}

func sum256(p []byte) ledger.Sum { return sha256.Sum256(p) }

// removeRuns removes records of runs whose packs the ledger has.
func removeRuns(fsys vfs.FS, ids []RunID) error {
	for _, id := range ids {
		if err := fsys.Remove(runPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove run record: %w", err)
		}
	}
	return fsys.SyncDir(runsDir)
}
