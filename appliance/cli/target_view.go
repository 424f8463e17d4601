package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"holdfast/image/qcow2"
	"holdfast/image/vhdx"
	"holdfast/repo"
)

// view shows a disk as a file of a format with tables in front and the disk
// behind them, from its first byte to its last.
type view interface {
	io.ReaderAt
	Size() int64
	DataOffset() int64
	NextData(off int64) (start, end int64, err error)
}

// viewSource is what a view is made of.
type viewSource interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// viewMaker makes the view of a disk whose content identity names.
type viewMaker func(src viewSource, identity string) (view, error)

func qcow2View(src viewSource, _ string) (view, error) { return qcow2.NewView(src) }

func vhdxView(src viewSource, identity string) (view, error) {
	return vhdx.NewView(src, vhdx.ViewOptions{Identity: identity})
}

// viewFile is a file with the bytes of a view, sparse as the disk is.
type viewFile struct {
	*staged
	make viewMaker
}

func newViewFile(maker viewMaker) func(path string, size int64, force bool) (target, error) {
	return func(path string, size int64, force bool) (target, error) {
		if _, err := maker(blank(size), ""); err != nil { // too large
			return nil, err
		}
		s, err := stage(path, force)
		if err != nil {
			return nil, err
		}
		return viewFile{s, maker}, nil
	}
}

// restore writes the disk as a raw one is written, and the tables when all that
// they point to is there.
func (t viewFile) restore(ctx context.Context, d *repo.Disk, show func(int64)) (repo.RestoreResult, error) {
	v, err := t.make(d, diskIdentity(d))
	if err != nil {
		return repo.RestoreResult{}, err
	}
	if err := t.Truncate(v.Size()); err != nil {
		return repo.RestoreResult{}, err
	}
	out := &behind{f: t.File}
	res, err := d.Restore(ctx, io.NewOffsetWriter(out, v.DataOffset()), repo.RestoreOptions{Progress: func(done, _ int64) { show(done) }})
	if err == nil {
		var tables int64
		tables, err = copyTables(ctx, out, v)
		res.WrittenBytes += tables
	}
	out.wait()
	if err != nil {
		return res, err
	}
	return res, t.Sync()
}

// copyTables writes what lies before the disk, and says how much that was.
func copyTables(ctx context.Context, dst io.WriterAt, v view) (written int64, err error) {
	buf := make([]byte, 1<<20)
	for off := int64(0); off < v.DataOffset(); {
		start, end, err := v.NextData(off)
		if errors.Is(err, io.EOF) {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		for off = min(start, v.DataOffset()); off < min(end, v.DataOffset()); {
			if err := ctx.Err(); err != nil {
				return written, err
			}
			b := buf[:min(int64(len(buf)), min(end, v.DataOffset())-off)]
			if n, err := v.ReadAt(b, off); n < len(b) {
				return written, err
			}
			if _, err := dst.WriteAt(b, off); err != nil {
				return written, err
			}
			written += int64(len(b))
			off += int64(len(b))
		}
	}
	return written, nil
}

// diskIdentity names the content of a disk: other bytes, another name.
func diskIdentity(d *repo.Disk) string { return fmt.Sprintf("%s %d", d.Info().Root, d.Size()) }

// blank is a disk of zeros.
type blank int64

func (b blank) Size() int64 { return int64(b) }

func (b blank) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), int64(b)-off)))
	clear(p[:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (b blank) NextData(int64) (start, end int64, err error) { return 0, 0, io.EOF }
