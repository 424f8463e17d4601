package recovery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"time"
)

// A trace is the blocks of a disk that were asked for in the first minutes of a
// recovery: their numbers, each once, in that order. It is a hint of what the
// next recovery of that machine will ask for, and nothing depends on it.
//
// As a file it is
//
//	magic "HFtr" · u16 version 1 · u16 0 · u32 count · count × varint · u32 CRC-32C of all before
//
// with numbers little-endian, and each varint, as encoding/binary has it, the
// block's number less the one before.
type trace []int64

const (
	traceBlockBytes = 64 << 10 // the least that a frame has
	maxTraceBytes   = 64 << 10 // of the file
	maxTraceBlock   = 1<<47 - 1

	traceMagic   = "HFtr"
	traceVersion = 1
	traceHead    = 12
	traceTail    = 4
)

// errTrace says that bytes are not a trace.
var errTrace = errors.New("not a boot trace")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the trace as a file has it, cut off where that would be longer
// than maxTraceBytes.
func (t trace) encode() []byte {
	b := binary.LittleEndian.AppendUint16([]byte(traceMagic), traceVersion)
	b = append(b, make([]byte, traceHead-len(b))...)
	last, count := int64(0), uint32(0)
	for _, block := range t {
		grown := binary.AppendVarint(b, block-last)
		if len(grown) > maxTraceBytes-traceTail {
			break
		}
		b, last, count = grown, block, count+1
	}
	binary.LittleEndian.PutUint32(b[8:], count)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeTrace reads what encode wrote, and errTrace for all else.
func decodeTrace(p []byte) (trace, error) {
	bad := func(format string, args ...any) (trace, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{errTrace}, args...)...)
	}
	if len(p) < traceHead+traceTail || len(p) > maxTraceBytes || string(p[:4]) != traceMagic {
		return bad("%d bytes", len(p))
	}
	body, sum := p[:len(p)-traceTail], binary.LittleEndian.Uint32(p[len(p)-traceTail:])
	if crc32.Checksum(body, castagnoli) != sum {
		return bad("its checksum is wrong")
	}
	if v := binary.LittleEndian.Uint16(p[4:]); v != traceVersion || p[6]|p[7] != 0 {
		return bad("version %d, this program reads %d", v, traceVersion)
	}
	count, rest := binary.LittleEndian.Uint32(p[8:]), body[traceHead:]
	if int64(count) > int64(len(rest)) {
		return bad("%d blocks in %d bytes", count, len(rest))
	}
	t := make(trace, 0, count)
	last := int64(0)
	for len(rest) > 0 && len(t) < int(count) {
		delta, n := binary.Varint(rest)
		block := last + delta
		if n <= 0 || block < 0 || block > maxTraceBlock {
			return bad("block %d", len(t))
		}
		t, rest, last = append(t, block), rest[n:], block
	}
	if len(rest) > 0 || len(t) < int(count) {
		return bad("%d blocks and %d bytes behind them where %d belong", len(t), len(rest), count)
	}
	return t, nil
}

// betterTrace says whether what was recorded replaces what was before. A machine
// that was stopped before it was up has told less than one that had its time.
func betterTrace(before, recorded trace, whole bool) bool {
	return len(recorded) > 0 && (whole || len(recorded) >= len(before))
}

// A recorder makes a trace of what is asked for until its time is over. Safe for
// concurrent use; nil records nothing.
type recorder struct {
	now  func() time.Time
	end  time.Time
	over atomic.Bool

	mu     sync.Mutex // guards what follows
	seen   map[int64]struct{}
	blocks trace
}

// maxRecorded is how many blocks may fit into a file: of one byte each.
const maxRecorded = maxTraceBytes

func newRecorder(now func() time.Time, window time.Duration) *recorder {
	return &recorder{now: now, end: now().Add(window), seen: make(map[int64]struct{})}
}

// note notes that n bytes from off on were asked for.
func (r *recorder) note(off int64, n int) {
	if r == nil || n <= 0 || off < 0 || r.over.Load() {
		return
	}
	if r.now().After(r.end) {
		r.over.Store(true)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for block := off / traceBlockBytes; block <= (off+int64(n)-1)/traceBlockBytes; block++ {
		if _, ok := r.seen[block]; ok || block > maxTraceBlock {
			continue
		}
		if len(r.blocks) >= maxRecorded {
			r.over.Store(true)
			return
		}
		r.seen[block] = struct{}{}
		r.blocks = append(r.blocks, block)
	}
}

// has says whether a block was noted.
func (r *recorder) has(block int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.seen[block]
	return ok
}

// stop ends the recording and returns what came of it.
func (r *recorder) stop() trace {
	r.over.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.blocks
	r.seen, r.blocks = nil, nil
	return t
}
