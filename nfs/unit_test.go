package nfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/nfs/internal/rpc"
	"holdfast/nfs/internal/xdr"
)

// TestStatusOf has every error of the layer below, and what clients are told.
func TestStatusOf(t *testing.T) {
	tests := map[string]struct {
		err  error
		want status
	}{
		"ErrNotFound":     {fs.ErrNotFound, 2},
		"ErrStale":        {fs.ErrStale, 70},
		"ErrNotDir":       {fs.ErrNotDir, 20},
		"ErrIsDir":        {fs.ErrIsDir, 21},
		"ErrInvalid":      {fs.ErrInvalid, 22},
		"ErrNoXattr":      {fs.ErrNoXattr, 22},
		"ErrLoop":         {fs.ErrLoop, 22},
		"ErrDamaged":      {fs.ErrDamaged, 5},
		"ErrUnsupported":  {fs.ErrUnsupported, 10004},
		"ErrRetry":        {fs.ErrRetry, 10008},
		"ErrNoSpace":      {fs.ErrNoSpace, 28},
		"ErrReadOnly":     {fs.ErrReadOnly, 30},
		"ErrPermission":   {fs.ErrPermission, 1},
		"ErrExist":        {fs.ErrExist, 17},
		"ErrNotEmpty":     {fs.ErrNotEmpty, 66},
		"ErrNameTooLong":  {fs.ErrNameTooLong, 63},
		"ErrCrossing":     {fs.ErrCrossing, 18},
		"ErrTooManyLinks": {fs.ErrTooManyLinks, 31},
		"ErrTooLarge":     {fs.ErrTooLarge, 27},
		"ErrQuota":        {fs.ErrQuota, 69},
		"ErrChanged":      {fs.ErrChanged, 10002},
		"ErrBadCookie":    {fs.ErrBadCookie, 10003},
		"interrupted":     {context.Canceled, 10008},
		"too late":        {context.DeadlineExceeded, 10008},
		"a status":        {nfsTooSmall, 10005},
		"any other":       {io.ErrUnexpectedEOF, 5},
	}
	for name, tt := range tests {
		for _, err := range []error{tt.err, fmt.Errorf("read inode 7: %w", tt.err)} {
			if got := statusOf(err); got != tt.want {
				t.Errorf("%s: %v became %d, want %d", name, err, got, tt.want)
			}
		}
	}
	for _, name := range treetest.Sentinels(t, "../fs/errors.go") {
		if _, ok := tests[name]; !ok {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// TestMountStatus has what MNT is told.
func TestMountStatus(t *testing.T) {
	for err, want := range map[error]uint32{
		fs.ErrNotFound: 2, fs.ErrStale: 2, fs.ErrLoop: 2, fs.ErrNotDir: 20, fs.ErrNameTooLong: 63, fs.ErrDamaged: 5, fs.ErrRetry: 10006,
		fs.ErrUnsupported: 10006, nfsAcces: 13, io.EOF: 5,
	} {
		if got := mountStatus(fmt.Errorf("x: %w", err)); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

// TestSipHash has vectors of the paper's appendix and of its reference code: the
// key 00 01 … 0f and the message 00 01 … of each length.
func TestSipHash(t *testing.T) {
	var key [16]byte
	var msg [64]byte
	for i := range msg {
		msg[i] = byte(i)
	}
	copy(key[:], msg[:])
	for n, want := range map[int]uint64{
		0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5, 63: 0x958a324ceb064572,
	} {
		if got := sipHash(&key, msg[:n]); got != want {
			t.Errorf("of %d bytes: %x, want %x", n, got, want)
		}
	}
}

func TestHandles(t *testing.T) {
	tree := treetest.NewTree(nil)
	all, err := newExports([]Export{
		{ID: 1, Path: "/a", Tree: tree, Key: [16]byte{1}},
		{ID: 2, Path: "/b", Tree: tree, Key: [16]byte{2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []fs.ID{{Ino: 1}, {FS: 1 << 40, Ino: math.MaxUint64}, {FS: math.MaxUint64, Ino: 2}} {
		h := all.list[0].handle(id)
		e, got, err := all.resolve(h[:])
		if e != all.list[0] || got != id || err != nil {
			t.Errorf("%v became %v, %v", id, got, err)
		}
		for bit := range len(h) * 8 {
			bad := h
			bad[bit/8] ^= 1 << (bit % 8)
			if _, _, err := all.resolve(bad[:]); err == nil {
				t.Errorf("%v with bit %d changed is good", id, bit)
			}
		}
		// The same inode through another export, with that export's number.
		binary.BigEndian.PutUint32(h[4:], 2)
		if _, _, err := all.resolve(h[:]); err != nfsBadHandle {
			t.Errorf("%v of one export in another: %v", id, err)
		}
	}
	for n := range 65 {
		if _, _, err := all.resolve(make([]byte, n)); err != nfsBadHandle {
			t.Errorf("%d zeros: %v", n, err)
		}
	}
}

func TestFileIDs(t *testing.T) {
	e := &export{root: fs.ID{FS: 5, Ino: 2}}
	if got := e.fileID(fs.ID{FS: 5, Ino: 77}); got != 77 {
		t.Errorf("inode 77 of the root's file system is %d", got)
	}
	seen := map[uint64]fs.ID{}
	for f := range uint64(20) {
		for ino := uint64(1); ino < 1000; ino++ {
			id := fs.ID{FS: f, Ino: ino}
			n := e.fileID(id)
			if other, ok := seen[n]; ok {
				t.Fatalf("%v and %v are both %d", id, other, n)
			}
			seen[n] = id
		}
	}
}

func TestExportsRefused(t *testing.T) {
	tree := treetest.NewTree(nil)
	key := [16]byte{1}
	for name, list := range map[string][]Export{
		"no tree":        {{ID: 1, Path: "/a", Key: key}},
		"no key":         {{ID: 1, Path: "/a", Tree: tree}},
		"relative path":  {{ID: 1, Path: "a", Tree: tree, Key: key}},
		"unclean path":   {{ID: 1, Path: "/a/", Tree: tree, Key: key}},
		"the same path":  {{ID: 1, Path: "/a", Tree: tree, Key: key}, {ID: 2, Path: "/a", Tree: tree, Key: key}},
		"the same id":    {{ID: 1, Path: "/a", Tree: tree, Key: key}, {ID: 1, Path: "/b", Tree: tree, Key: key}},
		"too long a one": {{ID: 1, Path: "/" + strings.Repeat("a", 5000), Tree: tree, Key: key}},
	} {
		if _, err := New(Options{Exports: list}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(Options{MaxTransfer: 100_000}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("100,000 bytes a transfer: %v", err)
	}
}

func TestPermits(t *testing.T) {
	file := fs.Attr{Type: fs.TypeFile, Perm: 0o754, UID: 10, GID: 20}
	sys := func(uid, gid uint32, groups ...uint32) rpc.Call {
		var body, w xdr.Writer
		for _, v := range append([]uint32{0, 0, uid, gid, uint32(len(groups))}, groups...) {
			body.Uint32(v)
		}
		for _, v := range []uint32{1, 0, 2, 3, 3, 3, 1} {
			w.Uint32(v)
		}
		w.Opaque(body.B)
		w.Uint64(0)
		var c rpc.Call
		if _, fault, ok := rpc.Parse(w.B, &c); !ok || fault != nil {
			t.Fatal("header")
		}
		return c
	}
	plain, squash := &export{}, &export{}
	for _, e := range []*export{plain, squash} {
		e.AnonUID, e.AnonGID = nobody, nobody
	}
	squash.RootSquash = true
	none := rpc.Call{}
	tests := []struct {
		name string
		e    *export
		call rpc.Call
		attr fs.Attr
		want uint16
	}{
		{"owner", plain, sys(10, 1), file, 7},
		{"group", plain, sys(11, 20), file, 5},
		{"another group of his", plain, sys(11, 1, 5, 20), file, 5},
		{"others", plain, sys(11, 1), file, 4},
		{"root", plain, sys(0, 0), file, 7},
		{"root, not executable", plain, sys(0, 0), fs.Attr{Type: fs.TypeFile}, 6},
		{"root, directory", plain, sys(0, 0), fs.Attr{Type: fs.TypeDir}, 7},
		{"root squashed", squash, sys(0, 0), file, 4},
		{"root squashed owns nothing of root's", squash, sys(0, 0), fs.Attr{Perm: 0o770}, 0},
		{"group root squashed", squash, sys(11, 0), fs.Attr{Perm: 0o070}, 0},
		{"among groups too", squash, sys(11, 1, 0), fs.Attr{Perm: 0o070}, 0},
		{"root's groups squashed", squash, sys(0, 20, 20), file, 4},
		{"owner, squashed", squash, sys(10, 1), file, 7},
		{"AUTH_NONE", plain, none, file, 4},
		{"AUTH_NONE, nobody's", plain, none, fs.Attr{Perm: 0o700, UID: nobody}, 7},
	}
	for _, tt := range tests {
		u := tt.e.userOf(&tt.call.Cred)
		if got := u.permits(&tt.attr); got != tt.want {
			t.Errorf("%s: %o, want %o", tt.name, got, tt.want)
		}
	}
}

func TestTimes(t *testing.T) {
	for in, want := range map[fs.Time][2]uint32{
		{}:                         {0, 0},
		{Sec: 5, Nsec: 6}:          {5, 6},
		{Sec: -1, Nsec: 6}:         {0, 0},
		{Sec: 1<<32 - 1, Nsec: 6}:  {1<<32 - 1, 6},
		{Sec: 1 << 32, Nsec: 6}:    {1<<32 - 1, 999_999_999},
		{Sec: 1<<62 - 1, Nsec: 6}:  {1<<32 - 1, 999_999_999},
		{Sec: -(1 << 62), Nsec: 6}: {0, 0},
	} {
		var w xdr.Writer
		putTime(&w, in)
		if got := [2]uint32{binary.BigEndian.Uint32(w.B), binary.BigEndian.Uint32(w.B[4:])}; got != want {
			t.Errorf("%+v: %v, want %v", in, got, want)
		}
	}
}

func TestNotes(t *testing.T) {
	key := replyKey{netip.MustParseAddr("192.0.2.7"), 1, 8, 3, 4}
	note := appendNote(nil, &key, []byte("the reply"))
	r := newReplies()
	r.recall(note)
	if e := r.entries[key]; e == nil || string(e.reply) != "the reply" {
		t.Errorf("recalled %+v", r.entries)
	}
	for n := range noteHeader + 1 {
		r := newReplies()
		if r.recall(note[:n]); len(r.entries) != 0 {
			t.Errorf("%d bytes of a note were taken", n)
		}
	}
	r = newReplies()
	if r.recall(append([]byte{2}, note[1:]...)); len(r.entries) != 0 {
		t.Error("another version's note was taken")
	}
}

// TestRepliesForget has more requests and clients than are remembered.
func TestRepliesForget(t *testing.T) {
	r := newReplies()
	for i := range 2 * maxClients {
		for xid := range uint32(3 * perClient / 2) {
			e := &entry{key: replyKey{peer: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), xid: xid, proc: 8 + uint32(i%2)*(procCommit-8)}}
			r.entries[e.key] = e
			r.end(e, []byte("x"), true)
		}
	}
	if len(r.clients) != maxClients || len(r.entries) != maxClients*perClient {
		t.Errorf("%d clients, %d requests", len(r.clients), len(r.entries))
	}
	last := replyKey{peer: netip.AddrFrom4([4]byte{10, 0, byte((2*maxClients - 1) >> 8), byte(2*maxClients - 1)}), xid: 3*perClient/2 - 1, proc: procCommit}
	if r.entries[last] == nil {
		t.Error("the last request is forgotten")
	}
}
