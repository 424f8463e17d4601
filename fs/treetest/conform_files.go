package treetest

import (
	"bytes"
	"fmt"
	"io"

	"holdfast/fs"
)

const (
	// wholeBytes is up to what size a file is read whole. Of longer ones
	// windows are looked at.
	wholeBytes = 4 << 20

	windowBytes = 256 << 10

	// maxExtents is how many extents of a file are asked for.
	maxExtents = 100_000
)

func (c *conform) files() {
	for _, a := range c.pick(isFile) {
		if c.errors >= maxErrors {
			return
		}
		c.file(a.ID, a.Size)
	}
}

// file checks the reading of a regular file or a stream.
func (c *conform) file(id fs.ID, size int64) {
	read := func(p []byte, off int64) (int, error) { return c.t.ReadAt(c.ctx, id, p, off) }
	windows := [][2]int64{{0, size}}
	if size > wholeBytes {
		windows = [][2]int64{{0, windowBytes}, {size - windowBytes, size}}
		for range 4 {
			from := c.r.Int64N(size - windowBytes)
			windows = append(windows, [2]int64{from, from + windowBytes})
		}
	}
	extents := c.extents(id, size)
	for _, w := range windows {
		truth := make([]byte, w[1]-w[0])
		err := readWhole(read, truth, w[0], size)
		if c.passedOver(err) {
			return
		}
		if err != nil {
			c.errorf("%s: %v", c.where(id), err)
			return
		}
		c.pieces(id, read, truth, w[0], size)
		c.bytesOf(id, extents, truth, w[0])
	}
	c.ends(id, read, size)
	_, err := c.t.ReadLink(c.ctx, id)
	c.wants(err, "ReadLink of "+c.where(id), fs.ErrInvalid)
}

// pieces reads parts of a window, which must be as they are in the whole.
func (c *conform) pieces(id fs.ID, read func([]byte, int64) (int, error), truth []byte, from, size int64) {
	edges := []int64{0, 1, 511, 512, 1023, 1024, 4095, 4096, 4097, 8192, 65536}
	for i := range 12 {
		if len(truth) == 0 {
			return
		}
		off := c.r.Int64N(int64(len(truth)))
		if i < 6 {
			off = min(edges[c.r.IntN(len(edges))], int64(len(truth)))
		}
		n := min(int64(len(truth))-off, 1+c.r.Int64N(20_000))
		got := bytes.Repeat([]byte{0xa5}, int(n))
		if err := readWhole(read, got, from+off, size); err != nil {
			c.errorf("%s: %v", c.where(id), err)
			return
		}
		if !bytes.Equal(got, truth[off:off+n]) {
			c.errorf("ReadAt of %s: %d bytes at %d are not as in a longer read, from %d on", c.where(id), n, from+off, from+off+firstDifference(got, truth[off:]))
			return
		}
	}
}

func firstDifference(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return int64(len(a))
}

// ends reads over, at and behind the end, nothing, and before the beginning.
func (c *conform) ends(id fs.ID, read func([]byte, int64) (int, error), size int64) {
	for _, tt := range []struct {
		n    int
		off  int64
		want int
		eof  bool
	}{
		{2, size - 1, 1, true}, {5000, size - 3000, 3000, true}, {1, size, 0, true}, {100, size + 1000, 0, true},
		{8, 1<<63 - 9, 0, true}, {0, 0, 0, false},
	} {
		if tt.off < 0 {
			continue
		}
		got, err := read(make([]byte, tt.n), tt.off)
		if got != tt.want || (tt.eof && err != io.EOF) || (!tt.eof && err != nil && err != io.EOF) {
			c.errorf("ReadAt of %s, %d bytes at %d of %d: %d, %v; want %d, EOF %v", c.where(id), tt.n, tt.off, size, got, err, tt.want, tt.eof)
		}
	}
	if n, err := read(make([]byte, 1), -1); n != 0 || err == nil || err == io.EOF {
		c.errorf("ReadAt of %s at -1: %d, %v; want an error", c.where(id), n, err)
	}
}

