package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

type initOptions struct {
	dir         string
	chunk       sizeFlag
	frame       sizeFlag
	pack        sizeFlag
	compression string
	parity      string
	encrypt     bool
	recipients  []string
}

func newRepoInit(a *app) *cobra.Command {
	opt := initOptions{chunk: chunk.DefaultChunkBytes, frame: chunk.DefaultFrameBytes, pack: repo.DefaultPackBytes}
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Make a repository",
		Long: `Make a repository in a new or an empty directory. What is chosen here stays as
it is for the repository's life; only --compression can be overruled by a run.

The key that signs the repository's ledger is kept outside it, in the state
directory: $` + envState + `, else /var/lib/holdfast for root and the XDG state
directory for others. Its fingerprint is printed: keep that somewhere else.`,
		Example: `  holdfast repo init /srv/backup
  holdfast repo init /srv/backup --encrypt --passphrase-file /root/backup.pass
  holdfast repo init /srv/backup --recipient age1…   (age-keygen makes a pair)`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoInit(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&opt.encrypt, "encrypt", false, "seal everything with a passphrase or a recipient's key")
	f.StringArrayVar(&opt.recipients, "recipient", nil, "seal, so that the age `KEY` opens it; may be repeated")
	f.StringVar(&opt.compression, "compression", string(seal.Auto), "auto, none, s2, zstd or dense")
	f.StringVar(&opt.parity, "parity", strconv.Itoa(repo.DefaultParity), "`PERCENT` added so that damage heals, 0 to "+strconv.Itoa(repo.MaxParity))
	f.Var(&opt.chunk, "chunk", "unit of deduplication, 256K to 4M")
	f.Var(&opt.frame, "frame", "unit of compression and reading, 64K to 256K")
	f.Var(&opt.pack, "pack", "bytes in a pack, 1M to 256M")
	return cmd
}

type initListing struct {
	Schema      string    `json:"schema"`
	ID          string    `json:"id"`
	Path        string    `json:"path"`
	ChunkBytes  int       `json:"chunkBytes"`
	FrameBytes  int       `json:"frameBytes"`
	PackBytes   int       `json:"packBytes"`
	Parity      int       `json:"parity"`
	Compression string    `json:"compression"`
	Sealed      bool      `json:"sealed"`
	Signer      string    `json:"signer"`
	Created     time.Time `json:"created"`
}

func (a *app) repoInit(ctx context.Context, opt initOptions) error {
	create, err := a.createOptions(opt)
	if err != nil {
		return err
	}
	state, err := openState()
	if err != nil {
		return err
	}
	defer state.Close() //nolint:errcheck // what was written is synced
	create.State = state
	if err := makeDir(opt.dir); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	d, err := vfs.OS(opt.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // the same
	info, err := repo.Create(ctx, d, create)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.dir, err)
	}
	if a.json {
		return a.printJSON(initListing{
			"holdfast.repository/1", info.ID, opt.dir, info.Geometry.ChunkBytes, info.Geometry.FrameBytes, info.PackBytes,
			info.Parity, string(info.Compression), info.Sealed, info.SignerFingerprint, info.Created.UTC(),
		})
	}
	sealed := "not encrypted"
	if info.Sealed {
		sealed = "encrypted: without a key nothing in it can be read, by anyone"
	}
	a.say("Made repository %s in %s, %s.", info.ID, opt.dir, sealed)
	a.say("Its ledger is signed by a key in %s with the fingerprint", state.Path())
	a.say("  %s", info.SignerFingerprint)
	return nil
}

func (a *app) createOptions(opt initOptions) (repo.CreateOptions, error) {
	c := repo.CreateOptions{
		Geometry:  chunk.Geometry{ChunkBytes: int(opt.chunk), FrameBytes: int(opt.frame)},
		PackBytes: int(opt.pack), Recipients: opt.recipients, WorkFactor: a.workFactor,
	}
	if err := c.Geometry.Check(); err != nil {
		return c, &usageError{err}
	}
	if c.PackBytes < repo.MinPackBytes || c.PackBytes > repo.MaxPackBytes {
		return c, usagef("--pack %s: want %s to %s", &opt.pack, formatSize(repo.MinPackBytes), formatSize(repo.MaxPackBytes))
	}
	var err error
	if c.Compression, err = seal.ParseCompression(opt.compression); err != nil {
		return c, &usageError{fmt.Errorf("--compression: %w", err)}
	}
	if c.Parity, err = parseParity(opt.parity); err != nil {
		return c, err
	}
	for _, key := range opt.recipients {
		if _, err := age.ParseX25519Recipient(key); err != nil {
			return c, badRecipient(key)
		}
	}
	switch {
	case opt.encrypt:
		c.Passphrase, err = a.newPassphrase(len(opt.recipients) > 0)
	case a.passphraseFile != "":
		err = withHint(usagef("--passphrase-file without --encrypt would not encrypt"), "add --encrypt")
	}
	return c, err
}

// newPassphrase returns the passphrase of a new repository: from the file, else
// asked for twice. With a recipient there need not be one.
func (a *app) newPassphrase(optional bool) ([]byte, error) {
	p, err := a.passphrase()
	if err != nil || p != nil || optional {
		return p, err
	}
	if !a.interactive() {
		return nil, withHint(usagef("--encrypt without a key"), "give --passphrase-file or --recipient")
	}
	return a.askNew()
}

// parseParity reads a percentage and returns it as CreateOptions has it.
func parseParity(s string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(s, "%"))
	if err != nil || n < 0 || n > repo.MaxParity {
		return 0, usagef("--parity %s: want 0 to %d", s, repo.MaxParity)
	}
	if n == 0 {
		return -1, nil
	}
	return n, nil
}

// makeDir makes dir unless it is there, and its name durable. Its parent must
// exist: a mistyped mount point is not quietly made on the disk below.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o750)
	if errors.Is(err, fs.ErrExist) {
		return nil // what else it is will show when it is opened
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
