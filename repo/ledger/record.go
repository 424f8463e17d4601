package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
)

// A Sum is a SHA-256 digest, in JSON 64 lower-case hexadecimal digits.
type Sum [sha256.Size]byte

// String returns the digest in hexadecimal digits.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText writes the digest as String does.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads what MarshalText wrote, and nothing else.
func (s *Sum) UnmarshalText(p []byte) error {
	var v Sum
	if len(p) != 2*len(v) || bytes.ContainsAny(p, "ABCDEF") {
		return fmt.Errorf("%w: %q is not a digest", ErrFormat, p)
	}
	if _, err := hex.Decode(v[:], p); err != nil {
		return fmt.Errorf("%w: %q is not a digest", ErrFormat, p)
	}
	*s = v
	return nil
}

// A Body is what a segment says. Fields that a later version adds are not read.
type Body struct {
	Time    time.Time  `json:"time"`  // UTC, the writer's clock
	Epoch   uint64     `json:"epoch"` // of the writer; never falls from one segment to the next
	Actor   string     `json:"actor"` // who asked for it
	Records RecordList `json:"records"`

	// Packs that became durable since the segment before. They are not in the
	// JSON: there are 32,000 for each TiB, and whoever opens a repository for
	// writing reads them all.
	Packs []Pack `json:"-"`
}

// A Record is an *Init, *Point, *Void, *Expire, *Recall, *Sweep, *Repair,
// *Adopt, *Key, or an *Unknown.
type Record interface {
	recordType() string
	check() error
}

// Init is the first record of a ledger.
type Init struct {
	Repository string `json:"repository"` // the repository's id
	Signer     string `json:"signer"`     // fingerprint of the key that signs from this epoch on
}

// Point records a restore point. It is valid once its manifest is there and has
// the digest named here.
type Point struct {
	ID       string `json:"point"`
	Sequence uint64 `json:"sequence"`         // of the machine, from 1, ascending
	Machine  string `json:"machine"`          // the machine's id
	Job      string `json:"job"`              // or "manual"
	Slot     string `json:"slot,omitempty"`   // of the schedule; empty for an extra
	Parent   string `json:"parent,omitempty"` // empty for a full
	Full     bool   `json:"full"`
	Run      string `json:"run"`
	Manifest Sum    `json:"manifest"` // of the manifest's file
}

// A Pack is a pack that became durable. Its JSON is for the records of runs.
type Pack struct {
	Name   pack.Name
	Kind   pack.Kind
	Bytes  int64 // length of the file
	SHA256 Sum   // of the file
}

// Void says that a point never got its manifest.
type Void struct {
	Point   string `json:"point"`
	Segment uint64 `json:"segment"` // of the point's record
}

// Expire says that a point is no longer kept. It names the roots, so that what
// only the point held can be freed when its manifest is gone.
type Expire struct {
	Point  string `json:"point"`
	Reason string `json:"reason,omitempty"` // for people
	Roots  []Root `json:"roots"`
}

// Root is the block map of one of a point's disks.
type Root struct {
	Root      chunk.ID `json:"root"` // null for a disk of zeros
	Levels    int      `json:"levels"`
	SizeBytes int64    `json:"sizeBytes"`
}

// Recall takes an expiry back.
type Recall struct {
	Point string `json:"point"`
}

// Sweep names packs that are removed because nothing needs them.
type Sweep struct {
	Packs []PackRef `json:"packs"`
}

// PackRef names a pack that an earlier segment recorded.
type PackRef struct {
	Name  pack.Name
	Kind  pack.Kind
	Bytes int64 // length of the file
}

// Repair says that what was whole of a damaged pack is in another one.
type Repair struct {
	Pack PackRef `json:"pack"`
	By   string  `json:"by,omitempty"` // name of the pack in its place; empty when nothing of it was left
	Lost int     `json:"lost"`         // records that could not be had
}

// Adopt says that another key signs from this segment's epoch on. It is signed
// by that key, for the one before is lost.
type Adopt struct {
	Signer   string `json:"signer"`             // fingerprint of the new key
	Previous string `json:"previous,omitempty"` // of the key before, if it was known
}

// Key says that a key file was added or removed.
type Key struct {
	Action string `json:"action"` // add or remove
	Name   string `json:"name"`   // of the file in keys/
	Kind   string `json:"kind"`   // passphrase or recipient
	SHA256 Sum    `json:"sha256"` // of the file
}

// Unknown is a record of a type that this version does not know. It is carried
// along and means nothing.
type Unknown struct {
	Type string
	JSON json.RawMessage // the whole object
}

