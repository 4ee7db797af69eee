package kvfsm

import (
	"encoding/binary"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// adopt: the config is newer than the adopted one, and of our cluster. Numbers
// may be skipped.
//
// A shard that is leaving follows the owner at once, inside this command: were
// cancelling or re-targeting a command of its own, a late Start of the old
// handoff could reuse its number with an empty change log. Frozen shards are
// untouched: freezing is irrevocable, the receiver hands on.
func (m *Machine) adopt(c *Adopt) (Verdict, error) {
	switch {
	case c.Cluster.IsZero(), !m.cluster.IsZero() && c.Cluster != m.cluster:
		return refuse(ReasonCluster), nil
	case len(c.Config.Shards) != len(m.shards):
		return refuse(ReasonShardCount), nil
	case c.Config.Num == 0, m.adopted != nil && c.Config.Num <= m.adopted.Num:
		return refuse(ReasonOldConfig), nil
	}
	if m.cluster.IsZero() {
		if err := m.batch.Set(machineKey(machineCluster), c.Cluster[:]); err != nil {
			return Verdict{}, err
		}
	}
	num := binary.BigEndian.AppendUint64(nil, uint64(c.Config.Num))
	if err := m.batch.Set(machineKey(machineAdoptedNum), num); err != nil {
		return Verdict{}, err
	}
	if err := m.batch.Set(machineKey(machineAdopted), shardcfg.AppendConfig(nil, c.Config)); err != nil {
		return Verdict{}, err
	}
	m.cluster, m.adopted = c.Cluster, c.Config
	for _, sh := range m.shards {
		if sh == nil {
			continue
		}
		if err := m.follow(sh); err != nil {
			return Verdict{}, err
		}
	}
	return done, nil
}

// follow makes one shard follow the config that was just adopted.
func (m *Machine) follow(sh *shard) error {
	r := &sh.rec
	if r.Phase == PhaseLeaving {
		owner := m.owner(r.Shard)
		switch {
		case owner == m.self, owner.IsZero():
			// With no owner, or one that never came to life, whoever holds the shard
			// keeps serving it: a handoff towards a ghost would log changes for ever.
			if err := m.clearLog(sh); err != nil {
				return err
			}
			r.Phase, r.To, r.Handoff, r.Start = PhaseServing, Peer{}, m.adopted.Num, 0
			m.touch(sh)
		case owner.Incarnation != r.To.Incarnation:
			if err := m.clearLog(sh); err != nil {
				return err
			}
			r.To, r.Handoff, r.Start = owner, m.adopted.Num, r.Revision
			m.touch(sh)
		}
	}
	if r.Staging != nil && m.adopted.IsRetired(r.Staging.From.Incarnation) {
		return m.dropStaging(sh)
	}
	return nil
}
