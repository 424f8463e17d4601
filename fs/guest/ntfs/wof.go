package ntfs

import (
	"fmt"
	"io"

	"holdfast/fs"
)

// wof is a file that Windows compressed as a whole ("compact /exe"): chunks of
// the same size but for the last, each compressed alone or, where that doesn't
// help, not, behind a table of where all but the first begin.
type wof struct {
	size     int64 // not compressed
	provider uint32
	method   uint32
	packed   *attribute
}

const (
	providerWIM  = 1 // the contents are in an image file somewhere
	providerFile = 2
)

// wofMethods are the ways of compression by number.
var wofMethods = []struct {
	chunkBytes int64
	unpack     func(dst, src []byte) error
}{
	{4 << 10, unpackXpress},
	{32 << 10, unpackLZX},
	{8 << 10, unpackXpress},
	{16 << 10, unpackXpress},
}

// loadWOF reads what a reparse point says of a file that Windows compressed.
// Source: [MS-FSCC] 2.1.2; WOF_EXTERNAL_INFO and FILE_PROVIDER_EXTERNAL_INFO_V1 of
// the Windows SDK.
func (n *node) loadWOF() error {
	data, packed := n.data(), n.find(typeData, nameWOF)
	if n.dir || len(n.reparse) < 16 || data == nil {
		return fmt.Errorf("compressed file in %d bytes: %w", len(n.reparse), fs.ErrDamaged)
	}
	w := &wof{size: data.bytes(), provider: le.Uint32(n.reparse[4:]), method: le.Uint32(n.reparse[12:])}
	if packed == nil {
		packed = &attribute{resident: true}
	}
	w.packed = packed
	n.wof = w
	return nil
}

func (w *wof) chunkBytes() (int64, error) {
	switch {
	case w.provider == providerWIM:
		return 0, fmt.Errorf("kept in a WIM file (WIMBoot): %w", fs.ErrUnsupported)
	case w.provider != providerFile:
		return 0, fmt.Errorf("compressed by WOF provider %d: %w", w.provider, fs.ErrUnsupported)
	case w.method >= uint32(len(wofMethods)):
		return 0, fmt.Errorf("compressed with WOF method %d: %w", w.method, fs.ErrUnsupported)
	}
	return wofMethods[w.method].chunkBytes, nil
}

// readWOF is ReadAt for a compressed file; off lies in it.
func (f *FS) readWOF(w *wof, p []byte, off int64) (int, error) {
	per, err := w.chunkBytes()
	if err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) && off < w.size {
		chunk, err := f.wofChunk(w, off/per, per)
		if err != nil {
			return done, fmt.Errorf("compressed chunk %d: %w", off/per, err)
		}
		n := copy(p[done:], chunk[off%per:])
		done, off = done+n, off+int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

func (f *FS) wofChunk(w *wof, i, per int64) ([]byte, error) {
	key := w.packed.unitKey(i, true)
	if chunk, ok := f.units.get(key); ok {
		return chunk, nil
	}
	if w.packed.flags&flagEncrypted != 0 {
		return nil, fmt.Errorf("encrypted by EFS: %w", fs.ErrUnsupported)
	}
	from, to, err := f.wofPlace(w, i, per)
	if err != nil {
		return nil, err
	}
	chunk := make([]byte, min(per, w.size-i*per))
	packed := make([]byte, to-from)
	if _, err := f.readAttribute(w.packed, packed, from, f.dev.read); err != nil {
		return nil, err
	}
	if len(packed) == len(chunk) {
		chunk = packed
	} else if err := wofMethods[w.method].unpack(chunk, packed); err != nil {
		return nil, err
	}
	f.units.put(key, chunk, int64(len(chunk)))
	return chunk, nil
}

// wofPlace returns where chunk i lies in the stream.
func (f *FS) wofPlace(w *wof, i, per int64) (from, to int64, err error) {
	chunks := (w.size + per - 1) / per
	entry := int64(4)
	if w.size >= 1<<32 {
		entry = 8
	}
	table, end := (chunks-1)*entry, w.packed.bytes()
	if table > end {
		return 0, 0, fmt.Errorf("table of %d chunks in a stream of %d bytes: %w", chunks, end, fs.ErrDamaged)
	}
	read := func(i int64) (int64, error) {
		switch i {
		case 0:
			return table, nil
		case chunks:
			return end, nil
		}
		b := make([]byte, 8)
		if err := f.readPart(w.packed, b[:entry], (i-1)*entry); err != nil {
			return 0, err
		}
		return table + int64(min(le.Uint64(b), 1<<62)), nil
	}
	if from, err = read(i); err == nil {
		to, err = read(i + 1)
	}
	if err == nil && (from >= to || to > end || to-from > min(per, w.size-i*per)) {
		err = fmt.Errorf("from %d to %d of %d: %w", from, to, end, fs.ErrDamaged)
	}
	return from, to, err
}
