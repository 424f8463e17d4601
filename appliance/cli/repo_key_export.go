package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type keyExportOptions struct {
	dir   string
	keys  []string
	paper bool
	to    string
}

func newKeyExport(a *app) *cobra.Command {
	var opt keyExportOptions
	cmd := &cobra.Command{
		Use:   "export DIR [KEY…] --paper",
		Short: "Print the emergency sheet of a repository",
		Long: `Print, as plain text, what is needed to restore when all but the repository is
lost, and to open it when its keys are: which repository it is, where it lies, who
signs its ledger, the commands, and every key file, or those named, in lines that
can be typed in again. The key files stay wrapped: without the passphrase or the
identity nobody opens anything with the sheet, and neither of them is on it. Keep
the passphrase elsewhere. No key is needed to print it.`,
		Example: `  holdfast repo key export /srv/backup --paper | lpr
  holdfast repo key export /srv/backup key-1 --paper --to sheet.txt`,
		Args: takes(true, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.keys = args[0], args[1:]
			return a.keyExport(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&opt.paper, "paper", false, "as the sheet to print")
	f.StringVar(&opt.to, "to", "", "new `FILE` to write it to, instead of standard output")
	return cmd
}

type sheetListing struct {
	Schema string   `json:"schema"`
	ID     string   `json:"id"`
	Keys   []string `json:"keys"`
	Text   string   `json:"text"`
}

func (a *app) keyExport(ctx context.Context, opt keyExportOptions) error {
	if !opt.paper {
		return withHint(usagef("--paper is missing"), "the sheet is the only form there is")
	}
	d, err := openDir(opt.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // it was only read
	list, err := repo.ListKeys(ctx, d)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.dir, err)
	}
	keys, err := repo.PaperKeys(d, opt.keys...)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.dir, keyHint(err))
	}
	if list.Sealed && len(keys) == 0 {
		return fmt.Errorf("%s: none of its key files is whole", opt.dir)
	}
	place, err := filepath.Abs(opt.dir)
	if err != nil {
		return err
	}
	text := sheet(place, list, keys, time.Now())
	if a.json {
		l := sheetListing{"holdfast.sheet/1", list.Repository, []string{}, text}
		for _, k := range keys {
			l.Keys = append(l.Keys, k.Name)
		}
		return a.printJSON(l)
	}
	if opt.to == "" {
		_, err = fmt.Fprint(a.out, text)
		return err
	}
	return writeSheet(opt.to, text)
}

// writeSheet writes a new file for this user alone.
func writeSheet(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, restoredPerm)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return syncDir(filepath.Dir(name))
}

// sheet is the emergency sheet. Each line fits 72 columns of paper, but for what
// can't be broken.
func sheet(place string, list repo.KeyList, keys []repo.PaperKey, now time.Time) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	host, err := os.Hostname()
	if err != nil {
		host = "an unknown host"
	}
	p("HOLDFAST EMERGENCY SHEET")
	p("")
	p("Repository  %s", list.Repository)
	p("Lies in     %s", place)
	p("on          %s", host)
	p("Printed     %s, by holdfast %s", now.UTC().Format("2006-01-02 15:04 UTC"), version)
	p("")
	p("Its ledger is signed by the key with the fingerprint")
	for _, s := range list.Signers {
		if s.InForce {
			p("            %s", s.Fingerprint)
		}
	}
	p("")
	p("TO RESTORE")
	p("Any Linux machine will do that has the program holdfast and the directory")
	p("above, or a copy of it. It need not be the one that made the backups.")
	p("")
	how := ""
	if list.Sealed {
		how = " --passphrase-file FILE"
		p("The repository is encrypted. Write the passphrase into a file of one line,")
		p("FILE below, and remove that afterwards. For an age identity, say")
		p("--identity-file instead. Neither is on this sheet.")
		p("")
	}
	p("  holdfast repo points DIR%s", how)
	p("      lists the restore points;")
	p("  holdfast repo restore DIR POINT --to DISK.raw%s", how)
	p("      brings one back; MACHINE@latest is the newest of a machine.")
	p("")
	p("To go on with backups from there, when the old machine is gone:")
	p("  holdfast repo key adopt DIR%s", how)
	if !list.Sealed {
		return b.String()
	}
	p("")
	p("IF THE DIRECTORY keys/ IS LOST OR DAMAGED")
	p("Type the lines of a key below, from \"begin\" to \"end\", into a file. Blanks,")
	p("hyphens and capitals do not matter. There are no letters i, l, o or u: what")
	p("looks like one is a 1 or a 0. The last four characters of a line are its")
	p("check: a slip is found, and its line named. Then:")
	p("  holdfast repo key import DIR --paper TYPED-FILE")
	p("The passphrase is the one that the key had when this was printed.")
	for _, k := range keys {
		p("")
		for _, info := range list.Keys {
			if info.Name != k.Name {
				continue
			}
			p("Key %s: %s %q, made %s", k.Name, info.Kind, info.Label, info.Created.UTC().Format(time.DateOnly))
			if info.Recipient != "" {
				p("opens with the age identity of %s", info.Recipient)
			}
		}
		b.WriteString(k.Text())
	}
	return b.String()
}
