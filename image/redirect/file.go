package redirect

import (
	"holdfast/repo/vfs"
)

// syncData makes the bytes of a file durable whose length and place on the disk
// no longer change; where the system has nothing lighter, it is Sync.
func syncData(f vfs.File) error {
	if err, ok := fdatasync(f); ok {
		return err
	}
	return f.Sync()
}
