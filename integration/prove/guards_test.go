package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/shoalkv/shoal/integration/overlay"
)

// Claim: every containment can still be switched off, and is explained.
func TestTable(t *testing.T) {
	t.Chdir("../..")
	doc, err := os.ReadFile("docs/containments.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range guards {
		if _, err := overlay.Write(t.TempDir(), g.edits); err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
		if !regexp.MustCompile(`\n\|[^|]*\b` + g.name + `\b`).Match(doc) {
			t.Errorf("docs/containments.md does not list %s", g.name)
		}
	}
}
