package nfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"holdfast/fs"
	"holdfast/nfs/internal/xdr"
)

// planRead sees how much a READ will send.
func (rq *request) planRead(args xdr.Reader) {
	rq.off, rq.count = args.Uint64(), min(args.Uint32(), uint32(rq.srv.opt.MaxTransfer))
	rq.long = rq.count > copyBytes
	rq.cost = int64(rq.count) + 512
	rq.planned(args)
}

// planned refuses what has more than arguments at once: it might be so much that
// there is never room for the reply beside it.
func (rq *request) planned(args xdr.Reader) {
	if !args.Done() {
		rq.exp, rq.access, rq.cost, rq.long = nil, errGarbage, 0, false
	}
}

// readCached says that the bytes are in memory, and the attributes.
func (rq *request) readCached() bool {
	if !rq.attrCached() {
		return false
	}
	return rq.exp == nil || rq.off > math.MaxInt64 || rq.exp.cached.Cached(rq.id, int64(rq.off), int(rq.count))
}

// read is READ, RFC 1813 section 3.3.6. It sends less than what was asked for
// only at the file's end, or if that was more than rtmax.
func (rq *request) read() error {
	r := rq.decode()
	r.Uint64()
	r.Uint32()
	if !r.Done() {
		return errGarbage
	}
	a, err := rq.attr(0)
	if err != nil {
		return err
	}
	switch {
	case a.Type != fs.TypeFile:
		return nfsInval
	// Who may execute a file may read it: the kernel of the client has to.
	case a.UID != rq.user.uid && rq.user.permits(&a)&(mayRead|mayExec) == 0:
		return nfsAcces
	}
	if rq.off >= uint64(a.Size) || rq.count == 0 {
		rq.readResults(&a, 0, rq.off >= uint64(a.Size))
		rq.w.Uint32(0)
		return nil
	}
	if rq.long && rq.exp.borrow != nil {
		err := rq.lend(&a)
		if !errors.Is(err, fs.ErrUnsupported) {
			return err
		}
	}
	return rq.copy(&a)
}

// readResults encodes a READ3resok up to the bytes' count.
func (rq *request) readResults(a *fs.Attr, n int, eof bool) {
	w := rq.ok()
	rq.exp.putPostOp(w, a)
	w.Uint32(uint32(n))
	w.Bool(eof)
}

// copy reads into the reply.
func (rq *request) copy(a *fs.Attr) error {
	w := rq.w
	start := len(w.B)
	rq.readResults(a, 0, false)
	w.Uint32(0)
	at := len(w.B)
	if room := at + int(rq.count) + 3; rq.long && room > cap(w.B) {
		short := w.B
		w.B = append(getBuffer(room), short...)
		putBuffer(short)
	}
	w.B = slices.Grow(w.B, int(rq.count)+3)[:at+int(rq.count)]
	n, err := rq.exp.Tree.ReadAt(rq.ctx, rq.id, w.B[at:], int64(rq.off))
	if err = rq.checkRead(a, n, err); err != nil && err != io.EOF {
		return err
	}
	w.B = w.B[:start]
	rq.readResults(a, n, err == io.EOF || rq.off+uint64(n) >= uint64(a.Size))
	w.Uint32(uint32(n))
	w.B = w.B[:at+n]
	w.Pad(n)
	return nil
}

// lend borrows the bytes to be sent behind the reply.
func (rq *request) lend(a *fs.Attr) error {
	b, err := rq.exp.borrow.Borrow(rq.ctx, rq.id, int64(rq.off), int(rq.count))
	if err != nil && err != io.EOF {
		return err
	}
	n := 0
	for _, s := range b.Segments {
		n += len(s)
	}
	if bad := rq.checkRead(a, n, err); bad != nil && bad != io.EOF {
		b.Release()
		return bad
	}
	rq.readResults(a, n, err == io.EOF || rq.off+uint64(n) >= uint64(a.Size))
	rq.w.Uint32(uint32(n))
	rq.tail, rq.tailBytes = b, n
	return nil
}

// checkRead sees to it that nothing is sent short but at the end of the file.
func (rq *request) checkRead(a *fs.Attr, n int, err error) error {
	if n == int(rq.count) && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil || n > int(rq.count) {
		return fmt.Errorf("read %d bytes at %d of inode %d: %d came: %w", rq.count, rq.off, a.ID.Ino, n, io.ErrUnexpectedEOF)
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}
