package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"golang.org/x/sync/errgroup"

	jsonv2 "github.com/go-json-experiment/json"
	"holdfast/repo/chunk"

	"holdfast/repo/ledger"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// A checkpoint is what the ledger and the manifests say at one segment, in one
// file, so that whoever opens a repository of many years reads that and the
// segments after it. It is disposable: one that is damaged, is not signed by the
// signer in force, or names another segment than the ledger has is as good as
// none. See FORMAT.md, "Checkpoint".
type checkpoint struct {
	state  *ledger.State
	newest time.Time // no point made so far is younger, those that are gone included
	points []Point   // those whose manifest was there
}

const (
	checkpointMagic   = "HFcp"
	checkpointVersion = 1
	checkpointHead    = 4 + 2 + 2 + 8 + sha256.Size + 8
	checkpointTail    = seal.SignatureBytes + sha256.Size
	checkpointSealed  = 1
	checkpointPrefix  = "checkpoint-"

	// maxCheckpointBytes bounds the file, and its text: a million points.
	maxCheckpointBytes = 1 << 30

	// An owner that is closed leaves a checkpoint when the last one is this many
	// segments behind, so that small repositories have none, and one that goes on
	// for long when it is that many behind.
	checkpointAtClose = 64
	checkpointAnyway  = 256
)

// checkpointFirst is the first line of a checkpoint's text.
type checkpointFirst struct {
	ledger.Saved           // without points
	Newest       time.Time `json:"newest"`
}

// checkpointLine is each further line.
type checkpointLine struct {
	State    ledger.PointState `json:"state"`
	Manifest *pointSummary     `json:"manifest,omitempty"` // when it was there
}

// pointSummary is what a manifest says beyond the ledger's record, for listings.
type pointSummary struct {
	Name        string                     `json:"name"`
	Job         string                     `json:"job"`
	Actor       string                     `json:"actor,omitempty"`
	Host        string                     `json:"host,omitempty"`
	Time        time.Time                  `json:"time"`
	ClockBack   bool                       `json:"clockBack,omitempty"`
	Consistency string                     `json:"consistency,omitempty"`
	CopiedFrom  string                     `json:"copiedFrom,omitempty"`
	Disks       []diskSummary              `json:"disks"`
	Counters    []int64                    `json:"counters"`
	Extensions  map[string]json.RawMessage `json:"extensions,omitempty"`
	Files       []fileSummary              `json:"files,omitempty"`
}