// extents lists those of a file in one way, checks them by themselves, and
// sees that other ways say the same.
func (c *conform) extents(id fs.ID, size int64) []fs.Extent {
	var all []fs.Extent
	off := int64(0)
	for turn := 0; off < size && len(all) < maxExtents; turn++ {
		n := []int{1, 3, 64, 1000}[min(turn, 3)]
		got, err := c.t.Extents(c.ctx, id, off, n)
		if c.passedOver(err) {
			return nil
		}
		if err := checkExtents(got, err, off, size, n); err != nil {
			c.errorf("Extents of %s from %d: %v", c.where(id), off, err)
			return nil
		}
		all = append(all, got...)
		off = all[len(all)-1].Off + all[len(all)-1].Len
	}
	for _, behind := range []int64{size, size + 1, 1<<63 - 1} {
		if got, err := c.t.Extents(c.ctx, id, behind, 4); err != io.EOF || len(got) != 0 {
			c.errorf("Extents of %s from %d, its size %d: %v, %v; want EOF", c.where(id), behind, size, got, err)
		}
	}
	for range min(len(all), 10) {
		c.extentFrom(id, all[c.r.IntN(len(all))], size)
	}
	return all
}

// checkExtents checks the answer to one call.
func checkExtents(got []fs.Extent, err error, off, size int64, n int) error {
	if err != nil {
		return err
	}
	if len(got) < 1 || len(got) > n {
		return fmt.Errorf("%d of them, want 1 to %d", len(got), n)
	}
	for _, e := range got {
		switch {
		case e.Off != off:
			return fmt.Errorf("%+v begins elsewhere than at %d", e, off)
		case e.Len <= 0 || e.Len > size-e.Off:
			return fmt.Errorf("%+v of a file of %d bytes", e, size)
		case e.Kind > fs.Made || e.Kind == fs.Stored && e.At < 0:
			return fmt.Errorf("%+v", e)
		}
		off += e.Len
	}
	return nil
}

// extentFrom asks from within an extent, for the same place.
func (c *conform) extentFrom(id fs.ID, e fs.Extent, size int64) {
	skip := c.r.Int64N(e.Len)
	got, err := c.t.Extents(c.ctx, id, e.Off+skip, 1)
	if err := checkExtents(got, err, e.Off+skip, size, 1); err != nil {
		c.errorf("Extents of %s from %d: %v", c.where(id), e.Off+skip, err)
		return
	}
	if got[0].Kind != e.Kind || e.Kind == fs.Stored && got[0].At != e.At+skip {
		c.errorf("Extents of %s from %d: %+v; from its beginning %+v", c.where(id), e.Off+skip, got[0], e)
	}
}

// bytesOf compares a window of a file with what its extents say.
func (c *conform) bytesOf(id fs.ID, extents []fs.Extent, truth []byte, from int64) {
	for _, e := range extents {
		lo, hi := max(e.Off, from), min(e.Off+e.Len, from+int64(len(truth)))
		if lo >= hi {
			continue
		}
		part := truth[lo-from : hi-from]
		switch {
		case e.Kind == fs.Hole && len(bytes.Trim(part, "\x00")) > 0:
			c.errorf("%s: the hole %+v reads as other than zeros", c.where(id), e)
			return
		case e.Kind == fs.Stored && c.opt.Device != nil:
			stored := make([]byte, len(part))
			if n, err := c.opt.Device.ReadAt(stored, e.At+lo-e.Off); n < len(stored) {
				c.errorf("%s: %+v is not on the device: %v", c.where(id), e, err)
				return
			}
			if !bytes.Equal(stored, part) {
				c.errorf("%s: the device has other bytes for %+v than ReadAt, from %d on", c.where(id), e, lo+firstDifference(stored, part))
				return
			}
		}
	}
}
