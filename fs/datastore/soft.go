package datastore

import (
	"time"

	"holdfast/fs"
)

// soft is what writes made of an inode that the journal does not say. Its times
// are covered by the inode's mark, its size and units by nothing: they are bytes
// that need a Commit.
type soft struct {
	mtime, ctime fs.Time
	size         int64
	units        unitMap // of keepLarge: written for the first time
	live         int64   // what units will add to a snapshot
}

// softTotal is what all inodes of a tree have in their soft states.
type softTotal struct{ units, live int64 }

// pending says whether a Commit has something to tell the journal.
func (n *node) pending() bool {
	return n.soft != nil && (n.soft.units.count > 0 || n.soft.size != n.size)
}

// length is the size of an inode as it is now.
func (n *node) length() int64 {
	if n.soft != nil {
		return n.soft.size
	}
	return n.size
}

// soften gives an inode a soft state. mu is held.
func (n *node) soften() *soft {
	if n.soft == nil {
		n.soft = &soft{mtime: n.mtime, ctime: n.ctime, size: n.size}
	}
	return n.soft
}

// dropSoft forgets what the journal does not say. mu is held.
func (t *tree) dropSoft(n *node) {
	if n.soft != nil {
		t.soft.units -= n.soft.units.count
		t.soft.live -= n.soft.live
		n.soft = nil
	}
}

// lease is how far times of marked inodes run ahead of what the journal says.
// After a crash they are at most this much in the future.
const lease = 2 * time.Second

// touch gives an inode that was written to new times, and lets fn say what else
// is new of it. It returns when the inode's mark is durable, which is at once if
// it was written to a moment ago.
func (t *tree) touch(id fs.ID, fn func(n *node)) (fs.Touched, error) {
	var c fs.Touched
	t.mu.Lock()
	n, err := t.getFile(id)
	if err == nil {
		err = t.readOnly
	}
	if err != nil {
		t.mu.Unlock()
		return c, err
	}
	c.Before = t.version(n)
	now := t.s.clock.tick(t.s.opt.Now)
	s := n.soften()
	s.mtime, s.ctime = now, now
	if fn != nil {
		fn(n)
	}
	t.mark(n, now)
	c.After = t.attr(n)
	lsn := max(n.lsn, t.leaseLSN)
	t.mu.Unlock()
	return c, t.wait(lsn)
}

// mark sees to it that after a crash the inode's times are later than now. mu is
// held.
func (t *tree) mark(n *node, now fs.Time) {
	x := &tx{t: t, st: t.st, now: now}
	renew := compareTimes(now, t.st.until) > 0
	if renew {
		x.put(countersRec{until: fs.TimeOf(now.Time().Add(lease))})
	}
	if !n.marked {
		i := n.inode
		i.marked = true
		x.put(&i)
		x.touched = append(x.touched, n)
	}
	if len(x.records) > 0 {
		lsn := t.push(x)
		if renew {
			t.leaseLSN = lsn
		}
	}
}