type fileSummary struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"sizeBytes"`
}

type diskSummary struct {
	Name      string   `json:"name"`
	Format    string   `json:"format,omitempty"`
	Source    string   `json:"source,omitempty"`
	ChangeID  string   `json:"changeID,omitempty"`
	SizeBytes int64    `json:"sizeBytes"`
	Root      chunk.ID `json:"root"`
	Levels    int      `json:"levels"`
}

// fields are the counters in the order of Counters, as a checkpoint has them.
func (c *Counters) fields() []*int64 {
	return []*int64{
		&c.ReadBytes, &c.HoleBytes, &c.ZeroBytes, &c.UnchangedBytes, &c.SharedBytes, &c.KnownBytes, &c.NewBytes,
		&c.StoredBytes, &c.PackBytes, &c.ParityBytes, &c.Chunks, &c.Patches, &c.Nodes, &c.SampledBytes,
	}
}

func summarize(p Point) *pointSummary {
	s := &pointSummary{
		Name: p.Machine, Job: p.Job, Actor: p.Actor, Host: p.Host, Time: p.Time, ClockBack: p.ClockBack,
		Consistency: p.Consistency, CopiedFrom: p.CopiedFrom, Disks: []diskSummary{}, Extensions: p.Extensions,
	}
	for _, d := range p.Disks {
		s.Disks = append(s.Disks, diskSummary{d.Name, d.Format, d.Source, d.ChangeID, d.SizeBytes, d.Root, d.levels})
	}
	for _, f := range p.Files {
		s.Files = append(s.Files, fileSummary(f))
	}
	for _, n := range p.Counters.fields() {
		s.Counters = append(s.Counters, *n)
	}
	return s
}

// point joins the line's two halves.
func (l *checkpointLine) point() Point {
	ps, s := &l.State, l.Manifest
	p := Point{
		ID: PointID(ps.ID), Sequence: ps.Sequence, Machine: s.Name, MachineID: ps.Machine, Job: s.Job, Slot: ps.Slot,
		Actor: s.Actor, Host: s.Host, Run: RunID(ps.Run), Time: s.Time.UTC(), ClockBack: s.ClockBack,
		Full: ps.Full, Parent: PointID(ps.Parent), Consistency: s.Consistency, Signed: ps.Signed,
		CopiedFrom: s.CopiedFrom, Extensions: s.Extensions, segment: ps.Segment, epoch: ps.Epoch,
	}
	for _, d := range s.Disks {
		p.Disks = append(p.Disks, DiskInfo{d.Name, d.SizeBytes, d.Format, d.Source, d.ChangeID, d.Root, d.Levels})
	}
	for _, f := range s.Files {
		p.Files = append(p.Files, FileInfo(f))
	}
	for i, n := range p.Counters.fields() {
		if i < len(s.Counters) {
			*n = s.Counters[i]
		}
	}
	return p
}

// encodeCheckpoint returns the file, sealed if keys is not nil.
func encodeCheckpoint(v ledger.Saved, newest time.Time, known map[PointID]Point, keys *seal.Keys, by *seal.Signer, rand interface{ Read([]byte) (int, error) }) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("encode checkpoint: %w", err) }
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	first := checkpointFirst{Saved: v, Newest: newest}
	first.Points = nil
	if err := enc.Encode(first); err != nil {
		return fail(err)
	}
	for _, ps := range v.Points {
		l := checkpointLine{State: ps}
		if p, ok := known[PointID(ps.ID)]; ok && p.segment == ps.Segment {
			l.Manifest = summarize(p)
		}
		if err := enc.Encode(l); err != nil {
			return fail(err)
		}
	}
	if text.Len() > maxCheckpointBytes {
		return fail(fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, text.Len(), maxCheckpointBytes))
	}
	body := s2.Encode(nil, text.Bytes())
	flags, length := uint16(0), len(body)
	if keys != nil {
		flags, length = checkpointSealed, len(body)+seal.ManifestOverhead
	}
	b := make([]byte, 0, checkpointHead+length+checkpointTail)
	b = append(b, checkpointMagic...)
	b = binary.LittleEndian.AppendUint16(b, checkpointVersion)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint64(b, v.Number)
	b = append(b, v.Sum[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(length))
	if keys == nil {
		b = append(b, body...)
	} else {
		var err error
		if b, err = keys.SealManifest(b, body, bytes.Clone(b), rand); err != nil {
			return fail(err)
		}
	}
	b = append(b, by.Sign(b)...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

// decodeCheckpoint reads what encodeCheckpoint wrote. The signature must be that
// of the one among signers which the text says is in force.
func decodeCheckpoint(p []byte, keys *seal.Keys, signers []seal.Public) (*checkpoint, error) {
	bad := func(format string, args ...any) (*checkpoint, error) {
		return nil, fmt.Errorf("%w: checkpoint %w", ErrFormat, fmt.Errorf(format, args...))
	}
	le := binary.LittleEndian
	if len(p) < checkpointHead+checkpointTail || string(p[:4]) != checkpointMagic {
		return bad("without its magic")
	}
	if v := le.Uint16(p[4:]); v != checkpointVersion {
		return nil, fmt.Errorf("%w: checkpoint version %d, this program reads %d", ErrNewerFormat, v, checkpointVersion)
	}
	end := len(p) - sha256.Size
	if sum := sha256.Sum256(p[:end]); !bytes.Equal(sum[:], p[end:]) {
		return bad("fails its checksum")
	}
	signed := end - seal.SignatureBytes
	flags, body := le.Uint16(p[6:]), p[checkpointHead:signed]
	if le.Uint64(p[checkpointHead-8:]) != uint64(len(body)) || flags&^checkpointSealed != 0 {
		return bad("with lengths or flags that can't be")
	}
	if (flags&checkpointSealed != 0) != (keys != nil) {
		return bad("is sealed: %t", keys == nil)
	}
	if keys != nil {
		plain, err := keys.OpenManifest(nil, body, p[:checkpointHead])
		if err != nil {
			return bad("%w", err)
		}
		body = plain
	}
	if n, err := s2.DecodedLen(body); err != nil || n > maxCheckpointBytes {
		return bad("of %d bytes: %w", n, errors.Join(err, nil))
	}
	text, err := s2.Decode(nil, body)
	if err != nil {
		return bad("%w", err)
	}
	c, v, err := parseCheckpoint(text, signers)
	if err != nil {
		return bad("%w", err)
	}
	if v.Number != le.Uint64(p[8:]) || !bytes.Equal(v.Sum[:], p[16:16+sha256.Size]) {
		return bad("of another segment than it says")
	}
	if by, known := c.state.SignerKey(); !known || !by.Verify(p[:signed], p[signed:end]) {
		return bad("is not signed by the signer in force")
	}
	return c, nil
}

// parseCheckpoint reads the text, many lines at once.
func parseCheckpoint(text []byte, signers []seal.Public) (*checkpoint, *ledger.Saved, error) {
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	var first checkpointFirst
	if err := json.Unmarshal(line, &first); err != nil {
		return nil, nil, err
	}
	lines := bytes.SplitAfter(rest, []byte("\n"))
	lines = lines[:len(lines)-1] // what follows the last newline
	parsed := make([]checkpointLine, len(lines))
	var g errgroup.Group
	share := (len(lines) + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	for at := 0; at < len(lines); at += share {
		g.Go(func() error {
			for i := at; i < min(at+share, len(lines)); i++ {
				if err := jsonv2.Unmarshal(lines[i], &parsed[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	c := &checkpoint{newest: first.Newest}
	first.Points = make([]ledger.PointState, len(parsed))
	for i := range parsed {
		first.Points[i] = parsed[i].State
		if parsed[i].Manifest != nil {
			c.points = append(c.points, parsed[i].point())
		}
	}
	var err error
	c.state, err = ledger.Load(first.Saved, signers)
	return c, &first.Saved, err
}

func checkpointPath(n uint64) string {
	return indexDir + "/" + checkpointPrefix + ledger.FileName(n)
}

// listCheckpoints returns the numbers of the checkpoints there are, ascending.
func listCheckpoints(fsys vfs.FS) ([]uint64, error) {
	infos, err := fsys.ReadDir(indexDir)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, info := range infos {
		if digits, ok := strings.CutPrefix(info.Name, checkpointPrefix); ok {
			if n, ok := ledger.ParseFileName(digits); ok {
				list = append(list, n)
			}
		}
	}
	slices.Sort(list)
	return list, nil
}

// loadCheckpoint returns the highest checkpoint that is good, or nil.
func (r *Repository) loadCheckpoint() *checkpoint {
	if r.settings.Sealed && r.store.keys == nil {
		return nil
	}
	list, err := listCheckpoints(r.fsys)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("checkpoints can't be listed; the whole ledger is read", "err", err)
		}
		return nil
	}
	for _, n := range slices.Backward(list) {
		c, err := r.readCheckpoint(n)
		if err == nil {
			return c
		}
		if !errors.Is(err, fs.ErrNotExist) { // replaced meanwhile
			r.log.Warn("checkpoint can't be used; more of the ledger is read", "file", checkpointPath(n), "err", err)
		}
	}
	return nil
}

// dropCheckpoints removes those before n. Removing one isn't synced, so a power cut
// may have brought it back.
func (o *Owner) dropCheckpoints(n uint64) {
	list, err := listCheckpoints(o.fsys)
	for _, old := range list {
		if old < n {
			err = errors.Join(err, notThere(o.fsys.Remove(checkpointPath(old))))
		}
	}
	if err != nil {
		o.log.Warn("older checkpoints stay", "err", err)
	}
}

// readCheckpoint reads one and holds it to the ledger.
func (r *Repository) readCheckpoint(n uint64) (*checkpoint, error) {
	p, err := vfs.ReadFile(r.fsys, checkpointPath(n), maxCheckpointBytes)
	if err != nil {
		return nil, err
	}
	c, err := decodeCheckpoint(p, r.store.keys, r.signers)
	if err != nil {
		return nil, err
	}
	if got := c.state.Repository(); got != r.settings.ID {
		return nil, fmt.Errorf("%w: it is that of repository %s", ErrFormat, got)
	}
	head := c.state.Head()
	if head.Number != n {
		return nil, fmt.Errorf("%w: it is of segment %d", ErrFormat, head.Number)
	}
	s, err := readSegment(r.fsys, n)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: the ledger has no segment %d any more", ErrFormat, n)
	case err != nil:
		return nil, err
	case s.Sum != head.Sum:
		return nil, fmt.Errorf("%w: ledger segment %d is another one", ErrFormat, n)
	}
	if by, _ := c.state.SignerKey(); !s.SignedBy(by) {
		return nil, fmt.Errorf("%w: it and ledger segment %d have different signers", ErrFormat, n)
	}
	return c, nil
}

// writeCheckpoint makes a checkpoint of the ledger's head if the last one is
// more than behind segments older. The caller holds commit, or is closing.
func (o *Owner) writeCheckpoint(behind uint64) error {
	head := o.state.Head().Number
	// Without a key nobody knows what the points are called.
	if o.ledgerLost != nil || o.signer == nil || o.store.keyless() || head < o.checkpoint+behind {
		return nil
	}
	pending := o.releasing()
	o.mu.Lock()
	newest := o.lastTime
	o.view.mu.Lock()
	v := o.state.Save(func(ps *ledger.PointState) bool { return !ps.Void && pending[ps.ID] })
	known := make(map[PointID]Point, len(v.Points))
	for i := range v.Points {
		if p, ok := o.view.known[PointID(v.Points[i].ID)]; ok {
			known[p.ID] = p
		}
	}
	o.view.mu.Unlock()
	o.mu.Unlock()
	data, err := encodeCheckpoint(v, newest, known, o.store.keys, o.signer, o.rand)
	if err != nil {
		return err
	}
	old, err := listCheckpoints(o.fsys)
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	if slices.Contains(old, v.Number) { // a bad one
		if err := o.fsys.Remove(checkpointPath(v.Number)); err != nil {
			return fmt.Errorf("write checkpoint: %w", err)
		}
	}
	if err := vfs.WriteFile(o.fsys, checkpointPath(v.Number), data); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	o.checkpoint = v.Number
	for _, n := range old {
		if n != v.Number {
			err = errors.Join(err, o.fsys.Remove(checkpointPath(n)))
		}
	}
	return err
}

// releasing returns the points of which something is still there that expiry or
// sweep takes away: a manifest, a reader's lease, a pin. A checkpoint keeps what
// the ledger says of them after they expired.
func (o *Owner) releasing() map[string]bool {
	ids := make(map[string]bool)
	for _, dir := range []string{pointsDir, leasesDir} {
		infos, err := o.fsys.ReadDir(dir)
		if err != nil {
			o.log.Warn("directory can't be listed", "dir", dir, "err", err)
		}
		for _, info := range infos {
			id := strings.TrimPrefix(info.Name, pinPrefix)
			if len(id) >= idChars {
				ids[id[:idChars]] = true
			}
		}
	}
	return ids
}
