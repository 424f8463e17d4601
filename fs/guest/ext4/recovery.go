package ext4

import "fmt"

// recovery goes over the journal as Linux does: first to find where it ends,
// then for what was revoked, then for the blocks.
type recovery struct {
	j       *journal
	end     uint32            // number of the first transaction that does not count
	ended   bool              // end was found before the ring's last block
	revoked map[uint64]uint32 // block → the last transaction that revoked it
	blocks  []overlaid        // in the order of writing

	transactions uint32
	stopped      string // why it ended where it did, if people should know
}

// pass is one of the three.
type pass int

const (
	passScan pass = iota
	passRevoke
	passReplay
)

func (r *recovery) run() error {
	for p := passScan; p <= passReplay; p++ {
		if err := r.pass(p); err != nil {
			return err
		}
	}
	return nil
}

// later says whether transaction a is behind b; their numbers wrap around.
func later(a, b uint32) bool { return int32(a-b) > 0 }

// cursor is where a pass is in the ring.
type cursor struct {
	j    *journal
	at   uint32
	left uint32 // blocks before it would be round
}

// take returns the next block's number and goes on by n blocks.
func (c *cursor) take(n uint32) (uint32, error) {
	if n > c.left {
		return 0, damaged("transactions go round the whole ring")
	}
	c.left -= n
	at := c.at
	if c.at += n; c.at >= c.j.last {
		c.at -= c.j.last - c.j.first
	}
	return at, nil
}

// scan is what the first pass remembers.
type scan struct {
	sum        uint32 // of the transaction so far, in the oldest form
	suspicious bool   // a block of the transaction failed its checksum
	commitTime uint64 // of the last good transaction
}

func (r *recovery) pass(p pass) error {
	j := r.j
	next := j.sequence
	c := cursor{j: j, at: j.start, left: j.last - j.first}
	s := scan{sum: ^uint32(0)}
	for c.left > 0 {
		if p != passScan && !later(r.end, next) {
			break
		}
		at, err := c.take(1)
		if err != nil {
			return err
		}
		b, err := j.read(at)
		if err != nil {
			return err
		}
		if be.Uint32(b) != journalMagic || be.Uint32(b[8:]) != next {
			break
		}
		done := false
		switch be.Uint32(b[4:]) {
		case journalDescriptor:
			err = r.descriptor(p, &c, &s, b, next)
		case journalRevoke:
			err = r.revoke(p, &s, b, next)
		case journalCommit:
			if p == passScan {
				done, err = r.commit(&s, b, next)
			}
			next++
		default:
			done = true
		}
		if err != nil {
			return fmt.Errorf("transaction %d: %w", next, err)
		}
		if done {
			break
		}
	}
	if p == passScan {
		if !r.ended {
			r.end = next
		}
		r.transactions = r.end - j.sequence
		return r.lookAhead(c, next)
	} else if next != r.end {
		return damaged("transactions end at %d, not at %d", next, r.end)
	}
	return nil
}

// lookAheadBlocks is how far behind the end of the journal a later transaction
// is looked for.
const lookAheadBlocks = 1024

// lookAhead looks for the end of a later transaction behind where they end.
// There can be none unless something in between was damaged; Linux does not
// look, and neither of us can replay it.
func (r *recovery) lookAhead(c cursor, next uint32) error {
	if r.stopped != "" || !r.j.summed() { // without, it may be left over from another file system
		return nil
	}
	for range min(c.left, lookAheadBlocks) {
		at, err := c.take(1)
		if err != nil {
			return err
		}
		b, err := r.j.read(at)
		if err != nil {
			return err
		}
		if be.Uint32(b) != journalMagic || be.Uint32(b[4:]) != journalCommit {
			continue
		}
		if n := be.Uint32(b[8:]); later(n, next) && r.j.commitSum(b) == be.Uint32(b[16:]) {
			r.stopped = fmt.Sprintf("The journal is damaged: it ends with transaction %d but has a later one, %d. What is behind the damage was not replayed, as on Linux.", next-1, n)
			return nil
		}
	}
	return nil
}

// commit decides in the first pass whether a transaction counts. done says that
// it is the last.
func (r *recovery) commit(s *scan, b []byte, sequence uint32) (done bool, err error) {
	j := r.j
	time := be.Uint64(b[48:])
	bad := false
	if s.suspicious {
		if time >= s.commitTime {
			return true, damaged("a descriptor fails its checksum")
		}
		bad = true // left over from a time before
	}
	kind, size, sum := b[12], b[13], be.Uint32(b[16:])
	if !bad && j.compat&journalCompatChecksum != 0 {
		if r.ended {
			return true, nil
		}
		right := kind == 1 && size == 4 && sum == s.sum
		bad = !right && (kind != 0 || size != 0 || sum != 0)
		s.sum = ^uint32(0)
	}
	if !bad && j.summed() {
		bad = j.commitSum(b) != sum
	}
	if !bad {
		s.commitTime = time
		return false, nil
	}
	if s.suspicious || time < s.commitTime {
		return true, nil
	}
	r.end, r.ended = sequence, true
	r.stopped = fmt.Sprintf("Transaction %d of the journal fails its checksum; it and what follows it was not replayed, as on Linux.", sequence)
	s.commitTime = time
	return !j.has(journalAsync), nil
}

