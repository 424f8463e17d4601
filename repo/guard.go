package repo

import (
	"sync"

	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
)

// A guard stands between runs, which are told that a chunk is stored already
// and rely on it, and sweep, which removes packs. Both ask under one lock, so
// either the run has pinned the pack before sweep condemns it, or the run
// doesn't hear of it any more. Safe for concurrent use.
type guard struct {
	mu        sync.Mutex // guards all below, and each pins' packs
	condemned map[pack.Name]bool
	runs      map[*pins]bool
	loose     map[pack.Name]bool // stored, and in no segment of the ledger
	acquitted uint64             // how often a mark of condemned was taken away

	// While a sweep is at work it relies on counts of a ledger head that it took
	// at its beginning. What runs have relied on that ended since is kept here,
	// for their points may not be counted.
	sweeping bool
	ended    map[pack.Name]bool
}

// pins are the packs that one run relies on.
type pins struct {
	guard *guard
	packs map[pack.Name]bool
}

func newGuard() *guard {
	return &guard{condemned: make(map[pack.Name]bool), runs: make(map[*pins]bool), loose: make(map[pack.Name]bool)}
}

// begin returns the pins of a new run, which end gives up.
func (g *guard) begin() *pins {
	p := &pins{guard: g, packs: make(map[pack.Name]bool)}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.runs[p] = true
	return p
}

func (p *pins) end() {
	g := p.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.runs, p)
	if g.sweeping {
		for name := range p.packs {
			g.ended[name] = true
		}
	}
}

// asking returns what hold needs to know of the moment before the index is asked.
func (p *pins) asking() uint64 {
	p.guard.mu.Lock()
	defer p.guard.mu.Unlock()
	return p.guard.acquitted
}

// hold pins the first of the places that is going to stay, and returns it; nil
// when there is none. The places are what the index said after asking returned
// asked. If packs were removed since, they may be in one of these, which bears no
// mark any more: then it pins nothing, current is false, and the index has to be
// asked again.
func (p *pins) hold(asked uint64, locs []index.Location) (loc *index.Location, current bool) {
	if len(locs) == 0 {
		return nil, true
	}
	g := p.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.acquitted != asked {
		return nil, false
	}
	for i := range locs {
		if name := locs[i].Pack; !g.condemned[name] {
			p.packs[name] = true
			return &locs[i], true
		}
	}
	return nil, true
}

// stored pins a pack that the run itself is storing, before anybody can find it.
func (p *pins) stored(name pack.Name) {
	p.guard.mu.Lock()
	defer p.guard.mu.Unlock()
	p.packs[name], p.guard.loose[name] = true, true
}

// found notes that a pack lies there which no segment names.
func (g *guard) found(name pack.Name) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loose[name] = true
}

// keep pins what an unfinished run has stored.
func (g *guard) keep(packs []ledger.Pack) *pins {
	p := g.begin()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range packs {
		p.packs[packs[i].Name] = true
	}
	return p
}

// recorded notes that the ledger names packs now.
func (g *guard) recorded(packs []ledger.Pack) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range packs {
		delete(g.loose, packs[i].Name)
	}
}

// lasts reports whether a copy in the pack may stand for others: the pack is in
// the ledger and not going to be removed.
func (g *guard) lasts(name pack.Name) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.condemned[name] && !g.loose[name]
}

// sweep begins a sweep. It must be called before the sweep takes the ledger's
// head; the function it returns ends the sweep.
func (g *guard) sweep() (end func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweeping, g.ended = true, make(map[pack.Name]bool)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.sweeping, g.ended = false, nil
	}
}

// condemn marks a pack that is going to be removed, unless a run relies on it.
func (g *guard) condemn(name pack.Name) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended[name] || g.loose[name] {
		return false
	}
	for p := range g.runs {
		if p.packs[name] {
			return false
		}
	}
	g.condemned[name] = true
	return true
}

// isCondemned reports whether a pack is going to be removed.
func (g *guard) isCondemned(name pack.Name) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.condemned[name]
}

// acquit takes a condemned pack's mark away, after it was removed or when that
// failed.
func (g *guard) acquit(name pack.Name) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.condemned, name)
	g.acquitted++
}
