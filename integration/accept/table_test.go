package main

import (
	"path/filepath"
	"reflect"
	"testing"

	"github.com/shoalkv/shoal/integration/scenario"
)

// A run of one scenario keeps the rows of the others: what is written is read
// again as it was.
func TestTableIsReadAsItWasWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "table.md")
	want := map[string]result{
		"S1": {name: "S1", claim: "grow: a tree", commit: "abc", rows: []scenario.Observation{{Quantity: "import", Observed: "3 keys [], x"}, {Quantity: "verdict", Observed: "holds"}}},
		"S2": {name: "S2", claim: "power", commit: "def+changes", rows: []scenario.Observation{{Quantity: "killed", Observed: "12"}}},
	}
	if err := writeTable(file, want); err != nil {
		t.Fatal(err)
	}
	got, err := readTable(file)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v, %v; want %+v", got, err, want)
	}
}
