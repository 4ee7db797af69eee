package sim

import "testing"

// A simulator counts only if it finds what it is there for: each planted bug is
// caught, within some hundred small seeds.
func TestPlantedBugsAreCaught(t *testing.T) {
	for _, name := range BugNames() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bug, err := ParseBug(name)
			if err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(plantedSeedsMax) {
				if f := Run(seed+1, Options{Bugs: bug}, nil).Failure; f != nil {
					t.Logf("caught by seed %d: %.200s", seed+1, f.Error())
					return
				}
			}
			t.Errorf("not caught in %d seeds", plantedSeedsMax)
		})
	}
}

// plantedSeedsMax is how many small runs may pass before a bug must be caught.
const plantedSeedsMax = 400
