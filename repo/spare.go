package repo

import (
	"errors"
	"fmt"
	"io/fs"

	"holdfast/repo/vfs"
)

// Where the number of files is fixed when the file system is made, as on ext4,
// it may be used up before the bytes are, and no reserve of bytes helps then. A
// few empty files are kept there, to be given up together with the reserve. They
// lie where the owner may always make and remove files, and may be lost.

// spareFiles is more than expiry and sweep have at once before they remove any.
const spareFiles = 16

func sparePath(i int) string { return fmt.Sprintf("%s/spare-%02d", indexDir, i) }

// giveUpSpares removes the spare files, and reports whether there were any.
func giveUpSpares(fsys vfs.FS) (given bool, err error) {
	for i := range spareFiles {
		err := fsys.Remove(sparePath(i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return given, fmt.Errorf("give up spare files: %w", err)
		}
		given = true
	}
	if given {
		err = fsys.SyncDir(indexDir) // only then they are free
	}
	return given, err
}

// keepSpares makes the spare files that are missing, as far as that is possible.
func keepSpares(fsys vfs.FS) error {
	for i := range spareFiles {
		f, err := fsys.Create(sparePath(i))
		switch {
		case errors.Is(err, fs.ErrExist):
			continue
		case isFull(err):
			return nil
		case err != nil:
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
