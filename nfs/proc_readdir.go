package nfs

import (
	"errors"
	"math"

	"holdfast/fs"
	"holdfast/nfs/internal/xdr"
)

// Cookies: 1 stands for ".", 2 for "..", and an entry of the tree has its own
// cookie and dirCookies more. Those of a tree are at most 1<<63 - 3, so that all
// fit what clients can seek to.
const (
	dotCookie    = 1
	dotdotCookie = 2
	dirCookies   = 2
)

// planReadDir sees how much a READDIR will send.
func (rq *request) planReadDir(args xdr.Reader) {
	args.Uint64()
	args.Fixed(8)
	rq.planListing(args.Uint32())
	rq.planned(args)
}

// planReadDirPlus does that of a READDIRPLUS.
func (rq *request) planReadDirPlus(args xdr.Reader) {
	args.Uint64()
	args.Fixed(8)
	args.Uint32()
	rq.planListing(args.Uint32())
	rq.planned(args)
}

func (rq *request) planListing(count uint32) {
	rq.cost = int64(min(count, uint32(rq.srv.opt.MaxTransfer))) + 512
}

// readDir is READDIR, RFC 1813 section 3.3.16.
func (rq *request) readDir() error {
	r := rq.decode()
	cookie := r.Uint64()
	r.Fixed(8) // the verifier of cookies, which we don't need: cookies stay good
	count := r.Uint32()
	if !r.Done() {
		return errGarbage
	}
	return rq.list(&listing{rq: rq, most: int(min(count, uint32(rq.srv.opt.MaxTransfer))), mostNames: math.MaxInt}, cookie)
}

// readDirPlus is READDIRPLUS, RFC 1813 section 3.3.17.
func (rq *request) readDirPlus() error {
	r := rq.decode()
	cookie := r.Uint64()
	r.Fixed(8)
	dircount, maxcount := r.Uint32(), r.Uint32()
	if !r.Done() {
		return errGarbage
	}
	return rq.list(&listing{rq: rq, plus: true, most: int(min(maxcount, uint32(rq.srv.opt.MaxTransfer))), mostNames: int(min(dircount, math.MaxInt32))}, cookie)
}

// listing is a reply of either that is being put together.
type listing struct {
	rq   *request
	plus bool

	most      int // bytes of the results, behind the status
	mostNames int // of those, names with their fileids and cookies

	used, usedNames int
	entries         int
	full            bool
}

func (rq *request) list(l *listing, cookie uint64) error {
	dir, err := rq.attr(0)
	switch {
	case err != nil:
		return err
	case !dir.IsDir():
		return nfsNotDir
	case rq.user.permits(&dir)&mayRead == 0:
		return nfsAcces
	case cookie > math.MaxInt64:
		return nfsBadCookie
	}
	w := rq.ok()
	start := len(w.B)
	rq.exp.putPostOp(w, &dir)
	w.Uint64(0)                   // the verifier
	l.used = len(w.B) - start + 8 // what ends the list
	if err := l.dots(&dir, cookie); err != nil {
		return err
	}
	if err := l.rest(max(cookie, dotdotCookie) - dirCookies); err != nil {
		return err
	}
	if l.full && l.entries == 0 {
		return nfsTooSmall
	}
	w.Bool(false)
	w.Bool(!l.full)
	return nil
}

// dots lists "." and "..", as far as they are behind cookie.
func (l *listing) dots(dir *fs.Attr, cookie uint64) error {
	if cookie < dotCookie {
		l.add(".", dotCookie, dir.ID, dir)
	}
	if cookie >= dotdotCookie || l.full {
		return nil
	}
	up := *dir
	if dir.ID != l.rq.exp.root {
		var err error
		if up, err = l.rq.exp.Tree.Lookup(l.rq.ctx, dir.ID, ".."); err != nil {
			// The names below it are worth more than that.
			up = fs.Attr{ID: dir.ID}
			l.add("..", dotdotCookie, up.ID, nil)
			return nil
		}
	}
	l.add("..", dotdotCookie, up.ID, &up)
	return nil
}

// rest lists the tree's own entries behind cookie.
func (l *listing) rest(cookie uint64) error {
	rq := l.rq
	const part = 256
	entries := make([]fs.Entry, 0, part)
	for !l.full {
		entries = entries[:0]
		err := rq.exp.Tree.ReadDir(rq.ctx, rq.id, cookie, func(e fs.Entry) bool {
			entries = append(entries, e)
			return len(entries) < part
		})
		if err != nil && (len(entries) == 0 || errors.Is(err, fs.ErrRetry)) {
			return err
		}
		for i := range entries {
			e := &entries[i]
			if l.plus && e.Attr == nil && l.fits(len(e.Name)) {
				if a, err := rq.exp.Tree.Attr(rq.ctx, e.ID); err == nil {
					e.Attr = &a
				}
			}
			if l.add(e.Name, e.Cookie+dirCookies, e.ID, e.Attr); l.full {
				return nil
			}
			cookie = e.Cookie
		}
		if err != nil {
			// What could be read is sent; the client comes back for the error.
			l.full = true
		}
		if len(entries) < part {
			return nil
		}
	}
	return nil
}

const (
	nameCost  = 4 + 8 + 4 + 8 // that an entry follows, fileid, length, cookie
	attrBytes = 84            // of a fattr3
)

// cost is how many bytes an entry takes at most, and how many of those are its
// name's. Attributes count even if there are none, or the last entry of a reply
// would be sent without, just to fit.
func (l *listing) cost(name int) (all, names int) {
	names = nameCost + name + xdr.Padding(name)
	if !l.plus {
		return names, names
	}
	return names + 4 + attrBytes + 4 + 4 + handleBytes, names
}

func (l *listing) fits(name int) bool {
	all, names := l.cost(name)
	// At least one entry is sent whatever dircount says: it is a hint.
	return l.used+all <= l.most && (l.usedNames+names <= l.mostNames || l.entries == 0)
}

// add encodes an entry, an entry3 or entryplus3, if it still fits.
func (l *listing) add(name string, cookie uint64, id fs.ID, a *fs.Attr) {
	if l.full || !l.fits(len(name)) {
		l.full = true
		return
	}
	all, names := l.cost(len(name))
	l.used += all
	l.usedNames += names
	l.entries++
	w, e := l.rq.w, l.rq.exp
	w.Bool(true)
	w.Uint64(e.fileID(id))
	w.String(name)
	w.Uint64(cookie)
	if !l.plus {
		return
	}
	if a != nil {
		e.putPostOp(w, a)
	} else {
		w.Bool(false)
	}
	w.Bool(true)
	e.putHandle(w, id)
}
