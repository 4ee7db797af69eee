package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalkv/shoal/cmd/shoal/internal/dev"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func (a *app) devCommand() *cobra.Command {
	o := dev.Options{}
	var processes bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine",
		Long: `Runs a whole cluster on loopback, with real TCP, real fsync and real Raft: three
controllers and three groups of three replicas, of which two are joined and one
is spare. It prints where everything is, commands to paste, and "ready". Ctrl-C
stops it, and deletes its data unless --data names a directory; started again on
the same --data, it comes back with its data.

With --processes each replica is a process, to be killed: a dead one stays dead
until "shoal dev restart ID", or --all, brings it back.`,
		Example: "  shoal dev\n  shoal dev --processes --data ./cluster\n  shoal dev restart g1a --data ./cluster",
		Args:    arguments(0, 0),
	}
	f := cmd.Flags()
	f.IntVar(&o.Groups, "groups", 2, "groups that are joined at start")
	f.IntVar(&o.SpareGroups, "spare-groups", 1, "groups that run, but wait for \"shoal join\"")
	f.IntVar(&o.Replicas, "replicas", 3, "replicas of each group")
	f.IntVar(&o.ControllerReplicas, "controller-replicas", 3, "replicas of the controller")
	f.IntVar(&o.Shards, "shards", shardcfg.ShardCountDefault, "number of shards: a power of two, 1 to 16384")
	f.StringVar(&o.Listen, "listen", controllersDefault, "`HOST:PORT` of the first controller; the others take the next ports")
	f.StringVar(&o.HTTP, "http", "", "`HOST:PORT` at which the first controller serves metrics and probes; the others take the next ports")
	f.StringVar(&o.Data, "data", "", "`directory` to keep the data in; else it is deleted on exit")
	f.BoolVar(&processes, "processes", false, "run each replica in a process of its own")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Given = map[string]bool{}
		cmd.Flags().Visit(func(f *pflag.Flag) { o.Given[f.Name] = true })
		return a.runDev(cmd, o, processes)
	}
	cmd.AddCommand(a.devRestartCommand())
	return cmd
}

func (a *app) runDev(cmd *cobra.Command, o dev.Options, processes bool) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	o.Stdout, o.Stderr, o.ControllersDefault = a.env.Stdout, a.env.Stderr, controllersDefault
	o.Invocation = dev.Invocation(a.env.Program, executable)
	version, _ := Version()
	var stop func()
	if processes {
		o.Launch, stop = dev.Processes(executable, os.Environ())
	} else {
		o.Launch, stop = dev.InProcess(version)
	}
	defer stop()
	err = dev.Run(cmd.Context(), o)
	if errors.As(err, new(*dev.UsageError)) {
		return usageError{err}
	}
	return err
}

func (a *app) devRestartCommand() *cobra.Command {
	var all bool
	var data, listen string
	cmd := &cobra.Command{
		Use:   "restart ID",
		Short: "Start a replica of a running dev cluster again",
		Long: `Asks a running "shoal dev" to start a replica again, and prints its line. One that
is alive is stopped first. With --all, every replica that is dead is started. The
exit code is 4 for an unknown id.`,
		Example: "  shoal dev restart g1a\n  shoal dev restart --all --data ./cluster",
		Args:    arguments(0, 1),
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "every replica that is dead")
	f.StringVar(&data, "data", "", "`directory` of the dev cluster, if it was started with one")
	f.StringVar(&listen, "listen", controllersDefault, "`HOST:PORT` that the dev cluster was started with")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) == 1) {
			return usagef("either an ID or --all: %s", cmd.UseLine())
		}
		id := ""
		if !all {
			id = args[0]
		}
		lines, err := dev.Restart(cmd.Context(), data, listen, id, all)
		for _, line := range lines {
			if err := a.out.Linef("%s", line); err != nil {
				return err
			}
		}
		switch {
		case errors.As(err, new(*dev.UnknownError)):
			return codedError{err, ExitCondition}
		case errors.As(err, new(*dev.NotRunningError)):
			return codedError{err, ExitUnavailable}
		case err == nil && len(lines) == 0:
			a.note("no replica is dead")
		}
		return err
	}
	return cmd
}
