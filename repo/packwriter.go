package repo

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// A packWriter appends one run's records of one kind to packs, in the order it
// is given them. A full pack is finished, written and named in the background
// while the next one fills; there are never more than the two. Not safe for
// concurrent use but for has.
type packWriter struct {
	kind  pack.Kind
	fsys  vfs.FS
	in    *store // where the records of a stored pack are found
	rec   *runRecord
	pins  *pins // of the run, which relies on its own packs
	rand  io.Reader
	epoch uint32
	opt   pack.Options

	cur     *pack.Builder      // nil between packs
	spare   chan *pack.Builder // those neither filling nor being stored
	made    int                // builders there are, at most two
	stored  chan error         // result of the pack being stored, while busy
	busy    bool
	loose   bool              // a pack may have its name that onStore was not called for
	onStore func(ledger.Pack) // called once per pack that has its name

	mu      sync.Mutex // guards all below
	pending map[chunk.ID]*blockmap.Entry
	moving  map[chunk.ID]*blockmap.Entry // of the pack being stored
	records int64
	bytes   int64
	packs   int64 // bytes of whole packs
	parity  int64
}

// builders is how many packs of a kind a run has in memory: one that fills and
// one that is being stored.
const builders = 2

// start begins a pack.
func (p *packWriter) start() error {
	name, err := pack.NewName(p.epoch, p.rand)
	if err != nil {
		return err
	}
	if p.made < builders {
		p.cur, err = pack.NewBuilder(p.kind, name, p.opt)
		p.made++
		return err
	}
	p.cur = <-p.spare
	p.cur.Reset(name)
	return nil
}

// add appends a record. entry is what has returns for its id while the pack is
// not yet in the index; nil for nodes.
func (p *packWriter) add(id chunk.ID, record []byte, entry *blockmap.Entry) error {
	if p.cur == nil {
		if err := p.start(); err != nil {
			return err
		}
	}
	if _, err := p.cur.Add(record); err != nil {
		return fmt.Errorf("add record %s to pack: %w", id.Short(), err)
	}
	p.mu.Lock()
	p.pending[id] = entry
	p.records++
	p.bytes += int64(len(record))
	p.mu.Unlock()
	if p.cur.Full() {
		return p.turn()
	}
	return nil
}

// has reports whether a record was added and is not in the index yet.
func (p *packWriter) has(id chunk.ID) (*blockmap.Entry, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.pending[id]; ok {
		return e, true
	}
	e, ok := p.moving[id]
	return e, ok
}

// turn hands the current pack to the background, after the one before it is
// done.
func (p *packWriter) turn() error {
	if err := p.wait(); err != nil {
		return err
	}
	b := p.cur
	p.cur = nil
	p.mu.Lock()
	p.moving, p.pending = p.pending, make(map[chunk.ID]*blockmap.Entry)
	p.mu.Unlock()
	p.busy = true
	go func() { p.stored <- p.store(b) }()
	return nil
}

// wait waits for the pack in the background. A write under way can't be
// cancelled, so neither can this.
func (p *packWriter) wait() error {
	if !p.busy {
		return nil
	}
	err := <-p.stored
	p.busy = false
	return err
}

// finish stores what is left. The writer may be used again afterwards.
func (p *packWriter) finish() error {
	if p.cur != nil && p.cur.Records() > 0 {
		if err := p.turn(); err != nil {
			return err
		}
	}
	return p.wait()
}

// store makes the pack durable: bytes synced, its line in the run's record,
// then its name. Only then can its records be found.
func (p *packWriter) store(b *pack.Builder) (err error) {
	name := b.Name()
	defer func() {
		if err != nil {
			err = fmt.Errorf("store pack %s: %w", name, err)
		}
		p.spare <- b
	}()
	path := name.Path(p.kind)
	file, sum, entries := b.Finish()
	tmp, err := writeTemp(p.fsys, path, file)
	if err != nil {
		return err
	}
	lp := ledger.Pack{Name: name, Kind: p.kind, Bytes: int64(len(file)), SHA256: sum}
	if err := p.rec.add(lp); err != nil {
		return errors.Join(err, p.fsys.Remove(tmp))
	}
	defer func() { p.loose = p.loose || err != nil }()
	p.pins.stored(name)
	if err := vfs.Place(p.fsys, tmp, path); err != nil {
		return err
	}
	err = p.in.withIndex(func(x *index.Index) error {
		// An index that was made anew may have the pack.
		if has, err := x.HasPack(name); has || err != nil {
			return err
		}
		return x.Add(name, entries)
	})
	if err != nil {
		return err
	}
	var records int64
	for i := range entries {
		records += int64(entries[i].Len)
	}
	parity := pack.LayoutFor(records, len(entries), p.opt.Parity).ParityBytes()
	p.mu.Lock()
	p.moving = nil
	p.packs += int64(len(file))
	p.parity += parity
	p.mu.Unlock()
	if p.onStore != nil {
		p.onStore(lp)
	}
	return nil
}

// writeTemp writes and syncs a file that has no name yet.
func writeTemp(fsys vfs.FS, name string, data []byte) (tmp string, err error) {
	f, tmp, err := vfs.CreateTemp(fsys, name)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		// A backup is not read again soon: leave the page cache to others.
		err = f.DropCache(0, 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, fsys.Remove(tmp))
	}
	return tmp, nil
}
