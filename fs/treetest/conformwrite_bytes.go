package treetest

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"

	"holdfast/fs"
)

func (w *writing) attributes() {
	ids := []fs.ID{w.file(w.dir, "f", "content"), w.mkdir(w.dir, "d")}
	l, err := w.t.Symlink(w.ctx, w.dir, "l", "target", fs.SetAttr{}, nil)
	w.must(err, "Symlink")
	for _, id := range append(ids, l.Object.ID) {
		sets := []fs.SetAttr{
			{Set: fs.SetPerm, Perm: 0o7777},
			{Set: fs.SetPerm, Perm: 0},
			{Set: fs.SetUID, UID: math.MaxUint32},
			{Set: fs.SetGID, GID: 1000},
			{Set: fs.SetAtime, Atime: fs.Time{Sec: -1, Nsec: 5}},
			{Set: fs.SetMtime, Mtime: fs.Time{Sec: 1 << 33, Nsec: 999_999_999}},
			{Set: fs.SetAtimeNow | fs.SetMtimeNow},
			{Set: fs.SetPerm | fs.SetUID | fs.SetGID | fs.SetMtime, Perm: 0o755, UID: 3, GID: 4, Mtime: fs.Time{Sec: 77}},
			{},
		}
		for _, set := range sets {
			before := w.attr(id)
			c, err := w.t.SetAttr(w.ctx, id, set)
			w.must(err, "SetAttr %+v", set)
			w.inodeChanged(c, id, before, "SetAttr %+v", set)
			w.settled(before, c.After, set)
		}
	}
	w.content(ids[0], "content")
}

// settled checks that what was set is so and the rest as it was.
func (w *writing) settled(before, after fs.Attr, set fs.SetAttr) {
	want := before
	want.Ctime = after.Ctime
	if set.Set&fs.SetPerm != 0 {
		want.Perm = set.Perm
	}
	if set.Set&fs.SetUID != 0 {
		want.UID = set.UID
	}
	if set.Set&fs.SetGID != 0 {
		want.GID = set.GID
	}
	if set.Set&fs.SetAtime != 0 {
		want.Atime = set.Atime
	}
	if set.Set&fs.SetMtime != 0 {
		want.Mtime = set.Mtime
	}
	if set.Set&fs.SetAtimeNow != 0 {
		want.Atime = after.Ctime
	}
	if set.Set&fs.SetMtimeNow != 0 {
		want.Mtime = after.Ctime
	}
	w.same(after, want, "SetAttr %+v", set)
}

// sizes cuts and lengthens files from and to all kinds of sizes.
func (w *writing) sizes() {
	const most = 300_000
	model := noise(w.opt.Seed, 1000)
	id := w.file(w.dir, "f", string(model))
	for _, size := range []int64{1000, 999, 0, 1, 4095, 4097, 65_535, 65_536, 65_537, 100, most, 200_000, 131_072, 131_073, 3, 70_000, 0} {
		before := w.attr(id)
		c, err := w.t.SetAttr(w.ctx, id, fs.SetAttr{Set: fs.SetSize, Size: size})
		w.must(err, "size %d", size)
		w.inodeChanged(c, id, before, "size %d", size)
		if c.After.Size != size || !laterTime(c.After.Mtime, before.Mtime) {
			w.errorf("size %d: %+v", size, c.After)
		}
		if size <= int64(len(model)) {
			model = model[:size]
		} else {
			model = append(model, make([]byte, size-int64(len(model)))...)
		}
		w.content(id, string(model))
		if size > 0 && w.r.IntN(2) == 0 {
			off := w.r.Int64N(size)
			p := noise(uint64(size), int(min(size-off, 5000)))
			_, err := w.t.WriteAt(w.ctx, id, p, off, w.r.IntN(2) == 0)
			w.must(err, "write")
			copy(model[off:], p)
		}
		if w.r.IntN(4) == 0 {
			_, err := w.t.Commit(w.ctx, id, 0, 0)
			w.must(err, "Commit")
			w.reopen(w.opt.Crash, "Crash")
			w.content(id, string(model))
		}
	}
	before := w.attr(id)
	_, err := w.t.SetAttr(w.ctx, id, fs.SetAttr{Set: fs.SetSize, Size: -1})
	w.wants(err, fs.ErrInvalid, "size -1")
	_, err = w.t.SetAttr(w.ctx, id, fs.SetAttr{Set: fs.SetSize, Size: math.MaxInt64})
	w.wants(err, fs.ErrTooLarge, "the largest size")
	w.same(w.attr(id), before, "sizes that can't be")
}

