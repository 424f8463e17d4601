package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"holdfast/image/internal/fault"
)

// file is a regular file or a block device read as it is: a raw disk, or the
// container of another format.
type file struct {
	f      *os.File
	info   fs.FileInfo
	size   int64 // when it was opened
	device bool
	drop   bool // give pages back to the kernel after reading them
}

// newFile takes over f, which it closes when it fails.
func newFile(f *os.File, drop bool) (*file, error) {
	r, err := statFile(f, drop)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	adviseSequential(f)
	return r, nil
}

func statFile(f *os.File, drop bool) (*file, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r := &file{f: f, info: info, size: info.Size(), drop: drop}
	switch mode := info.Mode(); {
	case mode.IsRegular():
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		r.device = true
		if r.size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w: neither a regular file nor a block device", fs.ErrInvalid)
	}
	return r, nil
}

func (r *file) Size() int64  { return r.size }
func (r *file) Close() error { return r.f.Close() }

func (r *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	if off >= r.size {
		return 0, io.EOF
	}
	want := int(min(int64(len(p)), r.size-off))
	n, err := r.f.ReadAt(p[:want], off)
	if r.drop && n > 0 {
		dropPages(r.f, off, int64(n))
	}
	switch {
	case err == io.EOF && n < want:
		return n, fmt.Errorf("%w: it had %d bytes when it was opened and now ends at %d",
			fault.ErrTruncated, r.size, off+int64(n))
	case err != nil && err != io.EOF:
		return n, err
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

// NextData asks the file system where data lies. Where it cannot tell, and on
// block devices, everything is data.
func (r *file) NextData(off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fs.ErrInvalid
	}
	if off >= r.size {
		return 0, 0, io.EOF
	}
	start, end, err = seekData(r.f, off)
	if errors.Is(err, errNoHoleMap) || (err == nil && r.device) {
		return off, r.size, nil
	}
	if err == io.EOF || (err == nil && start >= r.size) {
		// A file that was cut since it was opened must not pass for a hole.
		return 0, 0, r.stillWhole()
	}
	if err != nil {
		return 0, 0, err
	}
	return start, min(end, r.size), nil
}

// stillWhole returns io.EOF, or ErrTruncated when the file has become shorter.
func (r *file) stillWhole() error {
	info, err := r.f.Stat()
	if err != nil {
		return err
	}
	if !r.device && info.Size() < r.size {
		return fmt.Errorf("%w: it had %d bytes when it was opened and now has %d",
			fault.ErrTruncated, r.size, info.Size())
	}
	return io.EOF
}
