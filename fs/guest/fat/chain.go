package fat

import (
	"container/list"
	"context"
	"fmt"
	"sort"
	"sync"

	"holdfast/fs"
)

// run is n clusters of a file that follow one another on the device too.
type run struct {
	at      uint32 // the first one's number in the file
	cluster uint32 // on the device
	n       uint32
}

// chain is where a file's clusters are.
type chain struct {
	// runs are all of them in order, or, for a file in more pieces than we keep,
	// some of them: the clusters between two runs are found by following the
	// FAT from the first of the two.
	runs     []run
	clusters uint32
	err      error // why the chain ends after these, when it is not its end
}

// maxRuns is how many runs of a chain are kept.
const maxRuns = 32 << 10

// keeper collects runs. When they are too many it drops every second one, and
// from then on keeps only one in so many.
type keeper struct {
	runs  []run
	every int // a power of two
	seen  int
}

func (k *keeper) add(r run) {
	if k.every == 0 {
		k.every = 1
	}
	if k.seen%k.every == 0 {
		if len(k.runs) == maxRuns {
			for i := range maxRuns / 2 {
				k.runs[i] = k.runs[2*i]
			}
			k.runs = k.runs[:maxRuns/2]
			k.every *= 2
		}
		if k.seen%k.every == 0 {
			k.runs = append(k.runs, r)
		}
	}
	k.seen++
}

// follow walks the chain that begins with cluster first up to its end. The
// walk itself fails only when ctx is done or the FAT can't be read; what is
// wrong with the chain is in its err.
func (t *table) follow(ctx context.Context, first uint32) (*chain, error) {
	w := walker{t: t}
	c, k := &chain{}, keeper{}
	if !t.g.valid(first) {
		c.err = fmt.Errorf("its chain begins with cluster number %d of %d: %w", first, t.g.clusters, fs.ErrDamaged)
		return c, nil
	}
	cur := run{0, first, 1}
	// Brent's way of finding a loop: compare with a cluster on the way that is
	// replaced after 1, 2, 4, 8 … steps.
	mark, steps, limit := first, 0, 1
	for {
		last := cur.cluster + cur.n - 1
		next, err := w.next(last)
		if err != nil {
			return nil, err
		}
		if next >= entryEnd || !t.g.valid(next) {
			if next < entryEnd {
				c.err = fmt.Errorf("cluster %d is followed by %s: %w", last, entryText(next), fs.ErrDamaged)
			}
			break
		}
		if next == mark {
			return &chain{err: fmt.Errorf("its chain leads back to cluster %d: %w", next, fs.ErrDamaged)}, nil
		}
		if steps++; steps == limit {
			mark, steps, limit = next, 0, limit*2
		}
		if next == last+1 {
			cur.n++
			continue
		}
		k.add(cur)
		cur = run{cur.at + cur.n, next, 1}
		if k.seen%(1<<14) == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	k.add(cur)
	c.runs, c.clusters = k.runs, cur.at+cur.n
	return c, nil
}

func entryText(v uint32) string {
	switch v {
	case entryFree:
		return "a free one"
	case entryBad:
		return "a bad one"
	}
	return fmt.Sprintf("number %d", v)
}

// locate finds the run of clusters that begins with number k < c.clusters of
// the file.
func (t *table) locate(c *chain, k uint32) (run, error) {
	i := sort.Search(len(c.runs), func(i int) bool { return c.runs[i].at > k }) - 1
	r := c.runs[i]
	w := walker{t: t}
	for k-r.at >= r.n { // between two runs that were kept
		next, err := w.next(r.cluster + r.n - 1)
		if err != nil {
			return run{}, err
		}
		if !t.g.valid(next) {
			return run{}, fmt.Errorf("the FAT does not say twice what follows cluster %d: %w", r.cluster+r.n-1, fs.ErrDamaged)
		}
		r = run{r.at + r.n, next, 1}
		for r.n <= k-r.at || r.n < 1<<10 {
			next, err := w.next(r.cluster + r.n - 1)
			if err != nil {
				return run{}, err
			}
			if next != r.cluster+r.n || !t.g.valid(next) {
				break
			}
			r.n++
		}
	}
	skip := k - r.at
	return run{k, r.cluster + skip, min(r.n-skip, c.clusters-k)}, nil
}

// cachedRuns is how many runs of all chains together are kept, of 12 bytes each.
const cachedRuns = 512 << 10

// chains remembers the chains used last, by their first cluster. Safe for
// concurrent use.
type chains struct {
	t *table

	mu      sync.Mutex // guards the following
	byFirst map[uint32]*list.Element
	used    *list.List // of cached, the latest first
	runs    int
}

type cached struct {
	first uint32
	c     *chain
}

// cost of a chain in runs: what is around it counts as ten.
func (c cached) cost() int { return 10 + cap(c.c.runs) }

func newChains(t *table) *chains {
	return &chains{t: t, byFirst: map[uint32]*list.Element{}, used: list.New()}
}

// get returns the chain that begins with cluster first.
func (cs *chains) get(ctx context.Context, first uint32) (*chain, error) {
	cs.mu.Lock()
	if e := cs.byFirst[first]; e != nil {
		cs.used.MoveToFront(e)
		cs.mu.Unlock()
		return e.Value.(cached).c, nil
	}
	cs.mu.Unlock()
	c, err := cs.t.follow(ctx, first)
	if err != nil {
		return nil, err
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.byFirst[first] == nil {
		kept := cached{first, c}
		cs.byFirst[first] = cs.used.PushFront(kept)
		for cs.runs += kept.cost(); cs.runs > cachedRuns; {
			old := cs.used.Remove(cs.used.Back()).(cached)
			delete(cs.byFirst, old.first)
			cs.runs -= old.cost()
		}
	}
	return c, nil
}
