package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// report prints the error that ended the verb called path, for example "repo
// backup", and returns its exit code.
func (a *app) report(path string, verb *cobra.Command, err error) int {
	code, hint := judge(err)
	var reported *reportedError
	if errors.As(err, &reported) {
		return reported.code
	}
	if errors.Is(err, errDifference) {
		return code // printed by the verb, and no error
	}
	if code == exitUsage && hint == "" {
		hint = fmt.Sprintf("%q explains", verb.CommandPath()+" --help")
	}
	text := plain(oneLine(err)) // which may have names from a guest
	if path != "" {
		text = path + ": " + text
	}
	if a.json {
		json.NewEncoder(a.err).Encode(struct {
			Error string `json:"error"`
			Hint  string `json:"hint"`
			Code  int    `json:"code"`
		}{text, hint, code})
		return code
	}
	fmt.Fprintf(a.err, "holdfast: %s\n", text)
	if hint != "" {
		fmt.Fprintf(a.err, "hint: %s\n", hint)
	}
	return code
}

// oneLine prints an error that was joined of several without saying anything
// twice.
func oneLine(err error) string {
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line != "" && !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, line) }) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// warn tells the person something that does not change the outcome.
func (a *app) warn(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.err, "holdfast: warning: %s\n", fmt.Sprintf(format, args...))
	}
}

// say prints a line for people: nothing with --quiet or --json.
func (a *app) say(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.out, format+"\n", args...)
	}
}

// printJSON prints the one object of a --json listing. Its own "schema" field
// names its shape.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
