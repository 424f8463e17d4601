package cli

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/image"
	"holdfast/repo"
)

// version is set by the linker: -X holdfast/appliance/cli.version=1.2.3.
var version = "devel"

// formatNames is what a program can do with the formats of one kind.
type formatNames struct {
	Read  []string `json:"read"`
	Write []string `json:"write"`
}

type versionListing struct {
	Schema  string                 `json:"schema"`
	Version string                 `json:"version"`
	Go      string                 `json:"go"`
	System  string                 `json:"system"`
	Formats map[string]formatNames `json:"formats"`
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		GroupID: groupOther,
		Short:   "Print the version, and the formats read and written",
		Args:    takes(false),
		RunE:    func(*cobra.Command, []string) error { return a.version() },
	}
}

func (a *app) version() error {
	v := versionListing{
		Schema: "holdfast.version/1", Version: version,
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH,
		Formats: map[string]formatNames{
			"repository": repositoryFormats(),
			"disk":       {Read: image.Formats(), Write: targetFormatNames()},
		},
	}
	if a.json {
		return a.printJSON(v)
	}
	fmt.Fprintf(a.out, "holdfast %s (%s, %s)\n", v.Version, v.Go, v.System)
	for _, kind := range []string{"repository", "disk"} {
		f := v.Formats[kind]
		fmt.Fprintf(a.out, "%-11s reads %s; writes %s\n", kind, strings.Join(f.Read, ", "), strings.Join(f.Write, ", "))
	}
	return nil
}

// repositoryFormats lists the versions of repo/FORMAT.md.
func repositoryFormats() formatNames {
	var f formatNames
	for v := 1; v <= repo.FormatVersion; v++ {
		f.Read = append(f.Read, fmt.Sprint(v))
	}
	f.Write = []string{fmt.Sprint(repo.FormatVersion)}
	return f
}
