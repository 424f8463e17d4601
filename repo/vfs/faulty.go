package vfs

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
	"syscall"
)

// Faulty passes operations on to another FS. It numbers those that change
// something, syncs and locks from 0 on in the order in which they begin,
// remembers them, and makes some fail.
type Faulty struct {
	fsys FS

	mu       sync.Mutex // guards all below; never held while an operation runs
	ops      []Op
	reads    bool
	crashed  bool
	onOp     func(index int, op Op)
	faults   []Fault
	badReads []badRead
}

// Fault says how one operation fails.
type Fault struct {
	At  int   // the number of the operation
	Err error // what it returns; syscall.EIO when nil

	// Sticky makes every later numbered operation fail in the same way.
	Sticky bool

	// Partial is how many bytes of a write reach the file before it fails;
	// when negative, half of them.
	Partial int

	// Done lets the operation take place in full before it fails.
	Done bool
}

// badRead is a fault of the medium below some files.
type badRead struct {
	pattern string
	err     error // nil: flip
	off     int64
	mask    byte
}

// NewFaulty returns a Faulty over fsys with no fault yet.
func NewFaulty(fsys FS) *Faulty { return &Faulty{fsys: fsys} }

// Unwrap returns the FS that f passes operations on to.
func (f *Faulty) Unwrap() FS { return f.fsys }

// CountReads makes opening, reading, listing and describing numbered operations
// too. Call it before the first operation.
func (f *Faulty) CountReads() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads = true
}

// OnOp has fn called before each numbered operation begins, which lets one run
// of a program look at the file system as it is at every one: fn may take a
// CrashClone of the Mem below, or fill it up. It must not call f.
func (f *Faulty) OnOp(fn func(index int, op Op)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onOp = fn
}

// Inject adds a fault. A Fault whose Err is ErrCrashed is a crash: from it on
// everything fails with ErrCrashed, reads too, whether numbered or not.
func (f *Faulty) Inject(fault Fault) {
	if fault.Err == nil {
		fault.Err = syscall.EIO
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fault)
}

// FailAt makes the operation of that number fail with err, without any effect.
// When it is a sync of a file in a Mem, what was to be synced is lost.
func (f *Faulty) FailAt(index int, err error) { f.Inject(Fault{At: index, Err: err}) }

// CrashAt makes the operation of that number and everything after it fail with
// ErrCrashed, without any effect.
func (f *Faulty) CrashAt(index int) { f.Inject(Fault{At: index, Err: ErrCrashed}) }

// FailReads makes every read of the files whose names match the pattern, as
// path.Match has it, give err.
func (f *Faulty) FailReads(pattern string, err error) {
	f.addBadRead(badRead{pattern: pattern, err: err})
}

// FlipReads flips the bits of mask in the byte at off whenever it is read from
// one of the files whose names match the pattern.
func (f *Faulty) FlipReads(pattern string, off int64, mask byte) {
	f.addBadRead(badRead{pattern: pattern, off: off, mask: mask})
}

func (f *Faulty) addBadRead(b badRead) {
	if _, err := path.Match(b.pattern, ""); err != nil {
		panic("vfs: " + b.pattern + ": " + err.Error())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.badReads = append(f.badReads, b)
}

// Heal takes all faults back, of reads too, and ends a crash.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.badReads, f.crashed = nil, nil, false
}

// Ops returns the numbered operations so far; its index is their number.
func (f *Faulty) Ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ops)
}

// Count returns how many operations have been numbered so far.
func (f *Faulty) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ops)
}

// begin numbers an operation and returns the fault it must suffer, if any.
func (f *Faulty) begin(op Op) (index int, fault *Fault) {
	f.mu.Lock()
	if f.crashed || !f.reads && op.looks() {
		defer f.mu.Unlock()
		if f.crashed {
			return -1, &Fault{Err: ErrCrashed}
		}
		return -1, nil
	}
	index = len(f.ops)
	f.ops = append(f.ops, op)
	for _, ft := range f.faults {
		if ft.At == index || ft.At < index && ft.Sticky {
			fault = &ft
			f.crashed = f.crashed || ft.Err == ErrCrashed
			break
		}
	}
	fn := f.onOp
	f.mu.Unlock()
	if fn != nil {
		fn(index, op)
	}
	return index, fault
}

