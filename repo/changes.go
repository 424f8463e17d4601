package repo

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A ChangeSet is what a change list says: for each disk the state it starts
// from and the ranges that may have changed since.
//
// In text, a line starting with "base" begins a disk, each line after it is a
// range in bytes, and "#" where a word could begin starts a comment:
//
//	base 4f6qz… size 107374182400 disk "Hard disk 1.vmdk" change 52-3f/12
//	0 65536
//	1048576 4096
//
// Words are separated by blanks. A value that has blanks in it, or begins with
// '"' or '#', stands in double quotes, with Go's escapes; any other may.
//
// "base" is followed by a point id or a change id; "disk" may be left out when
// the machine has one disk; "change" names the source's state now, for the
// next list.
type ChangeSet struct {
	Disks []Changes
}

// Changes are the changed ranges of one disk since Base.
type Changes struct {
	Disk      string // name; empty: the only disk
	Base      string // point id, or the change id that a point recorded for this disk
	SizeBytes int64  // of the disk as the list saw it
	ChangeID  string // of the state the list leads to; may be empty
	Ranges    []Range
}

// Range is a stretch of a disk, in bytes.
type Range struct {
	Off, Len int64
}

const maxChangeLine = 64 << 10

// ParseChanges reads a change list. Ranges may overlap and come in any order;
// the result is sorted and merged. Errors wrap ErrChanges and name the line.
func ParseChanges(r io.Reader) (*ChangeSet, error) {
	set := new(ChangeSet)
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxChangeLine)
	for n := 1; sc.Scan(); n++ {
		words, err := splitWords(sc.Text())
		if len(words) > 0 && err == nil {
			err = set.line(words)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrChanges, n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChanges, err)
	}
	if len(set.Disks) == 0 {
		return nil, fmt.Errorf("%w: no line names a base", ErrChanges)
	}
	for i := range set.Disks {
		c := &set.Disks[i]
		c.Ranges = mergeRanges(c.Ranges)
		for j := range i {
			if set.Disks[j].Disk == c.Disk {
				return nil, fmt.Errorf("%w: disk %q is named twice", ErrChanges, c.Disk)
			}
		}
	}
	return set, nil
}

// splitWords returns the words of a line, those in quotes without them.
func splitWords(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		switch {
		case line == "" || line[0] == '#':
			return words, nil
		case line[0] != '"':
			end := strings.IndexFunc(line, unicode.IsSpace)
			if end < 0 {
				end = len(line)
			}
			words, line = append(words, line[:end]), line[end:]
			continue
		}
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, fmt.Errorf("a quote that does not end, or has an escape that is none: %.40s", line)
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("bad quote %.40s", quoted)
		}
		line = line[len(quoted):]
		if r, _ := utf8.DecodeRuneInString(line); line != "" && !unicode.IsSpace(r) {
			return nil, fmt.Errorf("no blank behind %.40s", quoted)
		}
		words = append(words, word)
	}
}

func (s *ChangeSet) line(words []string) error {
	if words[0] == "base" {
		return s.base(words)
	}
	if len(s.Disks) == 0 {
		return fmt.Errorf("a range before the line that names its base")
	}
	c := &s.Disks[len(s.Disks)-1]
	if len(words) != 2 {
		return fmt.Errorf("want offset and length, got %d words", len(words))
	}
	off, err := parseOffset(words[0])
	if err != nil {
		return err
	}
	n, err := parseOffset(words[1])
	if err != nil {
		return err
	}
	if off > c.SizeBytes || n > c.SizeBytes-off {
		return fmt.Errorf("range of %d bytes at %d passes the disk's end at %d", n, off, c.SizeBytes)
	}
	if n > 0 {
		c.Ranges = append(c.Ranges, Range{off, n})
	}
	return nil
}

func (s *ChangeSet) base(words []string) error {
	c := Changes{SizeBytes: -1}
	if len(words)%2 != 0 {
		return fmt.Errorf("%q has no value", words[len(words)-1])
	}
	for i := 0; i < len(words); i += 2 {
		v := words[i+1]
		switch words[i] {
		case "base":
			c.Base = v
		case "disk":
			c.Disk = v
		case "change":
			c.ChangeID = v
		case "size":
			n, err := parseOffset(v)
			if err != nil {
				return err
			}
			c.SizeBytes = n
		default:
			return fmt.Errorf("unknown word %q", words[i])
		}
	}
	if c.SizeBytes < 0 {
		return fmt.Errorf("the disk's size is missing")
	}
	s.Disks = append(s.Disks, c)
	return nil
}

func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a number of bytes", s)
	}
	return int64(n), nil
}

// mergeRanges sorts ranges and joins those that touch.
func mergeRanges(rs []Range) []Range {
	slices.SortFunc(rs, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && r.Off <= out[n-1].Off+out[n-1].Len {
			out[n-1].Len = max(out[n-1].Len, r.Off+r.Len-out[n-1].Off)
			continue
		}
		out = append(out, r)
	}
	return out
}

// widen turns ranges into ascending, disjoint runs of chunks [first, end) that
// hold them, with no run past count.
func widen(rs []Range, chunkBytes, count int64) []Range {
	var out []Range
	for _, r := range rs {
		first, end := r.Off/chunkBytes, (r.Off+r.Len+chunkBytes-1)/chunkBytes
		end = min(end, count)
		if first < end {
			out = append(out, Range{first, end - first})
		}
	}
	return mergeRanges(out)
}
