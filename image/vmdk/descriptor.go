package vmdk

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	// maxDescriptor bounds the descriptor, as text of its own or inside a
	// sparse extent. A disk of 4,096 extents needs about 300 KiB.
	maxDescriptor = 1 << 20

	maxExtents = 4096

	descriptorMagic = "# Disk DescriptorFile"

	noParent = 0xffffffff
)

// descriptor is the text that says what a disk is made of.
type descriptor struct {
	createType string
	cid        uint32
	parentCID  uint32
	parentHint string
	extents    []extentLine
}

// extentLine is one line: access, sectors, kind, "file", first sector in it.
type extentLine struct {
	access  string
	sectors int64
	kind    string
	file    string
	offset  int64
}

// parseDescriptor parses a descriptor. Keys we do not use are passed over: the
// disk data base has dozens.
func parseDescriptor(text string) (*descriptor, error) {
	d := &descriptor{parentCID: noParent}
	for i, line := range strings.Split(strings.TrimRight(text, "\x00"), "\n") {
		if err := d.parseLine(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("%w: descriptor line %d: %v", fault.ErrDamaged, i+1, err)
		}
	}
	if d.createType == "" {
		return nil, fmt.Errorf("%w: the descriptor has no createType", fault.ErrDamaged)
	}
	return d, nil
}

func (d *descriptor) parseLine(line string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	switch word, _, _ := strings.Cut(line, " "); word {
	case "RW", "RDONLY", "NOACCESS":
		e, err := parseExtent(line)
		if err != nil {
			return err
		}
		if len(d.extents) == maxExtents {
			return fmt.Errorf("more than %d extents", maxExtents)
		}
		d.extents = append(d.extents, e)
		return nil
	}
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return nil
	}
	value = strings.Trim(strings.TrimSpace(value), `"`)
	switch strings.ToLower(strings.TrimSpace(key)) {
	case "createtype":
		d.createType = value
	case "parentfilenamehint":
		d.parentHint = value
	case "cid":
		return parseCID(value, &d.cid)
	case "parentcid":
		return parseCID(value, &d.parentCID)
	}
	return nil
}

func parseCID(s string, cid *uint32) error {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil {
		return fmt.Errorf("%q is no CID", s)
	}
	*cid = uint32(n)
	return nil
}

func parseExtent(line string) (e extentLine, err error) {
	before, rest, quoted := strings.Cut(line, `"`)
	words := strings.Fields(before)
	if len(words) != 3 {
		return e, fmt.Errorf("an extent is access, sectors, kind and file, not %q", line)
	}
	e.access, e.kind = words[0], words[2]
	if e.sectors, err = parseSectors(words[1]); err != nil {
		return e, err
	}
	if e.sectors == 0 {
		return e, fmt.Errorf("an extent of no sectors")
	}
	if !quoted {
		if e.kind != "ZERO" {
			return e, fmt.Errorf("the %s extent names no file", e.kind)
		}
		return e, nil
	}
	var closed bool
	if e.file, rest, closed = strings.Cut(rest, `"`); !closed {
		return e, fmt.Errorf("the name of the file does not end")
	}
	if words = strings.Fields(rest); len(words) > 0 {
		e.offset, err = parseSectors(words[0])
	}
	return e, err
}

func parseSectors(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt64/sectorSize {
		return 0, fmt.Errorf("%q is no number of sectors", s)
	}
	return int64(n), nil
}

// openParent opens the disk that this one holds the changes since, nil if it
// holds all. The name is that of the place where the disk was made; a chain that
// was moved into one directory is found by the last element of it.
func (d *descriptor) openParent(open func(name string) (Parent, error)) (Parent, error) {
	if d.parentCID == noParent {
		return nil, nil
	}
	if d.parentHint == "" {
		return nil, fmt.Errorf("%w: the descriptor names no parent, which has CID %08x", fault.ErrDamaged, d.parentCID)
	}
	names := []string{d.parentHint}
	for _, name := range layer.Names(d.parentHint) {
		if name != d.parentHint {
			names = append(names, name)
		}
	}
	return layer.FindParent(names, open, func(p Parent) error {
		if got := p.CID(); got != d.parentCID {
			return fmt.Errorf("%w: it was changed after this disk was made from it: its CID is %08x and was %08x",
				fault.ErrDamaged, got, d.parentCID)
		}
		return nil
	})
}
