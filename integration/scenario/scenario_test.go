package scenario

import (
	"context"
	"os"
	"testing"

	"github.com/shoalkv/shoal/integration/cluster"
)

// Every scenario holds at the reduced scale.
func TestScenarios(t *testing.T) {
	binary, err := cluster.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range All {
		t.Run(s.Name, func(t *testing.T) {
			e := &Env{Scale: Reduced(), Binary: binary, Dir: t.TempDir(), Seed: 1, Logf: t.Logf}
			ctx, cancel := context.WithTimeout(t.Context(), e.Scale.Limit)
			defer cancel()
			if err := s.Run(ctx, e); err != nil {
				t.Errorf("%s: %v", s.Claim, err)
				keepLogs(t, e.Dir)
			}
		})
	}
}

// keepLogs copies the logs of a failed run out of the test's directory.
func keepLogs(t *testing.T, dir string) {
	kept, err := os.MkdirTemp("", "shoal-logs-")
	if err != nil {
		t.Log(err)
		return
	}
	if err := os.CopyFS(kept, os.DirFS(dir+"/logs")); err != nil {
		t.Log(err)
	}
	t.Logf("logs of the replicas: %s", kept)
}

// The oracle of minimal movement agrees with cases done by hand.
func TestLeastMoves(t *testing.T) {
	tests := []struct {
		owners  []uint64
		members []uint64
		want    int
	}{
		{[]uint64{0, 0, 0, 0}, []uint64{1}, 4},
		{[]uint64{1, 1, 1, 1}, []uint64{1, 2}, 2},
		{[]uint64{1, 1, 2, 2}, []uint64{1, 2, 3}, 1},
		{[]uint64{1, 1, 1, 2, 2}, []uint64{1, 2}, 0},
		{[]uint64{1, 1, 2, 2, 3, 3}, []uint64{2, 3}, 2},
		{[]uint64{1, 1, 1, 1, 2, 3}, []uint64{1, 2, 3}, 2},
	}
	for _, test := range tests {
		members := map[uint64]bool{}
		for _, gid := range test.members {
			members[gid] = true
		}
		if got := leastMoves(test.owners, members); got != test.want {
			t.Errorf("owners %v, members %v: %d moves, want %d", test.owners, test.members, got, test.want)
		}
	}
}
