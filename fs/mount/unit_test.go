package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

func TestErrno(t *testing.T) {
	tests := map[string]struct {
		err  error
		want syscall.Errno
	}{
		"ErrNotFound":     {fs.ErrNotFound, syscall.ENOENT},
		"ErrStale":        {fs.ErrStale, syscall.ESTALE},
		"ErrNotDir":       {fs.ErrNotDir, syscall.ENOTDIR},
		"ErrIsDir":        {fs.ErrIsDir, syscall.EISDIR},
		"ErrInvalid":      {fs.ErrInvalid, syscall.EINVAL},
		"ErrNoXattr":      {fs.ErrNoXattr, syscall.ENODATA},
		"ErrLoop":         {fs.ErrLoop, syscall.ELOOP},
		"ErrDamaged":      {fs.ErrDamaged, syscall.EIO},
		"ErrUnsupported":  {fs.ErrUnsupported, syscall.EOPNOTSUPP},
		"ErrRetry":        {fs.ErrRetry, syscall.EAGAIN},
		"ErrNoSpace":      {fs.ErrNoSpace, syscall.ENOSPC},
		"ErrReadOnly":     {fs.ErrReadOnly, syscall.EROFS},
		"ErrPermission":   {fs.ErrPermission, syscall.EPERM},
		"ErrExist":        {fs.ErrExist, syscall.EEXIST},
		"ErrNotEmpty":     {fs.ErrNotEmpty, syscall.ENOTEMPTY},
		"ErrNameTooLong":  {fs.ErrNameTooLong, syscall.ENAMETOOLONG},
		"ErrCrossing":     {fs.ErrCrossing, syscall.EXDEV},
		"ErrTooManyLinks": {fs.ErrTooManyLinks, syscall.EMLINK},
		"ErrTooLarge":     {fs.ErrTooLarge, syscall.EFBIG},
		"ErrQuota":        {fs.ErrQuota, syscall.EDQUOT},
		"ErrChanged":      {fs.ErrChanged, syscall.EAGAIN},
		"ErrBadCookie":    {fs.ErrBadCookie, syscall.EINVAL},
		"interrupted":     {context.Canceled, syscall.EINTR},
		"too late":        {context.DeadlineExceeded, syscall.ETIMEDOUT},
		"any other":       {io.ErrUnexpectedEOF, syscall.EIO},
		"none":            {nil, 0},
	}
	for name, tt := range tests {
		if got := errno(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
		if tt.err != nil {
			if got := errno(fmt.Errorf("read inode 7: %w", tt.err)); got != tt.want {
				t.Errorf("%s, wrapped: %v, want %v", name, got, tt.want)
			}
		}
	}
	for _, name := range treetest.Sentinels(t, "../errors.go") {
		if _, ok := tests[name]; !ok {
			t.Errorf("%s is not in the table", name)
		}
	}
}

func TestInode(t *testing.T) {
	if got := shown(fs.ID{Ino: 12}); got != 12 {
		t.Errorf("inode 12 of file system 0 is %d", got)
	}
	seen := make(map[uint64]fs.ID)
	for _, f := range []uint64{0, 1, 2, 3, 1 << 32, 1<<32 + 1, math.MaxUint64, joinedFS} {
		for i := uint64(2); i < 5000; i++ {
			id := fs.ID{FS: f, Ino: i}
			n := shown(id)
			if other, dup := seen[n]; dup {
				t.Fatalf("%v and %v are both %d", id, other, n)
			}
			seen[n] = id
			if n <= 1 || n == math.MaxUint64 || n != shown(id) {
				t.Fatalf("%v is %d", id, n)
			}
		}
	}
}

func TestNodes(t *testing.T) {
	var n nodes
	root := fs.ID{Ino: 2}
	n.init(node{id: root, fixed: true})
	file := func(ino uint64) fs.Attr { return fs.Attr{ID: fs.ID{Ino: ino}, Type: fs.TypeFile, Fixed: true} }
	if got := n.add(fs.Attr{ID: root, Type: fs.TypeDir}); got != fuse.FUSE_ROOT_ID {
		t.Errorf("the root is %d", got)
	}
	n.forget(fuse.FUSE_ROOT_ID, 100)
	if _, ok := n.get(fuse.FUSE_ROOT_ID); !ok {
		t.Error("the root was forgotten")
	}
	// Inode 1 must not be taken for the root, which has that number.
	one := n.add(file(1))
	if one == fuse.FUSE_ROOT_ID {
		t.Error("inode 1 is the root")
	}
	a := n.add(file(100))
	if b := n.add(file(100)); a != b {
		t.Errorf("the same inode is %d and %d", a, b)
	}
	if got, ok := n.get(a); !ok || got.id.Ino != 100 || !got.fixed {
		t.Errorf("%d is %+v, %v", a, got, ok)
	}
	n.forget(a, 1)
	if _, ok := n.get(a); !ok {
		t.Error("forgotten once, known twice: gone")
	}
	n.forget(a, 1)
	if _, ok := n.get(a); ok {
		t.Error("forgotten twice, known twice: there")
	}
	n.forget(a, 1) // must not matter
	// Links that may change are others each time.
	link := fs.Attr{ID: fs.ID{Ino: 7}, Type: fs.TypeSymlink}
	if a, b := n.add(link), n.add(link); a == b {
		t.Error("a link that may change is the same twice")
	}
	link.Fixed, link.ID.Ino = true, 70
	if a, b := n.add(link), n.add(link); a != b {
		t.Error("a link that may not change is two")
	}
}

// TestNodesForget keeps no memory for what was forgotten.
func TestNodesForget(t *testing.T) {
	var n nodes
	n.init(node{id: fs.ID{Ino: 2}})
	var numbers []uint64
	for i := range uint64(2 * shrinkAbove) {
		numbers = append(numbers, n.add(fs.Attr{ID: fs.ID{FS: 9, Ino: i + 10}, Type: fs.TypeFile}))
	}
	if len(n.known) != 2*shrinkAbove+1 {
		t.Fatalf("%d nodes", len(n.known))
	}
	for _, number := range numbers {
		n.forget(number, 1)
	}
	if len(n.known) != 1 || n.peak > shrinkAbove {
		t.Errorf("%d nodes left, room for %d", len(n.known), n.peak)
	}
}

func TestDevice(t *testing.T) {
	for _, tt := range []struct{ major, minor, want uint32 }{{8, 1, 0x801}, {259, 70000, 0x11110370}, {4095, 1<<20 - 1, 0xffffffff}} {
		if got := device(tt.major, tt.minor); got != tt.want {
			t.Errorf("%d:%d is %#x, want %#x", tt.major, tt.minor, got, tt.want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a`: "/a", `/a\040b\134c\011`: "/a b\\c\t", `/odd\`: `/odd\`, `\04`: `\04`, `\999`: `\999`} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestNameable(t *testing.T) {
	for name, want := range map[string]bool{"a": true, "": false, ".": false, "..": false, "...": true, "a/b": false, "a\x00": false, strings.Repeat("x", 1024): true, strings.Repeat("x", 1025): false} {
		if got := nameable(name); got != want {
			t.Errorf("%.20q: %v", name, got)
		}
	}
}

func TestReasons(t *testing.T) {
	r := newReasons(slog.New(slog.DiscardHandler))
	now := time.Now()
	if !r.fresh("a", now) || r.fresh("a", now) || !r.fresh("b", now) {
		t.Error("each reason once")
	}
	if !r.fresh("a", now.Add(reasonsFor+time.Second)) {
		t.Error("not again after a minute")
	}
	for i := range 2 * maxReasons {
		r.fresh(fmt.Sprint(i), now.Add(2*reasonsFor))
	}
	if len(r.told) > maxReasons {
		t.Errorf("remembers %d", len(r.told))
	}
}

func TestCheckAttr(t *testing.T) {
	for _, a := range []fs.Attr{{Type: fs.TypeUnknown}, {Type: 99}, {Type: fs.TypeFile, Size: -1}} {
		if err := checkAttr(a); !errors.Is(err, fs.ErrDamaged) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	if err := checkAttr(fs.Attr{Type: fs.TypeSocket}); err != nil {
		t.Error(err)
	}
}
