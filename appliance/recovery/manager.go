package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	treefs "holdfast/fs"
	"holdfast/fs/datastore"
	"holdfast/image/redirect"
	"holdfast/repo"
	"holdfast/repo/vfs"
)

// What can go wrong beside what repo, redirect and datastore have errors for.
var (
	ErrNoSession = errors.New("no such session")
	ErrExists    = errors.New("there is such a session already")
	ErrBusy      = errors.New("the session is being kept, migrated or stopped")
	ErrOffline   = errors.New("the session is offline")
	ErrNoRoom    = errors.New("no room for the machine's swap file")
	ErrMigrated  = errors.New("disk has been migrated")
	ErrClosed    = errors.New("recovery is closed")

	ErrNoDatastore = errors.New("the redirect directory has no datastore")
	ErrDamagedRoot = errors.New("the root of the datastore is damaged")
)

// Options of a Manager.
type Options struct {
	// State is where the records of sessions lie, and Redirect where everything
	// does that is written to them: directories of their own.
	State    vfs.FS
	Redirect vfs.FS

	// Repositories are those whose points can be published. One that can't be
	// opened takes its sessions offline, until it can.
	Repositories []Repository

	// Frames is the cache of all repositories, whatever their Options say; nil:
	// one of 512 MiB that leaves one core to those who answer what is decoded.
	Frames *repo.FrameCache

	// Quota bounds what each session may write, in bytes; 0: what is free.
	QuotaBytes int64

	// Rebuild makes the datastore's root anew out of its sessions, if it is
	// damaged. Its own files, which are no session's, are lost then.
	Rebuild bool

	// Actor is who asks, for the ledger of what is kept.
	Actor string

	// Retry is how long to wait before what is offline is tried again; 0: 10 s.
	Retry time.Duration

	Log *slog.Logger     // nil: none
	Now func() time.Time // nil: time.Now

	redirect redirect.Options // smaller ones for tests
	targets  targets          // of another kind for tests
}

// Repository is where restore points are.
type Repository struct {
	Path string // for people
	FS   vfs.FS

	// Options open it; with a State points can be kept where no other process
	// owns the repository.
	Options repo.Options
}

// Manager has the sessions of one datastore. Its methods may be called by several
// goroutines at once.
type Manager struct {
	opt   Options
	lock  vfs.Unlocker
	store *datastore.Store
	log   *slog.Logger

	frames *repo.FrameCache
	traces *traces

	ctx    context.Context // ends with Close
	cancel func()
	work   sync.WaitGroup

	repos []*repository

	mu       sync.Mutex // guards what follows
	sessions map[string]*session
	damaged  []foundRecord
	closed   bool
}

const (
	lockName      = "recovery.lock"
	datastoreDir  = "datastore"
	defaultRetry  = 10 * time.Second
	defaultCache  = 512 << 20
	recoverAtOnce = 4
)

// Open opens the datastore and brings back its sessions. When it returns, names,
// attributes and file handles of all sessions work; their disks follow, each as
// soon as it is there. ctx is for opening alone.
func Open(ctx context.Context, opt Options) (_ *Manager, err error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.targets == nil {
		opt.targets = realTargets{}
	}
	if opt.Retry == 0 {
		opt.Retry = defaultRetry
	}
	m := &Manager{opt: opt, log: opt.Log, sessions: make(map[string]*session)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if m.lock, err = opt.State.Lock(lockName, vfs.Exclusive); err != nil {
		return nil, fmt.Errorf("open recovery sessions: %w", err)
	}
	if m.frames = opt.Frames; m.frames == nil {
		m.frames = NewFrameCache(defaultCache)
	}
	m.traces = &traces{fs: opt.State, log: m.log, now: opt.Now}
	for _, r := range opt.Repositories {
		r.Options.Frames = m.frames
		m.repos = append(m.repos, &repository{Repository: r})
	}
	if err = m.openStore(); err == nil {
		err = m.load()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open recovery sessions: %w", err), m.release())
	}
	m.work.Go(m.recover)
	return m, nil
}

// openStore opens the datastore, or makes it the first time.
func (m *Manager) openStore() error {
	if err := m.opt.Redirect.Mkdir(datastoreDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := m.opt.Redirect.SyncDir("."); err != nil {
		return err
	}
	dir := sub(m.opt.Redirect, datastoreDir)
	opt := datastore.Options{Space: m.space, Now: m.opt.Now, Log: m.log}
	var err error
	if m.store, err = datastore.Open(dir, opt); errors.Is(err, fs.ErrNotExist) {
		if err = m.mayCreate(); err == nil {
			err = datastore.Create(dir, opt)
		}
		if err == nil {
			m.store, err = datastore.Open(dir, opt)
		}
	}
	if errors.Is(err, treefs.ErrDamaged) && m.store == nil {
		if !m.opt.Rebuild {
			return fmt.Errorf("%w: %w", ErrDamagedRoot, err)
		}
		m.log.Warn("the root of the datastore is damaged and made anew out of its sessions", "err", err)
		if err = datastore.Rebuild(dir, opt); err == nil {
			m.store, err = datastore.Open(dir, opt)
		}
	}
	return err
}

// mayCreate refuses to make a datastore when there was one: its volume is not
// mounted, most likely, and with another one all file handles would be stale.
func (m *Manager) mayCreate() error {
	found, err := readRecords(m.opt.State)
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%w, and the state has %d sessions: mount its volume, or name the directory that they are in; to give them up, remove %s in the state directory",
			ErrNoDatastore, len(found), recordsDir)
	}
	return err
}

