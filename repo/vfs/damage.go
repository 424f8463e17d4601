package vfs

import (
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"
)

// Corrupt flips the bits of mask in the byte at off of a file, as a disk that
// rots does: nothing else about the file changes, not even what is synced.
func (m *Mem) Corrupt(name string, off int64, mask byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	switch {
	case err != nil:
	case n.dir:
		err = syscall.EISDIR
	case off < 0 || off >= n.live.size:
		err = io.EOF
	}
	if err != nil {
		return fmt.Errorf("corrupt %s at %d: %w", name, off, err)
	}
	same, before := n.live == n.durable, n.live.pages
	n.live = n.live.flip(off, mask)
	m.used += n.live.pages - before
	if same {
		n.durable = n.live.freeze()
	} else if off < n.durable.size {
		n.durable = n.durable.flip(off, mask).freeze()
	}
	return nil
}

// flip returns the bytes with some bits of one changed.
func (b *blob) flip(off int64, mask byte) *blob {
	b = b.thaw()
	b.own(off / pageSize).data[off%pageSize] ^= mask
	return b
}

// Dump lists everything, a line for each: directories with a slash, files with
// length and CRC-32C. Two file systems that dump alike hold the same.
func (m *Mem) Dump() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out strings.Builder
	m.root.dump(&out, "")
	return out.String()
}

func (n *node) dump(out *strings.Builder, prefix string) {
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		e := n.entries[name]
		if e.dir {
			fmt.Fprintf(out, "%s%s/\n", prefix, name)
			e.dump(out, prefix+name+"/")
			continue
		}
		fmt.Fprintf(out, "%s%s %d %08x\n", prefix, name, e.live.size, e.live.sum())
	}
}

func (b *blob) sum() uint32 {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	buf := make([]byte, pageSize)
	for off := int64(0); off < b.size; off += pageSize {
		part := buf[:min(pageSize, b.size-off)]
		b.readAt(part, off)
		h.Write(part)
	}
	return h.Sum32()
}
