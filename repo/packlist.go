package repo

import "holdfast/repo/ledger"

// A packList collects the packs of a row of segments, and which of them the
// same segments say were removed.
type packList struct {
	packs []listedPack
	swept map[packKey]ledger.PackRef
}

// A listedPack is a pack and the segment that recorded it.
type listedPack struct {
	ledger.Pack
	segment uint64
}

func newPackList() *packList { return &packList{swept: make(map[packKey]ledger.PackRef)} }

// add takes the next segment.
func (l *packList) add(s *ledger.Segment) {
	for _, p := range s.Packs {
		l.packs = append(l.packs, listedPack{p, s.Number})
	}
	for _, rec := range s.Records {
		if sweep, ok := rec.(*ledger.Sweep); ok {
			for _, p := range sweep.Packs {
				l.swept[packKey{p.Kind, p.Name}] = p
			}
		}
	}
}

// left returns the packs that were not removed.
func (l *packList) left() []listedPack {
	var left []listedPack
	for _, p := range l.packs {
		if _, gone := l.swept[packKey{p.Kind, p.Name}]; !gone {
			left = append(left, p)
		}
	}
	return left
}
