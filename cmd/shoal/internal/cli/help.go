package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// helpColumns is the width that all help fits.
const helpColumns = 80

// explain writes the help of a command: what it does, and its usage.
func explain(c *cobra.Command, _ []string) {
	text := c.Long
	if text == "" {
		text = c.Short
	}
	_, _ = io.WriteString(c.OutOrStdout(), fit(text)+"\n\n"+usageText(c))
}

// usageText is what can be given to a command: arguments, commands below it, and
// flags.
func usageText(c *cobra.Command) string {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if c.Runnable() {
		b.WriteString(hang("  "+c.UseLine(), "      ") + "\n")
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n", c.CommandPath())
	}
	if len(c.Aliases) > 0 {
		fmt.Fprintf(&b, "\nOther names: %s\n", strings.Join(c.Aliases, ", "))
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	listCommands(&b, c)
	if c.HasAvailableLocalFlags() {
		fmt.Fprintf(&b, "\nFlags:\n%s", trimLines(c.LocalFlags().FlagUsagesWrapped(helpColumns)))
	}
	if c.HasAvailableInheritedFlags() {
		fmt.Fprintf(&b, "\nFlags of all commands:\n%s", trimLines(c.InheritedFlags().FlagUsagesWrapped(helpColumns)))
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n\"%s COMMAND --help\" explains one command.\n", c.CommandPath())
	}
	return b.String()
}

// listCommands writes the commands below c, by their groups.
func listCommands(b *strings.Builder, c *cobra.Command) {
	titles := map[string]string{}
	var order []string
	for _, g := range c.Groups() {
		titles[g.ID] = g.Title
		order = append(order, g.ID)
	}
	titles[""] = "Commands:"
	if len(order) > 0 {
		titles[""] = "Besides:"
	}
	for _, id := range append(order, "") {
		var lines []string
		for _, child := range c.Commands() {
			if child.GroupID == id && (child.IsAvailableCommand() || child.Name() == "help") {
				name := fmt.Sprintf("  %-*s ", child.NamePadding(), child.Name())
				lines = append(lines, hang(name+child.Short, strings.Repeat(" ", len(name))))
			}
		}
		if len(lines) > 0 {
			fmt.Fprintf(b, "\n%s\n%s\n", titles[id], strings.Join(lines, "\n"))
		}
	}
}

// fit breaks the paragraphs anew that have a line that is too long.
func fit(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		lines := strings.Split(p, "\n")
		if !slices.ContainsFunc(lines, func(line string) bool { return utf8.RuneCountInString(line) > helpColumns }) {
			continue
		}
		var items []string // a paragraph, or the entries of a list
		for _, line := range lines {
			if text := strings.TrimLeft(line, " "); len(items) > 0 && len(line)-len(text) != len(lines[0])-len(strings.TrimLeft(lines[0], " ")) ||
				len(items) > 0 && !strings.HasPrefix(line, " ") {
				items[len(items)-1] += " " + text
			} else {
				items = append(items, line)
			}
		}
		for j, item := range items {
			items[j] = hang(item, strings.Repeat(" ", indentOf(item)))
		}
		paragraphs[i] = strings.Join(items, "\n")
	}
	return strings.Join(paragraphs, "\n\n")
}

// hang breaks one line into lines that fit; all but the first begin with indent.
func hang(line, indent string) string {
	var lines []string
	for utf8.RuneCountInString(line) > helpColumns {
		end := 0
		for i := range line {
			if line[i] == ' ' && i > len(indent) && utf8.RuneCountInString(line[:i]) <= helpColumns {
				end = i
			}
		}
		if end == 0 {
			break // a word that is too long
		}
		lines = append(lines, strings.TrimRight(line[:end], " "))
		line = indent + strings.TrimLeft(line[end:], " ")
	}
	return strings.Join(append(lines, line), "\n")
}

// indentOf is where the text of a line of a list begins: behind its name and at
// least two spaces, else behind its indent.
func indentOf(line string) int {
	text := strings.TrimLeft(line, " ")
	start := len(line) - len(text)
	if start == 0 {
		return 0
	}
	if i := strings.Index(text, "  "); i > 0 {
		return start + i + len(text[i:]) - len(strings.TrimLeft(text[i:], " "))
	}
	return start
}

// trimLines removes spaces at the ends of lines.
func trimLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}
