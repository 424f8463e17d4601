package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zlib"
	"golang.org/x/sync/errgroup"

	"holdfast/image/internal/layer"
)

// batchGrains is how many neighbouring grains are read and packed at once.
const batchGrains = 16

// batch goes from the walk over the data to a worker, and in the order of the
// walk to the writer, and then back.
type batch struct {
	first, count int64 // grains
	raw          []byte
	out          bytes.Buffer // packed grains, each with marker and padding
	ends         []int        // where each grain ends in out; unchanged: only zeros
	packed       chan struct{}
}

// packInOrder calls emit with every grain of src that is not all zeros, packed,
// in rising order. Reading and packing go on in opt.Workers goroutines.
func packInOrder(ctx context.Context, src Source, opt StreamOptions, emit func(grain int64, b []byte) error) error {
	workers := max(1, opt.Workers)
	inFlight := 2 * workers
	free := make(chan *batch, inFlight)
	for range inFlight {
		free <- &batch{raw: make([]byte, batchGrains*streamGrainBytes)}
	}
	todo, order := make(chan *batch, inFlight), make(chan *batch, inFlight)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(todo)
		defer close(order)
		return walk(src, func(first, count int64) error {
			select {
			case b := <-free:
				b.first, b.count, b.packed = first, count, make(chan struct{})
				todo <- b // neither blocks: there are only inFlight batches
				order <- b
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range workers {
		g.Go(func() error {
			z, err := zlib.NewWriterLevel(io.Discard, opt.Level)
			if err != nil {
				return err
			}
			for b := range todo {
				if err := b.pack(src, z); err != nil {
					return err
				}
				close(b.packed)
			}
			return nil
		})
	}
	g.Go(func() error {
		for b := range order {
			select {
			case <-b.packed:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := b.emit(emit); err != nil {
				return err
			}
			free <- b
		}
		return ctx.Err()
	})
	return g.Wait()
}

// walk calls visit with runs of at most batchGrains grains that hold data of
// src, in rising order and each grain once.
func walk(src Source, visit func(first, count int64) error) error {
	next := int64(0) // the first grain not yet visited
	for {
		start, end, err := src.NextData(next * streamGrainBytes)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		last := (end - 1) / streamGrainBytes
		for next = max(next, start/streamGrainBytes); next <= last; {
			count := min(batchGrains, last+1-next)
			if err := visit(next, count); err != nil {
				return err
			}
			next += count
		}
		if next*streamGrainBytes >= src.Size() {
			return nil
		}
	}
}

// pack reads the grains of b and packs those that are not all zeros.
func (b *batch) pack(src Source, z *zlib.Writer) error {
	off := b.first * streamGrainBytes
	raw := b.raw[:b.count*streamGrainBytes]
	data := raw[:min(int64(len(raw)), src.Size()-off)]
	if err := layer.ReadFull(src, data, off); err != nil {
		return err
	}
	clear(raw[len(data):])
	b.out.Reset()
	b.ends = b.ends[:0]
	for i := range b.count {
		grain := raw[i*streamGrainBytes : (i+1)*streamGrainBytes]
		if !allZero(grain) {
			if err := b.packGrain(b.first+i, grain, z); err != nil {
				return err
			}
		}
		b.ends = append(b.ends, b.out.Len())
	}
	return nil
}

func (b *batch) packGrain(g int64, grain []byte, z *zlib.Writer) error {
	begin := b.out.Len()
	b.out.Write(make([]byte, markerBytes))
	z.Reset(&b.out)
	if _, err := z.Write(grain); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	size := b.out.Len() - begin - markerBytes
	if odd := (b.out.Len() - begin) % sectorSize; odd > 0 {
		b.out.Write(make([]byte, sectorSize-odd))
	}
	marker := b.out.Bytes()[begin:]
	binary.LittleEndian.PutUint64(marker, uint64(g)*streamGrainSectors)
	binary.LittleEndian.PutUint32(marker[8:], uint32(size))
	return nil
}

// emit hands out the packed grains.
func (b *batch) emit(emit func(grain int64, b []byte) error) error {
	begin := 0
	for i, end := range b.ends {
		if end > begin {
			if err := emit(b.first+int64(i), b.out.Bytes()[begin:end]); err != nil {
				return err
			}
		}
		begin = end
	}
	return nil
}

var zeros [4096]byte

func allZero(b []byte) bool {
	for len(b) >= len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}
