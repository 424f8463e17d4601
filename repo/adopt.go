package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"holdfast/repo/ledger"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// An Adoption says which key signs a repository's ledger now.
type Adoption struct {
	Signer   string // fingerprint
	Previous string // of the key before; empty when nothing was adopted
	Epoch    uint64 // since which it signs
	Head     ledger.Head
}

// Adopt makes this machine the writer of a repository whose signing key is not in
// its state directory: lost, or another machine's. It makes a new key and has the
// ledger say that this one signs from now on. When the key in force is there, it
// changes nothing. It waits for an owner as Own does.
//
//	private key in the state directory ─► public key in keys/ ─► ledger segment
//
// Interrupted before the last, the old key stays the one that signs, and Adopt
// may be called again, here or elsewhere.
func Adopt(ctx context.Context, fsys vfs.FS, opt Options, wait time.Duration) (_ Adoption, err error) {
	fail := func(err error) (Adoption, error) {
		return Adoption{}, fmt.Errorf("adopt repository: %w", readOnly(err))
	}
	if opt.State == nil {
		return fail(fmt.Errorf("%w: no state directory to keep a new one in", ErrNoSigner))
	}
	opt.defaults()
	opt.adopting = true
	o, err := own(ctx, fsys, &opt, wait)
	if err != nil {
		return fail(err)
	}
	a, err := o.adopt()
	if err = errors.Join(err, o.Close()); err != nil {
		return fail(err)
	}
	return a, nil
}

// beginAdoption makes the key that is to sign, and has the next segment say so,
// whatever else that is about.
func (o *Owner) beginAdoption(previous string) error {
	signer, public, err := o.placeSigner()
	if err != nil {
		return err
	}
	o.signer, o.epoch = signer, uint64(public.Epoch)
	o.learnSigner(public)
	o.voids = append(o.voids, &ledger.Adopt{Signer: public.Fingerprint(), Previous: previous})
	o.adoptedFrom = previous
	return nil
}

// adopt writes that segment if opening the repository needed none.
func (o *Owner) adopt() (Adoption, error) {
	o.commit.Lock()
	defer o.commit.Unlock()
	mine := fingerprintOf(o.signer)
	if now, _ := o.state.Signer(); now != mine {
		if err := o.recordNow(); err != nil {
			return Adoption{}, err
		}
	}
	_, epoch := o.state.Signer()
	return Adoption{Signer: mine, Previous: o.adoptedFrom, Epoch: epoch, Head: o.state.Head()}, nil
}

// placeSigner makes a signing key for the first epoch from this owner's on that
// nobody has made one for. What an interrupted adoption of ours left is used.
func (o *Owner) placeSigner() (*seal.Signer, seal.Public, error) {
	for epoch := o.epoch; ; epoch++ {
		signer, err := readSigner(o.opt.State, signerFile(o.settings.ID, epoch))
		if errors.Is(err, fs.ErrNotExist) {
			if signer, err = seal.NewSigner(o.rand); err == nil {
				err = saveSigner(o.opt.State, o.settings.ID, epoch, signer)
			}
		}
		if errors.Is(err, seal.ErrFormat) {
			continue // a damaged file is in the way
		}
		if err != nil {
			return nil, seal.Public{}, err
		}
		public, err := writePublic(o.fsys, signer, epoch, o.now())
		if errors.Is(err, fs.ErrExist) {
			continue // an interrupted adoption by somebody else
		}
		return signer, public, err
	}
}
