package treetest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"

	"holdfast/fs"
)

// Snapshot is all that a tree says about each of its paths.
type Snapshot struct {
	Nodes map[string]*Node // by path from where it was taken, "." for that itself
}

// Node is what is known of one path. ID and Fixed of Attr mean nothing here.
type Node struct {
	fs.Attr

	Links   []string // of what has more than one path in the snapshot: all of them, in order
	Target  string
	Sum     string // of a file's content: see sumReader
	Xattrs  map[string]string
	Streams map[string]Stream
	Err     error // the first thing that could not be read; what it would have told is missing
}

// Stream is what is known of an alternate stream.
type Stream struct {
	Size int64
	Sum  string
}

// Paths lists all paths in order.
func (s *Snapshot) Paths() []string { return slices.Sorted(maps.Keys(s.Nodes)) }

// Snap takes a snapshot of the directory id and all below it, contents
// included. What can't be read fails the test and is noted in the node.
func Snap(tb testing.TB, t fs.Tree, id fs.ID) *Snapshot {
	tb.Helper()
	s, err := scan(tb.Context(), t, id, scanLimits{})
	if err != nil {
		tb.Errorf("snapshot: %v", err)
	}
	for _, p := range s.Paths() {
		if err := s.Nodes[p].Err; err != nil {
			tb.Errorf("snapshot: %q: %v", p, err)
		}
	}
	return s
}

// scanLimits says where a scan stops; zero is no limit.
type scanLimits struct {
	inodes    int
	fileBytes int64 // of a longer file the two ends are read and no sum is made
	readBytes int64 // of all files
}

var errLimit = errors.New("limit of the scan")

// scan makes the snapshot. The error is what ended it early, errLimit perhaps;
// what is wrong with a path is in its node.
func scan(ctx context.Context, t fs.Tree, id fs.ID, lim scanLimits) (*Snapshot, error) {
	s := &Snapshot{Nodes: map[string]*Node{}}
	paths := map[fs.ID][]string{}
	read := int64(0)
	err := fs.Walk(ctx, t, id, func(path string, a fs.Attr, err error) error {
		if n := s.Nodes[path]; n != nil && err != nil { // the directory could not be read to its end
			n.Err = errors.Join(n.Err, err)
			return nil
		} else if n != nil {
			n.Err = errors.Join(n.Err, fmt.Errorf("the path is there twice"))
			return nil
		}
		n := &Node{Attr: a, Err: err}
		s.Nodes[path] = n
		if lim.inodes > 0 && len(s.Nodes) > lim.inodes {
			return errLimit
		}
		if err != nil {
			return nil
		}
		if !a.IsDir() {
			paths[a.ID] = append(paths[a.ID], path)
		}
		if lim.readBytes > 0 && read > lim.readBytes {
			return errLimit
		}
		if a.Type == fs.TypeFile && (lim.fileBytes == 0 || a.Size <= lim.fileBytes) {
			read += a.Size
		}
		n.fill(ctx, t, lim)
		return nil
	})
	s.setLinks(paths)
	return s, err
}

func (s *Snapshot) setLinks(paths map[fs.ID][]string) {
	for _, list := range paths {
		if len(list) < 2 {
			continue
		}
		slices.Sort(list)
		for _, p := range list {
			s.Nodes[p].Links = list
		}
	}
}

// fill asks all but the Attr.
func (n *Node) fill(ctx context.Context, t fs.Tree, lim scanLimits) {
	note := func(what string, err error) {
		if err != nil && n.Err == nil {
			n.Err = fmt.Errorf("%s: %w", what, err)
		}
	}
	var err error
	switch n.Type {
	case fs.TypeFile:
		n.Sum, err = sumOf(ctx, t, n.ID, n.Size, lim)
		note("read", err)
	case fs.TypeSymlink:
		n.Target, err = t.ReadLink(ctx, n.ID)
		note("readlink", err)
	}
	if xt, ok := t.(fs.XattrTree); ok {
		names, err := xt.Xattrs(ctx, n.ID)
		note("xattrs", err)
		for _, name := range names {
			value, err := xt.Xattr(ctx, n.ID, name)
			note("xattr "+name, err)
			setIn(&n.Xattrs, name, string(value))
		}
	}
	if st, ok := t.(fs.StreamTree); ok && (n.Type == fs.TypeFile || n.IsDir()) {
		list, err := st.Streams(ctx, n.ID)
		note("streams", err)
		for _, stream := range list {
			sum, err := sumOf(ctx, t, stream.ID, stream.Size, lim)
			note("stream "+stream.Name, err)
			setIn(&n.Streams, stream.Name, Stream{stream.Size, sum})
		}
	}
}

