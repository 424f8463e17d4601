package repo

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/ledger"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// CreateOptions say what a new repository is like, for ever. Zero values are
// the defaults.
type CreateOptions struct {
	Geometry    chunk.Geometry
	PackBytes   int
	Parity      int // parity blocks per 100; negative: none, zero: DefaultParity
	Compression seal.Compression

	// With a passphrase or recipients the repository seals.
	Passphrase []byte
	Recipients []string // age X25519 recipients, "age1…"
	WorkFactor int      // of scrypt; 0 means seal.DefaultWorkFactor

	// State is where the private signing key goes, outside the repository.
	State vfs.FS

	// ReserveBytes are set aside so that retain and sweep work on a full
	// volume; negative: none, zero: DefaultReserveBytes.
	ReserveBytes int64

	Now  func() time.Time // nil means time.Now
	Rand io.Reader        // nil means crypto/rand
}

// DefaultReserveBytes is what a repository sets aside by default.
const DefaultReserveBytes = 32 << 20

// Info is what is known of a repository without a key.
type Info struct {
	Settings
	SignerFingerprint string // of the key that signs the ledger now
}

// Create makes a repository in an empty directory. When it is interrupted, the
// directory holds no repository, and Create may be called again.
func Create(ctx context.Context, fsys vfs.FS, opt CreateOptions) (Info, error) {
	opt.defaults()
	info, err := create(ctx, fsys, &opt)
	if err != nil {
		return info, fmt.Errorf("create repository: %w", readOnly(err))
	}
	return info, nil
}

func (o *CreateOptions) defaults() {
	if o.Geometry.ChunkBytes == 0 {
		o.Geometry.ChunkBytes = chunk.DefaultChunkBytes
	}
	if o.Geometry.FrameBytes == 0 {
		o.Geometry.FrameBytes = min(chunk.DefaultFrameBytes, o.Geometry.ChunkBytes)
	}
	if o.PackBytes == 0 {
		o.PackBytes = DefaultPackBytes
	}
	switch {
	case o.Parity == 0:
		o.Parity = DefaultParity
	case o.Parity < 0:
		o.Parity = 0
	}
	if o.Compression == "" {
		o.Compression = seal.Auto
	}
	switch {
	case o.ReserveBytes == 0:
		o.ReserveBytes = DefaultReserveBytes
	case o.ReserveBytes < 0:
		o.ReserveBytes = 0
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = crand.Reader
	}
}

func create(ctx context.Context, fsys vfs.FS, opt *CreateOptions) (Info, error) {
	var raw [seal.RepositoryIDBytes]byte
	if _, err := io.ReadFull(opt.Rand, raw[:]); err != nil {
		return Info{}, fmt.Errorf("make an id: %w", err)
	}
	s := Settings{
		ID: hex.EncodeToString(raw[:]), Geometry: opt.Geometry, PackBytes: opt.PackBytes,
		Parity: opt.Parity, Compression: opt.Compression, Created: opt.Now().UTC().Truncate(time.Second),
		Sealed: opt.Passphrase != nil || len(opt.Recipients) > 0,
	}
	if err := s.check(); err != nil {
		return Info{}, err
	}
	if opt.State == nil {
		return Info{}, fmt.Errorf("%w: no state directory to keep it in", ErrNoSigner)
	}
	if err := clearHalfMade(fsys); err != nil {
		return Info{}, err
	}
	if err := makeSkeleton(ctx, fsys); err != nil {
		return Info{}, err
	}
	if err := makeReserve(fsys, opt.ReserveBytes); err != nil {
		return Info{}, err
	}
	var keys []ledger.Record
	if s.Sealed {
		var err error
		if keys, err = makeKeys(fsys, opt); err != nil {
			return Info{}, err
		}
	}
	signer, err := seal.NewSigner(opt.Rand)
	if err != nil {
		return Info{}, err
	}
	if err := saveSigner(opt.State, s.ID, firstEpoch, signer); err != nil {
		return Info{}, err
	}
	public := signer.Public(firstEpoch, opt.Now())
	line, err := public.Marshal()
	if err != nil {
		return Info{}, err
	}
	if err := writeTwins(fsys, signerPath(firstEpoch), line); err != nil {
		return Info{}, err
	}
	segment, _, err := ledger.Append(nil, ledger.Body{
		Time: s.Created, Epoch: firstEpoch,
		Records: append([]ledger.Record{&ledger.Init{Repository: s.ID, Signer: public.Fingerprint()}}, keys...),
	}, signer)
	if err != nil {
		return Info{}, err
	}
	if err := writeTwins(fsys, segmentPath(1), segment); err != nil {
		return Info{}, err
	}
	settings, err := s.encode()
	if err != nil {
		return Info{}, err
	}
	return Info{s, public.Fingerprint()}, writeTwins(fsys, settingsName, settings)
}