func (w *writing) guard() {
	id := w.file(w.dir, "f", "content")
	before := w.attr(id)
	wrong := before.Ctime
	wrong.Nsec ^= 1
	_, err := w.t.SetAttr(w.ctx, id, fs.SetAttr{Set: fs.GuardCtime | fs.SetSize, Size: 0, Ctime: wrong})
	w.wants(err, fs.ErrChanged, "another Ctime")
	w.same(w.attr(id), before, "another Ctime")
	w.content(id, "content")
	c, err := w.t.SetAttr(w.ctx, id, fs.SetAttr{Set: fs.GuardCtime | fs.SetSize, Size: 2, Ctime: before.Ctime})
	w.must(err, "the same Ctime")
	w.inodeChanged(c, id, before, "the same Ctime")
	_, err = w.t.SetAttr(w.ctx, id, fs.SetAttr{Set: fs.GuardCtime | fs.SetPerm, Ctime: before.Ctime})
	w.wants(err, fs.ErrChanged, "the Ctime of before")
	w.content(id, "co")
}

func (w *writing) write() {
	id := w.file(w.dir, "f", "")
	var model []byte
	for i := range 60 {
		size := []int{1, 100, 4096, 10_000, 70_000, 200_000}[w.r.IntN(6)]
		off := w.r.Int64N(int64(len(model)) + 20_000)
		p := noise(uint64(i), w.r.IntN(size)+1)
		kept := bytes.Clone(p)
		before := w.attr(id)
		sync := w.r.IntN(3) == 0
		c, err := w.t.WriteAt(w.ctx, id, p, off, sync)
		w.must(err, "WriteAt %d bytes at %d", len(p), off)
		w.inodeChanged(c.Touched, id, before, "WriteAt %d bytes at %d", len(p), off)
		if !laterTime(c.After.Mtime, before.Mtime) {
			w.errorf("WriteAt: Mtime %v after %v", c.After.Mtime, before.Mtime)
		}
		if sync && !c.Durable {
			w.errorf("WriteAt: not durable, as asked for")
		}
		if !bytes.Equal(p, kept) {
			w.errorf("WriteAt changed what it was given")
		}
		clear(p)
		if end := off + int64(len(kept)); end > int64(len(model)) {
			model = append(model, make([]byte, end-int64(len(model)))...)
		}
		copy(model[off:], kept)
		if i%6 == 0 {
			w.content(id, string(model))
		}
	}
	w.content(id, string(model))
	for range 40 {
		off, n := w.r.IntN(len(model)+10), w.r.IntN(100_000)
		p := make([]byte, n)
		want := model[min(off, len(model)):min(off+n, len(model))]
		got, err := w.t.ReadAt(w.ctx, id, p, int64(off))
		if !bytes.Equal(p[:got], want) || err != nil && err != io.EOF || err == nil && got < n {
			w.errorf("ReadAt %d bytes at %d: %d bytes, %v; not those written", n, off, got, err)
		}
	}
	before := w.attr(id)
	_, err := w.t.WriteAt(w.ctx, id, []byte("x"), -1, true)
	w.wants(err, fs.ErrInvalid, "WriteAt -1")
	_, err = w.t.WriteAt(w.ctx, id, []byte("xy"), math.MaxInt64-1, true)
	w.wants(err, fs.ErrTooLarge, "WriteAt the end of all files")
	c, err := w.t.WriteAt(w.ctx, id, nil, 1<<30, true)
	w.must(err, "WriteAt of nothing")
	w.same(c.After, before, "WriteAt of nothing")
	w.same(w.attr(id), before, "writes that do nothing")
}

// holes writes far apart and looks at what is between.
func (w *writing) holes() {
	id := w.file(w.dir, "sparse", "")
	const far = 1 << 32
	for i, off := range []int64{far, far / 2, 5, far + 1<<20} {
		_, err := w.t.WriteAt(w.ctx, id, noise(uint64(i), 1000), off, i%2 == 0)
		w.must(err, "WriteAt %d", off)
	}
	a := w.attr(id)
	if a.Size != far+1<<20+1000 || a.Used > 16<<20 {
		w.errorf("a sparse file of %d bytes takes %d", a.Size, a.Used)
	}
	data := int64(0)
	for off := int64(0); ; {
		start, end, err := fs.NextData(w.ctx, w.t, id, off)
		if err == io.EOF {
			break
		}
		w.must(err, "NextData")
		data += end - start
		off = end
	}
	if data > 16<<20 || data < 4000 {
		w.errorf("a sparse file with 4,000 bytes has %d", data)
	}
	p := make([]byte, 3000)
	n, err := w.t.ReadAt(w.ctx, id, p, far-1000)
	if err != nil || n != len(p) || !bytes.Equal(p[:1000], make([]byte, 1000)) || !bytes.Equal(p[1000:2000], noise(0, 1000)) || !bytes.Equal(p[2000:], make([]byte, 1000)) {
		w.errorf("ReadAt over the edges of a hole: %d, %v", n, err)
	}
	_, err = w.t.SetAttr(w.ctx, id, fs.SetAttr{Set: fs.SetSize, Size: 1005})
	w.must(err, "SetAttr")
	w.content(id, "\x00\x00\x00\x00\x00"+string(noise(2, 1000)))
	if a := w.attr(id); a.Used > 1<<20 {
		w.errorf("after the cut it takes %d bytes", a.Used)
	}
}

