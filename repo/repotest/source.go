package repotest

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// ErrSource is what a Source fails with that should.
var ErrSource = errors.New("source fails here by the test")

// A Source is a disk to back up. It implements repo.Source.
type Source struct {
	Disk *Disk

	FailAt  int64           // reads that reach this byte fail with ErrSource; 0: none
	EndAt   int64           // the bytes end here, before the size; 0: they do not
	NoHoles bool            // it does not know its holes
	OnRead  func(off int64) // called before each read, from several goroutines

	read atomic.Int64
}

// NewSource returns a source of what the disk is now.
func NewSource(d *Disk) *Source { return &Source{Disk: d.Clone().settle()} }

// Size implements repo.Source.
func (s *Source) Size() int64 { return s.Disk.size }

// ReadAt implements repo.Source.
func (s *Source) ReadAt(p []byte, off int64) (int, error) {
	if s.OnRead != nil {
		s.OnRead(off)
	}
	end := off + int64(len(p))
	if s.FailAt > 0 && end > s.FailAt {
		return 0, fmt.Errorf("sector %d: %w", s.FailAt/512, ErrSource)
	}
	if s.EndAt > 0 && end > s.EndAt {
		n := max(0, s.EndAt-off)
		n2, err := s.Disk.ReadAt(p[:n], off)
		if err == nil {
			err = io.EOF
		}
		return n2, err
	}
	n, err := s.Disk.ReadAt(p, off)
	s.read.Add(int64(n))
	return n, err
}

// NextData implements repo.Source.
func (s *Source) NextData(off int64) (start, end int64, err error) {
	if !s.NoHoles {
		return s.Disk.NextData(off)
	}
	if off >= s.Disk.size {
		return 0, 0, io.EOF
	}
	return off, s.Disk.size, nil
}

// ReadBytes returns how much was read so far.
func (s *Source) ReadBytes() int64 { return s.read.Load() }