func (*Init) recordType() string      { return "init" }
func (*Point) recordType() string     { return "point" }
func (*Void) recordType() string      { return "void" }
func (*Expire) recordType() string    { return "expire" }
func (*Recall) recordType() string    { return "recall" }
func (*Sweep) recordType() string     { return "sweep" }
func (*Repair) recordType() string    { return "repair" }
func (*Adopt) recordType() string     { return "adopt" }
func (*Key) recordType() string       { return "key" }
func (u *Unknown) recordType() string { return u.Type }

// maxRecords is the most records in a segment; more would let a small body take
// much memory.
const maxRecords = 1 << 16

// A RecordList is the records of a segment. In JSON each is an object with its
// type in "type", first.
type RecordList []Record

// MarshalJSON writes the list. An Unknown is written as it was read.
func (l RecordList) MarshalJSON() ([]byte, error) {
	out := []byte{'['}
	for i, r := range l {
		if i > 0 {
			out = append(out, ',')
		}
		if u, ok := r.(*Unknown); ok {
			out = append(out, u.JSON...)
			continue
		}
		fields, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		out = fmt.Appendf(out, `{"type":%q,`, r.recordType())
		out = append(out, fields[1:]...)
	}
	return append(out, ']'), nil
}

// UnmarshalJSON reads the list, one record after the other, so that what it
// takes stays in proportion to p.
func (l *RecordList) UnmarshalJSON(p []byte) error {
	d := json.NewDecoder(bytes.NewReader(p))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("records are not a list")
	}
	*l = nil
	for d.More() {
		if len(*l) == maxRecords {
			return fmt.Errorf("more than %d records", maxRecords)
		}
		var object json.RawMessage
		if err := d.Decode(&object); err != nil {
			return err
		}
		r, err := parseRecord(object)
		if err != nil {
			return fmt.Errorf("record %d: %w", len(*l), err)
		}
		*l = append(*l, r)
	}
	return nil
}

// parseRecord reads one record, whose JSON it may keep.
func parseRecord(object json.RawMessage) (Record, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(object, &head); err != nil {
		return nil, err
	}
	var r Record
	switch head.Type {
	case "":
		return nil, errors.New("has no type")
	case "init":
		r = new(Init)
	case "point":
		r = new(Point)
	case "void":
		r = new(Void)
	case "expire":
		r = new(Expire)
	case "recall":
		r = new(Recall)
	case "sweep":
		r = new(Sweep)
	case "repair":
		r = new(Repair)
	case "adopt":
		r = new(Adopt)
	case "key":
		r = new(Key)
	default:
		return &Unknown{Type: head.Type, JSON: object}, nil
	}
	if err := json.Unmarshal(object, r); err != nil {
		return nil, fmt.Errorf("%s: %w", head.Type, err)
	}
	return r, nil
}

