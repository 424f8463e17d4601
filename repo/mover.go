package repo

import (
	"context"
	"errors"
	"os"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/pack"
)

// A mover copies stored records unchanged into new packs, in the order it is
// given them. The packs are of an epoch of their own, so their copies are newer
// than all others and are preferred from when they are stored. Not safe for
// concurrent use; its owner holds upkeep.
type mover struct {
	owner  *Owner
	id     RunID
	epoch  uint64
	record *runRecord
	pins   *pins
	data   *packWriter
	meta   *packWriter
	moved  int64 // bytes of records
}

// upkeepMachine stands in the run record of a mover, which is no machine's.
const upkeepMachine = ""

func (o *Owner) newMover() (*mover, error) {
	now := o.now()
	id, err := newID(now, o.rand)
	if err != nil {
		return nil, err
	}
	m := &mover{owner: o, id: RunID(id), epoch: o.nextEpoch()}
	head := runHead{Run: m.id, MachineID: upkeepMachine, Epoch: m.epoch, Started: now.UTC(), PID: os.Getpid()}
	if m.record, err = createRunRecord(o.fsys, head); err != nil {
		return nil, err
	}
	m.pins = o.guard.begin()
	m.data = o.newPackWriter(pack.Data, m.record, m.pins, m.epoch)
	m.meta = o.newPackWriter(pack.Meta, m.record, m.pins, m.epoch)
	return m, nil
}

// nextEpoch begins an epoch and returns it.
func (o *Owner) nextEpoch() uint64 {
	o.commit.Lock()
	defer o.commit.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.epoch++
	return o.epoch
}

// currentEpoch is for those who don't hold commit.
func (o *Owner) currentEpoch() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.epoch
}

// move copies a record that lies at loc, verified, unless this mover has copied
// it before.
func (m *mover) move(ctx context.Context, id chunk.ID, loc index.Location) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	out := m.data
	if packKind(loc.Kind) == pack.Meta {
		out = m.meta
	}
	if _, ok := out.has(id); ok || uint64(loc.Pack.Epoch()) == m.epoch {
		return nil
	}
	return m.owner.store.copyOf(id, loc, func(_ *pack.Header, rec []byte) error {
		m.moved += int64(len(rec))
		return out.add(id, rec, nil)
	})
}

// finish stores what is left, records all packs in the ledger and ends the
// mover. If it fails, whatever was stored is found when the owner opens again.
func (m *mover) finish() error {
	err := errors.Join(m.data.finish(), m.meta.finish())
	if err == nil {
		err = m.owner.record()
	}
	if err == nil {
		err = removeRuns(m.owner.fsys, []RunID{m.id})
	}
	return errors.Join(err, m.close())
}

// abandon ends a mover that has failed: what it has stored becomes durable
// packs that hold copies, which sweep removes.
func (m *mover) abandon() {
	if err := errors.Join(m.data.wait(), m.meta.wait()); err != nil {
		m.owner.log.Debug("last pack of an interrupted copy", "run", m.id, "err", err)
	}
	if err := m.close(); err != nil {
		m.owner.log.Warn("end of an interrupted copy", "run", m.id, "err", err)
	}
}

func (m *mover) close() error {
	m.pins.end()
	return m.record.close()
}

// newPackWriter returns a writer whose packs belong to the run of rec.
func (o *Owner) newPackWriter(k pack.Kind, rec *runRecord, p *pins, epoch uint64) *packWriter {
	return &packWriter{
		kind: k, fsys: o.fsys, in: o.store, rec: rec, pins: p, rand: o.rand, epoch: uint32(epoch),
		opt:     pack.Options{Parity: o.settings.Parity, PackBytes: o.settings.PackBytes},
		spare:   make(chan *pack.Builder, builders),
		stored:  make(chan error, 1),
		pending: make(map[chunk.ID]*blockmap.Entry),
		onStore: o.packStored,
	}
}
