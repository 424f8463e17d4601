package repo

import (
	"sync"

	"holdfast/repo/index"
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
	return &guard{condemned: make(map[pack.Name]bool), runs: make(map[*pins]bool)}
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

// hold pins the first of the places that is going to stay, and reports whether
// there is one.
func (p *pins) hold(locs []index.Location) bool {
	if len(locs) == 0 {
		return false
	}
	g := p.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range locs {
		if name := locs[i].Pack; !g.condemned[name] {
			p.packs[name] = true
			return true
		}
	}
	return false
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
	if g.ended[name] {
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
}
