package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

// Source is a row of bytes that knows its holes; image.Disk has the meaning of
// its methods. It must not change while a View of it is in use.
type Source interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// View shows a disk as a qcow2 file that is stored nowhere: version 3, clusters
// of 64 KiB, no backing file. Its methods have the meaning of image.Disk's, for
// the bytes of the file, and may be called by several goroutines at once.
//
// The place of everything follows from the size of the disk alone:
//
//	header             one cluster
//	reference table    uint64 per reference block: its place
//	reference blocks   uint16 per cluster of the file: 1 in use, 0 not
//	L1 table           uint64 per L2 table
//	L2 tables          one per 512 MiB of the disk
//	data               the disk: byte n of it is at DataOffset + n
//
// What the tables say is asked of the source whenever they are read: a cluster
// of the disk is in use where the source may have data. So a View costs nothing
// to make and keeps nothing in memory, whatever the size of the disk, and the
// same source gives the same bytes every time. What no table points to reads as
// zeros and is a hole of the file.
type View struct {
	src      Source
	diskSize int64 // in whole sectors, as the header has it

	// Where each part begins, in clusters; it ends where the next begins. The
	// header is cluster 0 and the reference table begins at 1.
	blocks, l1, tables, data, end int64
}

const (
	viewBits     = 16
	viewCluster  = 1 << viewBits
	viewPerTable = viewCluster / 8            // entries of a cluster of any table
	viewPerBlock = viewCluster / 2            // reference counts of a block
	viewPerL2    = viewPerTable * viewCluster // bytes of the disk

	viewRefTable = 1 // cluster
	viewRefOrder = 4 // a reference count has 2^4 bits

	// entryCopied: the cluster has exactly one reference.
	entryCopied = 1 << 63
)

// NewView shows src as a qcow2 file, without reading anything of it. A size
// that is no multiple of 512 is rounded up with zeros. More than 1 PiB is
// refused.
func NewView(src Source) (*View, error) {
	size := src.Size()
	if size < 0 || size > maxSize {
		return nil, fmt.Errorf("a qcow2 of %d bytes: at most %d are possible", size, int64(maxSize))
	}
	v := &View{src: src, diskSize: ceil(size, sectorSize) * sectorSize}
	clusters, tables := ceil(size, viewCluster), ceil(size, viewPerL2)
	l1 := ceil(tables, viewPerTable)
	// The blocks count themselves too, and so may need more of themselves.
	refTable, blocks := int64(1), int64(1)
	for {
		b := ceil(viewRefTable+refTable+blocks+l1+tables+clusters, viewPerBlock)
		if b == blocks {
			break
		}
		blocks, refTable = b, ceil(b, viewPerTable)
	}
	v.blocks = viewRefTable + refTable
	v.l1 = v.blocks + blocks
	v.tables = v.l1 + l1
	v.data = v.tables + tables
	v.end = v.data + clusters
	return v, nil
}

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }

// Size is the length of the file in bytes. As much of it is holes as of the
// disk.
func (v *View) Size() int64 { return v.end * viewCluster }

// DataOffset is where the disk begins in the file. It lies there from its first
// byte to its last, holes included.
func (v *View) DataOffset() int64 { return v.data * viewCluster }

// ReadAt reads bytes of the file.
func (v *View) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	for n < len(p) && off+int64(n) < v.Size() {
		at := off + int64(n)
		piece := p[n:min(int64(len(p)), int64(n)+v.Size()-at)]
		if at >= v.DataOffset() {
			err = v.readDisk(piece, at-v.DataOffset())
		} else {
			piece = piece[:min(int64(len(piece)), viewCluster-at%viewCluster)]
			err = v.readTables(piece, at/viewCluster, at%viewCluster)
		}
		if err != nil {
			return n, err
		}
		n += len(piece)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readDisk reads bytes of the disk, with zeros up to the end of its last cluster.
func (v *View) readDisk(p []byte, off int64) error {
	n := max(0, min(int64(len(p)), v.src.Size()-off))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return layer.ReadFull(v.src, p[:n], off)
}

// readTables fills p from byte in of a cluster that lies before the data.
func (v *View) readTables(p []byte, cluster, in int64) error {
	clear(p)
	at := func(begin int64, width int) window { return window{p, (cluster-begin)*viewCluster + in, width} }
	switch {
	case cluster < viewRefTable:
		if h := v.header(); in < int64(len(h)) {
			copy(p, h[in:])
		}
		return nil
	case cluster < v.blocks:
		w := at(viewRefTable, 8)
		return v.eachBlock(w.first(), w.last(), func(i int64) { w.put(i, uint64(v.blocks+i)*viewCluster) })
	case cluster < v.l1:
		w := at(v.blocks, 2)
		return v.eachCluster(w.first(), w.last(), func(i int64) { w.put(i, 1) })
	case cluster < v.tables:
		w := at(v.l1, 8)
		return v.eachUnit(viewPerL2, w.first(), w.last(), func(i int64) { w.put(i, entryCopied|uint64(v.tables+i)*viewCluster) })
	default:
		w := at(v.tables, 8)
		return v.eachUnit(viewCluster, w.first(), w.last(), func(i int64) { w.put(i, entryCopied|uint64(v.data+i)*viewCluster) })
	}
}

func (v *View) header() []byte {
	be := binary.BigEndian
	b := make([]byte, headerV3)
	copy(b, magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], viewBits)
	be.PutUint64(b[24:], uint64(v.diskSize))
	be.PutUint32(b[36:], uint32(v.data-v.tables)) // entries of the L1 table
	be.PutUint64(b[40:], uint64(v.l1)*viewCluster)
	be.PutUint64(b[48:], viewRefTable*viewCluster)
	be.PutUint32(b[56:], uint32(v.blocks-viewRefTable))
	be.PutUint32(b[96:], viewRefOrder)
	be.PutUint32(b[100:], headerV3)
	return b
}

// NextData finds data in the file: tables that are in use, and the data of the
// disk.
func (v *View) NextData(off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fs.ErrInvalid
	}
	in := func(first, last int64) (int64, int64, error) {
		return max(off, first*viewCluster), last * viewCluster, nil
	}
	cluster := off / viewCluster
	if cluster < v.blocks {
		return in(0, v.blocks)
	}
	if cluster < v.l1 {
		b, err := v.nextBlock(cluster - v.blocks)
		if err != nil {
			return 0, 0, err
		}
		if b += v.blocks; b < v.l1 {
			return in(b, b+1)
		}
	}
	if cluster < v.tables {
		return in(v.l1, v.tables)
	}
	if cluster < v.data {
		start, _, err := v.nextData((cluster - v.tables) * viewPerL2)
		if err != nil {
			return 0, 0, err
		}
		if t := v.tables + start/viewPerL2; start < v.diskSize {
			return in(t, t+1)
		}
	}
	start, end, err = v.nextData(max(0, off-v.DataOffset()))
	if err == nil && start == v.diskSize {
		err = io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	return start + v.DataOffset(), end + v.DataOffset(), nil
}

// nextData is NextData of the source, and the end of the disk where there is no
// more.
func (v *View) nextData(off int64) (start, end int64, err error) {
	if off >= v.src.Size() {
		return v.diskSize, v.diskSize, nil
	}
	start, end, err = v.src.NextData(off)
	switch {
	case err == io.EOF:
		return v.diskSize, v.diskSize, nil
	case err != nil:
		return 0, 0, err
	case start < off || end <= start || end > v.src.Size():
		return 0, 0, fmt.Errorf("%w: data from %d to %d after %d", fault.ErrDamaged, start, end, off)
	}
	return start, end, nil
}
