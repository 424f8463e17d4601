package ext4

import "fmt"

// block returns a block of the file system as it is after the replay, from the
// cache if it is there. It is shared and must not be changed.
func (f *FS) block(n uint64) ([]byte, error) {
	if e, ok := f.overlay.find(n); ok {
		return f.cache.get(overlaidKey|n, func(uint64) ([]byte, error) {
			b := make([]byte, f.sb.blockBytes())
			return b, f.readOverlaid(b, e, 0)
		})
	}
	if n >= f.sb.blocks || n >= uint64(f.size)>>f.sb.blockLog {
		return nil, damaged("block %d: behind the end of the device", n)
	}
	at := int64(n) << f.sb.blockLog
	key := uint64(at) / uint64(f.pageBytes)
	data, err := f.cache.get(key, f.readPage)
	if err != nil {
		return f.lonelyBlock(n, at)
	}
	from := at - int64(key)*f.pageBytes
	return data[from : from+f.sb.blockBytes()], nil
}

// overlaidKey sets blocks that are replayed apart from pages of the device.
const overlaidKey = 1 << 63

func (f *FS) readPage(key uint64) ([]byte, error) {
	at := int64(key) * f.pageBytes
	b := make([]byte, min(f.pageBytes, f.size-at))
	return b, readFull(f.dev, b, at)
}

// lonelyBlock reads a block whose page can't be read, perhaps only because of
// what is beside it.
func (f *FS) lonelyBlock(n uint64, at int64) ([]byte, error) {
	b := make([]byte, f.sb.blockBytes())
	if err := readFull(f.dev, b, at); err != nil {
		return nil, fmt.Errorf("read block %d: %w", n, err)
	}
	return b, nil
}

// readBlocks fills p with what follows byte off of block n, past the cache:
// straight from the device but for blocks that the replay made.
func (f *FS) readBlocks(p []byte, n uint64, off int64) error {
	at := int64(n)<<f.sb.blockLog + off
	for len(p) > 0 {
		first := uint64(at) >> f.sb.blockLog
		e, ok := f.overlay.next(first, uint64(at+int64(len(p))-1)>>f.sb.blockLog)
		if !ok {
			return f.readDevice(p, at)
		}
		if plain := int64(e.block<<f.sb.blockLog) - at; plain > 0 {
			if err := f.readDevice(p[:plain], at); err != nil {
				return err
			}
			p, at = p[plain:], at+plain
		}
		within := at - int64(e.block<<f.sb.blockLog)
		piece := p[:min(int64(len(p)), f.sb.blockBytes()-within)]
		if err := f.readOverlaid(piece, e, within); err != nil {
			return err
		}
		p, at = p[len(piece):], at+int64(len(piece))
	}
	return nil
}

func (f *FS) readDevice(p []byte, at int64) error {
	if at+int64(len(p)) > f.size {
		return damaged("%d bytes at %d: behind the end of the device", len(p), at)
	}
	if err := readFull(f.dev, p, at); err != nil {
		return fmt.Errorf("read %d bytes at %d: %w", len(p), at, err)
	}
	return nil
}
