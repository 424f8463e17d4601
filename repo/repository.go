package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// A Repository is open for reading. Any number of processes may have it open,
// also while an owner writes. It is safe for concurrent use.
type Repository struct {
	fsys     vfs.FS
	settings Settings
	signers  []seal.Public
	store    *store
	log      *slog.Logger
	now      func() time.Time
	rand     io.Reader
	view     view

	warnOnce sync.Once // about leases that can't be taken

	mu       sync.Mutex // guards all below
	seen     uint64     // ledger segment up to which the index knows all packs
	byLedger bool       // the index files are damaged and not looked at
	closed   bool
}

// Open opens a repository for reading.
func Open(ctx context.Context, fsys vfs.FS, opt Options) (*Repository, error) {
	opt.defaults()
	r, err := openRepository(fsys, &opt)
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	x, err := index.Open(fsys, indexDir, index.Options{CacheBytes: opt.IndexCacheBytes})
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	if err := x.Skipped(); err != nil {
		opt.Log.Warn("index is completed from the packs", "err", err)
	}
	r.store.index, r.store.fill = x, r.fillIndex
	// Later refreshes outlive the call that opened.
	r.store.refresh = func() error { return r.refresh(context.WithoutCancel(ctx)) }
	if err := r.refresh(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open repository: %w", err), r.Close())
	}
	return r, nil
}

// openRepository reads the settings and keys; the index is the caller's.
func openRepository(fsys vfs.FS, opt *Options) (*Repository, error) {
	s, err := readSettings(fsys)
	if err != nil {
		return nil, err
	}
	var keys *seal.Keys
	var idKey []byte
	if s.Sealed && !opt.Keyless {
		if keys, err = openKeys(fsys, s, opt.Passphrase, opt.Identities); err != nil {
			return nil, err
		}
		idKey = keys.IDKey()
	}
	signers, err := readSigners(fsys, opt.Log)
	if err != nil {
		return nil, err
	}
	return &Repository{
		fsys: fsys, settings: s, signers: signers, log: opt.Log, now: opt.Now, rand: opt.Rand,
		store: &store{
			fsys: fsys, settings: s, hasher: chunk.NewHasher(s.Geometry, idKey), keys: keys,
			packs: newPackCache(fsys), decoder: seal.NewDecoder(),
			frames: opt.Frames, leaves: newLeafCache(int(opt.NodeCacheBytes)),
			limit: make(chan struct{}, readLimit), log: opt.Log,
		},
	}, nil
}

// Info returns what is known without a key.
func (r *Repository) Info() Info {
	info := Info{Settings: r.settings}
	if n := len(r.signers); n > 0 {
		info.SignerFingerprint = r.signers[n-1].Fingerprint()
	}
	return info
}

// Close closes files. Points and disks opened from it fail afterwards.
func (r *Repository) Close() error {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if closed {
		return nil
	}
	r.store.background.Wait()
	return errors.Join(r.store.index.Close(), r.store.packs.close())
}

// refresh makes the reader's index know every pack that the ledger names: from
// the index files, and for commits after those from the packs themselves.
func (r *Repository) refresh(ctx context.Context) error {
	made := r.store.timesMade()
	err := r.readOn(ctx)
	if errors.Is(err, index.ErrDamaged) {
		err = r.store.remakeIndex(made, err)
	}
	return err
}

func (r *Repository) readOn(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.store.index
	if !r.byLedger {
		if err := x.Refresh(); err != nil {
			return err
		}
		r.seen = max(r.seen, x.Covers())
	}
	r.store.loadDamage()
	return r.addPacks(ctx)
}

// addPacks adds the packs of the segments after the last one seen, but for those
// that were swept since. A segment that can't be read costs what only it says,
// and is tried again next time. The caller holds mu.
func (r *Repository) addPacks(ctx context.Context) error {
	last, err := ledgerEnd(r.fsys, r.seen+1)
	if err != nil {
		return err
	}
	seen, packs := r.seen, newPackList()
	for n := seen + 1; n <= last; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := readSegment(r.fsys, n)
		if err != nil {
			r.log.Error("ledger segment can't be read", "err", err)
			continue
		}
		packs.add(s)
		if seen == n-1 {
			seen = n
		}
	}
	for _, p := range packs.left() {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := indexPack(r.fsys, r.store.index, p.Pack)
		if errors.Is(err, index.ErrDamaged) {
			return err
		}
		if err != nil {
			// What needs this pack will say so; the rest can be read.
			r.log.Error("pack can't be indexed", "pack", p.Name.Path(p.Kind), "err", err)
		}
	}
	r.seen = seen
	return nil
}

// indexPack adds a pack's records to the index unless it has them. Of a pack
// whose list of records is damaged beyond healing it adds those it finds.
func indexPack(fsys vfs.FS, x *index.Index, p ledger.Pack) error {
	has, err := x.HasPack(p.Name)
	if has || err != nil {
		return err
	}
	f, err := fsys.Open(p.Name.Path(p.Kind))
	if err != nil {
		return err
	}
	entries, err := packEntries(f)
	if err = errors.Join(err, f.Close()); err != nil {
		err = fmt.Errorf("read records of %s: %w", p.Name.Path(p.Kind), err)
	}
	if len(entries) > 0 || err == nil {
		err = errors.Join(err, x.Add(p.Name, entries))
	}
	return err
}

