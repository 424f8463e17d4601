package repo

import (
	crand "crypto/rand"
	"io"
	"log/slog"
	"time"

	"filippo.io/age"

	"holdfast/repo/vfs"
)

// Options say how to open a repository. The zero value opens a plain one for
// reading.
type Options struct {
	Passphrase []byte
	Identities []age.Identity

	// Keyless opens a sealed repository without a key: for what can be told and
	// done by stored bytes alone, as scrub and repair. Nothing can be restored or
	// backed up.
	Keyless bool

	// State is where the private signing key lies; only owners need it.
	State vfs.FS

	// Memory of the caches, in bytes; 0 means the defaults: 64 MiB of
	// decompressed frames, 16 MiB of nodes, 16 MiB of index blocks.
	FrameCacheBytes int64
	NodeCacheBytes  int64
	IndexCacheBytes int64

	// Frames is a cache of frames shared with other repositories; FrameCacheBytes
	// does not count then. nil: one of its own, that lets everybody decode.
	Frames *FrameCache

	// Doing says what an owner is about, for those it keeps waiting.
	Doing string

	Log  *slog.Logger     // nil: none
	Now  func() time.Time // nil means time.Now
	Rand io.Reader        // nil means crypto/rand; read by several goroutines at once

	adopting bool // the signing key may be missing: Adopt makes another
}

const (
	defaultFrameCache = 64 << 20
	defaultNodeCache  = 16 << 20
	defaultIndexCache = 16 << 20
)

func (o *Options) defaults() {
	if o.FrameCacheBytes == 0 {
		o.FrameCacheBytes = defaultFrameCache
	}
	if o.Frames == nil {
		o.Frames = NewFrameCache(o.FrameCacheBytes, 0)
	}
	if o.NodeCacheBytes == 0 {
		o.NodeCacheBytes = defaultNodeCache
	}
	if o.IndexCacheBytes == 0 {
		o.IndexCacheBytes = defaultIndexCache
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = crand.Reader
	}
}
