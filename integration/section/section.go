// Package section replaces the generated part of a document: what stands between
// two marks, so that the words around it stay the writer's.
//
// Row 5 of the layers.
package section

import (
	"fmt"
	"os"
	"strings"
)

// Write puts text between the marks of a section of a Markdown file:
//
//	<!-- name: command that writes this -->
//	<!-- end of name -->
//
// It fails if the file does not have both, in this order.
func Write(file, name, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	out, err := replace(string(b), name, text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(out), 0o644)
}

func replace(doc, name, text string) (string, error) {
	open, end := "<!-- "+name+":", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(doc, open)
	head, rest, closed := strings.Cut(rest, "-->\n")
	_, after, ended := strings.Cut(rest, end)
	if !ok || !closed || !ended {
		return "", fmt.Errorf("there is no section %q", name)
	}
	return before + open + head + "-->\n\n" + strings.TrimSpace(text) + "\n\n" + end + after, nil
}