// load makes a session of every record, and finishes what needs no repository.
func (m *Manager) load() error {
	found, err := readRecords(m.opt.State)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.rec == nil {
			m.log.Error("a session's record can't be read", "session", f.id, "err", f.err)
			m.damaged = append(m.damaged, f)
			continue
		}
		m.sessions[f.id] = newSession(f.rec)
	}
	return nil
}

// recover brings sessions back, in parallel, and tries again what failed, until
// the manager is closed.
func (m *Manager) recover() {
	for {
		limit := make(chan struct{}, recoverAtOnce)
		var all sync.WaitGroup
		for _, s := range m.list() {
			if !s.offline() {
				continue
			}
			all.Go(func() {
				limit <- struct{}{}
				defer func() { <-limit }()
				m.bringBack(s)
			})
		}
		all.Wait()
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(m.opt.Retry):
		}
	}
}

// bringBack does what the record of a session says that is to be done.
func (m *Manager) bringBack(s *session) {
	if m.ctx.Err() != nil || !s.begin() {
		return
	}
	defer s.end()
	rec := s.snapshot()
	var err error
	switch rec.State {
	case running:
		if err = m.attach(m.ctx, s, nil); err == nil {
			m.log.Info("session is back", "session", rec.Name, "point", rec.Point)
		}
	case publishing, stopping:
		if err = m.remove(m.ctx, s); err == nil {
			m.log.Info("what was left of a session is gone", "session", rec.Name)
		}
	}
	if err != nil && m.ctx.Err() == nil && s.failed(err) {
		m.log.Error("session is offline", "session", rec.Name, "err", err)
	}
}

// Store is the tree to serve. It is good until Close.
func (m *Manager) Store() *datastore.Store { return m.store }

// Wait waits until every session is there again or offline, and what was
// interrupted is finished or undone, or ctx ends.
func (m *Manager) Wait(ctx context.Context) error {
	for {
		if !slices.ContainsFunc(m.list(), (*session).pending) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// list returns the sessions in the order of their publishing.
func (m *Manager) list() []*session {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*session
	for _, s := range m.sessions {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *session) int { return compareRecords(a.snapshot(), b.snapshot()) })
	return all
}

// find returns the session of a name or id.
func (m *Manager) find(name string) (*session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	for id, s := range m.sessions {
		if rec := s.snapshot(); id == name || rec.Name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNoSession, name)
}

// Close closes all sessions as they are: they are there again when a Manager is
// opened with the same directories. What is under way ends. Nobody may use the
// Store any more.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
	var errs []error
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, s := range m.list() {
		all.Go(func() {
			s.giveUp()
			s.op.Lock()
			defer s.op.Unlock()
			err := m.detach(s, nil)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	all.Wait()
	return errors.Join(append(errs, m.release())...)
}

// release closes what is open beside the sessions.
func (m *Manager) release() error {
	m.cancel()
	var errs []error
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	for _, r := range m.repos {
		errs = append(errs, r.close())
	}
	return errors.Join(append(errs, m.lock.Unlock())...)
}

// repository is one of the manager's, opened when it is needed.
type repository struct {
	Repository

	mu   sync.Mutex // guards what follows
	open *repo.Repository
}

// get opens the repository unless it is.
func (r *repository) get(ctx context.Context) (*repo.Repository, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		open, err := repo.Open(ctx, r.FS, r.Options)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Path, err)
		}
		r.open = open
	}
	return r.open, nil
}

func (r *repository) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		return nil
	}
	return r.open.Close()
}

// repositoryOf opens the repository that a session's point is in.
func (m *Manager) repositoryOf(ctx context.Context, rec *record) (*repository, *repo.Repository, error) {
	var errs []error
	for _, r := range m.repos {
		open, err := r.get(ctx)
		if err != nil {
			errs = append(errs, err)
		} else if open.Info().ID == rec.Repository {
			return r, open, nil
		}
	}
	return nil, nil, errors.Join(append([]error{fmt.Errorf("repository %s, which was at %s: %w", rec.Repository, rec.Path, repo.ErrNotFound)}, errs...)...)
}

// findPoint finds a restore point among all repositories.
func (m *Manager) findPoint(ctx context.Context, spec string, zone *time.Location) (*repository, *repo.Repository, repo.Point, error) {
	var errs []error
	var at *repository
	var in *repo.Repository
	var point repo.Point
	for _, r := range m.repos {
		open, err := r.get(ctx)
		if err == nil {
			var p repo.Point
			if p, err = open.Find(ctx, spec, zone); err == nil && in != nil {
				return nil, nil, p, &repo.AmbiguousError{Spec: spec, Matches: []repo.Point{point, p}}
			} else if err == nil {
				at, in, point = r, open, p
				continue
			}
		}
		errs = append(errs, err)
	}
	if in != nil {
		return at, in, point, nil
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("point %s: %w: there is no repository", spec, repo.ErrNotFound))
	}
	return nil, nil, point, errors.Join(errs...)
}
