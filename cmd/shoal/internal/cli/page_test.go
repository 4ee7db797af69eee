package cli

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const commandPage = "../../../../docs/cli.md"

const pageHead = `# The command line

One binary, ` + "`shoal`" + `. Results go to stdout, messages and logs to stderr. Flags may stand anywhere; ` + "`--`" + ` ends them. The flags of all commands can also be given in
the environment (` + "`SHOAL_CONTROLLERS`" + `, ...) or as keys of a YAML file (` + "`--config`" + `).

Exit codes: 0 done; 1 failed; 2 usage (64 for ` + "`shoal controller` and `shoal server`" + `); 3 unavailable or timed out: for a write the message contains ` + "`not done` or `outcome unknown`" + `,
and it is true; 4 not found, or a condition (version, absence) did not hold; 5 refused (would lose data or quorum, wrong cluster or identity, not permitted).

This page is written by ` + "`go test ./cmd/shoal/internal/cli -run TestCommandPage -rewrite`" + `, from what ` + "`--help`" + ` says; only the JSON is written by hand. A bound that the text does not
name is in ` + "`--help`" + `.
`

// The page lists every command with its flags, as --help does, and with its JSON,
// which has the fields of the contract.
func TestCommandPage(t *testing.T) {
	text, err := os.ReadFile(commandPage)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	shapes := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^### `(shoal [^`]+)`$|^JSON: (.*)$").FindAllStringSubmatch(string(text), -1) {
		if m[1] != "" {
			shapes[""] = m[1]
		} else {
			shapes[shapes[""]] = m[2]
		}
	}
	root := (&app{}).root()
	var b strings.Builder
	b.WriteString(pageHead)
	fmt.Fprintf(&b, "\n## Flags of all commands\n\n%s", pageFlags(root.PersistentFlags()))
	for _, group := range root.Groups() {
		fmt.Fprintf(&b, "\n## %s\n", strings.TrimSuffix(group.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == group.ID {
				pageCommand(t, &b, c, shapes)
			}
		}
	}
	if b.String() == string(text) {
		return
	}
	if f := flag.Lookup("rewrite"); f == nil || f.Value.String() != "true" {
		t.Errorf("docs/cli.md is not what --help says: go test ./cmd/shoal/internal/cli -run TestCommandPage -rewrite")
	} else if err := os.WriteFile(commandPage, []byte(b.String()), 0o644); err != nil {
		t.Error(err)
	}
}

// pageCommand writes a command and those below it.
func pageCommand(t *testing.T, b *strings.Builder, c *cobra.Command, shapes map[string]string) {
	use := strings.TrimSuffix(c.UseLine(), " [flags]")
	shape := shapes[use]
	if shape == "" {
		t.Errorf("docs/cli.md does not say what the JSON of %q is", use)
	}
	fmt.Fprintf(b, "\n### `%s`\n\n%s.", use, c.Short)
	if len(c.Aliases) > 0 {
		fmt.Fprintf(b, " Other names: `%s`.", strings.Join(c.Aliases, "`, `"))
	}
	b.WriteString("\n\n")
	if c.HasAvailableLocalFlags() {
		if flags := pageFlags(c.LocalNonPersistentFlags()); flags != "" {
			b.WriteString(flags + "\n")
		}
	}
	fmt.Fprintf(b, "JSON: %s\n", shape)
	for _, child := range c.Commands() {
		if child.Name() != "help" {
			pageCommand(t, b, child, shapes)
		}
	}
}

// pageFlags is a table of flags; empty: there are none.
func pageFlags(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if b.Len() == 0 {
			b.WriteString("| Flag | Says | Default |\n|---|---|---|\n")
		}
		name, usage := pflag.UnquoteUsage(f)
		short := ""
		if f.Shorthand != "" {
			short = "-" + f.Shorthand + ", "
		}
		value := strings.Trim(f.DefValue, "[]")
		switch value {
		case "", "0", "false", "0s":
			value = "" // the usage says what none means
		default:
			value = "`" + value + "`"
		}
		cell := strings.NewReplacer("|", "\\|").Replace
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", cell(strings.TrimSpace(short+"--"+f.Name+" "+name)), cell(usage), value)
	})
	return b.String()
}

// The JSON on the page has every field of the contract.
func TestPageHasTheContract(t *testing.T) {
	page, err := os.ReadFile(commandPage)
	if err != nil {
		t.Fatal(err)
	}
	for command, fields := range contractNames {
		m := regexp.MustCompile("(?m)^### `shoal " + command + `(?: [^` + "`" + `]*)?` + "`$").FindIndex(page)
		if m == nil {
			t.Errorf("no section of %s", command)
			continue
		}
		section, _, _ := strings.Cut(string(page[m[1]:]), "\n### ")
		for name := range strings.FieldsSeq(fields) {
			if !strings.Contains(section, `"`+name+`"`) {
				t.Errorf("%s: the page does not name the field %q", command, name)
			}
		}
	}
}

// contractNames are the names of fields that scripts rely on; TestContractFields
// checks that the commands print them.
var contractNames = map[string]string{
	"get": "key value value_base64 version", "put": "key version", "append": "key version length", "delete": "key deleted",
	"scan": "key value version", "import": "keys bytes seconds skipped", "export": "keys bytes seconds",
	"locate": "slot shard epoch group leader", "config": "num shards groups replicas weight state pins",
	"status": "config controllers id address leader healthy groups gid replicas role applied_index shards keys bytes total settled moving " +
		"handoffs shard from to phase copied_bytes total_bytes pause_ms availability",
	"shards": "shard owner holder epoch generation phase keys bytes digest", "health": "state reasons",
	"bench": "reads writes all ops seconds ops_per_second errors p50_us p99_us p999_us max_us", "bench clean": "deleted",
	"check": "ops unknown_outcomes linearizable duplicates lost", "version": "version commit go",
}

// Commands that the documents give are commands, and their flags are flags of
// theirs.
func TestDocumentedCommands(t *testing.T) {
	blocks := regexp.MustCompile("(?m)^(?:bin/)?shoal ([^\n]+)$|`shoal ([^`\n]+)`")
	flagNames := regexp.MustCompile(`(?:^|[ \[(])--([a-z][a-z-]*)`)
	pages, err := filepath.Glob("../../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range append(pages, "../../../../README.md", "../../../../CHANGELOG.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range blocks.FindAllStringSubmatch(string(text), -1) {
			line := cmp.Or(m[1], m[2])
			root := (&app{}).root()
			root.InitDefaultCompletionCmd("x")
			c, _, err := root.Find(commandFirst(root, strings.Fields(line)))
			if err != nil {
				t.Errorf("%s: shoal %s: %v", filepath.Base(path), line, err)
				continue
			}
			found++
			c.InitDefaultHelpFlag()
			for _, f := range flagNames.FindAllStringSubmatch(line, -1) {
				if c.Flags().Lookup(f[1]) == nil && c.InheritedFlags().Lookup(f[1]) == nil && root.Flags().Lookup(f[1]) == nil {
					t.Errorf("%s: shoal %s: there is no --%s", filepath.Base(path), line, f[1])
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d commands are found", found)
	}
}
