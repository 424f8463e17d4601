package cli

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newRepoDump(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dump WHAT",
		Short: "Print what the bytes of a repository's files say",
		Long: `Print what the bytes of a repository's files say, as repo/FORMAT.md names them.
Works on single files, also damaged ones, without the rest of the repository.
What is sealed stays so: no key is asked for.`,
		Example: `  holdfast repo dump pack /srv/backup/packs/data/3f/00000001-3f….pack
  holdfast repo dump record /srv/backup/packs/data/3f/00000001-3f….pack 64
  holdfast repo dump manifest /srv/backup/points/agrademx7qqzjr4p6dup
  holdfast repo dump index /srv/backup/index
  holdfast repo dump state /srv/backup/index/verified-00000003
  holdfast repo dump counts /srv/backup`,
	}
	group(cmd)
	cmd.AddCommand(newDumpPack(a), newDumpRecord(a), newDumpNode(a), newDumpManifest(a),
		newDumpLedger(a), newDumpIndex(a), newDumpFormat(a), newDumpState(a), newDumpCounts(a))
	return cmd
}

// fields prints names and values in two columns.
type fields struct{ w *tabwriter.Writer }

func newFields(w io.Writer) fields { return fields{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (f fields) add(name, format string, args ...any) {
	fmt.Fprintf(f.w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
}

func (f fields) end() error { return f.w.Flush() }

// readSmall reads a file that has no reason to be large.
func readSmall(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(p)) > limit {
		return nil, fmt.Errorf("%s has more than %s", name, formatSize(limit))
	}
	return p, nil
}

// indented lays out JSON for people, and returns what is none as it is.
func indented(p []byte) string {
	var v json.RawMessage
	if json.Unmarshal(p, &v) != nil {
		return fmt.Sprintf("%q", p)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Sprintf("%q", p)
	}
	return string(out)
}

// hexOr prints bytes, or what stands for zeros.
func hexOr(p []byte, zero string) string {
	if len(strings.Trim(string(p), "\x00")) == 0 {
		return zero
	}
	return hex.EncodeToString(p)
}
