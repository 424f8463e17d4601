package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
	"holdfast/repo/ledger"
	"holdfast/repo/seal"
)

type ledgerVerifyOptions struct {
	dir     string
	signers []string
	head    string
	packs   bool
}

func newLedgerVerify(a *app) *cobra.Command {
	var opt ledgerVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Hold a repository to its ledger, and the ledger to itself",
		Long: `Verify that the ledger's segments follow each other and are signed by whom they
should be, that both copies of each are whole, and that manifests and keys are
those that it records. With --packs every pack is read and compared as well. No
passphrase is needed, and a repository may be verified while it is being written.

Nobody can see from a ledger alone that its end is missing, or that all of it is
an older copy: give --head with a head that a run printed. And whoever can write
to the directory can put a public key there: give --signer with a copy of the one
you trust, DIR/keys/signer-1.pub as it was when the repository was made.

Exit code 2 says that something is wrong.`,
		Example: `  holdfast repo ledger verify /srv/backup
  holdfast repo ledger verify /srv/backup --head "112 3fa9…" --signer signer-1.pub --packs`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.ledgerVerify(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.head, "head", "", "`HEAD` that the ledger had: number and digest")
	f.StringArrayVar(&opt.signers, "signer", nil, "public signing key in `FILE`, instead of those in DIR/keys; may be repeated")
	f.BoolVar(&opt.packs, "packs", false, "read every pack and compare it with its digest")
	return cmd
}

type verifyListing struct {
	Schema    string           `json:"schema"`
	ID        string           `json:"id"`
	Head      headListing      `json:"ledgerHead"`
	Time      time.Time        `json:"time"`
	Points    int              `json:"points"`
	Expired   int              `json:"expired"`
	Void      int              `json:"void"`
	Packs     int64            `json:"packs"`
	PackBytes int64            `json:"packBytes"`
	ReadBytes int64            `json:"verifiedBytes"`
	Signers   []spanListing    `json:"signers"`
	Problems  []problemListing `json:"problems"`
}

type spanListing struct {
	Fingerprint string `json:"fingerprint"`
	Epoch       uint64 `json:"epoch"`
	First       uint64 `json:"firstSegment"`
	Last        uint64 `json:"lastSegment"`
	Checked     bool   `json:"checked"`
}

type problemListing struct {
	Kind    string `json:"kind"`
	Segment uint64 `json:"segment"`
	File    string `json:"file"`
	Problem string `json:"problem"`
}

func (a *app) ledgerVerify(ctx context.Context, opt ledgerVerifyOptions) error {
	v := repo.VerifyOptions{Packs: opt.packs}
	var err error
	if v.Known, err = parseHead(opt.head); err != nil {
		return err
	}
	if v.Signers, err = readPublicKeys(opt.signers); err != nil {
		return err
	}
	d, err := openDir(opt.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // it was only read
	var bar *meter
	v.Progress = func(done, total int64) {
		if bar == nil {
			bar = a.progress("verify", total)
		}
		bar.at(done)
	}
	r, err := repo.VerifyLedger(ctx, d, v)
	bar.end(err == nil)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.dir, err)
	}
	if err := a.printVerified(&r, opt); err != nil {
		return err
	}
	if len(r.Problems) > 0 {
		return errDifference
	}
	return nil
}

// parseHead reads a head as it is printed: number and digest, with a blank or a
// colon between. No text is no head.
func parseHead(text string) (ledger.Head, error) {
	if text == "" {
		return ledger.Head{}, nil
	}
	bad := func() (ledger.Head, error) {
		return ledger.Head{}, withHint(usagef("--head %q is not the head of a ledger", text), `NUMBER and DIGEST, as "repo ledger head" prints them, in quotes`)
	}
	words := strings.Fields(strings.ReplaceAll(strings.TrimPrefix(text, "ledger head "), ":", " "))
	if len(words) != 2 {
		return bad()
	}
	n, err := strconv.ParseUint(words[0], 10, 64)
	h := ledger.Head{Number: n}
	if err = errors.Join(err, h.Sum.UnmarshalText([]byte(strings.ToLower(words[1])))); err != nil || n == 0 {
		return bad()
	}
	return h, nil
}

// readPublicKeys reads the files of --signer.
func readPublicKeys(names []string) ([]seal.Public, error) {
	const limit = 64 << 10
	var keys []seal.Public
	for _, name := range names {
		p, err := readSmall(name, limit)
		if err != nil {
			return nil, err
		}
		k, err := seal.ParsePublic(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (a *app) printVerified(r *repo.LedgerReport, opt ledgerVerifyOptions) error {
	if a.json {
		l := verifyListing{
			Schema: "holdfast.verification/1", ID: r.Repository, Head: listHead(r.Head), Time: r.Time.UTC(),
			Points: r.Points, Expired: r.Expired, Void: r.Void, Packs: r.Packs, PackBytes: r.PackBytes, ReadBytes: r.ReadBytes,
			Signers: []spanListing{}, Problems: []problemListing{},
		}
		for _, s := range r.Signers {
			l.Signers = append(l.Signers, spanListing(s))
		}
		for _, p := range r.Problems {
			l.Problems = append(l.Problems, problemListing{p.Kind, p.Segment, p.File, oneLine(p.Err)})
		}
		return a.printJSON(l)
	}
	if !a.quiet {
		if err := a.printReport(r, opt); err != nil {
			return err
		}
	}
	for _, p := range r.Problems {
		what := p.Kind
		if p.File != "" {
			what += ": " + p.File
		}
		text := oneLine(p.Err)
		if !strings.Contains(text, "segment") && p.Segment > 0 {
			text += fmt.Sprintf(" (segment %d)", p.Segment)
		}
		if _, err := fmt.Fprintf(a.out, "wrong: %s: %s\n", what, text); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printReport(r *repo.LedgerReport, opt ledgerVerifyOptions) error {
	f := newFields(a.out)
	f.add("repository", "%s", r.Repository)
	f.add("ledger head", "%d %s", r.Head.Number, r.Head.Sum)
	if r.Head.Number > 0 {
		f.add("written", "%s", day(r.Time))
	}
	for _, s := range r.Signers {
		checked := "checked"
		if !s.Checked {
			checked = "not checked"
		}
		f.add("signed by", "%s, segments %d to %d, %s", s.Fingerprint, s.First, s.Last, checked)
	}
	f.add("points", "%d, and %d expired, %d void", r.Points, r.Expired, r.Void)
	read := "not read: --packs reads them"
	if opt.packs {
		read = formatSize(r.ReadBytes) + " read and right"
	}
	f.add("packs", "%d, %s, %s", r.Packs, formatSize(r.PackBytes), read)
	if opt.head == "" {
		f.add("older head", "none given: an end that is missing can't be seen")
	}
	switch n := len(r.Problems); n {
	case 0:
		f.add("wrong", "nothing")
	default:
		f.add("wrong", "%d", n)
	}
	return f.end()
}