// commit looks at what is there after a power cut.
func (w *writing) commit() {
	id := w.file(w.dir, "f", "")
	old := noise(1, 400_000)
	_, err := w.t.WriteAt(w.ctx, id, old, 0, false)
	w.must(err, "WriteAt")
	before := w.attr(id)
	c, err := w.t.Commit(w.ctx, id, 0, 0)
	w.must(err, "Commit")
	if c.Before != fs.VersionOf(&before) || c.After.Size != 400_000 {
		w.errorf("Commit: %+v after %+v", c, before)
	}
	w.same(c.After, w.attr(id), "Commit: after")
	if v := w.t.Verifier(); v != w.t.Verifier() {
		w.errorf("the verifier changes without a reason")
	}
	if w.reopen(w.opt.Crash, "Crash") {
		w.content(id, string(old))
	}
	verifier := w.t.Verifier()
	after := w.attr(id)
	done, err := w.t.WriteAt(w.ctx, id, noise(2, 400_000), 200_000, false)
	w.must(err, "WriteAt")
	if !w.reopen(w.opt.Crash, "Crash") {
		return
	}
	if v := w.t.Verifier(); v == verifier && !done.Durable {
		w.errorf("the verifier is the same after a power cut")
	}
	a := w.attr(id)
	if laterTime(done.After.Ctime, a.Ctime) || laterTime(done.After.Mtime, a.Mtime) || laterTime(after.Ctime, a.Ctime) {
		w.errorf("after a power cut times went back from %v to %v", done.After.Ctime, a.Ctime)
	}
	got := w.read(id)
	if len(got) < 400_000 || !bytes.Equal(got[:200_000], old[:200_000]) {
		w.errorf("a power cut took bytes that were durable")
	}
	_, err = w.t.WriteAt(w.ctx, id, noise(3, 100), 10, true)
	w.must(err, "WriteAt")
	at := w.attr(id)
	w.reopen(w.opt.Crash, "Crash")
	got = w.read(id)
	if !bytes.Equal(got[10:110], noise(3, 100)) {
		w.errorf("a power cut took a synced write")
	}
	if a := w.attr(id); laterTime(at.Ctime, a.Ctime) || laterTime(at.Mtime, a.Mtime) {
		w.errorf("after a power cut times went back from %v to %v", at.Ctime, a.Ctime)
	}
}

// full writes until there is no more room, and goes on from there.
func (w *writing) full() {
	if w.opt.RoomBytes == 0 {
		return
	}
	small := w.file(w.dir, ".lck-1", "owner 1")
	big := w.file(w.dir, "big", "")
	piece := noise(9, 1<<20)
	var off int64
	var err error
	for ; off < w.opt.RoomBytes && err == nil; off += int64(len(piece)) {
		before := w.attr(big)
		if _, err = w.t.WriteAt(w.ctx, big, piece, off, false); err != nil {
			w.same(w.attr(big), before, "a write without room")
			break
		}
	}
	if !errors.Is(err, fs.ErrNoSpace) && !errors.Is(err, fs.ErrQuota) {
		w.errorf("%d bytes written: %v; want no space", off, err)
		return
	}
	if _, err := w.t.Commit(w.ctx, big, 0, 0); err != nil {
		w.errorf("Commit without room: %v", err)
	}
	if w.reopen(w.opt.Crash, "Crash") {
		if a := w.attr(big); a.Size != off {
			w.errorf("the file has %d bytes, %d were committed", a.Size, off)
		}
	}
	p := make([]byte, len(piece))
	for at := int64(0); at < off; at += int64(len(p)) {
		if n, err := w.t.ReadAt(w.ctx, big, p, at); n < len(p) || !bytes.Equal(p, piece) {
			w.errorf("the file that filled the tree reads as something else at %d: %v", at, err)
			break
		}
	}
	_, err = w.t.WriteAt(w.ctx, small, []byte("owner 2"), 0, true)
	w.must(err, "overwrite of a lock file without room")
	w.content(small, "owner 2")
	if _, err := w.t.Rename(w.ctx, w.dir, ".lck-1", w.dir, ".lck-2", nil); err != nil {
		w.errorf("Rename without room: %v", err)
	}
	_, err = w.t.Remove(w.ctx, w.dir, "big", nil)
	w.must(err, "Remove without room")
	id := w.file(w.dir, "after", strings.Repeat("room again ", 10_000))
	w.content(id, strings.Repeat("room again ", 10_000))
}

// noise is n bytes that depend on seed.
func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(p)
	return p
}
