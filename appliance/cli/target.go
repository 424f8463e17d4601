package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"holdfast/repo"
)

// target is where one disk is restored to. Nothing under the target's name
// looks like a disk before place: restore writes beside it, or in a way that
// shows no beginning.
type target interface {
	// restore writes the disk and makes it durable. show is called with the
	// bytes of the disk that are behind us.
	restore(ctx context.Context, d *repo.Disk, show func(done int64)) (repo.RestoreResult, error)

	// place gives what was restored its name.
	place() error

	// discard takes away what was restored and not placed.
	discard() error
}

// targetFormat is a format that a disk can be restored to.
type targetFormat struct {
	name   string
	ext    string // of a file made in a directory
	file   func(path string, size int64, force bool) (target, error)
	beside func(path string) string // a second file that it makes; nil: none
}

var targetFormats = []targetFormat{
	{"raw", ".raw", newRawFile, nil},
	{"vmdk", ".vmdk", newStreamFile, nil},
	{"vmdk-flat", ".vmdk", newFlatFile, flatExtent},
	{"vhdx", ".vhdx", newViewFile(vhdxView), nil},
	{"qcow2", ".qcow2", newViewFile(qcow2View), nil},
}

func targetFormatNames() []string {
	var names []string
	for _, f := range targetFormats {
		names = append(names, f.name)
	}
	return names
}

// findTargetFormat returns the format that --format names. Without one it is
// raw, unless the path ends like the file of another format.
func findTargetFormat(name, path string) (targetFormat, error) {
	if name == "" {
		if ext := strings.ToLower(filepath.Ext(path)); ext != ".raw" && isImageExt(ext) {
			return targetFormat{}, withHint(usagef("%s ends in %s, but without --format it would be raw", path, ext), "--format %s", strings.Join(targetFormatNames(), ", "))
		}
		name = "raw"
	}
	for _, f := range targetFormats {
		if f.name == name {
			return f, nil
		}
	}
	return targetFormat{}, usagef("--format %s: want %s", name, strings.Join(targetFormatNames(), ", "))
}

// isImageExt says whether files with that extension are disks in a format.
func isImageExt(ext string) bool {
	switch strings.ToLower(ext) {
	case ".raw", ".vmdk", ".qcow2", ".vhdx", ".vhd", ".vdi":
		return true
	}
	return false
}

// newTarget checks that a disk of size bytes can go to path, and makes ready.
// Nothing that was there is touched.
func newTarget(path string, f targetFormat, size int64, force bool) (target, error) {
	// A link stands for what it leads to, as /dev/vg0/db1 does.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s is a link to what is not there", path)
		}
		return f.file(path, size, force)
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0:
		if f.name != "raw" {
			return nil, usagef("%s is a block device, which takes raw and not %s", path, f.name)
		}
		if !force {
			return nil, existsError(path)
		}
		return newDevice(path, size)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a file nor a block device", path)
	case !force:
		return nil, existsError(path)
	}
	return f.file(path, size, force)
}

func existsError(path string) error {
	return withHint(fmt.Errorf("%s: %w", path, fs.ErrExist), "--force overwrites it")
}
