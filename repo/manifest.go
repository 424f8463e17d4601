package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/seal"
)

// A manifest is the file that makes a restore point. See FORMAT.md,
// "Manifests". The public part is what sweep, reindex and audit need without a
// key; everything that names something of the customer's is private.
type manifest struct {
	manifestPublic
	manifestPrivate
}

type manifestPublic struct {
	Point     PointID        `json:"point"`
	Sequence  uint64         `json:"sequence"`
	MachineID string         `json:"machine"`
	Segment   uint64         `json:"segment"`
	Epoch     uint64         `json:"epoch"`
	Run       RunID          `json:"run"`
	Time      time.Time      `json:"time"`
	ClockBack bool           `json:"clockBack,omitempty"`
	Roots     []manifestRoot `json:"roots"`
	Objects   []chunk.ID     `json:"objects,omitempty"`
}

type manifestRoot struct {
	Root      chunk.ID `json:"root"`
	Levels    int      `json:"levels"`
	SizeBytes int64    `json:"sizeBytes"`
}

type manifestPrivate struct {
	Name        string                     `json:"name"`
	Job         string                     `json:"job"`
	Slot        string                     `json:"slot,omitempty"`
	Actor       string                     `json:"actor,omitempty"`
	Host        string                     `json:"host,omitempty"`
	Consistency string                     `json:"consistency,omitempty"`
	Disks       []manifestDisk             `json:"disks"`
	Counters    Counters                   `json:"counters"`
	Extensions  map[string]json.RawMessage `json:"extensions,omitempty"`
	Files       []manifestFile             `json:"files,omitempty"`
	CopiedFrom  string                     `json:"copiedFrom,omitempty"`
}

type manifestDisk struct {
	Name     string `json:"name"`
	Format   string `json:"format,omitempty"`
	Source   string `json:"source,omitempty"`
	ChangeID string `json:"changeID,omitempty"`
}

const (
	manifestMagic   = "HFmf"
	manifestVersion = 1
	manifestHead    = 4 + 2 + 2 + 4 + 4
	manifestSealed  = 1

	maxManifestBytes = 16 << 20
	maxDisks         = 1024
)

// encode returns the manifest's file, with the private part sealed if keys is
// not nil.
func (m *manifest) encode(keys *seal.Keys, rand io.Reader) ([]byte, error) {
	public, err := json.Marshal(m.manifestPublic)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	private, err := json.Marshal(m.manifestPrivate)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	flags, privateLen := uint16(0), len(private)
	if keys != nil {
		flags, privateLen = manifestSealed, len(private)+seal.ManifestOverhead
	}
	b := make([]byte, 0, manifestHead+len(public)+privateLen+sha256.Size)
	b = append(b, manifestMagic...)
	b = binary.LittleEndian.AppendUint16(b, manifestVersion)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(public)))
	b = binary.LittleEndian.AppendUint32(b, uint32(privateLen))
	b = append(b, public...)
	if keys == nil {
		b = append(b, private...)
	} else if b, err = keys.SealManifest(b, private, bytes.Clone(b), rand); err != nil {
		return nil, fmt.Errorf("seal manifest: %w", err)
	}
	sum := sha256.Sum256(b)
	if b = append(b, sum[:]...); len(b) > maxManifestBytes {
		return nil, fmt.Errorf("%w: manifest of %d bytes, at most %d", ErrFormat, len(b), maxManifestBytes)
	}
	return b, nil
}

// decodeManifest reads a manifest's file. Without keys the private part of a
// sealed one stays zero.
func decodeManifest(p []byte, keys *seal.Keys) (*manifest, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: manifest %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if len(p) > maxManifestBytes {
		return nil, bad("of %d bytes", len(p))
	}
	if len(p) < manifestHead+sha256.Size || string(p[:4]) != manifestMagic {
		return nil, bad("without its magic")
	}
	if v := binary.LittleEndian.Uint16(p[4:]); v != manifestVersion {
		return nil, fmt.Errorf("%w: manifest version %d, this program reads %d", ErrNewerFormat, v, manifestVersion)
	}
	body := p[:len(p)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], p[len(body):]) {
		return nil, bad("fails its checksum")
	}
	flags := binary.LittleEndian.Uint16(p[6:])
	pub, priv := uint64(binary.LittleEndian.Uint32(p[8:])), uint64(binary.LittleEndian.Uint32(p[12:]))
	if flags&^manifestSealed != 0 || pub+priv != uint64(len(body)-manifestHead) {
		return nil, bad("with lengths or flags that can't be")
	}
	private := body[manifestHead+pub:]
	m := new(manifest)
	if err := json.Unmarshal(body[manifestHead:manifestHead+pub], &m.manifestPublic); err != nil {
		return nil, bad("public part: %v", err)
	}
	if flags&manifestSealed != 0 {
		if keys == nil {
			return m, m.check(true)
		}
		plain, err := keys.OpenManifest(nil, private, body[:manifestHead+pub])
		if err != nil {
			return nil, bad("private part: %v", err)
		}
		private = plain
	}
	if err := json.Unmarshal(private, &m.manifestPrivate); err != nil {
		return nil, bad("private part: %v", err)
	}
	return m, m.check(false)
}

// check refuses what no writer makes, so that readers needn't.
func (m *manifest) check(publicOnly bool) error {
	var err error
	switch {
	case !isID(string(m.Point)) || !isID(string(m.Run)):
		err = errors.New("without point or run id")
	case m.Sequence == 0 || m.Segment == 0:
		err = errors.New("without its place in the ledger")
	case len(m.Roots) > maxDisks:
		err = fmt.Errorf("with %d disks", len(m.Roots))
	case !publicOnly && len(m.Disks) != len(m.Roots):
		err = fmt.Errorf("with %d disks and %d names", len(m.Roots), len(m.Disks))
	}
	for i, r := range m.Roots {
		if r.SizeBytes < 0 || r.Levels < 1 || r.Levels > 8 {
			err = fmt.Errorf("with disk %d of %d bytes in %d levels", i, r.SizeBytes, r.Levels)
		}
	}
	if !publicOnly {
		for _, d := range m.Disks {
			err = errors.Join(err, CheckName("disk", d.Name))
		}
		for _, f := range m.Files {
			err = errors.Join(err, CheckName("file", f.Name))
		}
	}
	if err != nil {
		return fmt.Errorf("%w: manifest %w", ErrFormat, err)
	}
	return nil
}
