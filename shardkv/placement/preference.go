package placement

import (
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// preferencesMax bounds the groups of which it is remembered whom to ask first.
const preferencesMax = 4096

// A Preference remembers which replica of each group to ask first. The zero value
// knows of none. It is not safe for concurrent use.
type Preference struct {
	first map[shardcfg.Incarnation]string
}

// Order returns a group's addresses, the preferred one first, which need not be
// among them. The result is the caller's to read: it may be addresses itself.
func (p *Preference) Order(group shardcfg.Incarnation, addresses []string) []string {
	first := p.first[group]
	if first == "" {
		return addresses
	}
	order := append(make([]string, 0, len(addresses)+1), first)
	for _, a := range addresses {
		if a != first {
			order = append(order, a)
		}
	}
	return order
}

// Prefer makes address the first to be asked.
func (p *Preference) Prefer(group shardcfg.Incarnation, address string) {
	if p.first == nil || len(p.first) >= preferencesMax {
		p.first = map[shardcfg.Incarnation]string{}
	}
	p.first[group] = address
}

// Forget prefers none of the group's replicas: none answered.
func (p *Preference) Forget(group shardcfg.Incarnation) { delete(p.first, group) }

// Follow goes on from a replica that was of no help: to the leader that it named
// or, if it named none, to the address after it. It counts from asked and not from
// who is preferred by now: calls that run side by side, each a step further, could
// pass over the leader together, again and again.
func (p *Preference) Follow(group shardcfg.Incarnation, addresses []string, asked, leader string) {
	switch {
	case leader != "":
		p.Prefer(group, leader)
	case len(addresses) > 0:
		p.Prefer(group, addresses[(slices.Index(addresses, asked)+1)%len(addresses)])
	}
}