func setIn[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}

func sumOf(ctx context.Context, t fs.Tree, id fs.ID, size int64, lim scanLimits) (string, error) {
	read := func(p []byte, off int64) (int, error) { return t.ReadAt(ctx, id, p, off) }
	if lim.fileBytes > 0 && size > lim.fileBytes {
		return "", readEnds(read, size, lim.fileBytes)
	}
	return sumReader(read, size)
}

// readSizes are the lengths of the reads that a file is read with.
var readSizes = []int{131071, 65537, 4096, 511, 1, 262143, 4095, 8193}

// sumReader reads a file of size bytes to its end, in reads of odd sizes, and
// returns the SHA-256 of its size and of every aligned 4 KiB block that is not
// all zeros, with that block's number before it: so holes cost nearly nothing,
// and a hole and stored zeros give the same.
func sumReader(read func([]byte, int64) (int, error), size int64) (string, error) {
	h := newSum(size)
	buf := make([]byte, min(1<<20, max(size, 1)))
	turn := 0
	for off := int64(0); off < size; {
		part := buf[:min(int64(len(buf)), size-off)]
		for done := 0; done < len(part); turn++ {
			p := part[done:min(len(part), done+readSizes[turn%len(readSizes)])]
			if err := readWhole(read, p, off+int64(done), size); err != nil {
				return "", err
			}
			done += len(p)
		}
		h.add(off, part)
		off += int64(len(part))
	}
	if n, err := read(buf[:1], size); n != 0 || err != io.EOF {
		return "", fmt.Errorf("read behind the end at %d: %d bytes, %v; want 0, EOF", size, n, err)
	}
	return h.String(), nil
}

// errShort is a read that gave less than there is without saying why.
var errShort = errors.New("short read without an error")

// readWhole is one read of len(p) bytes that lie within the file.
func readWhole(read func([]byte, int64) (int, error), p []byte, off, size int64) error {
	n, err := read(p, off)
	switch {
	case n < 0 || n > len(p):
		return fmt.Errorf("read of %d bytes at %d: returned %d bytes", len(p), off, n)
	case n < len(p) && (err == nil || err == io.EOF):
		return fmt.Errorf("read of %d bytes at %d of %d: %d bytes, %v: %w", len(p), off, size, n, err, errShort)
	case n == len(p) && (err == nil || err == io.EOF && off+int64(n) == size):
		return nil
	}
	return fmt.Errorf("read of %d bytes at %d: %w", len(p), off, err)
}

// readEnds reads about limit bytes at the two ends of a file.
func readEnds(read func([]byte, int64) (int, error), size, limit int64) error {
	p := make([]byte, min(limit/2, 1<<20))
	if err := readWhole(read, p, 0, size); err != nil {
		return err
	}
	return readWhole(read, p, size-int64(len(p)), size)
}

// sum makes what sumReader describes.
type sum struct {
	h interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func newSum(size int64) sum {
	s := sum{sha256.New()}
	s.number(size)
	return s
}

func (s sum) number(n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	s.h.Write(b[:])
}

// add adds bytes from off, which is a multiple of the block, on.
func (s sum) add(off int64, p []byte) {
	for len(p) > 0 {
		block := p[:min(blockBytes, len(p))]
		if !isZero(block) {
			s.number(off / blockBytes)
			s.h.Write(block)
		}
		p = p[len(block):]
		off += int64(len(block))
	}
}

func (s sum) String() string { return hex.EncodeToString(s.h.Sum(nil)) }

var zeros [blockBytes]byte

// isZero says whether p, of at most a block, is all zeros.
func isZero(p []byte) bool { return string(p) == string(zeros[:len(p)]) }
