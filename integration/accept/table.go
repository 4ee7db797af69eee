package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/shoalkv/shoal/integration/scenario"
)

// result is one scenario's part of the table.
type result struct {
	name, claim, commit string
	rows                []scenario.Observation
}

const preamble = `# Acceptance

Written by ` + "`make accept`" + `, which runs every scenario in full: three controllers and three groups of three replicas, one process each,
on a real disk. ` + "`make accept SCENARIO=S3`" + ` runs one and replaces its rows. ` + "`go test ./integration/scenario`" + ` runs all of them reduced.

| Scenario | Command | Quantity | Observed | Commit |
|---|---|---|---|---|
`

// writeTable writes the results in the order of the scenarios' names.
func writeTable(file string, results map[string]result) error {
	var names []string
	for name := range results {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(preamble)
	for _, name := range names {
		r := results[name]
		fmt.Fprintf(&b, "| **%s** | `make accept SCENARIO=%s` | *%s* | | %s |\n", r.name, r.name, cell(r.claim), r.commit)
		for _, row := range r.rows {
			fmt.Fprintf(&b, "| %s | | %s | %s | %s |\n", r.name, cell(row.Quantity), cell(row.Observed), r.commit)
		}
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// readTable reads what writeTable wrote; no file is an empty table.
func readTable(file string) (map[string]result, error) {
	results := map[string]result{}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return results, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|") // empty, five cells, empty
		if len(cells) != 7 {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		name, commit := strings.Trim(cells[1], "*"), cells[5]
		if name == "Scenario" || strings.HasPrefix(name, "-") {
			continue
		}
		r := results[name]
		r.name, r.commit = name, commit
		if strings.HasPrefix(cells[1], "**") {
			r.claim = strings.Trim(cells[3], "*")
		} else {
			r.rows = append(r.rows, scenario.Observation{Quantity: cells[3], Observed: cells[4]})
		}
		results[name] = r
	}
	return results, nil
}

// cell makes a text fit for a table.
func cell(s string) string { return strings.NewReplacer("|", "/", "\n", " ").Replace(s) }