// looks tells whether the operation changes nothing.
func (o Op) looks() bool {
	switch o.Kind {
	case OpOpen, OpRead, OpReadDir, OpStat:
		return true
	}
	return false
}

// end notes the result of a numbered operation.
func (f *Faulty) end(index int, err error) {
	if index >= 0 && err != nil && err != io.EOF {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ops[index].Err = err
	}
}

// run does one operation: do does it, fail is what it does instead when it must
// fail and nil means nothing.
func (f *Faulty) run(op Op, do func() error, fail func(*Fault)) error {
	index, fault := f.begin(op)
	var err error
	switch {
	case fault == nil:
		err = do()
	default:
		if fault.Done {
			_ = do() // the fault's own error comes out
		} else if fail != nil {
			fail(fault)
		}
		err = &fs.PathError{Op: string(op.Kind), Path: op.Name, Err: fault.Err}
	}
	f.end(index, err)
	return err
}

func (f *Faulty) Create(name string) (File, error) {
	return f.file(Op{Kind: OpCreate, Name: name}, f.fsys.Create)
}

func (f *Faulty) Open(name string) (File, error) {
	return f.file(Op{Kind: OpOpen, Name: name}, f.fsys.Open)
}

func (f *Faulty) OpenWrite(name string) (File, error) {
	return f.file(Op{Kind: OpOpen, Name: name}, f.fsys.OpenWrite)
}

func (f *Faulty) file(op Op, open func(string) (File, error)) (File, error) {
	var file File
	err := f.run(op, func() (err error) {
		file, err = open(op.Name)
		return err
	}, nil)
	if err != nil {
		if file != nil {
			_ = file.Close() // opened before the fault; nobody else can
		}
		return nil, err
	}
	return &faultyFile{f: f, file: file, name: op.Name}, nil
}

func (f *Faulty) Mkdir(name string) error {
	return f.run(Op{Kind: OpMkdir, Name: name}, func() error { return f.fsys.Mkdir(name) }, nil)
}

func (f *Faulty) Remove(name string) error {
	return f.run(Op{Kind: OpRemove, Name: name}, func() error { return f.fsys.Remove(name) }, nil)
}

func (f *Faulty) Rename(oldName, newName string) error {
	return f.run(Op{Kind: OpRename, Name: oldName, To: newName}, func() error { return f.fsys.Rename(oldName, newName) }, nil)
}

func (f *Faulty) SyncDir(name string) error {
	return f.run(Op{Kind: OpSyncDir, Name: name}, func() error { return f.fsys.SyncDir(name) }, nil)
}

func (f *Faulty) ReadDir(name string) (list []Info, err error) {
	err = f.run(Op{Kind: OpReadDir, Name: name}, func() error {
		list, err = f.fsys.ReadDir(name)
		return err
	}, nil)
	return list, err
}

func (f *Faulty) Stat(name string) (info Info, err error) {
	err = f.run(Op{Kind: OpStat, Name: name}, func() error {
		info, err = f.fsys.Stat(name)
		return err
	}, nil)
	return info, err
}

// Locked counts as Stat does.
func (f *Faulty) Locked(name string) (locked bool, err error) {
	err = f.run(Op{Kind: OpStat, Name: name}, func() error {
		locked, err = f.fsys.Locked(name)
		return err
	}, nil)
	return locked && err == nil, err
}

// Lock passes the lock on. Unlock is not an operation and works after a crash:
// a process that dies loses its locks.
func (f *Faulty) Lock(name string, mode LockMode) (l Unlocker, err error) {
	err = f.run(Op{Kind: OpLock, Name: name}, func() error {
		l, err = f.fsys.Lock(name, mode)
		return err
	}, nil)
	if err != nil && l != nil {
		_ = l.Unlock() // taken before the fault; nobody else can
		l = nil
	}
	return l, err
}

func (f *Faulty) Free() (n uint64, err error) {
	err = f.run(Op{Kind: OpStat, Name: "."}, func() error {
		n, err = f.fsys.Free()
		return err
	}, nil)
	return n, err
}
