package blockfile

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"holdfast/repo/vfs"
)

// Names says how the lists and files of one kind are called in their directory:
// a number of at least eight digits behind the prefix of a list, or before the
// suffix of a file.
type Names struct{ ListPrefix, FileSuffix string }

// List is the name of a list.
func (n Names) List(number uint64) string { return fmt.Sprintf("%s%08d", n.ListPrefix, number) }

// File is the name of a file.
func (n Names) File(number uint64) string { return fmt.Sprintf("%08d%s", number, n.FileSuffix) }

// ListNumber returns the number of a list, if name is one's.
func (n Names) ListNumber(name string) (uint64, bool) { return n.number(name, n.List) }

// FileNumber returns the number of a file, if name is one's.
func (n Names) FileNumber(name string) (uint64, bool) { return n.number(name, n.File) }

func (n Names) number(name string, form func(uint64) string) (uint64, bool) {
	digits := strings.TrimSuffix(strings.TrimPrefix(name, n.ListPrefix), n.FileSuffix)
	number, err := strconv.ParseUint(digits, 10, 62)
	return number, err == nil && number > 0 && form(number) == name
}

// Present is what lies in a directory.
type Present struct {
	Lists              []uint64 // the highest first
	NextFile, NextList uint64   // above every number there
}

// ReadDir looks what is there. No directory is an empty one.
func (n Names) ReadDir(fsys vfs.FS, dir string) (Present, error) {
	p := Present{NextFile: 1, NextList: 1}
	infos, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	for _, info := range infos {
		if no, ok := n.ListNumber(info.Name); ok {
			p.Lists = append(p.Lists, no)
			p.NextList = max(p.NextList, no+1)
		}
		if no, ok := n.FileNumber(info.Name); ok {
			p.NextFile = max(p.NextFile, no+1)
		}
	}
	slices.SortFunc(p.Lists, func(a, b uint64) int { return cmp.Compare(b, a) })
	return p, nil
}

// Member is how a list names a file and all its bytes.
type Member struct {
	Number uint64
	Bytes  int64
	Mark   uint32 // checksum of the header
}

// MemberBytes is the length of an encoded Member.
const MemberBytes = 24

// Append encodes m behind p.
func (m Member) Append(p []byte) []byte {
	le := binary.LittleEndian
	p = le.AppendUint64(p, m.Number)
	p = le.AppendUint64(p, uint64(m.Bytes))
	p = le.AppendUint32(p, m.Mark)
	return le.AppendUint32(p, 0)
}

// ParseMember reads what Append wrote.
func ParseMember(p []byte) Member {
	le := binary.LittleEndian
	return Member{le.Uint64(p), int64(le.Uint64(p[8:])), le.Uint32(p[16:])}
}

// Ordered reports whether the numbers rise, and nothing is zero.
func Ordered(members []Member) bool {
	var last uint64
	for _, m := range members {
		if m.Number <= last || m.Bytes <= 0 {
			return false
		}
		last = m.Number
	}
	return true
}