// clearHalfMade makes the way free for the skeleton: an empty directory passes,
// and what an interrupted Create left is removed. Anything else, above all
// whatever could be a repository that lost its settings, is ErrExists.
func clearHalfMade(fsys vfs.FS) error {
	infos, err := fsys.ReadDir(".")
	if err != nil {
		return err
	}
	ours := map[string]bool{reserveName: true, "lost+found": true, settingsName + twinSuffix: true}
	for _, d := range skeleton() {
		ours[d] = true
	}
	for _, info := range infos {
		if info.Name == settingsName {
			return fmt.Errorf("%w: it holds a repository already", ErrExists)
		}
		if !ours[info.Name] {
			return fmt.Errorf("%w: it holds %q", ErrExists, info.Name)
		}
	}
	var old []string
	for _, dir := range skeleton() {
		infos, err := fsys.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, info := range infos {
			if info.Dir {
				continue
			}
			name := path.Join(dir, info.Name)
			first := name == segmentPath(1) || name == segmentPath(1)+twinSuffix
			if !first && dir != keysDir && dir != tmpDir {
				return fmt.Errorf("%w: it holds %q, so perhaps a repository that lost its %s", ErrExists, name, settingsName)
			}
			old = append(old, name)
		}
	}
	// Settings go first: with them alone the directory would be a repository
	// that lost its keys.
	err = fsys.Remove(settingsName + twinSuffix)
	if err == nil {
		err = fsys.SyncDir(".")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range append(old, reserveName) {
		if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// makeSkeleton makes the directories, each durable.
func makeSkeleton(ctx context.Context, fsys vfs.FS) error {
	for _, dir := range skeleton() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fsys.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, dir := range []string{metaDir, dataDir, packsDir, "."} {
		if err := fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func makeReserve(fsys vfs.FS, n int64) error {
	if n == 0 {
		return nil
	}
	f, tmp, err := vfs.CreateTemp(fsys, reserveName)
	if err != nil {
		return err
	}
	err = f.Preallocate(n)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("set aside %d bytes: %w", n, err), fsys.Remove(tmp))
	}
	return vfs.Place(fsys, tmp, reserveName)
}

// makeKeys makes the master key and wraps it for each passphrase and recipient.
// It returns what the ledger is to say of that.
func makeKeys(fsys vfs.FS, opt *CreateOptions) (records []ledger.Record, err error) {
	master, err := seal.NewMaster(opt.Rand)
	if err != nil {
		return nil, err
	}
	defer clear(master[:])
	var files []seal.File
	if opt.Passphrase != nil {
		f, err := seal.WrapPassphrase(master, opt.Passphrase, opt.WorkFactor)
		if err != nil {
			return nil, err
		}
		f.Label = "passphrase"
		files = append(files, f)
	}
	for _, r := range opt.Recipients {
		f, err := seal.WrapRecipient(master, r)
		if err != nil {
			return nil, err
		}
		f.Label = "recipient"
		files = append(files, f)
	}
	for i, f := range files {
		f.Created = opt.Now()
		line, err := f.Marshal()
		if err != nil {
			return nil, err
		}
		name := keyPrefix + strconv.Itoa(i+1)
		if err := writeTwins(fsys, keysDir+"/"+name, line); err != nil {
			return nil, err
		}
		records = append(records, &ledger.Key{Action: keyAdded, Name: name, Kind: string(f.Kind), SHA256: sum256(line)})
	}
	return records, nil
}