func packEntries(f vfs.File) ([]pack.Entry, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	pf, err := pack.Open(f, size)
	if err != nil {
		return nil, err
	}
	return pf.Records()
}

// Points lists the restore points in order of time, those that expired left out. A
// point whose manifest is damaged beyond its twin is left out and logged, unless it
// is known from before.
func (r *Repository) Points(ctx context.Context) ([]Point, error) {
	points, err := r.list(ctx, (*ledger.PointState).Live)
	if err != nil {
		return nil, fmt.Errorf("list points: %w", err)
	}
	slices.SortFunc(points, comparePoints)
	return points, nil
}

// Retired lists the points that have expired and whose manifest is still there,
// since its file is locked, in order of time. They can be read, and recalled.
func (r *Repository) Retired(ctx context.Context) ([]Point, error) {
	points, err := r.list(ctx, func(ps *ledger.PointState) bool {
		return !ps.Void && ps.Expired != 0 && hasManifest(r.fsys, PointID(ps.ID))
	})
	if err != nil {
		return nil, fmt.Errorf("list retired points: %w", err)
	}
	slices.SortFunc(points, comparePoints)
	return points, nil
}

// comparePoints orders by time, which never falls from one commit to the next.
func comparePoints(a, b Point) int {
	return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Sequence, b.Sequence), strings.Compare(string(a.ID), string(b.ID)))
}

// point reads one point of a ledger that is not whole: its manifest, and the
// segment that it names, which says which bytes the manifest has.
func (r *Repository) point(id PointID) (Point, error) {
	var m *manifest
	var s *ledger.Segment
	var rec *ledger.Point
	_, err := readTwins(r.fsys, pointPath(id), func(p []byte) (err error) {
		if m, err = decodeManifest(p, r.store.keys); err != nil {
			return err
		}
		if m.Point != id {
			return fmt.Errorf("%w: it is the manifest of %s", ErrFormat, m.Point)
		}
		if s, err = readSegment(r.fsys, m.Segment); err != nil {
			return err
		}
		if rec = pointRecord(s, id); rec == nil || rec.Manifest != sum256(p) {
			return fmt.Errorf("%w: ledger segment %d does not record this manifest", ErrFormat, m.Segment)
		}
		return nil
	})
	if err != nil {
		return Point{}, fmt.Errorf("read point %s: %w", id, err)
	}
	p := pointOf(m, rec.Full, PointID(rec.Parent))
	p.Signed = r.signedByUs(s)
	return p, nil
}

// signedByUs reports whether a segment's signature is that of a key in keys/.
func (r *Repository) signedByUs(s *ledger.Segment) bool {
	return slices.ContainsFunc(r.signers, s.SignedBy)
}

// pointRecord finds a point's record in a segment.
func pointRecord(s *ledger.Segment, id PointID) *ledger.Point {
	for _, rec := range s.Records {
		if p, ok := rec.(*ledger.Point); ok && p.ID == string(id) {
			return p
		}
	}
	return nil
}

// A Reader is a restore point opened for reading. While it is open its chunks
// stay, also when the point expires. Safe for concurrent use.
type Reader struct {
	repo  *Repository
	point Point
	lease vfs.Unlocker
}

// OpenPoint opens a point for reading, also one that is retired. It reads no more
// than the manifest.
func (r *Repository) OpenPoint(id PointID) (*Reader, error) {
	lease, unleased, err := takeLease(r.fsys, id)
	if err != nil {
		return nil, err
	}
	if unleased {
		r.warnOnce.Do(func() {
			r.log.Warn("reading without a lease: the repository can't be written from here; do not expire points meanwhile")
		})
	}
	p, err := r.openable(context.Background(), id)
	if err != nil {
		err = notFound(err)
		if lease != nil {
			err = errors.Join(err, lease.Unlock())
		}
		return nil, err
	}
	return &Reader{repo: r, point: p, lease: lease}, nil
}

// Point describes what was opened.
func (r *Reader) Point() Point { return r.point }

// Disk returns a disk of the point. An empty name stands for the only one.
func (r *Reader) Disk(name string) (*Disk, error) {
	if name == "" && len(r.point.Disks) == 1 {
		return r.disk(0), nil
	}
	var names []string
	for i, d := range r.point.Disks {
		if d.Name == name {
			return r.disk(i), nil
		}
		names = append(names, d.Name)
	}
	return nil, fmt.Errorf("disk %q of point %s: %w; it has %s", name, r.point.ID, ErrNotFound, strings.Join(names, ", "))
}

func (r *Reader) disk(i int) *Disk {
	info := r.point.Disks[i]
	return &Disk{
		store: r.repo.store, info: info, point: r.point.ID,
		tree: blockmap.NewTree(info.Root, info.SizeBytes, r.repo.settings.Geometry),
	}
}

// Close gives up the lease.
func (r *Reader) Close() error {
	if r.lease == nil {
		return nil
	}
	l := r.lease
	r.lease = nil
	return l.Unlock()
}
