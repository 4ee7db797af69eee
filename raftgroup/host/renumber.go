package host

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
)

// A Renumbered is one member whose group is renumbered.
type Renumbered struct {
	formation.Member        // as the group's configuration has it
	To               string // where it is from now on
}

// Renumber tells the stopped replica of a data directory where the members of its
// group are from now on: addresses by labels, or by server ids where two members
// have one label. Members that are not named stay where they are. It must be said
// to every replica of the group, with the same addresses; then its leader puts
// them into the configuration. Nothing else is changed, and to say it again, or
// something else, is no harm.
//
// Errors include *LockedError, *formation.DamagedError and *formation.UsageError,
// and then nothing was changed.
func Renumber(dir string, addresses map[string]string) (members []Renumbered, err error) {
	lock, err := lockExisting(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	known, err := readMembers(dir)
	if err != nil {
		return nil, err
	}
	if members, err = renumber(known, addresses); err != nil {
		return nil, err
	}
	moves := map[string]formation.AddressMove{}
	for _, m := range members {
		if m.To != m.Address {
			moves[m.ServerID] = formation.AddressMove{From: m.Address, To: m.To}
		}
	}
	return members, formation.Renumber(dir, moves)
}

// renumber gives the members their addresses.
func renumber(known []formation.Member, addresses map[string]string) ([]Renumbered, error) {
	usage := func(format string, args ...any) ([]Renumbered, error) {
		return nil, &formation.UsageError{Problem: fmt.Sprintf(format, args...)}
	}
	members := make([]Renumbered, len(known))
	for i, m := range known {
		members[i] = Renumbered{Member: m, To: m.Address}
	}
	for _, who := range slices.Sorted(maps.Keys(addresses)) {
		to := addresses[who]
		if err := formation.CheckAddress(to); err != nil {
			return usage("%s: %v", who, err)
		}
		var found []int
		for i, m := range members {
			switch {
			case m.ServerID == who || formation.LabelOf(m.ServerID) == who:
				found = append(found, i)
			case m.Address == to:
				// Raft changes one address at a time, and never has two members at one.
				return usage("%s was the address of %s until now, and can't become that of %s at once", to, m.ServerID, who)
			}
		}
		switch len(found) {
		case 0:
			var ids []string
			for _, m := range known {
				ids = append(ids, m.ServerID+" at "+m.Address)
			}
			return usage("the group has no member %q; it has %s", who, strings.Join(ids, ", "))
		case 1:
			members[found[0]].To = to
		default:
			return usage("several members are called %q: name %s and %s apart, by these server ids", who, members[found[0]].ServerID, members[found[1]].ServerID)
		}
	}
	for i, m := range members {
		for _, other := range members[:i] {
			if other.To == m.To {
				return usage("%s and %s would both be at %s", other.ServerID, m.ServerID, m.To)
			}
		}
	}
	return members, nil
}

// readMembers reads the newest configuration that the replica of a directory
// knows.
func readMembers(dir string) (list []formation.Member, err error) {
	id, err := formation.ReadIdentity(dir)
	if err != nil {
		return nil, err
	}
	log, err := logstore.Open(id.LogStore, dir, logstore.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	const cacheBytes, memTableBytes = 1 << 20, 1 << 20
	store, err := pebblestore.Open(pebblestore.Options{Dir: filepath.Join(dir, formation.StateDir), CacheBytes: cacheBytes, MemTableBytes: memTableBytes})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return raftgroup.ReadMembers(raftgroup.Options{Identity: id, Store: store, Log: log})
}
