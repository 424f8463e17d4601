package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// The environment that the command line reads.
const (
	envPassphraseFile = "HOLDFAST_PASSPHRASE_FILE"
	envIdentityFile   = "HOLDFAST_IDENTITY_FILE" // several are joined by ':'
	envState          = "HOLDFAST_STATE"
)

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.SortFlags = false
	f.BoolVar(&a.json, "json", false, "print one JSON object instead of text")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print results and errors only")
	f.StringVar(&a.passphraseFile, "passphrase-file", "", "`FILE` whose first line is the passphrase (or $"+envPassphraseFile+")")
	f.StringArrayVar(&a.identityFiles, "identity-file", nil, "`FILE` with age identities, may be repeated (or $"+envIdentityFile+")")
	f.StringVar(&a.logLevel, "log-level", "warn", "least `LEVEL` logged: debug, info, warn or error")
	f.StringVar(&a.logFormat, "log-format", "", "`FORMAT` of the log on standard error: text or json; text unless --json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		_, err := a.logger()
		return err
	}
}

// logger returns the log that the packages below write to.
func (a *app) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return nil, usagef("--log-level %s: want debug, info, warn or error", a.logLevel)
	}
	opt := &slog.HandlerOptions{Level: level}
	format := a.logFormat
	if format == "" && a.json {
		format = "json" // whoever reads objects reads them on both streams
	}
	switch format {
	case "", "text":
		return slog.New(slog.NewTextHandler(a.err, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.err, opt)), nil
	}
	return nil, usagef("--log-format %s: want text or json", a.logFormat)
}

// passphrase returns the passphrase that was given by file, nil for none.
func (a *app) passphrase() ([]byte, error) {
	name := a.passphraseFile
	if name == "" {
		name = os.Getenv(envPassphraseFile)
	}
	if name == "" {
		return nil, nil
	}
	return readPassphrase(name)
}

// readPassphrase returns the first line of a file.
func readPassphrase(name string) ([]byte, error) {
	return firstLine(name)
}

// firstLine reads a passphrase from a file.
func firstLine(name string) ([]byte, error) {
	p, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(p), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return nil, fmt.Errorf("read the passphrase: the first line of %s is empty", name)
	}
	return []byte(line), nil
}

// interactive says whether there is a person to ask.
func (a *app) interactive() bool {
	return !a.json && !a.quiet && term.IsTerminal(int(a.in.Fd()))
}

// ask asks for a passphrase on the terminal, without showing it.
func (a *app) ask(prompt string) ([]byte, error) {
	fmt.Fprint(a.err, prompt)
	p, err := term.ReadPassword(int(a.in.Fd()))
	fmt.Fprintln(a.err)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	return p, nil
}

// confirm asks a person whether to go on, and takes all but yes for no.
func (a *app) confirm(question string) (bool, error) {
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// askNew asks for a passphrase that does not exist yet, twice.
func (a *app) askNew() ([]byte, error) {
	p, err := a.ask("New passphrase: ")
	if err != nil {
		return nil, err
	}
	again, err := a.ask("The same again: ")
	if err != nil {
		return nil, err
	}
	if len(p) == 0 || string(p) != string(again) {
		return nil, errors.New("the passphrases differ or are empty")
	}
	return p, nil
}

// identities returns the age identities of the files that were given.
func (a *app) identities() ([]age.Identity, error) {
	names := a.identityFiles
	if len(names) == 0 {
		names = filepath.SplitList(os.Getenv(envIdentityFile))
	}
	var all []age.Identity
	for _, name := range names {
		ids, err := readIdentities(name)
		if err != nil {
			return nil, fmt.Errorf("read identities of %s: %w", name, err)
		}
		all = append(all, ids...)
	}
	return all, nil
}

func readIdentities(name string) ([]age.Identity, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return age.ParseIdentities(f)
}

// stateDir is where this machine keeps what must not lie in a repository, such
// as the key that signs its ledger.
func stateDir() (string, error) {
	if dir := os.Getenv(envState); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/holdfast", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "holdfast"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", withHint(fmt.Errorf("find the state directory: %w", err), "set %s", envState)
	}
	return filepath.Join(home, ".local", "state", "holdfast"), nil
}
