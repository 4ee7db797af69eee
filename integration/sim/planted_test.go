package sim

import (
	"slices"
	"testing"
)

// A simulator counts only if it finds what it is there for: each planted bug is
// caught, within some thousand small seeds.
func TestPlantedBugsAreCaught(t *testing.T) {
	for _, name := range BugNames() {
		if slices.Contains(rare, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bug, err := ParseBug(name)
			if err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(plantedSeedsMax) {
				if f := Run(seed+1, Options{Bugs: bug, Size: Size{Operations: 150, Changes: 4}}, nil).Failure; f != nil {
					t.Logf("caught by seed %d: %.200s", seed+1, f.Error())
					return
				}
			}
			t.Errorf("not caught in %d seeds", plantedSeedsMax)
		})
	}
}

// rare are bugs that need more seeds than a test can run; soak -bug plants them.
var rare = []string{"Unfenced", "OldSnapshot"}

// plantedSeedsMax is how many small runs may pass before a bug must be caught.
const plantedSeedsMax = 2000
