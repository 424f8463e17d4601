package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"holdfast/repo/vfs"
)

// Holder says who owns a repository. It is information for people: what
// excludes is the lock, which dies with its process.
type Holder struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Doing string    `json:"doing"` // for example "backup of web1"
	Since time.Time `json:"since"`
}

const (
	maxHolderBytes = 4096
	lockPoll       = 200 * time.Millisecond
)

// lockOwner takes the lock that makes this process the owner, waiting for at
// most wait. While another holds it, the error is a *BusyError that names it.
func lockOwner(ctx context.Context, fsys vfs.FS, doing string, now func() time.Time, wait time.Duration) (vfs.Unlocker, error) {
	deadline := time.Now().Add(wait)
	for {
		l, err := fsys.Lock(lockName, vfs.Exclusive)
		if err == nil {
			// On a full volume nobody is told who the owner is, and it may make room.
			if err := writeHolder(fsys, doing, now()); err != nil && !isFull(err) {
				return nil, errors.Join(err, l.Unlock())
			}
			return l, nil
		}
		if !errors.Is(err, vfs.ErrLocked) {
			return nil, fmt.Errorf("lock repository: %w", readOnly(err))
		}
		if !time.Now().Before(deadline) {
			return nil, &BusyError{Holder: readHolder(fsys)}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(lockPoll, time.Until(deadline))):
		}
	}
}

// writeHolder puts the owner's description into the lock file. It needn't be
// durable: it says nothing once the lock is gone.
func writeHolder(fsys vfs.FS, doing string, since time.Time) error {
	host, _ := os.Hostname() // an unknown host is no reason to refuse
	b, err := json.Marshal(Holder{PID: os.Getpid(), Host: host, Doing: doing, Since: since.UTC()})
	if err != nil {
		return fmt.Errorf("write holder: %w", err)
	}
	f, err := fsys.OpenWrite(lockName)
	if err != nil {
		return fmt.Errorf("write holder: %w", err)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(append(b, '\n'), 0)
	}
	return errors.Join(err, f.Close())
}

// forgetHolder empties the lock file when the owner goes. What it did is
// nobody's business any more.
func forgetHolder(fsys vfs.FS) error {
	f, err := fsys.OpenWrite(lockName)
	if err != nil {
		return fmt.Errorf("empty %s: %w", lockName, err)
	}
	return errors.Join(f.Truncate(0), f.Close())
}

// readHolder returns what the lock file says, or nothing.
func readHolder(fsys vfs.FS) Holder {
	var h Holder
	b, err := vfs.ReadFile(fsys, lockName, maxHolderBytes)
	if err != nil || json.Unmarshal(b, &h) != nil {
		return Holder{}
	}
	return h
}