// commitSum is the checksum that a commit block should have.
func (j *journal) commitSum(b []byte) uint32 {
	c := crc32c(j.seed, b[:16])
	c = crc32c(c, zeroes[:4])
	return crc32c(c, b[20:])
}

// tag names one of the blocks behind a descriptor.
type tag struct {
	block   uint64
	sum     uint32
	sumBits uint8
	escaped bool
}

const (
	tagEscaped  = 1
	tagSameUUID = 2
	tagLast     = 8

	journalHeader = 12
	journalTail   = 4 // the checksum at the end of a descriptor
)

// tags returns the tags of a descriptor.
func (j *journal) tags(b []byte) []tag {
	size := 8
	switch {
	case j.has(journalCsumV3):
		size = 16
	case j.has(journalCsumV2):
		size = 10
	}
	if j.has(journal64bit) && size < 16 {
		size += 4
	}
	if j.summed() {
		b = b[:len(b)-journalTail]
	}
	var list []tag
	for b = b[journalHeader:]; len(b) >= size; {
		flags := be.Uint16(b[6:])
		t := tag{block: uint64(be.Uint32(b)), escaped: flags&tagEscaped != 0}
		if j.has(journal64bit) {
			t.block |= uint64(be.Uint32(b[8:])) << 32
		}
		switch {
		case j.has(journalCsumV3):
			t.sum, t.sumBits = be.Uint32(b[12:]), 32
		case j.has(journalCsumV2):
			t.sum, t.sumBits = uint32(be.Uint16(b[4:])), 16
		}
		list = append(list, t)
		skip := size
		if flags&tagSameUUID == 0 {
			skip += 16
		}
		if flags&tagLast != 0 || skip > len(b) {
			break
		}
		b = b[skip:]
	}
	return list
}

// sealed says whether a descriptor or revoke block has the checksum it should.
func (j *journal) sealed(b []byte) bool {
	if !j.summed() {
		return true
	}
	tail := len(b) - journalTail
	return crc32c(crc32c(j.seed, b[:tail]), zeroes[:journalTail]) == be.Uint32(b[tail:])
}

// descriptor passes over the blocks behind a descriptor, or takes them.
func (r *recovery) descriptor(p pass, c *cursor, s *scan, b []byte, sequence uint32) error {
	j := r.j
	if !j.sealed(b) {
		if p != passScan {
			return damaged("a descriptor fails its checksum")
		}
		s.suspicious = true
	}
	tags := j.tags(b)
	if p == passScan && j.compat&journalCompatChecksum != 0 && !s.suspicious && !r.ended {
		s.sum = crc32be(s.sum, b)
		for range tags {
			at, err := c.take(1)
			if err != nil {
				return err
			}
			data, err := j.read(at)
			if err != nil {
				return err
			}
			s.sum = crc32be(s.sum, data)
		}
		return nil
	}
	if p != passReplay {
		_, err := c.take(uint32(len(tags)))
		return err
	}
	for _, t := range tags {
		n, err := c.take(1)
		if err != nil {
			return err
		}
		if last, ok := r.revoked[t.block]; ok && !later(sequence, last) {
			continue
		}
		at, err := j.place(n)
		if err != nil {
			return err
		}
		if t.block >= j.f.sb.blocks {
			return damaged("a block for block %d, behind the end", t.block)
		}
		if len(r.blocks) == maxOverlaid {
			return unsupported("more than %d blocks to replay", maxOverlaid)
		}
		r.blocks = append(r.blocks, overlaid{block: t.block, at: at, sequence: sequence,
			sum: t.sum, sumBits: t.sumBits, escaped: t.escaped})
	}
	return nil
}

// revoke notes what a revoke block lists.
func (r *recovery) revoke(p pass, s *scan, b []byte, sequence uint32) error {
	j := r.j
	if p == passScan && !j.sealed(b) {
		s.suspicious = true
	}
	if p != passRevoke {
		return nil
	}
	end, size := int(be.Uint32(b[12:])), 4
	if j.has(journal64bit) {
		size = 8
	}
	room := len(b)
	if j.summed() {
		room -= journalTail
	}
	if end < 0 || end > room {
		return damaged("a revoke block of %d bytes", end)
	}
	for at := 16; at+size <= end; at += size {
		block := uint64(be.Uint32(b[at:]))
		if size == 8 {
			block = be.Uint64(b[at:])
		}
		if last, ok := r.revoked[block]; !ok || later(sequence, last) {
			r.revoked[block] = sequence
		}
		if len(r.revoked) > maxOverlaid {
			return unsupported("more than %d blocks revoked", maxOverlaid)
		}
	}
	return nil
}
