package part

// maxLogical is how many logical partitions Linux goes to.
const maxLogical = 251

// readLogical follows the chain of a box, and returns the number that the first
// partition of another box would get. As in Linux, what counts as a link is the
// first entry of a sector that is itself a box, and its place counts from the
// beginning of the outer one.
func (r *reader) readLogical(box entry, number int) (int, error) {
	sector := uint64(r.t.SectorBytes)
	seen := map[uint64]bool{}
	for at := uint64(box.first); ; {
		switch {
		case at >= uint64(r.size)/sector:
			r.note("the chain of logical partitions leads to sector %d, behind the disk's end: partitions may be missing", at)
			return number, nil
		case seen[at]:
			r.note("the chain of logical partitions leads back to its sector %d", at)
			return number, nil
		case number > 4+maxLogical || len(seen) > 4*maxLogical:
			r.note("more than %d logical partitions: the rest is left out", maxLogical)
			return number, nil
		}
		seen[at] = true
		b, err := r.at(int64(at*sector), sector512)
		if err != nil {
			return number, err
		}
		m := parseMBR(b)
		if !m.signed {
			r.note("the chain of logical partitions leads to sector %d, which is no link of it: partitions may be missing", at)
			return number, nil
		}
		next := uint64(0)
		for i, e := range m.entries {
			switch {
			case e.count == 0:
			case e.extended():
				if next == 0 {
					next = uint64(box.first) + uint64(e.first)
				}
			case i >= 2 && !within(box, at, e):
				// What boot managers keep there is no partition.
			default:
				r.addLogical(number, box, at, e)
				number++
			}
		}
		if next == 0 {
			return number, nil
		}
		at = next
	}
}

func (r *reader) addLogical(number int, box entry, at uint64, e entry) {
	if !within(box, at, e) {
		r.note("partition %d is not wholly in the extended partition that it belongs to", number)
	}
	r.addEntry(number, e, at+uint64(e.first))
}

// within says whether an entry of the link in sector at is inside the box.
func within(box entry, at uint64, e entry) bool {
	first := at + uint64(e.first)
	return first >= uint64(box.first) && first+uint64(e.count) <= uint64(box.first)+uint64(box.count)
}
