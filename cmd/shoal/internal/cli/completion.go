package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/dev"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// completionMax bounds the questions to a cluster while a shell waits for a
// completion.
const completionMax = 2 * time.Second

// A completer offers values for an argument or a flag; none: it knows none.
type completer func(ctx context.Context, args []string) []string

// words offers fixed words.
func words(list ...string) completer {
	return func(context.Context, []string) []string { return list }
}

// completions tells the shell what may stand where. Commands that are not named
// here take what can't be listed, or files.
func (a *app) completions(root *cobra.Command) {
	gids := completer(a.groups)
	for path, of := range map[string][]completer{
		"get": {}, "put": {}, "append": {}, "delete": {}, "locate": {}, "scan": {}, "config": {}, "status": {}, "shards": {}, "health": {},
		"bench": {}, "check": {}, "repair": {}, "version": {}, "dev": {}, "controller": {}, "server": {}, "join": {}, "unpin": {},
		"leave": {gids, gids, gids, gids, gids, gids, gids, gids}, "move": {nil, gids}, "retire": {gids},
		"rebalance": {words("pause", "resume", "status")},
		"replicas":  {a.groupsAndController, words("add", "remove", "replace"), a.members},
	} {
		setArguments(childOf(root, path), of)
	}
	setArguments(childOf(childOf(root, "dev"), "restart"), []completer{a.devReplicas})
	for flag, of := range map[string]completer{
		"output": words("table", "json"), "log-format": words("text", "json"), "log-level": words("debug", "info", "warn", "error"),
		"controllers": words(), "seeds": words(), "timeout": words(),
	} {
		setFlag(root, flag, of)
	}
	setFlag(childOf(root, "shards"), "group", gids)
}

func setArguments(c *cobra.Command, of []completer) {
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(of) || of[len(args)] == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		offers := slices.DeleteFunc(offer(cmd, of[len(args)], args), func(s string) bool { return slices.Contains(args, s) })
		return offers, cobra.ShellCompDirectiveNoFileComp
	}
}

func setFlag(c *cobra.Command, name string, of completer) {
	err := c.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return offer(cmd, of, args), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic("completion of --" + name + ": " + err.Error())
	}
}

func offer(cmd *cobra.Command, of completer, args []string) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionMax)
	defer cancel()
	return of(ctx, args)
}

// config is the configuration for a completion; nil: nobody tells it in time.
func (a *app) config(ctx context.Context) (found *shardcfg.Config) {
	_ = a.withClerk(ctx, func(ctx context.Context, c *clerk.Clerk) error {
		found = c.Placement()
		return nil
	})
	return found
}

// groups are the gids of the groups in the configuration.
func (a *app) groups(ctx context.Context, _ []string) (list []string) {
	if config := a.config(ctx); config != nil {
		for _, gid := range config.GroupIDs() {
			list = append(list, gidText(gid))
		}
	}
	return list
}

func (a *app) groupsAndController(ctx context.Context, args []string) []string {
	return append(a.groups(ctx, args), "controller")
}

// members are the ids of a group's replicas.
func (a *app) members(ctx context.Context, args []string) (list []string) {
	change, err := parseMembership(args[:1])
	if err != nil || args[1] == "add" {
		return nil
	}
	_ = a.withClerk(ctx, func(ctx context.Context, c *clerk.Clerk) error {
		m, err := a.findMembership(ctx, c, change.group)
		if err != nil {
			return err
		}
		reply, err := m.list(ctx)
		for _, member := range reply.GetMembers() {
			list = append(list, member.GetLabel())
		}
		return err
	})
	return list
}

// devReplicas are the ids of the replicas of the dev cluster that runs at the
// default address.
func (a *app) devReplicas(ctx context.Context, _ []string) []string {
	_, err := dev.Restart(ctx, "", controllersDefault, "", false)
	if unknown := (*dev.UnknownError)(nil); errors.As(err, &unknown) {
		return unknown.Known
	}
	return nil
}
