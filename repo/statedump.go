package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/s2"

	"holdfast/repo/ledger"
	"holdfast/repo/refcount"
	"holdfast/repo/vfs"
)

// StateFile is what a file says that the owner keeps for itself: a run's
// record, a list of verified packs or of known damage, a checkpoint, the
// reference counts.
type StateFile struct {
	Kind string `json:"kind"` // run, verified, damage, checkpoint or counts
	Head any    `json:"head"`
	Rows []any  `json:"rows"`
}

// ReadState says what the bytes of such a file mean; reference counts are a
// directory, and have ReadCounts. What is sealed is not opened. A damaged file
// gives what of it is whole and an error; what is none of these gives ErrFormat.
func ReadState(p []byte) (StateFile, error) {
	switch {
	case bytes.HasPrefix(p, []byte(verifiedMagic)):
		return stateOfVerified(p)
	case bytes.HasPrefix(p, []byte(damageMagic)):
		return stateOfDamage(p)
	case bytes.HasPrefix(p, []byte(checkpointMagic)):
		return stateOfCheckpoint(p)
	case bytes.HasPrefix(p, []byte("{")):
		head, packs, err := parseRunRecord(p)
		s := StateFile{Kind: "run", Head: head, Rows: []any{}}
		for _, p := range packs {
			s.Rows = append(s.Rows, p)
		}
		return s, err
	}
	return StateFile{}, fmt.Errorf("%w: neither a run's record nor a list of verified packs or of known damage nor a checkpoint", ErrFormat)
}

// numberIn is the number that a list says of itself, behind magic and version.
func numberIn(p []byte) uint64 {
	if len(p) < 16 {
		return 0
	}
	return le.Uint64(p[8:])
}

func stateOfVerified(p []byte) (StateFile, error) {
	body, err := cutSum(p)
	if err != nil {
		return StateFile{}, err
	}
	v, err := parseVerified(numberIn(body), body)
	if err != nil {
		return StateFile{}, err
	}
	type head struct {
		Number uint64     `json:"number"`
		Begun  *time.Time `json:"scrubBegun"` // that is not finished
	}
	h := head{Number: v.number}
	if v.begun > 0 {
		t := time.Unix(v.begun, 0).UTC()
		h.Begun = &t
	}
	type row struct {
		Pack    string    `json:"pack"`
		At      time.Time `json:"at"`
		Decoded bool      `json:"decoded"` // every record, beside the digest of the file
	}
	s := StateFile{Kind: "verified", Head: h, Rows: []any{}}
	for _, r := range v.rows {
		s.Rows = append(s.Rows, row{r.name.String(), time.Unix(int64(r.at), 0).UTC(), r.how == verifiedRecords})
	}
	return s, nil
}

func stateOfDamage(p []byte) (StateFile, error) {
	body, err := cutSum(p)
	if err != nil {
		return StateFile{}, err
	}
	d, err := parseDamage(numberIn(body), body)
	if err != nil {
		return StateFile{}, err
	}
	type head struct {
		Number uint64    `json:"number"`
		At     time.Time `json:"at"`
	}
	type record struct {
		Prefix string `json:"prefix"` // of the id
		Kind   string `json:"kind"`
		Off    uint32 `json:"off"`
		Bytes  uint32 `json:"bytes"`
		Base   bool   `json:"baseLost"` // it is whole, and what it leans on is lost
	}
	type row struct {
		Path     string   `json:"path"`
		Fault    string   `json:"fault"`
		Healable bool     `json:"healable"`
		Records  []record `json:"records"`
	}
	s := StateFile{Kind: "damage", Head: head{d.number, d.at}, Rows: []any{}}
	for _, k := range d.packs {
		r := row{Path: k.name.Path(k.kind), Fault: k.fault.String(), Healable: k.healable, Records: []record{}}
		for _, b := range k.records {
			r.Records = append(r.Records, record{fmt.Sprintf("%x", b.key), b.kind.String(), b.off, b.len, b.base})
		}
		s.Rows = append(s.Rows, r)
	}
	return s, nil
}

// stateOfCheckpoint leaves the signature to those who trust a checkpoint.
func stateOfCheckpoint(p []byte) (StateFile, error) {
	if len(p) < checkpointHead+checkpointTail {
		return StateFile{}, fmt.Errorf("%w: checkpoint of %d bytes", ErrFormat, len(p))
	}
	end := len(p) - sha256.Size
	if sum := sha256.Sum256(p[:end]); !bytes.Equal(sum[:], p[end:]) {
		return StateFile{}, fmt.Errorf("%w: checkpoint fails its checksum", ErrFormat)
	}
	type head struct {
		Version uint16          `json:"version"`
		Segment uint64          `json:"segment"` // of the ledger
		Sealed  bool            `json:"sealed"`
		Text    json.RawMessage `json:"text"` // the first line; null when sealed
	}
	h := head{Version: le.Uint16(p[4:]), Segment: le.Uint64(p[8:]), Sealed: le.Uint16(p[6:])&checkpointSealed != 0}
	s := StateFile{Kind: "checkpoint", Head: h, Rows: []any{}}
	if h.Sealed {
		return s, nil
	}
	body := p[checkpointHead : end-checkpointTail+sha256.Size]
	if n, err := s2.DecodedLen(body); err != nil || n > maxCheckpointBytes {
		return s, fmt.Errorf("%w: checkpoint of %d bytes: %w", ErrFormat, n, errors.Join(err, nil))
	}
	text, err := s2.Decode(nil, body)
	if err != nil {
		return s, fmt.Errorf("%w: checkpoint: %w", ErrFormat, err)
	}
	for n := 0; len(text) > 0; n++ {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		if !json.Valid(line) {
			return s, fmt.Errorf("%w: checkpoint: line %d is no JSON", ErrFormat, n+1)
		}
		if n == 0 {
			h.Text = line
			s.Head = h
			continue
		}
		s.Rows = append(s.Rows, json.RawMessage(line))
	}
	return s, nil
}

// ReadCounts says what the reference counts of a repository are for: the ledger
// head, the points counted and the packs with bytes that nothing needs. fsys is
// the repository's directory.
func ReadCounts(fsys vfs.FS) (s StateFile, err error) {
	t, err := refcount.Open(fsys, refsDir, refcount.Options{})
	if err != nil {
		return StateFile{}, fmt.Errorf("open reference counts: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	c := newRefs(t, &store{})
	if err := c.decode(t.Payload()); err != nil {
		return StateFile{}, err
	}
	type head struct {
		Segment uint64     `json:"segment"` // of the ledger, up to which points are counted
		Sum     ledger.Sum `json:"sum"`
		Bytes   int64      `json:"bytes"`  // of the counts' own files
		Points  int        `json:"points"` // counted
	}
	type row struct {
		Path        string `json:"path"`
		FileBytes   int64  `json:"fileBytes"`
		RecordBytes int64  `json:"recordBytes"`
		DeadBytes   int64  `json:"deadBytes"`
	}
	h := head{Segment: c.head.Number, Sum: c.head.Sum, Bytes: t.Bytes()}
	for _, of := range c.points {
		h.Points += len(of)
	}
	s = StateFile{Kind: "counts", Head: h, Rows: []any{}}
	for _, name := range sortedPacks(c.dead) {
		d := c.dead[name]
		s.Rows = append(s.Rows, row{name.Path(d.kind), d.fileBytes, d.recordBytes, d.deadBytes})
	}
	return s, t.Skipped()
}
