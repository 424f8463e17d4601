package ntfs

import (
	"fmt"
	"slices"
	"sort"

	"holdfast/fs"
)

// run is a stretch of a file's clusters that lie together on the volume.
type run struct {
	at, n   int64 // in the file
	cluster int64 // on the volume; negative: a hole
}

func (r run) end() int64 { return r.at + r.n }

// decodeRuns decodes the mapping pairs of a file's clusters first to last: for
// each run a byte with the sizes of two numbers, how many clusters and how far from
// the run before; no second number for a hole. Source: Linux-NTFS documentation,
// "Data Runs".
func decodeRuns(pairs []byte, first, last, clusters int64) ([]run, error) {
	bad := func(what string, value int64) ([]run, error) {
		return nil, fmt.Errorf("mapping pairs: %s %d: %w", what, value, fs.ErrDamaged)
	}
	var list []run
	at, cluster := first, int64(0)
	for len(pairs) > 0 && pairs[0] != 0 {
		lenBytes, offBytes := int(pairs[0]&15), int(pairs[0]>>4)
		if lenBytes == 0 || lenBytes > 8 || offBytes > 8 || 1+lenBytes+offBytes > len(pairs) {
			return bad("sizes", int64(pairs[0]))
		}
		n := signed(pairs[1 : 1+lenBytes])
		if n <= 0 || n > last+1-at {
			return bad("clusters", n)
		}
		r := run{at, n, -1}
		if offBytes > 0 {
			cluster += signed(pairs[1+lenBytes : 1+lenBytes+offBytes])
			if cluster < 0 || cluster >= clusters || n > clusters-cluster {
				return bad("cluster", cluster)
			}
			r.cluster = cluster
		}
		list = append(list, r)
		at += n
		pairs = pairs[1+lenBytes+offBytes:]
	}
	if at != last+1 {
		return bad("clusters left", last+1-at)
	}
	return slices.Clip(list), nil
}

// signed is a little-endian number of up to eight bytes in two's complement.
func signed(b []byte) int64 {
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	shift := 64 - 8*len(b)
	return int64(v<<shift) >> shift
}

// findRun returns the run that cluster at of the file lies in.
func findRun(list []run, at int64) (run, bool) {
	i := sort.Search(len(list), func(i int) bool { return list[i].end() > at })
	if i == len(list) || list[i].at > at {
		return run{}, false
	}
	return list[i], true
}
