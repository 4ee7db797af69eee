package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// releaseVersion is set by the linker for released binaries.
var releaseVersion = ""

// Version is the version of this program, and the commit that it was built from;
// "unknown" where the build did not record it.
func Version() (version, commit string) {
	version, commit = releaseVersion, "unknown"
	dirty := false
	if info, ok := debug.ReadBuildInfo(); ok {
		version = cmp.Or(version, info.Main.Version)
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value
			case "vcs.modified":
				dirty = s.Value == "true"
			}
		}
	}
	if dirty {
		commit += "-dirty"
	}
	return cmp.Or(version, "(devel)"), commit
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and Go version",
		Long:    "Prints the version of this program, the commit it was built from, and the version of Go.",
		Example: "  shoal version\n  shoal version -o json",
		Args:    arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			version, commit := Version()
			if a.out.IsJSON() {
				return a.out.Object(struct {
					Version string `json:"version"`
					Commit  string `json:"commit"`
					Go      string `json:"go"`
				}{version, commit, runtime.Version()})
			}
			return a.out.Linef("%s", versionLine())
		},
	}
}

// versionLine says for people what this program is.
func versionLine() string {
	version, commit := Version()
	return fmt.Sprintf("shoal %s commit %s %s %s/%s", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
