package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type keyListOptions struct {
	dir string
}

func newKeyList(a *app) *cobra.Command {
	var opt keyListOptions
	return &cobra.Command{
		Use:   "list DIR",
		Short: "List what opens a repository, and who signs its ledger",
		Long: `List the key files, any of which opens the repository, and the keys that sign its
ledger. No key is needed for that. STATE says what is not as the ledger has it.`,
		Example: `  holdfast repo key list /srv/backup
  holdfast repo key list /srv/backup --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.keyList(cmd.Context(), opt)
		},
	}
}

type keysListing struct {
	Schema  string          `json:"schema"`
	ID      string          `json:"id"`
	Sealed  bool            `json:"sealed"`
	Keys    []keyListing    `json:"keys"`
	Signers []signerListing `json:"signers"`
}

type signerListing struct {
	Epoch       uint64     `json:"epoch"`
	Fingerprint string     `json:"fingerprint"`
	Created     *time.Time `json:"created"` // null when the public key is lost
	InForce     bool       `json:"inForce"`
	Adopted     bool       `json:"adopted"`
	Damage      string     `json:"damage"`
}

func (a *app) keyList(ctx context.Context, opt keyListOptions) error {
	d, err := openDir(opt.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // it was only read
	l, err := repo.ListKeys(ctx, d)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.dir, err)
	}
	if l.Ledger != nil {
		a.warn("what the ledger says of the keys is not known: %v", l.Ledger)
	}
	if a.json {
		return a.printJSON(keysJSON(l))
	}
	return a.printKeys(l)
}

func keysJSON(l repo.KeyList) keysListing {
	out := keysListing{"holdfast.keys/1", l.Repository, l.Sealed, []keyListing{}, []signerListing{}}
	for _, k := range l.Keys {
		out.Keys = append(out.Keys, listKey(k))
	}
	for _, s := range l.Signers {
		sl := signerListing{Epoch: s.Epoch, Fingerprint: s.Fingerprint, InForce: s.InForce, Adopted: s.Adopted}
		if !s.Created.IsZero() {
			at := s.Created.UTC()
			sl.Created = &at
		}
		if s.Damage != nil {
			sl.Damage = oneLine(s.Damage)
		}
		out.Signers = append(out.Signers, sl)
	}
	return out
}

func (a *app) printKeys(l repo.KeyList) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	if l.Sealed {
		fmt.Fprintln(w, "KEY\tKIND\tLABEL\tCREATED\tSTATE")
		for _, k := range l.Keys {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.Name, orDash(string(k.Kind)), orDash(k.Label), day(k.Created), keyState(l, k))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, k := range l.Keys {
			if k.Recipient != "" {
				a.say("%s opens with %s", k.Name, k.Recipient)
			}
		}
		fmt.Fprintln(a.out)
	} else {
		a.say("The repository is not encrypted and needs no key.")
	}
	fmt.Fprintln(w, "SIGNER\tFROM EPOCH\tCREATED\tSTATE")
	for _, s := range l.Signers {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", orDash(s.Fingerprint), s.Epoch, day(s.Created), signerState(s))
	}
	return w.Flush()
}

func keyState(l repo.KeyList, k repo.KeyInfo) string {
	var is []string
	switch {
	case errors.Is(k.Damage, fs.ErrNotExist) && k.Lost:
		is = append(is, "missing")
	case k.Lost:
		is = append(is, "damaged, opens nothing")
	case k.Damage != nil:
		is = append(is, "one copy damaged")
	default:
		is = append(is, "good")
	}
	if !k.Recorded && l.Ledger == nil {
		is = append(is, "not in the ledger")
	}
	if k.Locked {
		is = append(is, "locked")
	}
	return strings.Join(is, ", ")
}

func signerState(s repo.SignerInfo) string {
	is := "signed before"
	switch {
	case s.InForce:
		is = "signs"
	case !s.Adopted:
		is = "never adopted"
	}
	if s.Damage != nil {
		is += ", public key damaged or missing"
	}
	return is
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// day prints when something was made.
func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
