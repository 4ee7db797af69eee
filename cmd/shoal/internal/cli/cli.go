// Package cli is the command line of shoal: its commands, their flags, what
// they print and the codes they exit with.
//
// Each noun has its file; cli.go holds what all commands share. A command runs
// on the goroutine of Main and owns whatever it starts until it returns. The
// package wires everything, so it may import any other; only this package and
// main know about the process: its arguments, environment, streams and signals.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
)

// An Environment is what a command sees of its process.
type Environment struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Lookup func(name string) (string, bool) // of environment variables
	// Program is how the binary was started, as its first argument says.
	Program string
}

// signalEcho is for how long after the first signal more of them are the same
// wish: timeout(1) sends its signal to the process and then to its whole group.
const signalEcho = 500 * time.Millisecond

// Main runs one command in the process's environment and returns its exit code.
// The first SIGINT, SIGTERM, or SIGHUP (unless nohup had it ignored) ends the
// command's context, so that it can end in order; another one, after signalEcho,
// ends the process at once.
func Main() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		awaitEnd(signals, cancel)
		os.Exit(ExitFailed)
	}()
	return Run(ctx, Environment{
		Args: os.Args[1:], Program: os.Args[0],
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Lookup: os.LookupEnv,
	})
}

// awaitEnd calls cancel at the first signal, and returns at the first one that
// comes later than its echo.
func awaitEnd(signals <-chan os.Signal, cancel func()) {
	<-signals
	first := time.Now()
	cancel()
	for range signals {
		if time.Since(first) >= signalEcho {
			return
		}
	}
}

// Run runs one command until it is done or ctx ends, and returns its exit code.
func Run(ctx context.Context, env Environment) int {
	a := &app{env: env}
	root := a.root()
	root.SetArgs(commandFirst(root, env.Args))
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if a.out != nil {
		if flushErr := a.out.Flush(); err == nil && flushErr != nil {
			err = fmt.Errorf("write the result: %w", flushErr)
		}
	}
	if err == nil {
		return ExitDone
	}
	code := exitCode(err)
	if !a.started {
		code = ExitUsage
	}
	if text := plainly.Replace(err.Error()); text != "" {
		fmt.Fprintf(env.Stderr, "shoal: %s%s\n", text, advice(err))
	}
	if code == ExitUsage && !a.started {
		fmt.Fprintln(env.Stderr, "'shoal --help' lists the commands, 'shoal COMMAND --help' explains one.")
	}
	if code == ExitUsage && cmd.Annotations[annotationServer] == annotationReplica {
		code = ExitServerUsage
	}
	return code
}

// plainly says in words for people why a context ended.
var plainly = strings.NewReplacer(context.Canceled.Error(), "interrupted", context.DeadlineExceeded.Error(), "timed out")

// app is one run of the program: the settings of all commands, and the stream
// of results.
type app struct {
	env Environment
	out *output.Printer // from start on
	log *slog.Logger    // from start on
	// started: the arguments and settings were understood.
	started bool
	verb    string // the command's name, with which errors begin; from start on

	controllers []string
	chosen      bool // controllers is not the default
	seeds       []string
	placement   string // file; empty: none
	timeout     time.Duration
	format      string
	logLevel    string
	logFormat   string
	configFile  string
}

