package datastore

import (
	"errors"
	"log/slog"
	"time"
)

// What can go wrong beside what package fs has errors for.
var (
	ErrNoSession = errors.New("no such session in the datastore")
	ErrBusy      = errors.New("the datastore is open elsewhere")
	ErrFormat    = errors.New("not a datastore of a version that we know")
	ErrClosed    = errors.New("the datastore is closed")
)

// Options of a store. The zero value has the defaults.
type Options struct {
	// QuotaBytes is what the files of the root may take together, those of
	// sessions not counted; 0: 64 MiB.
	QuotaBytes int64

	// MaxFiles is how many inodes the root, and each session, may have; 0:
	// 65,536.
	MaxFiles int

	// ReserveBytes are free bytes of the volume that the bytes of large files
	// never take, and that StatFS does not tell of; 0: 16 MiB.
	ReserveBytes int64

	// Space tells the free and all bytes of the volume that sessions write to,
	// for StatFS. nil: what fsys says, all of it being free.
	Space func() (free, total int64, err error)

	// Now is the clock; nil: time.Now. Times that are given are later than
	// those before in any case.
	Now func() time.Time

	// Log gets failures. nil: none.
	Log *slog.Logger
}

const (
	defaultQuota    = 64 << 20
	defaultMaxFiles = 1 << 16
	defaultReserve  = 16 << 20
)

func (o Options) withDefaults() Options {
	if o.QuotaBytes <= 0 {
		o.QuotaBytes = defaultQuota
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = defaultMaxFiles
	}
	if o.ReserveBytes <= 0 {
		o.ReserveBytes = defaultReserve
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
