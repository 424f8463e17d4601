package cli

import (
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// behindBytes is how much is written between two rounds of writing back.
const behindBytes = 64 << 20

// A behind passes writes to a file and has the system write them to disk while
// more come, and forget them: a restored disk is as large as memory or larger,
// is not read again soon, and must not push everything else out of the page
// cache. The last sync then waits for little. WriteAt is safe for concurrent
// use.
type behind struct {
	f       *os.File
	written atomic.Int64 // since the last round
	round   sync.Mutex   // held during one
	rounds  sync.WaitGroup
}

var _ io.WriterAt = (*behind)(nil)

func (b *behind) WriteAt(p []byte, off int64) (int, error) {
	n, err := b.f.WriteAt(p, off)
	if b.written.Add(int64(n)) >= behindBytes && b.round.TryLock() {
		b.written.Store(0)
		b.rounds.Go(func() {
			defer b.round.Unlock()
			b.writeBack()
		})
	}
	return n, err
}

// writeBack asks for all pages to be written and dropped. That it can't be had
// is no error: the final sync is what counts, and reports what went wrong.
func (b *behind) writeBack() {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	fd := int(b.f.Fd())
	if unix.SyncFileRange(fd, 0, 0, all) == nil {
		_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	}
}

// wait waits for the round under way, before the file is synced and closed.
func (b *behind) wait() { b.rounds.Wait() }
