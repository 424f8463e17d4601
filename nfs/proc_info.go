package nfs

import (
	"math"

	"holdfast/fs"
)

// fsStat is FSSTAT, RFC 1813 section 3.3.18.
func (rq *request) fsStat() error {
	if !rq.decode().Done() {
		return errGarbage
	}
	a, err := rq.attr(0)
	if err != nil {
		return err
	}
	st, err := rq.exp.Tree.StatFS(rq.ctx, rq.id)
	if err != nil {
		return err
	}
	// Whoever shows a part of zero does arithmetic with it.
	total := max(st.Bytes, st.FreeBytes, 1)
	files, free := st.Files, st.FreeFiles
	if files == 0 {
		files = math.MaxInt32
		if rq.exp.write != nil {
			free = files
		}
	}
	w := rq.ok()
	rq.exp.putPostOp(w, &a)
	w.Uint64(uint64(total))
	w.Uint64(uint64(max(st.FreeBytes, 0)))
	w.Uint64(uint64(max(st.FreeBytes, 0)))
	w.Uint64(files)
	w.Uint64(free)
	w.Uint64(free)
	w.Uint32(0) // how long nothing of this changes: unknown
	return nil
}

// Properties of a file system. Source: RFC 1813 section 3.3.19.
const (
	fsfLink        = 0x01
	fsfSymlink     = 0x02
	fsfHomogeneous = 0x08
	fsfCanSetTime  = 0x10
)

const (
	multiple    = 512      // what sizes of transfers should be multiples of
	dirBytes    = 64 << 10 // of a READDIR, best
	maxFileSize = math.MaxInt64
)

// fsInfo is FSINFO, RFC 1813 section 3.3.19.
func (rq *request) fsInfo() error {
	if !rq.decode().Done() {
		return errGarbage
	}
	a, err := rq.attr(0)
	if err != nil {
		return err
	}
	most := uint32(rq.srv.opt.MaxTransfer)
	w := rq.ok()
	rq.exp.putPostOp(w, &a)
	for range 2 { // of reads, then of writes: most, best, multiple
		w.Uint32(most)
		w.Uint32(most)
		w.Uint32(multiple)
	}
	w.Uint32(dirBytes)
	w.Uint64(maxFileSize)
	w.Uint32(0) // time is told to the nanosecond
	w.Uint32(1)
	w.Uint32(fsfLink | fsfSymlink | fsfHomogeneous | fsfCanSetTime)
	return nil
}

// maxLinks is how many names a file can have, as far as we know.
const maxLinks = 65000

// pathConf is PATHCONF, RFC 1813 section 3.3.20.
func (rq *request) pathConf() error {
	if !rq.decode().Done() {
		return errGarbage
	}
	a, err := rq.attr(0)
	if err != nil {
		return err
	}
	var st fs.StatFS
	if st, err = rq.exp.Tree.StatFS(rq.ctx, rq.id); err != nil {
		return err
	}
	longest := st.NameBytes
	if longest <= 0 || longest > maxName {
		longest = maxName
	}
	w := rq.ok()
	rq.exp.putPostOp(w, &a)
	w.Uint32(maxLinks)
	w.Uint32(uint32(longest))
	w.Bool(true)  // longer names are refused, not cut
	w.Bool(true)  // only root gives files away
	w.Bool(false) // case matters
	w.Bool(true)  // and is kept
	return nil
}
