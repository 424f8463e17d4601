package index

// tier decides which files are merged. Files stand in order of age, and the
// newest ones are merged with what is flushed, so that each file that stays is
// at least tierRatio times as large as all newer ones together. So the files
// grow at least fourfold from each to the next older: 67 million entries, 64 TiB
// of chunks, are in at most eight files, and an entry is rewritten in proportion
// to the logarithm of their number.
type tier struct {
	floor int // a file of fewer entries counts as one of so many; 0 is floorEntries
}

const (
	tierRatio    = 3
	floorEntries = 16 << 10 // 448 KiB: not worth another file

	// maxHidden is how many packs a list hides at most. Beyond that, or when
	// they are a quarter of all packs, everything is merged.
	maxHidden   = 16 << 10
	hiddenShare = 4
)

// merge returns how many of the newest files go into the next one. Of a delta,
// if there is one, the next file gets that many entries besides.
func (t tier) merge(v *view, delta bool, entries uint64) int {
	var packs int
	sizes := make([]uint64, len(v.files))
	for i, f := range v.files {
		packs += int(f.head.packs)
		sizes[i] = f.head.entries
	}
	if n := len(v.list.hidden); n > maxHidden || n*hiddenShare > packs {
		return len(v.files)
	}
	if !delta {
		return 0
	}
	return t.pick(sizes, entries)
}

// pick is merge on the files' sizes in entries, oldest first.
func (t tier) pick(sizes []uint64, fresh uint64) int {
	floor := uint64(t.floor)
	if floor == 0 {
		floor = floorEntries
	}
	sum := max(fresh, floor)
	n := 0
	for n < len(sizes) {
		size := max(sizes[len(sizes)-1-n], floor)
		if size >= tierRatio*sum {
			break
		}
		sum += size
		n++
	}
	return n
}
