package vfs

import (
	"io/fs"
	"path"
	"sync"
)

// faultyFile is a file opened through a Faulty.
type faultyFile struct {
	f    *Faulty
	file File
	name string

	mu  sync.Mutex // guards pos, which is for the log only
	pos int64
}

func (f *faultyFile) ReadAt(p []byte, off int64) (n int, err error) {
	op := Op{Kind: OpRead, Name: f.name, Off: off, Len: int64(len(p))}
	err = f.f.run(op, func() error {
		n, err = f.file.ReadAt(p, off)
		if bad := f.f.spoil(f.name, p[:n], off); bad != nil {
			n, err = 0, &fs.PathError{Op: "read", Path: f.name, Err: bad}
		}
		return err
	}, nil)
	return n, err
}

// spoil does to the bytes read what the faults of reads say.
func (f *Faulty) spoil(name string, p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.badReads {
		match, _ := path.Match(b.pattern, name) // the pattern was tried when it was added
		switch {
		case !match:
		case b.err != nil:
			return b.err
		case b.off >= off && b.off < off+int64(len(p)):
			p[b.off-off] ^= b.mask
		}
	}
	return nil
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, off, func(p []byte) (int, error) { return f.file.WriteAt(p, off) })
}

func (f *faultyFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.write(p, f.pos, f.file.Write)
	f.pos += int64(n)
	return n, err
}

func (f *faultyFile) write(p []byte, off int64, do func([]byte) (int, error)) (n int, err error) {
	op := Op{Kind: OpWrite, Name: f.name, Off: off, Len: int64(len(p))}
	err = f.f.run(op, func() error {
		n, err = do(p)
		return err
	}, func(fault *Fault) {
		part := min(fault.Partial, len(p))
		if part < 0 {
			part = len(p) / 2
		}
		if part > 0 {
			n, _ = do(p[:part]) // the fault's own error comes out
		}
	})
	return n, err
}

func (f *faultyFile) Truncate(size int64) error {
	return f.f.run(Op{Kind: OpTruncate, Name: f.name, Off: size}, func() error { return f.file.Truncate(size) }, nil)
}

func (f *faultyFile) Preallocate(n int64) error {
	return f.f.run(Op{Kind: OpPreallocate, Name: f.name, Off: n}, func() error { return f.file.Preallocate(n) }, nil)
}

func (f *faultyFile) Sync() error {
	return f.f.run(Op{Kind: OpSync, Name: f.name}, f.file.Sync, func(fault *Fault) {
		// A crash is not a failed sync: the kernel dropped nothing.
		if m, ok := f.file.(interface{ failSync() }); ok && fault.Err != ErrCrashed {
			m.failSync()
		}
	})
}

func (f *faultyFile) Size() (n int64, err error) {
	err = f.f.run(Op{Kind: OpStat, Name: f.name}, func() error {
		n, err = f.file.Size()
		return err
	}, nil)
	return n, err
}

// DropCache and Close are not operations: nothing depends on the first, and a
// process that dies loses its open files, so that Close works after a crash.
func (f *faultyFile) DropCache(off, n int64) error { return f.file.DropCache(off, n) }
func (f *faultyFile) Close() error                 { return f.file.Close() }

// failSync lets one Faulty stand before another.
func (f *faultyFile) failSync() {
	if m, ok := f.file.(interface{ failSync() }); ok {
		m.failSync()
	}
}
