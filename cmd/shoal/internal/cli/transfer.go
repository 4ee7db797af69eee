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

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/cmd/shoal/internal/transfer"
)

func (a *app) importCommand() *cobra.Command {
	var inFlight int
	cmd := &cobra.Command{
		Use:   "import PATH",
		Short: "Put a directory, or a file of JSON lines",
		Long: `Puts everything below PATH. If it is a directory, each regular file becomes a key:
its path relative to PATH, with slashes. Links and modes are not kept. If it is
a file that ends in .jsonl (or "-", for stdin), each line is an object with "key"
and "value", or "key_base64" and "value_base64" where they are not UTF-8.

What is over a limit (a key of 4 KiB, a value of 4 MiB), and a line that does not
mean one key and one value (a field that is there twice, half of a surrogate pair
such as \ud83d, bytes that are not UTF-8, a byte order mark), is listed on stderr,
the rest is imported, and the exit code is 1. An import can always be repeated.`,
		Example: "  shoal import ./site\n  shoal import backup.jsonl",
		Args:    arguments(1, 1),
	}
	cmd.Flags().IntVar(&inFlight, "in-flight", transfer.InFlightDefault, "puts outstanding at most")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if inFlight < 1 || inFlight > 4096 {
			return usagef("--in-flight is %d: it is 1 to 4096", inFlight)
		}
		src, closeSource, err := a.openSource(args[0])
		if err != nil {
			return err
		}
		defer closeSource()
		return a.withStore(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
			return a.runImport(ctx, c, src, inFlight)
		})
	}
	return cmd
}

// openSource returns what an import's argument names.
func (a *app) openSource(path string) (src transfer.Source, closeSource func(), err error) {
	nothing := func() {}
	if path == "-" {
		return transfer.NewJSONLines(a.env.Stdin, "stdin", 0), nothing, nil
	}
	if isDir(path) {
		dir, err := transfer.NewDir(path)
		return dir, nothing, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !strings.HasSuffix(path, ".jsonl") {
		err = usagef("%s is neither a directory nor a .jsonl file", path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return transfer.NewJSONLines(f, path, info.Size()), func() { _ = f.Close() }, nil
}

func (a *app) runImport(ctx context.Context, c *clerk.Clerk, src transfer.Source, inFlight int) error {
	unit := "file"
	if _, lines := src.(*transfer.JSONLines); lines {
		unit = "key"
	}
	var live transfer.Live
	progress := output.StartProgress(a.env.Stderr, "import", transferState(&live))
	result, err := transfer.Import(ctx, store{c}, src, transfer.ImportOptions{
		InFlight: inFlight,
		Skipped:  func(name string, why error) { a.note("not imported: %s: %v", name, why) },
	}, &live)
	progress.Stop()
	if printErr := a.printTransfer("imported", unit, result, result.Keys, result.Bytes, result.Seconds); printErr != nil {
		err = errors.Join(err, printErr)
	}
	if result.Links > 0 {
		a.note("links and other files that are not regular, left out: %s", output.Count(result.Links))
	}
	if err != nil {
		return fmt.Errorf("import ended early, after %s: %w", output.Plural(result.Keys, "key"), err)
	}
	if result.Skipped > 0 {
		return codedError{fmt.Errorf("not imported: %s of %s", output.Count(result.Skipped), output.Plural(result.Skipped+result.Keys, unit)), ExitFailed}
	}
	return nil
}

func (a *app) exportCommand() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "Write keys to a directory, a file each",
		Long: `The reverse of import: writes each key's value to the file of that name below
DIR, which is made if need be. Files appear whole; files of other names are left
alone. When the command succeeds, all files are on the disk.

If a key would leave DIR ("../x", "/x"), is no path ("a//b"), or needs a file
where another key needs a directory ("a" and "a/b"), nothing is written and the
exit code is 5.`,
		Example: "  shoal export backup\n  shoal export --prefix site/ out",
		Args:    arguments(1, 1),
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with this `text`")
	cmd.RunE = a.storeCommand(func(ctx context.Context, c *clerk.Clerk, args []string) error {
		var live transfer.Live
		progress := output.StartProgress(a.env.Stderr, "export", transferState(&live))
		result, err := transfer.Export(ctx, store{c}, []byte(prefix), args[0], &live)
		progress.Stop()
		for _, name := range result.Leftovers {
			a.note("shoal: export: an export that was killed left %s behind; remove it, unless that export still runs", filepath.Join(args[0], name))
		}
		if err != nil {
			return err
		}
		return a.printTransfer("exported", "file", result, result.Keys, result.Bytes, result.Seconds)
	})
	return cmd
}

// transferState samples a transfer for its progress display.
func transferState(live *transfer.Live) func() output.State {
	start := time.Now()
	return func() output.State {
		elapsed := time.Since(start)
		done, total := live.Progress()
		return output.State{Done: done, Total: total, Text: fmt.Sprintf("%s keys, %.0f keys/s, %s/s", output.Count(live.Keys()),
			output.Rate(live.Keys(), elapsed), output.Bytes(uint64(output.Rate(live.Bytes(), elapsed))))}
	}
}

func (a *app) printTransfer(what, unit string, result any, keys, bytes uint64, seconds float64) error {
	if a.out.IsJSON() {
		return a.out.Object(result)
	}
	elapsed := time.Duration(seconds * float64(time.Second))
	return a.out.Linef("%s %s, %s in %s: %.0f %ss/s, %.1f MB/s", what, output.Plural(keys, unit), output.Bytes(bytes),
		output.Duration(elapsed), output.Rate(keys, elapsed), unit, output.Rate(bytes, elapsed)/1e6)
}
