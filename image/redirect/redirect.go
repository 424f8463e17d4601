// Package redirect is a writable layer over read-only disks, made for an instant
// recovery: what a running machine writes goes to files of a session, and the
// disks below, its restore point, never change.
//
// A [Session] is one directory and serves all disks of a machine. It holds
//
//	session           header: which bases these layers belong to
//	wal.0, wal.1      write-ahead log, two files that take turns
//	map               log of which grain lies where
//	data.D.L          bytes of disk D in layer L: grain n at n × 4 KiB
//	reserve           space kept for when the volume is full
//	lock              held while a session is open
//
// FORMAT.md has the bytes. A grain is 4 KiB and in one of three states in a
// layer: base (look below), data (in the data file) or zero.
//
// # What is durable when
//
// A synced write is a record in the log, and one sync serves all who wait.
// An unsynced one is in memory or in the page cache until [Disk.Commit], or
// until a later synced write of any disk of the session; large ones to grains
// not written before go straight to the data file and get their record when
// they are committed. A checkpoint copies the records of one log file to the
// data files, syncs them, notes the grains in the map, and gives the log file
// back. A grain that has a record in the log is written only through the log
// until then, so that a data file is never half-written where it counts.
//
// Space for a write is taken when the write is accepted: a grain written for
// the first time is put in its place in the data file at once, where nobody
// looks before the map says so. So ErrNoSpace comes from a write, never from a
// commit.
//
// # When a sync fails
//
// What it was to make durable counts as lost, and the file is not written
// again. Every waiter gets an error, the verifier changes, and the session goes
// back to its last durable state: a new log, a new map, and, where a data file
// failed, a new layer on top. The next failure makes the session read-only.
package redirect

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// What can go wrong beside what the files themselves say.
var (
	ErrDamaged  = errors.New("redirect layer is damaged")                // *DamageError says where
	ErrMismatch = errors.New("redirect layer belongs to another disk")   // base identity
	ErrNoSpace  = errors.New("no space left for redirected writes")      // volume or quota; only from writes
	ErrReadOnly = errors.New("redirect session is read-only")            // after a second failed sync
	ErrFailed   = errors.New("redirect session lost its unsynced bytes") // a sync failed; see Session.Verifier
	ErrBusy     = errors.New("another keep or migration is under way")
	ErrNoDisk   = errors.New("no such disk in the session")
	ErrClosed   = errors.New("redirect session is closed")
)

// DamageError says where in a session's files the bytes are wrong.
type DamageError struct {
	File   string
	Offset int64
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%v: %s at %d: %s", ErrDamaged, e.File, e.Offset, e.Reason)
}

func (e *DamageError) Unwrap() error { return ErrDamaged }

func damaged(file string, off int64, format string, args ...any) error {
	return &DamageError{file, off, fmt.Sprintf(format, args...)}
}

// Base is what lies below: a restore point's disk. Its methods may be called by
// several goroutines at once; it does not change. They mean what those of
// image.Disk mean.
type Base interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// Identity names the bytes of a base, so that a layer is never put on another.
type Identity struct {
	Repository string `json:"repository"`
	Point      string `json:"point"`
	Root       string `json:"root"` // root of the disk's block map
	Size       int64  `json:"size"` // bytes
}

// A DiskSpec is one disk of a session: given at Create, and again at Open,
// where it must be the same.
type DiskSpec struct {
	Name     string
	Identity Identity
	Base     Base
}

// Options of a session. The zero value has the defaults.
type Options struct {
	// WALBytes is the space for both log files, 64 MiB by default; what a
	// session was created with stays.
	WALBytes int64

	// ReserveBytes is the space held back for a full volume; by default what
	// both log files can hold and 2 MiB.
	ReserveBytes int64

	// QuotaBytes limits the bytes in the data files; 0: no limit.
	QuotaBytes int64

	// DirtyBytes limits the bytes written and not yet durable, 64 MiB by
	// default. From half of it on they are written back.
	DirtyBytes int64

	// OpenTarget opens the target that a disk was migrated to, by the name
	// given to Migrate, when a session is opened again after the switch.
	OpenTarget func(disk, name string) (Target, error)

	// Log gets failures, and warnings of space that runs out. Default: none.
	Log *slog.Logger

	// Warn is called when the use of the quota or of the volume crosses 70, 85
	// or 95 %, upwards or back below with some way between, within about a
	// second, one call at a time. It must not wait, nor close the session.
	Warn func(SpaceWarning)

	// Now is the clock behind times left; default time.Now.
	Now func() time.Time

	// Shorter in tests:
	markAfter time.Duration // see the constant
	often     time.Duration // how often space is looked at, also for a checkpoint that found none
}

const (
	grainBytes = 4096
	mib        = 1 << 20

	maxDisks  = 64
	maxLayers = 4

	// maxChunk is the most that one record holds.
	maxChunk = mib

	// looseBytes is the least run of new grains that goes to the data file
	// alone when it need not be synced.
	looseBytes = 32 << 10
)

func (o Options) withDefaults() Options {
	if o.WALBytes <= 0 {
		o.WALBytes = 64 * mib
	}
	o.WALBytes = max(o.WALBytes/2/grainBytes, 16) * 2 * grainBytes
	if o.ReserveBytes <= 0 {
		o.ReserveBytes = o.WALBytes + 2*mib
	}
	if o.DirtyBytes <= 0 {
		o.DirtyBytes = 64 * mib
	}
	if o.markAfter <= 0 {
		o.markAfter = markAfter
	}
	if o.often <= 0 {
		o.often = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}
