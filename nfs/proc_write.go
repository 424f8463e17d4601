package nfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"holdfast/fs"
)

// stable_how. Source: RFC 1813 section 3.3.7.
const (
	unstable = 0
	fileSync = 2
)

// write is WRITE, RFC 1813 section 3.3.7. What is written is durable when the
// reply says FILE_SYNC, whatever was asked for.
func (rq *request) write() error {
	r := rq.decode()
	off, count, stable := r.Uint64(), r.Uint32(), r.Uint32()
	data := r.Opaque(len(r.Rest()))
	if !r.Done() || stable > fileSync {
		return errGarbage
	}
	rq.off, rq.count = off, count
	if int(count) > len(data) {
		return nfsInval
	}
	data = data[:count]
	if rq.exp.Sync {
		stable = fileSync
	}
	if len(data) > rq.srv.opt.MaxTransfer {
		data = data[:rq.srv.opt.MaxTransfer]
	}
	t, err := rq.writable()
	if err != nil {
		return err
	}
	if off > math.MaxInt64-uint64(len(data)) {
		return nfsFBig
	}
	if err := rq.mayWriteFile(); err != nil {
		return err
	}
	// Asked for now: bytes that get lost from here on are under another one.
	verifier := t.Verifier()
	done, err := t.WriteAt(rq.ctx, rq.id, data, int64(off), stable != unstable)
	if errors.Is(err, fs.ErrIsDir) {
		err = nfsInval
	}
	if err != nil {
		return err
	}
	committed := uint32(unstable)
	if done.Durable || stable != unstable {
		committed = fileSync
	}
	w := rq.ok()
	rq.exp.putWcc(w, &done.Touched)
	w.Uint32(uint32(len(data)))
	w.Uint32(committed)
	w.Uint64(rq.verifier(verifier))
	return nil
}

// mayWriteFile says whether the caller may write to the object.
func (rq *request) mayWriteFile() error {
	if rq.user.isRoot() {
		return nil
	}
	a, err := rq.attr(0)
	if err == nil && a.UID != rq.user.uid && rq.user.permits(&a)&mayWrite == 0 {
		err = nfsAcces
	}
	return err
}

// commit is COMMIT, RFC 1813 section 3.3.21.
func (rq *request) commit() error {
	r := rq.decode()
	off, count := r.Uint64(), r.Uint32()
	if !r.Done() {
		return errGarbage
	}
	rq.off, rq.count = off, count
	t, err := rq.writable()
	if err != nil {
		return err
	}
	if off > math.MaxInt64 {
		return nfsInval
	}
	if err := rq.mayWriteFile(); err != nil {
		return err
	}
	touched, err := t.Commit(rq.ctx, rq.id, int64(off), int64(count))
	switch {
	case errors.Is(err, fs.ErrIsDir):
		err = nfsInval
	case errors.Is(err, fs.ErrNoSpace), errors.Is(err, fs.ErrQuota):
		// The bytes were accepted and are not lost: it is to be asked again.
		err = fmt.Errorf("%w: %w", nfsJukebox, err)
	}
	if err != nil {
		return err
	}
	w := rq.ok()
	rq.exp.putWcc(w, &touched)
	// Asked for only now: were bytes lost meanwhile it is another one.
	w.Uint64(rq.verifier(t.Verifier()))
	return nil
}

// verifier mixes the export into a tree's number, so that two trees never seem
// to be the same.
func (rq *request) verifier(v uint64) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	return sipHash(&rq.exp.Key, b[:])
}
