package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"holdfast/repo/ledger"
	"holdfast/repo/vfs"
)

// lastSegment returns the highest number in ledger/, of a segment or a twin;
// 0 when there is none.
func lastSegment(fsys vfs.FS) (uint64, error) {
	infos, err := fsys.ReadDir(ledgerDir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list ledger: %w", err)
	}
	var last uint64
	for _, info := range infos {
		if n, ok := ledger.ParseFileName(strings.TrimSuffix(info.Name, twinSuffix)); ok {
			last = max(last, n)
		}
	}
	return last, nil
}

// readSegment reads one segment, or its twin.
func readSegment(fsys vfs.FS, n uint64) (*ledger.Segment, error) {
	var s *ledger.Segment
	_, err := readTwins(fsys, segmentPath(n), func(p []byte) error { return parseSegment(p, n, &s) })
	if err != nil {
		return nil, fmt.Errorf("read ledger segment %d: %w", n, err)
	}
	return s, nil
}

func parseSegment(p []byte, n uint64, s **ledger.Segment) error {
	got, err := ledger.ParseSegment(p)
	if err == nil && got.Number != n {
		err = fmt.Errorf("%w: it says it is segment %d", ledger.ErrChain, got.Number)
	}
	*s = got
	return err
}

// readLedger feeds segments first to last to each, in order.
func readLedger(fsys vfs.FS, first, last uint64, each func(*ledger.Segment) error) error {
	for n := first; n <= last; n++ {
		s, err := readSegment(fsys, n)
		if err != nil {
			return err
		}
		if err := each(s); err != nil {
			return err
		}
	}
	return nil
}
