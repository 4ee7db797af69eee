package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

const preamble = `# Planted bugs

Written by ` + "`make plant`" + `, which builds the product with one bug at a time and runs what should notice. ` + "`make plant ONLY=EXPR`" + ` repeats some and
replaces their rows. The bugs are in ` + "`integration/plant/bugs_*.go`" + `: each is a text of a source file and what it becomes, put in by the build's
overlay, so that neither the tree nor a release ever contains one. A catcher passes without the bug and is then run with it, the cheapest first; the
others would often notice too. The time includes the build.

The sources: *handoff protocol*, the 32 bugs that the protocol's model checker was tried on, as far as they apply, and the like of them; *repair*, shortcuts in
the repair of shards whose groups were destroyed, four of the 32 among them; *exactly once*, the recognition of retries; *classic*, what first implementations of sharded stores get wrong (the course projects of MIT 6.5840 and UW CSE 452);
*shipped by others*, bugs of other systems, named in the list; *read path* and *Raft and storage*, what hashicorp/raft and the disks invite to;
*controller*; *client*; *judge*, our own checkers; *command line*, what it says and what it writes to files; *found here*.

Not planted: Install without its comparison of epochs, which changes
nothing (a staging never outlives the epoch it was begun for); mistakes that the design excludes (configs adopted in order, handoffs that are side
effects of applying a config, locks held across calls, client-coordinated transactions). A missing fsync of a real disk shows only when power is lost:
the log store's and the store's are planted, where tests run on a disk that loses what was not synced.

| Source | Bug | File | Caught by | After (s) | Commit |
|---|---|---|---|---|---|
`

// writeTable writes a row for each bug, in the order of the lists.
func writeTable(file string, bugs []bug, rows map[string]result) error {
	var text strings.Builder
	text.WriteString(preamble)
	caught := 0
	for _, b := range bugs {
		r, ok := rows[b.name]
		if !ok {
			r.by = "**nothing**"
		} else {
			caught++
		}
		fmt.Fprintf(&text, "| %s | %s | `%s` | %s | %.1f | %s |\n", b.source, cell(b.name), b.edits[0].File, cell(r.by), r.seconds, r.commit)
	}
	fmt.Fprintf(&text, "\n%d of %d caught.\n", caught, len(bugs))
	return os.WriteFile(file, []byte(text.String()), 0o644)
}

// readTable reads the rows of caught bugs that writeTable wrote; no file is an
// empty table.
func readTable(file string) (map[string]result, error) {
	rows := map[string]result{}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return rows, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 6 {
			continue
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(cells[4]), 64)
		if err != nil || strings.HasPrefix(cells[3], "**") {
			continue
		}
		rows[cells[1]] = result{by: cells[3], commit: strings.TrimSpace(cells[5]), seconds: seconds}
	}
	return rows, nil
}

// cell makes a text fit for a table.
func cell(s string) string { return strings.NewReplacer("|", "/", "\n", " ").Replace(s) }
