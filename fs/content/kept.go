package content

import (
	"context"
	"io"

	"holdfast/fs"
	"holdfast/repo"
)

// keptFile is one of the small files that a machine has beside its disks, as
// they are kept with the point: its .vmx, its .nvram.
type keptFile struct {
	isFile
	t    *Tree
	p    *point
	file int
}

func (f *keptFile) attr(context.Context) (fs.Attr, error) {
	return fileAttr(f.p.id(inoKept+uint64(f.file)), f.p.time(), f.p.Files[f.file].SizeBytes), nil
}

func (f *keptFile) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	op, release, err := f.t.open(ctx, f.p)
	if err != nil {
		return 0, err
	}
	defer release()
	files, err := op.files.get(op.reader.Files)
	if err != nil {
		return 0, fsError(err)
	}
	data := files[f.file].Data
	if off >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(p, data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *keptFile) extents(_ context.Context, off int64, _ int) ([]fs.Extent, error) {
	size := f.p.Files[f.file].SizeBytes
	if off >= size {
		return nil, io.EOF
	}
	return []fs.Extent{{Off: off, Len: size - off, Kind: fs.Made}}, nil
}

// keptNames are what the machine's files are called in the point's directory:
// as in the machine, but for names that can be none and those that are taken.
func keptNames(files []repo.FileInfo) []string {
	names := make([]string, len(files))
	taken := map[string]bool{"disks": true, "files": true, "machine.json": true}
	for i, f := range files {
		name := shorten(escape(f.Name, ""))
		if taken[name] {
			name += "~" + digestName(f.Name)
		}
		names[i], taken[name] = name, true
	}
	return names
}
