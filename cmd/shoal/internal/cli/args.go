package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandFirst moves the words that name the command in front of all flags, so
// that flags may stand anywhere: cobra wants a command's own flags behind its
// name. Everything from "--" on stays as it is.
func commandFirst(root *cobra.Command, args []string) []string {
	takesValue := map[string]bool{"help": false, "h": false}
	collectFlags(root, takesValue)
	var path, rest []string
	at := root
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return slices.Concat(path, rest, args[i:])
		case isFlag(arg):
			rest = append(rest, arg)
			if name, alone := flagName(arg); alone && takesValue[name] && i+1 < len(args) {
				i++
				rest = append(rest, args[i])
			}
		default:
			child := childOf(at, arg)
			if child == nil { // an argument: what follows is in its place already
				return slices.Concat(path, rest, args[i:])
			}
			path, at = append(path, arg), child
		}
	}
	return slices.Concat(path, rest)
}

// collectFlags notes, for every flag of every command, whether a value follows
// it. No flag name means one thing here and another there in this respect.
func collectFlags(c *cobra.Command, takesValue map[string]bool) {
	note := func(f *pflag.Flag) {
		takesValue[f.Name] = f.NoOptDefVal == ""
		if f.Shorthand != "" {
			takesValue[f.Shorthand] = f.NoOptDefVal == ""
		}
	}
	c.Flags().VisitAll(note)
	c.PersistentFlags().VisitAll(note)
	for _, child := range c.Commands() {
		collectFlags(child, takesValue)
	}
}

// isFlag reports whether an argument is a flag; a lone dash is not.
func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// flagName returns the name of a flag, and whether it stands alone: without its
// value after "=", or right behind its letter.
func flagName(arg string) (name string, alone bool) {
	if long, ok := strings.CutPrefix(arg, "--"); ok {
		name, _, joined := strings.Cut(long, "=")
		return name, !joined
	}
	return arg[1:2], len(arg) == 2
}

func childOf(c *cobra.Command, name string) *cobra.Command {
	for _, child := range c.Commands() {
		if child.Name() == name || child.HasAlias(name) {
			return child
		}
	}
	return nil
}
