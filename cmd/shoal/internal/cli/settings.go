package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"
)

const (
	controllersDefault = "127.0.0.1:7400"
	environmentPrefix  = "SHOAL_"
)

// applySettings gives every flag that stands not on the command line its value
// from the environment, else from the configuration file. That holds for the
// flags of all commands, and for those of the servers, which are deployed with
// such files; other commands' own flags are given or left.
func (a *app) applySettings(cmd *cobra.Command) error {
	known := settable(cmd.Root())
	if f := cmd.Flags().Lookup("config"); !f.Changed {
		if path := a.variable("config"); path != "" {
			a.configFile = path
		}
	}
	file, err := readConfigFile(a.configFile, known)
	if err != nil {
		return err
	}
	var problems []error
	a.chosen = cmd.Flags().Changed("controllers")
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || !slices.Contains(known, f.Name) || !own(cmd, f.Name) {
			return
		}
		value, source := file[f.Name], "key "+f.Name+" of "+a.configFile
		if v := a.variable(f.Name); v != "" {
			value, source = v, variable(f.Name)
		}
		if value == "" {
			return
		}
		a.chosen = a.chosen || f.Name == "controllers"
		if err := f.Value.Set(value); err != nil {
			problems = append(problems, valueProblem(source, value, f, err))
		}
	})
	return errors.Join(problems...)
}

// settable returns the names of the flags that the environment and the
// configuration file may set.
func settable(root *cobra.Command) []string {
	var names []string
	add := func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			names = append(names, f.Name)
		}
	}
	root.PersistentFlags().VisitAll(add)
	for _, c := range root.Commands() {
		if c.Annotations[annotationServer] == annotationReplica {
			c.LocalNonPersistentFlags().VisitAll(add)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// annotationReplica is the value of annotationServer for the commands whose
// own flags may be set by the environment and the configuration file.
const annotationReplica = "replica"

// own reports whether a settable flag counts for cmd: it is global, or cmd
// runs a replica.
func own(cmd *cobra.Command, name string) bool {
	return cmd.Root().PersistentFlags().Lookup(name) != nil || cmd.Annotations[annotationServer] == annotationReplica
}

// variable returns the value of the environment variable for a flag. One that is
// empty counts as not set, for all of them alike.
func (a *app) variable(flag string) string {
	v, _ := a.env.Lookup(variable(flag))
	return v
}

// variable is the name of the environment variable for a flag.
func variable(flag string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readConfigFile reads the file at path (empty: none) as values of flags. Keys
// are named like flags, with dashes or underscores. Lists become "a,b", and maps
// "k=v,k=v". A key that no flag is named after is an error: it may be a typo; so is one
// that is there twice, or a second document. One without a value counts as not set.
func readConfigFile(path string, known []string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	var keys map[string]yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&keys); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("--config %s: %w", path, err)
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("--config %s: something follows its first document", path)
	}
	values := make(map[string]string, len(keys))
	for key, node := range keys {
		name := strings.ReplaceAll(key, "_", "-")
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--config %s:%d: no setting %q: there are %s", path, node.Line, key, strings.Join(known, ", "))
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("--config %s:%d: %s is there twice", path, node.Line, name)
		}
		value, err := flatten(&node)
		if err != nil {
			return nil, fmt.Errorf("--config %s:%d: %s: %w", path, node.Line, key, err)
		}
		values[name] = value
	}
	return values, nil
}

// flatten writes a YAML value as it would stand on the command line.
func flatten(node *yaml.Node) (string, error) {
	if node.Kind == yaml.AliasNode {
		return flatten(node.Alias)
	}
	if node.Kind == yaml.ScalarNode {
		return node.Value, nil
	}
	var parts []string
	for _, n := range node.Content {
		if n.Kind != yaml.ScalarNode {
			return "", errors.New("neither a value, nor a list or map of values")
		}
		parts = append(parts, n.Value)
	}
	if node.Kind == yaml.SequenceNode {
		return strings.Join(parts, ","), nil
	}
	var pairs []string
	for pair := range slices.Chunk(parts, 2) {
		pairs = append(pairs, strings.Join(pair, "="))
	}
	return strings.Join(pairs, ","), nil
}
