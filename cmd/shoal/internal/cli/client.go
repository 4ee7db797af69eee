package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// clerkConfig says how to reach the cluster. Where seeds are named and controllers
// are not, those at the default address are not meant: they may be another
// cluster's.
func (a *app) clerkConfig() clerk.Config {
	config := clerk.Config{Controllers: a.controllers, Seeds: a.seeds, CacheFile: a.placement, Timeout: a.timeout, Logger: a.log}
	if len(a.seeds) > 0 && !a.chosen {
		config.Controllers = nil
	}
	return config
}

// open returns a Clerk. Its errors are of the command that needs one.
func (a *app) open(ctx context.Context) (*clerk.Clerk, error) {
	c, err := clerk.Open(ctx, a.clerkConfig())
	var failed *clerk.Error
	if err == nil || !errors.As(err, &failed) {
		return c, err
	}
	failed.Op = a.verb
	elsewhere := a.chosen || len(a.seeds) > 0 || a.placement != ""
	if errors.Is(err, clerk.ErrUnavailable) && !errors.Is(err, context.Canceled) && !elsewhere {
		return nil, codedError{fmt.Errorf("%s: not done: no cluster answers at %s: is \"shoal dev\" running? (--controllers names a cluster elsewhere)",
			a.verb, controllersDefault), ExitUnavailable}
	}
	if errors.Is(err, clerk.ErrUnavailable) && len(a.seeds) == 0 && a.placement == "" {
		return nil, fmt.Errorf("%w (where only the controllers are down: --seeds names replicas to ask instead)", failed)
	}
	return nil, failed
}

// withClerk opens a Clerk for the time of one command.
func (a *app) withClerk(ctx context.Context, do func(context.Context, *clerk.Clerk) error) (err error) {
	c, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return do(ctx, c)
}

// clerkCommand makes the RunE of a command that needs a Clerk.
func (a *app) clerkCommand(do func(ctx context.Context, c *clerk.Clerk, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return a.withClerk(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error { return do(ctx, c, args) })
	}
}

// withStore opens a Clerk for the time of one command on data, which needs a
// group: where none has joined, it fails at once instead of waiting for one.
func (a *app) withStore(ctx context.Context, do func(context.Context, *clerk.Clerk) error) error {
	return a.withClerk(ctx, func(ctx context.Context, c *clerk.Clerk) error {
		if err := a.needGroup(ctx, c); err != nil {
			return err
		}
		return do(ctx, c)
	})
}

// storeCommand makes the RunE of a command on data.
func (a *app) storeCommand(do func(ctx context.Context, c *clerk.Clerk, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return a.withStore(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error { return do(ctx, c, args) })
	}
}

// needGroup refuses to go on if the latest configuration has no group, and the
// Clerk knows of none.
func (a *app) needGroup(ctx context.Context, c *clerk.Clerk) error {
	if config := c.Placement(); config == nil || len(config.Groups) > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if config, err := c.Admin().Latest(ctx); err != nil || len(config.Groups) > 0 {
		return nil // the operation itself says what stands in its way
	}
	return codedError{fmt.Errorf("%s: not done: no group has joined the cluster, so nobody could hold the data; add one: shoal join GID ADDR,ADDR,ADDR", a.verb), ExitUnavailable}
}

// readOperand returns the value that an argument stands for: itself, or for "-"
// what is on stdin. More than a value can hold is refused.
func (a *app) readOperand(arg string) ([]byte, error) {
	value := []byte(arg)
	if arg == "-" {
		var err error
		if value, err = io.ReadAll(io.LimitReader(a.env.Stdin, shardcfg.ValueBytesMax+1)); err != nil {
			return nil, fmt.Errorf("read the value from stdin: not done: %w", err)
		}
	}
	if err := shardcfg.CheckValue(value); err != nil {
		return nil, usagef("not done: %w", err)
	}
	return value, nil
}

// checkKey refuses a key, the first argument, that is outside the limits, before
// anyone is asked.
func checkKey(_ *cobra.Command, args []string) error {
	if err := shardcfg.CheckKey([]byte(args[0])); err != nil {
		return usagef("not done: %w", err)
	}
	return nil
}

func parseGID(arg string) (shardcfg.GroupID, error) {
	n, err := strconv.ParseUint(arg, 10, 64)
	if err != nil || n == 0 {
		return 0, usagef("%q is no gid: it is a number from 1 on", arg)
	}
	return shardcfg.GroupID(n), nil
}

func parseShard(arg string) (shardcfg.ShardID, error) {
	n, err := strconv.ParseUint(arg, 10, 16)
	if err != nil || n >= shardcfg.ShardCountMax {
		return 0, usagef("%q is no shard: it is a number from 0 to %d", arg, shardcfg.ShardCountMax-1)
	}
	return shardcfg.ShardID(n), nil
}

// note writes a message for people to stderr.
func (a *app) note(format string, args ...any) { fmt.Fprintf(a.env.Stderr, format+"\n", args...) }

// isDir reports whether path is a directory.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
