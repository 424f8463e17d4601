package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"holdfast/repo/vfs"
)

// State that can be made again lies beside the index, in files whose names are
// a word and a number: of one word the highest number counts. Each is written
// whole, the ones before it are removed afterwards. What is damaged is as good
// as not there.

// saved is a row of such files.
type saved struct {
	fsys vfs.FS
	word string // "damage", say
	max  int64  // bytes of the longest
}

func (s saved) path(n uint64) string { return fmt.Sprintf("%s/%s-%08d", indexDir, s.word, n) }

// numbers lists those that are there, the highest first.
func (s saved) numbers() ([]uint64, error) {
	infos, err := s.fsys.ReadDir(indexDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, info := range infos {
		digits, ok := strings.CutPrefix(info.Name, s.word+"-")
		if n, err := strconv.ParseUint(digits, 10, 62); ok && err == nil && s.path(n) == indexDir+"/"+info.Name {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list, nil
}

// read hands the file with the highest number to parse, its checksum taken off,
// and returns that number; 0 when there is none. While it is read the owner may
// write the next one.
func (s saved) read(parse func(n uint64, p []byte) error) (uint64, error) {
	for attempt := 0; ; attempt++ {
		list, err := s.numbers()
		if err != nil || len(list) == 0 {
			return 0, err
		}
		p, err := vfs.ReadFile(s.fsys, s.path(list[0]), s.max)
		if errors.Is(err, fs.ErrNotExist) && attempt < 10 {
			continue
		}
		if err == nil {
			p, err = cutSum(p)
		}
		if err == nil {
			err = parse(list[0], p)
		}
		if err != nil {
			return list[0], fmt.Errorf("%s: %w", s.path(list[0]), err)
		}
		return list[0], nil
	}
}

// write makes p the file of the number after all that are there.
func (s saved) write(p []byte) error {
	list, err := s.numbers()
	if err != nil {
		return err
	}
	next := uint64(1)
	if len(list) > 0 {
		next = list[0] + 1
	}
	if err := vfs.WriteFile(s.fsys, s.path(next), appendSum(p)); err != nil {
		return err
	}
	return s.remove(list)
}

func (s saved) remove(list []uint64) error {
	var errs []error
	for _, n := range list {
		if err := s.fsys.Remove(s.path(n)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// clear removes them all.
func (s saved) clear() error {
	list, err := s.numbers()
	return errors.Join(err, s.remove(list))
}

var le = binary.LittleEndian

// appendSum and cutSum end a file in the CRC of all before.
func appendSum(p []byte) []byte { return le.AppendUint32(p, crc32.Checksum(p, castagnoli)) }

func cutSum(p []byte) ([]byte, error) {
	end := len(p) - 4
	if end < 0 || crc32.Checksum(p[:end], castagnoli) != le.Uint32(p[end:]) {
		return nil, fmt.Errorf("%w: fails its checksum", ErrFormat)
	}
	return p[:end], nil
}
