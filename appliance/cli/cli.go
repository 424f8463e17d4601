// Package cli is the command line of holdfast: one file per verb, one options
// struct per verb.
//
// Verbs print for people on standard output, or one JSON object when --json is
// given, whose "schema" names its shape and version. Progress, warnings and
// errors go to standard error. An error reads
//
//	holdfast: repo restore: point 7qk4: not found
//	hint: "holdfast repo points DIR" lists what there is
//
// or, with --json, {"error":…,"hint":…,"code":…}. The codes are in exit.go.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Run executes one command line, without the program's name, and returns the
// exit code. Cancelling ctx, as a signal does, ends the verb in order: what it
// began is undone or complete when Run returns.
func Run(ctx context.Context, args []string, stdin *os.File, stdout, stderr io.Writer) int {
	return (&app{in: stdin, out: stdout, err: stderr}).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	verb, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = errInterrupted
	}
	// An error among the flags comes before --json was seen.
	a.json = a.json || slices.Contains(args, "--json")
	_, path, _ := strings.Cut(verb.CommandPath(), " ")
	return a.report(path, verb, err)
}

// app is what every verb shares: its streams and the global flags.
type app struct {
	in       *os.File
	out, err io.Writer

	json           bool
	quiet          bool
	logLevel       string
	logFormat      string
	passphraseFile string
	identityFiles  []string
	asked          []byte // the passphrase that a person was asked for

	workFactor int // of scrypt for new passphrases; 0 means the default, which tests can't wait for
}

const (
	groupRepo  = "repo"
	groupOther = "other"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast VERB",
		Short: "Keep backups of machines, and bring them back",
		Long: `Holdfast keeps backups of machines in a deduplicating repository, checks every
byte on the way out, and brings any restore point back bit for bit.`,
		Example: `  holdfast repo init /srv/backup
  holdfast repo backup /srv/backup --machine db1 /dev/vg0/db1
  holdfast repo points /srv/backup
  holdfast repo restore /srv/backup db1@latest --to /tmp/db1.raw`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	group(root)
	root.AddGroup(
		&cobra.Group{ID: groupRepo, Title: "On a repository directory, no appliance needed:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	a.globalFlags(root)
	root.AddCommand(newRepo(a), newFiles(a), newMount(a), newMountWatch(), newNFS(a), newGuestChild(), newVersion(a))
	return root
}

func newRepo(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "repo VERB",
		GroupID: groupRepo,
		Short:   "Make a repository, write to it, read from it",
		Long: `Work on a repository directory. One process at a time writes; any number read,
also while it is being written.`,
	}
	group(cmd)
	cmd.AddCommand(
		newRepoInit(a), newRepoBackup(a), newRepoPoints(a), newRepoRestore(a), newRepoDiff(a), newRepoStats(a), newRepoExplain(a), newRepoCopy(a), newRepoSync(a),
		newRepoScrub(a), newRepoRepair(a), newRepoReindex(a),
		newRepoExpire(a), newRepoRecall(a), newRepoRetain(a), newRepoPin(a), newRepoUnpin(a),
		newRepoSweep(a), newRepoCompact(a), newRepoEvacuate(a), newRepoSynthesize(a), newRepoRuns(a), newRepoAbandon(a),
		newRepoDump(a), newRepoKey(a), newRepoLedger(a),
	)
	return cmd
}

// group makes cmd a verb that only leads to others: alone it prints its help,
// with an unknown word it is a wrong command line.
func group(cmd *cobra.Command) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return withHint(usagef("unknown verb %q", args[0]), "did you mean %q?", strings.Join(near, `" or "`))
		}
		return usagef("unknown verb %q", args[0])
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// takes checks the number of arguments. names are theirs, for the error; the
// last may be repeated when many is true.
func takes(many bool, names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names) && !many:
			return usagef("what is %q? Only %s was expected", args[len(names)], strings.Join(names, " "))
		}
		return nil
	}
}
