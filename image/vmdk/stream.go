package vmdk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
)

const (
	streamGrainSectors = 128 // 64 KiB, what every reader of the format expects
	streamGrainBytes   = streamGrainSectors * sectorSize
	streamOverhead     = 128 // sectors before the first marker

	streamDescriptorSectors = 20

	// maxFileSectors is what an entry of a grain table can point to, 2 TiB.
	maxFileSectors = 1<<32 - 1
)

// StreamOptions say how to write a streamOptimized disk.
type StreamOptions struct {
	// Name of the file, for the descriptor inside.
	Name string

	// CID names this content of the disk; any number but ffffffff.
	CID uint32

	// Level of compression, from zlib.BestSpeed (1) to zlib.BestCompression
	// (9); 0 means BestSpeed.
	Level int

	// Workers is how many goroutines read and compress; 0 means one. Each adds
	// about 5 MiB of memory. The bytes written do not depend on it.
	Workers int
}

// WriteStream writes src as a streamOptimized VMDK to w, from front to back, so
// w may be a pipe. It is one version 3 extent with its descriptor inside and
// its directory at the end; grains that hold only zeros are left out. A size
// that is no multiple of 512 is rounded up with zeros. The same bytes of src and
// the same options give the same stream.
//
// Before anything is written, sizes the format cannot hold are refused: disks
// over 62 TiB, and data that might not fit into 2 TiB were it incompressible.
func WriteStream(ctx context.Context, w io.Writer, src Source, opt StreamOptions) error {
	if err := checkTarget(opt.Name, src.Size(), opt.CID); err != nil {
		return err
	}
	if opt.Level == 0 {
		opt.Level = zlib.BestSpeed
	}
	if opt.Level < zlib.BestSpeed || opt.Level > zlib.BestCompression {
		return fmt.Errorf("compression level %d is not one of 1 to 9", opt.Level)
	}
	if err := fits(src); err != nil {
		return err
	}
	s := newStream(w, src.Size())
	if err := s.begin(opt); err != nil {
		return err
	}
	if err := packInOrder(ctx, src, opt, s.add); err != nil {
		return err
	}
	return s.finish()
}

// fits refuses a source whose data might not fit below the last sector a table
// can point to.
func fits(src Source) error {
	const worst = streamGrainSectors + 2 // incompressible, with marker and padding
	tables := (sectorsOf(src.Size())/streamGrainSectors)/entriesPerTable + 1
	need := streamOverhead + tables*(1+tableBytes/sectorSize) + tables*4/sectorSize + 5
	for off := int64(0); ; {
		start, end, err := src.NextData(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := checkData(src, off, start, end); err != nil {
			return err
		}
		need += ((end-1)/streamGrainBytes - start/streamGrainBytes + 1) * worst
		if need > maxFileSectors {
			return fmt.Errorf("streamOptimized VMDK: data of the disk may take more than 2 TiB: %w", ErrTooLarge)
		}
		off = end
	}
}

// stream is the file as far as it is written.
type stream struct {
	w         io.Writer
	h         header
	at        int64                   // sectors written
	directory []uint32                // sector of each table written
	table     [entriesPerTable]uint32 // the table that the grains now coming belong to
	current   int64                   // its number
	used      bool                    // it has entries
}

func newStream(w io.Writer, sizeBytes int64) *stream {
	s := &stream{w: w, h: streamHeader(sizeBytes)}
	s.directory = make([]uint32, s.h.tables())
	return s
}

// streamHeader is the header of a stream of a disk of sizeBytes.
func streamHeader(sizeBytes int64) header {
	return header{
		version:           3,
		flags:             flagNewlines | flagCompressed | flagMarkers,
		capacity:          uint64(sectorsOf(sizeBytes)),
		grainSectors:      streamGrainSectors,
		descriptorOffset:  1,
		descriptorSectors: streamDescriptorSectors,
		entriesPerTable:   entriesPerTable,
		directoryOffset:   directoryAtEnd,
		overhead:          streamOverhead,
		compression:       compressionDeflate,
	}
}

// withDescriptor is the header and, in the sectors after it, the descriptor of
// the stream called name.
func (h *header) withDescriptor(name string, cid uint32) ([]byte, error) {
	extent := fmt.Sprintf("RW %d SPARSE %q", h.capacity, name)
	text := descriptorText("streamOptimized", extent, int64(h.capacity)*sectorSize, cid)
	if len(text) > streamDescriptorSectors*sectorSize {
		return nil, fmt.Errorf("a VMDK cannot be called %q: the name is too long", name)
	}
	b := make([]byte, (1+streamDescriptorSectors)*sectorSize)
	copy(b, h.encode())
	copy(b[sectorSize:], text)
	return b, nil
}

// begin writes header and descriptor.
func (s *stream) begin(opt StreamOptions) error {
	head, err := s.h.withDescriptor(opt.Name, opt.CID)
	if err != nil {
		return err
	}
	b := make([]byte, s.h.overhead*sectorSize)
	copy(b, head)
	return s.write(b)
}

// add writes a packed grain, marker and padding included.
func (s *stream) add(grain int64, b []byte) error {
	if t := grain / entriesPerTable; t != s.current {
		if err := s.endTable(); err != nil {
			return err
		}
		s.current = t
	}
	s.table[grain%entriesPerTable] = uint32(s.at)
	s.used = true
	return s.write(b)
}

// endTable writes the current table, if it has entries, and empties it.
func (s *stream) endTable() error {
	if !s.used {
		return nil
	}
	s.directory[s.current] = uint32(s.at + 1)
	err := s.section(markerTable, words(s.table[:]))
	clear(s.table[:])
	s.used = false
	return err
}

// finish writes the last table, the directory, the footer and the end.
func (s *stream) finish() error {
	if err := s.endTable(); err != nil {
		return err
	}
	footer := s.h
	footer.directoryOffset = uint64(s.at + 1)
	if err := s.section(markerDirectory, words(s.directory)); err != nil {
		return err
	}
	if err := s.section(markerFooter, footer.encode()); err != nil {
		return err
	}
	return s.section(markerEnd, nil)
}

// section writes a marker and b after it, whole sectors.
func (s *stream) section(kind uint32, b []byte) error {
	return s.write(append(marker(kind, int64(len(b))), b...))
}

// marker is the marker of a section of size bytes, whole sectors.
func marker(kind uint32, size int64) []byte {
	m := make([]byte, sectorSize, sectorSize+size)
	binary.LittleEndian.PutUint64(m, uint64(size/sectorSize))
	binary.LittleEndian.PutUint32(m[12:], kind)
	return m
}

func (s *stream) write(b []byte) error {
	n, err := s.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	s.at += int64(len(b) / sectorSize)
	return err
}

// words puts table entries into whole sectors.
func words(entries []uint32) []byte {
	b := make([]byte, sectorsOf(int64(len(entries))*4)*sectorSize)
	for i, e := range entries {
		binary.LittleEndian.PutUint32(b[4*i:], e)
	}
	return b
}
