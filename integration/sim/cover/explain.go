package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// A place is a block that no seed reached.
type place struct {
	block
	function string // with its receiver: (*Machine).adopt
	text     string
}

func (p *place) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", p.file, p.from, p.function, p.text)
}

// A report is what was reached, by package, and the rest, by reason.
type report struct {
	reached, all map[string]int // statements
	places       map[*reason][]place
	unexplained  []string
}

// explain finds the reason of every block that was not reached.
func explain(blocks []block) (*report, error) {
	r := &report{reached: map[string]int{}, all: map[string]int{}, places: map[*reason][]place{}}
	sources := map[string][]string{}
	slices.SortFunc(blocks, func(a, b block) int { return cmp.Or(strings.Compare(a.file, b.file), cmp.Compare(a.from, b.from)) })
	for _, b := range blocks {
		pkg := path.Dir(b.file)
		r.all[pkg] += b.statements
		if b.reached {
			r.reached[pkg] += b.statements
			continue
		}
		lines, ok := sources[b.file]
		if !ok {
			var err error
			if lines, err = readLines(b.file); err != nil {
				return nil, err
			}
			sources[b.file] = lines
		}
		p := place{block: b, function: functionAt(lines, b.from)}
		for _, l := range lines[b.from-1 : b.to] {
			p.text = strings.TrimSpace(p.text + " " + strings.TrimSpace(l))
		}
		if why := reasonOf(&p); why != nil {
			r.places[why] = append(r.places[why], p)
		} else {
			r.unexplained = append(r.unexplained, p.String())
		}
	}
	return r, nil
}

func readLines(file string) (lines []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines, s.Err()
}

// functionAt is the name of the function that has a line, with its receiver's type.
func functionAt(lines []string, line int) string {
	for i := line - 1; i >= 0; i-- {
		head, ok := strings.CutPrefix(lines[i], "func ")
		if !ok {
			continue
		}
		receiver := ""
		if r, rest, method := strings.Cut(head, ") "); method && strings.HasPrefix(head, "(") {
			if _, kind, named := strings.Cut(r, " "); named {
				receiver = "(" + kind + ")."
			}
			head = rest
		}
		return receiver + head[:strings.IndexAny(head, "[(")]
	}
	return ""
}

// text is the report in Markdown.
func (r *report) text(seeds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Statements that %d seeds reach (`make simcover SEEDS=%d`):\n\n| Package | Statements | Reached |\n|---|---:|---:|\n", seeds, seeds)
	var reached, all, idle int
	row := func(name string, is, of int) {
		fmt.Fprintf(&b, "| %s | %d | %.1f %% |\n", name, of, 100*float64(is)/float64(of))
	}
	for _, pkg := range machines {
		row("`"+pkg+"`", r.reached[pkg], r.all[pkg])
		reached += r.reached[pkg]
		all += r.all[pkg]
	}
	row("all", reached, all)
	for i := range reasons {
		if reasons[i].never {
			idle += statements(r.places[&reasons[i]])
		}
	}
	row("all, without what is there for no run", reached, all-idle)
	b.WriteString("\nThe others, and why no seed reaches them:\n\n| Why | Statements | Where | Tested by |\n|---|---:|---|---|\n")
	for i := range reasons {
		if why := &reasons[i]; len(r.places[why]) > 0 {
			fmt.Fprintf(&b, "| %s | %d | %s | %s |\n", why.text, statements(r.places[why]), where(r.places[why]), why.tested)
		}
	}
	return b.String()
}

func statements(list []place) (n int) {
	for i := range list {
		n += list[i].statements
	}
	return n
}

// where names the functions, by package.
func where(list []place) string {
	functions := map[string][]string{}
	for i := range list {
		pkg := path.Base(path.Dir(list[i].file))
		name := strings.NewReplacer("(*", "", "(", "", ")", "").Replace(list[i].function)
		if !slices.Contains(functions[pkg], name) {
			functions[pkg] = append(functions[pkg], name)
		}
	}
	var out []string
	for _, pkg := range slices.Sorted(maps.Keys(functions)) {
		out = append(out, "**"+pkg+"** "+strings.Join(functions[pkg], ", "))
	}
	return strings.Join(out, "; ")
}

// list prints every place with its reason.
func (r *report) list(w io.Writer) {
	for i := range reasons {
		for _, p := range r.places[&reasons[i]] {
			fmt.Fprintf(w, "%v\n\t%s\n", &p, reasons[i].text)
		}
	}
}