const (
	groupData    = "data"
	groupAdmin   = "admin"
	groupRunning = "running"
	groupMeasure = "measure"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "shoal",
		Short: "A sharded, replicated, linearizable key/value store",
		Long: `Shoal is a sharded, replicated, linearizable key/value store. A controller says
which replica group should own each shard; groups hand shards over to each
other while they keep serving.

Start a whole cluster on this machine, and use it from another terminal:

  shoal dev
  shoal put hello world
  shoal get hello
  shoal status

Exit codes: 0 done; 1 failed; 2 usage; 3 unavailable or timed out (for a write,
the message says "not done" or "outcome unknown"); 4 not found, or a condition
did not hold; 5 refused.`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: a.start,
	}
	root.SetFlagErrorFunc(flagProblem)
	root.SetHelpFunc(explain)
	root.SetUsageFunc(func(c *cobra.Command) error {
		_, err := io.WriteString(c.OutOrStderr(), usageText(c))
		return err
	})
	root.Version = versionLine()
	root.SetVersionTemplate("{{.Version}}\n")
	f := root.PersistentFlags()
	f.StringSliceVar(&a.controllers, "controllers", []string{controllersDefault}, "addresses of the shard controllers, `HOST:PORT,...`")
	f.Lookup("controllers").DefValue = controllersDefault // without brackets in the help
	f.StringSliceVar(&a.seeds, "seeds", nil, "addresses of replicas of any groups, `HOST:PORT,...`: the way in when no controller answers")
	f.StringVar(&a.placement, "placement", "", "keep the newest configuration seen in this `file`: another way in when no controller answers")
	f.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long one operation may take; --wait is not bounded by it")
	f.StringVarP(&a.format, "output", "o", "table", "how results are written: `table|json`")
	f.StringVar(&a.logLevel, "log-level", "", "least `level` of messages: debug, info, warn or error (default info for servers, else warn)")
	f.StringVar(&a.logFormat, "log-format", "text", "how messages are written to stderr: `text|json`")
	f.StringVar(&a.configFile, "config", "", "YAML `file` with values for flags that are neither given nor in the environment (SHOAL_CONTROLLERS, ...)")
	root.AddGroup(
		&cobra.Group{ID: groupRunning, Title: "Running:"},
		&cobra.Group{ID: groupData, Title: "Data:"},
		&cobra.Group{ID: groupAdmin, Title: "Administration:"},
		&cobra.Group{ID: groupMeasure, Title: "Measuring:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupRunning, a.devCommand(), a.controllerCommand(), a.serverCommand(), a.versionCommand())
	add(groupData, a.getCommand(), a.putCommand(), a.appendCommand(), a.deleteCommand(), a.scanCommand(),
		a.importCommand(), a.exportCommand(), a.locateCommand())
	add(groupAdmin, a.joinCommand(), a.leaveCommand(), a.moveCommand(), a.unpinCommand(), a.retireCommand(), a.repairCommand(), a.salvageCommand(), a.reformCommand(), a.rebalanceCommand(), a.replicasCommand(), a.renumberCommand(),
		a.configCommand(), a.statusCommand(), a.healthCommand(), a.shardsCommand())
	add(groupMeasure, a.benchCommand(), a.checkCommand())
	a.completions(root)
	root.InitDefaultHelpCmd()
	childOf(root, "help").Args = func(_ *cobra.Command, words []string) error {
		_, _, err := root.Find(words)
		return err // cobra would print all help, and call it a success
	}
	return root
}

// start completes and checks the settings, before any command runs.
func (a *app) start(cmd *cobra.Command, _ []string) error {
	a.verb = cmd.Name()
	if err := a.applySettings(cmd); err != nil {
		return usageError{err}
	}
	format, err := output.ParseFormat(a.format)
	if err != nil {
		return usageError{err}
	}
	if err := errors.Join(checkAddresses("controllers", a.controllers), checkAddresses("seeds", a.seeds)); err != nil {
		return usageError{err}
	}
	if a.timeout <= 0 {
		return usageError{fmt.Errorf("--timeout is %v: it must be above 0", a.timeout)}
	}
	if f := cmd.Flags().Lookup("wait-timeout"); f != nil && strings.HasPrefix(f.Value.String(), "-") {
		return usageError{fmt.Errorf("--wait-timeout is %s: it must not be negative", f.Value)}
	}
	if a.log, err = newLogger(a.env.Stderr, a.logLevel, a.logFormat, cmd.Annotations[annotationServer] != ""); err != nil {
		return usageError{err}
	}
	a.out = output.NewPrinter(a.env.Stdout, format)
	a.started = true
	return nil
}

// annotationServer marks the commands that run replicas: they log more.
const annotationServer = "server"

func newLogger(w io.Writer, level, format string, server bool) (*slog.Logger, error) {
	least := slog.LevelWarn
	if server {
		least = slog.LevelInfo
	}
	if level != "" {
		if err := least.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("no log level %q: it is debug, info, warn or error", level)
		}
	}
	options := &slog.HandlerOptions{Level: least}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("no log format %q: it is text or json", format)
}

// arguments returns a cobra check that there are low to high arguments (high
// below 0: any number), with a message that shows the usage.
func arguments(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) >= low && (high < 0 || len(args) <= high):
			return nil
		case len(args) < low:
			return usageError{errors.New("an argument is missing: " + cmd.UseLine())}
		}
		return usageError{fmt.Errorf("too many arguments, from %q on: %s", args[high], cmd.UseLine())}
	}
}
