package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// A peerList is a flag for the replicas of a group: ID=ADDR,... A label that is
// given twice is a mistake, and must not silently stand for its last address: a
// group of two would form where three were meant. The flag may be repeated.
type peerList struct {
	addresses *map[string]string // by label; who reads it owns the map
	// own: the map holds what was given, and no default any more.
	own bool
}

var _ pflag.Value = (*peerList)(nil)

// Set implements pflag.Value.
func (p *peerList) Set(text string) error {
	if !p.own {
		*p.addresses, p.own = map[string]string{}, true
	}
	for pair := range strings.SplitSeq(text, ",") {
		id, address, ok := strings.Cut(strings.TrimSpace(pair), "=")
		switch {
		case !ok || id == "":
			return fmt.Errorf("%q is not ID=ADDR", pair)
		case (*p.addresses)[id] != "":
			return fmt.Errorf("%q is given twice, as %s and %s", id, (*p.addresses)[id], address)
		}
		(*p.addresses)[id] = address
	}
	return nil
}

// String implements pflag.Value.
func (p *peerList) String() string {
	if p.addresses == nil {
		return ""
	}
	var pairs []string
	for _, id := range slices.Sorted(maps.Keys(*p.addresses)) {
		pairs = append(pairs, id+"="+(*p.addresses)[id])
	}
	return strings.Join(pairs, ",")
}

// Type implements pflag.Value: what the help calls it.
func (*peerList) Type() string { return "ID=ADDR,..." }
