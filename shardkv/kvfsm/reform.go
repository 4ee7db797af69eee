package kvfsm

import "github.com/shoalkv/shoal/raftgroup/store"

// Reform makes the state of a group that was destroyed the state that a new
// incarnation begins with. Tokens are not inherited: what the group served, was
// handing on or had frozen is frozen, for the group that was destroyed, as if that
// one had been the receiver. Once it is retired, the controllers treat such a copy
// like any other whose receiver was destroyed: they ask every group, and only if
// none has a newer token may it be thawed, in a generation of its own.
//
// Stagings go: they were never complete. Tombstones stay. It returns how many shards
// are frozen now. Nothing else may use the store.
func Reform(b store.Batch, destroyed Peer) (frozen int, err error) {
	records, err := ReadRecords(b)
	if err != nil {
		return 0, err
	}
	for i := range records {
		r := &records[i]
		if r.Staging != nil {
			if err := b.DeleteRange(copyID{r.Shard, r.Staging.Copy}.bounds()); err != nil {
				return 0, err
			}
			r.Staging = nil
		}
		if r.Phase.Serves() || r.Phase == PhaseFrozen {
			if r.Phase == PhaseServing {
				r.Start = r.Revision // there is no change log
			}
			r.Phase, r.To = PhaseFrozen, destroyed
			frozen++
		}
		if err := b.Set(recordKey(r.Shard), appendRecord(nil, r)); err != nil {
			return 0, err
		}
	}
	return frozen, nil
}
