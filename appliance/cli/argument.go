package cli

import (
	"path/filepath"
	"regexp"
	"strings"

	"holdfast/repo"
)

// diskArg is a DISK argument: a file or block device and the name its disk has
// in the restore point.
type diskArg struct {
	name, path string
}

// parseDisks reads DISK arguments: NAME=PATH, or PATH, whose disk is called by
// the base name of the file. A path with '=' in it needs a name, or "./" before
// it. Names must differ.
func parseDisks(args []string) ([]diskArg, error) {
	seen := make(map[string]string)
	var disks []diskArg
	for _, arg := range args {
		d := parseDisk(arg)
		if d.path == "" {
			return nil, usagef("%q names no file", arg)
		}
		if err := repo.CheckName("disk", d.name); err != nil {
			return nil, err
		}
		if other, dup := seen[d.name]; dup {
			return nil, withHint(usagef("%s and %s would both be disk %q", other, d.path, d.name), "NAME=PATH names a disk")
		}
		seen[d.name] = d.path
		disks = append(disks, d)
	}
	return disks, nil
}

func parseDisk(arg string) diskArg {
	name, path, named := strings.Cut(arg, "=")
	if named && (name == "" || (!strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "./") && !strings.HasPrefix(name, "../"))) {
		return diskArg{name, path}
	}
	return diskArg{filepath.Base(arg), arg}
}

// pointSpec tells the restore point in POINT[:DISK] from the disk. A moment
// holds colons of its own.
var pointSpec = regexp.MustCompile(`^(.+@(?:latest|[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?Z?)|[^:@]*)(?::(.+))?$`)

// splitPoint cuts POINT[:DISK]; disk is "" when none is named.
func splitPoint(arg string) (point, disk string) {
	if m := pointSpec.FindStringSubmatch(arg); m != nil {
		return m[1], m[2]
	}
	return arg, ""
}