// check refuses a body that no writer makes.
func (b *Body) check() error {
	if b.Time.IsZero() {
		return fmt.Errorf("%w: no time", ErrFormat)
	}
	for i, r := range b.Records {
		if err := r.check(); err != nil {
			return fmt.Errorf("%w: record %d, %s: %w", ErrFormat, i, r.recordType(), err)
		}
	}
	for i := range b.Packs {
		if err := b.Packs[i].check(); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	return nil
}

func (r *Init) check() error {
	if b, err := hex.DecodeString(r.Repository); err != nil || len(b) != 16 || strings.ToLower(r.Repository) != r.Repository {
		return fmt.Errorf("repository id %q", r.Repository)
	}
	if r.Signer == "" {
		return errors.New("no signer")
	}
	return nil
}

func (r *Point) check() error {
	switch {
	case !isID(r.ID):
		return fmt.Errorf("point id %q", r.ID)
	case !isID(r.Run):
		return fmt.Errorf("point %s: run id %q", r.ID, r.Run)
	case r.Parent != "" && !isID(r.Parent):
		return fmt.Errorf("point %s: parent id %q", r.ID, r.Parent)
	case r.Full != (r.Parent == ""):
		return fmt.Errorf("point %s: full is %t with parent %q", r.ID, r.Full, r.Parent)
	case r.Sequence == 0:
		return fmt.Errorf("point %s: no sequence number", r.ID)
	case r.Machine == "":
		return fmt.Errorf("point %s: no machine", r.ID)
	}
	return nil
}

func (r *Void) check() error {
	if !isID(r.Point) || r.Segment == 0 {
		return fmt.Errorf("point id %q of segment %d", r.Point, r.Segment)
	}
	return nil
}

func (r *Expire) check() error {
	if !isID(r.Point) {
		return fmt.Errorf("point id %q", r.Point)
	}
	for _, root := range r.Roots {
		if root.SizeBytes < 0 || root.Levels < 1 || root.Levels > maxLevels {
			return fmt.Errorf("point %s: a disk of %d bytes in %d levels", r.Point, root.SizeBytes, root.Levels)
		}
	}
	return nil
}

// maxLevels is the height of a block map over 64 bits of bytes.
const maxLevels = 8

func (r *Recall) check() error {
	if !isID(r.Point) {
		return fmt.Errorf("point id %q", r.Point)
	}
	return nil
}

func (r *Sweep) check() error {
	for i := range r.Packs {
		if err := r.Packs[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Repair) check() error {
	if r.Lost < 0 {
		return fmt.Errorf("pack %s with %d records lost", r.Pack.Name, r.Lost)
	}
	if r.By != "" {
		if _, err := pack.ParseName(r.By); err != nil {
			return err
		}
	}
	return r.Pack.check()
}

func (r *Adopt) check() error {
	if r.Signer == "" {
		return errors.New("no signer")
	}
	return nil
}

func (r *Key) check() error {
	if r.Action != "add" && r.Action != "remove" || r.Name == "" {
		return fmt.Errorf("action %q of key %q", r.Action, r.Name)
	}
	return nil
}

func (u *Unknown) check() error {
	if r, err := parseRecord(u.JSON); err != nil || r.recordType() != u.Type {
		return fmt.Errorf("is not an object of that type")
	}
	return nil
}

// idDigits is the length of a point's or a run's id.
const idDigits = 20

// isID reports whether s is the id of a point or a run: 20 characters of
// lower-case base32: the letters and 2 to 7.
func isID(s string) bool {
	return len(s) == idDigits && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// packBytes is the length of a pack in a segment.
const packBytes = 64

// appendPack appends a pack as a segment has it.
func appendPack(dst []byte, p *Pack) []byte {
	dst = append(dst, p.Name[:]...)
	dst = append(dst, p.SHA256[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(p.Bytes))
	return append(dst, byte(p.Kind), 0, 0, 0, 0, 0, 0, 0)
}

// parsePack reads what appendPack wrote, and nothing else.
func parsePack(b []byte) (Pack, error) {
	p := Pack{
		Name:   pack.Name(b[:16]),
		SHA256: Sum(b[16:48]),
		Bytes:  int64(binary.LittleEndian.Uint64(b[48:])),
		Kind:   pack.Kind(b[56]),
	}
	if [7]byte(b[57:packBytes]) != [7]byte{} {
		return p, fmt.Errorf("pack %s with reserved bytes set", p.Name)
	}
	return p, p.check()
}

// refLine is a PackRef in JSON.
type refLine struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // data or meta
	Bytes int64  `json:"bytes"`
}

func (p *PackRef) check() error { return (&Pack{Name: p.Name, Kind: p.Kind, Bytes: p.Bytes}).check() }

// MarshalJSON writes the pack as FORMAT.md says.
func (p PackRef) MarshalJSON() ([]byte, error) {
	return json.Marshal(refLine{Name: p.Name.String(), Kind: p.Kind.String(), Bytes: p.Bytes})
}

// UnmarshalJSON reads what MarshalJSON wrote, and more fields.
func (p *PackRef) UnmarshalJSON(text []byte) error {
	var l refLine
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	v := PackRef{Kind: kindOf(l.Kind), Bytes: l.Bytes}
	var err error
	if v.Name, err = pack.ParseName(l.Name); err != nil {
		return err
	}
	if err := v.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	*p = v
	return nil
}

// packLine is a Pack in JSON.
type packLine struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"` // data or meta
	Bytes  int64  `json:"bytes"`
	SHA256 Sum    `json:"sha256"`
}

func (p *Pack) check() error {
	if p.Kind != pack.Data && p.Kind != pack.Meta || p.Bytes <= 0 {
		return fmt.Errorf("pack %s of %v, %d bytes", p.Name, p.Kind, p.Bytes)
	}
	return nil
}

// MarshalJSON writes the pack as FORMAT.md says.
func (p Pack) MarshalJSON() ([]byte, error) {
	return json.Marshal(packLine{Name: p.Name.String(), Kind: p.Kind.String(), Bytes: p.Bytes, SHA256: p.SHA256})
}

// UnmarshalJSON reads what MarshalJSON wrote, and more fields.
func (p *Pack) UnmarshalJSON(text []byte) error {
	var l packLine
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	v := Pack{Kind: kindOf(l.Kind), Bytes: l.Bytes, SHA256: l.SHA256}
	var err error
	if v.Name, err = pack.ParseName(l.Name); err != nil {
		return err
	}
	if err := v.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	*p = v
	return nil
}

// kindOf is the kind of that name; 0, which is none, when there is no such.
func kindOf(name string) pack.Kind {
	for _, k := range []pack.Kind{pack.Data, pack.Meta} {
		if name == k.String() {
			return k
		}
	}
	return 0
}
