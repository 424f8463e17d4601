package cli

import (
	"fmt"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"holdfast/repo"
)

func newRepoKey(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key VERB",
		Short: "Say who may open a repository, and who writes its ledger",
		Long: `A sealed repository has one master key for ever. Each key file in DIR/keys holds
it once more, wrapped for a passphrase or for an age recipient; any of them opens
the repository. Adding, replacing and removing key files writes no data again.

Removing a key closes this directory to it, and no copy of it: a copy of the key
file, or of the repository, still opens with the passphrase that was removed,
since the master key stays. Who must lose access for good needs a new
repository.

The key that signs the ledger is another matter: it lies outside the repository,
in the state directory of the machine that writes.`,
		Example: `  holdfast repo key list /srv/backup
  holdfast repo key add /srv/backup --recipient age1…
  holdfast repo key export /srv/backup --paper --to sheet.txt`,
	}
	group(cmd)
	cmd.AddCommand(newKeyAdd(a), newKeyList(a), newKeyRemove(a), newKeyRotate(a), newKeyAdopt(a), newKeyExport(a), newKeyImport(a))
	return cmd
}

// secretOptions say what a new key file is to be opened with.
type secretOptions struct {
	file      string
	recipient string
	label     string
}

func (s *secretOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&s.file, "new-passphrase-file", "", "`FILE` whose first line is the new passphrase; default: ask for it")
	f.StringVar(&s.recipient, "recipient", "", "an age `KEY` that opens it, instead of a passphrase")
	f.StringVar(&s.label, "label", "", "`TEXT` by which people know it")
}

// check finds what is wrong before anything is opened.
func (s *secretOptions) check(a *app) error {
	switch {
	case s.recipient != "" && s.file != "":
		return usagef("--recipient and --new-passphrase-file make two keys: give one at a time")
	case s.recipient == "" && s.file == "" && !a.interactive():
		return withHint(usagef("with what is it to be opened?"), "give --new-passphrase-file or --recipient")
	case s.recipient == "":
		return nil
	}
	if _, err := age.ParseX25519Recipient(s.recipient); err != nil {
		return badRecipient(s.recipient)
	}
	return nil
}

// badRecipient does not quote the text: people take the secret half for the
// public one.
func badRecipient(text string) error {
	if strings.HasPrefix(strings.ToUpper(text), "AGE-SECRET-KEY-") {
		return withHint(usagef("--recipient is given a secret key"), "it is the line that begins with age1 in what age-keygen prints")
	}
	return withHint(usagef("--recipient %q is not the public key of an age identity", text), "age1… as age-keygen prints it")
}

// options returns the new key, which is asked for if no file has it.
func (s *secretOptions) options(a *app) (repo.KeyOptions, error) {
	opt := repo.KeyOptions{Recipient: s.recipient, Label: s.label, WorkFactor: a.workFactor}
	if s.recipient != "" {
		return opt, nil
	}
	var err error
	if s.file != "" {
		opt.Passphrase, err = firstLine(s.file)
	} else {
		opt.Passphrase, err = a.askNew()
	}
	return opt, err
}

// keyListing is one key file in JSON.
type keyListing struct {
	Name      string     `json:"name"`
	Kind      string     `json:"kind"`
	Label     string     `json:"label"`
	Created   *time.Time `json:"created"` // null when the file is lost
	Recipient string     `json:"recipient"`
	SHA256    string     `json:"sha256"`
	Recorded  bool       `json:"recorded"`
	Locked    bool       `json:"locked"`
	Lost      bool       `json:"lost"`
	Damage    string     `json:"damage"`
}

func listKey(k repo.KeyInfo) keyListing {
	l := keyListing{
		Name: k.Name, Kind: string(k.Kind), Label: k.Label, Recipient: k.Recipient, SHA256: k.SHA256.String(),
		Recorded: k.Recorded, Locked: k.Locked, Lost: k.Lost,
	}
	if !k.Created.IsZero() {
		at := k.Created.UTC()
		l.Created = &at
	}
	if k.Damage != nil {
		l.Damage = oneLine(k.Damage)
	}
	return l
}

// keyChange is what add, remove and rotate print as JSON.
type keyChange struct {
	Schema  string      `json:"schema"`
	Added   *keyListing `json:"added"`
	Removed string      `json:"removed"`
}

func (a *app) printKeyChange(added *repo.KeyInfo, removed string) error {
	if a.json {
		c := keyChange{Schema: "holdfast.keychange/1", Removed: removed}
		if added != nil {
			l := listKey(*added)
			c.Added = &l
		}
		return a.printJSON(c)
	}
	if added != nil {
		a.say("Key %s is added: %s %q.", added.Name, added.Kind, added.Label)
	}
	if removed != "" {
		a.say("Key %s is removed. Older copies of it, or of the repository, still open with it.", removed)
	}
	if a.quiet && added != nil {
		_, err := fmt.Fprintln(a.out, added.Name)
		return err
	}
	return nil
}

// waitFlag adds --wait to a verb that writes.
func waitFlag(cmd *cobra.Command, wait *time.Duration) {
	cmd.Flags().DurationVar(wait, "wait", 0, "how long to wait while another process owns the repository")
}
