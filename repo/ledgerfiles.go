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

// ledgerEnd returns the number of the last segment when all up to n-1 are known
// to be there; n-1 when there is none from n on. It asks for the next names
// instead of listing a directory that has thousands, and lists it only when a
// name is missing and some later one is there.
func ledgerEnd(fsys vfs.FS, n uint64) (uint64, error) {
	there := func(n uint64) (bool, error) {
		for _, name := range []string{segmentPath(n), segmentPath(n) + twinSuffix} {
			if _, err := fsys.Stat(name); !errors.Is(err, fs.ErrNotExist) {
				return err == nil, err
			}
		}
		return false, nil
	}
	for {
		ok, err := there(n)
		if err != nil {
			return 0, fmt.Errorf("look for ledger segment %d: %w", n, err)
		}
		if !ok {
			break
		}
		n++
	}
	const reach = 1 << 10
	for step := uint64(1); step <= reach; step *= 2 {
		switch ok, err := there(n + step); {
		case err != nil:
			return 0, fmt.Errorf("look for ledger segment %d: %w", n+step, err)
		case ok:
			return lastSegment(fsys)
		}
	}
	return n - 1, nil
}
