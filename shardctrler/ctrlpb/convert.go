// Package ctrlpb is the controllers' gRPC service, generated from ctrl.proto,
// and the conversions between its messages and package shardcfg.
//
// Row 3 of the layers: besides the generated code it imports shardcfg. It
// starts no goroutine; the conversions share no memory with their results.
package ctrlpb

import (
	"fmt"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// FromConfig returns the message that carries c.
func FromConfig(c *shardcfg.Config) *Config {
	m := &Config{Num: uint64(c.Num), ShardCount: uint32(len(c.Shards))}
	for first := 0; first < len(c.Shards); {
		end := first + 1
		for end < len(c.Shards) && c.Shards[end] == c.Shards[first] {
			end++
		}
		m.Shards = append(m.Shards, &Run{Length: uint32(end - first), Gid: uint64(c.Shards[first])})
		first = end
	}
	for _, gid := range c.GroupIDs() {
		m.Groups = append(m.Groups, fromGroup(gid, c.Groups[gid]))
	}
	for _, s := range c.PinnedShards() {
		m.Pins = append(m.Pins, pinMessage(s, c.Pins[s]))
	}
	m.Retired = fromIncarnations(c.Retired)
	return m
}

// ToConfig reads a config from its message and checks it: shard and group
// numbers, list orders and sizes. Errors wrap shardcfg.ErrCorrupt.
func ToConfig(m *Config) (*shardcfg.Config, error) {
	if n := int(m.GetShardCount()); n != 0 && shardcfg.CheckShardCount(n) != nil {
		return nil, corrupt("shard count %d", n)
	}
	c := &shardcfg.Config{
		Num:    shardcfg.ConfigNum(m.GetNum()),
		Shards: make([]shardcfg.GroupID, 0, m.GetShardCount()),
		Groups: make(map[shardcfg.GroupID]shardcfg.Group, len(m.GetGroups())),
		Pins:   make(map[shardcfg.ShardID]shardcfg.Pin, len(m.GetPins())),
	}
	for _, run := range m.GetShards() {
		if int(run.GetLength()) > cap(c.Shards)-len(c.Shards) {
			return nil, corrupt("owners of more than %d shards", cap(c.Shards))
		}
		for range run.GetLength() {
			c.Shards = append(c.Shards, shardcfg.GroupID(run.GetGid()))
		}
	}
	if len(c.Shards) != int(m.GetShardCount()) {
		return nil, corrupt("owners of %d shards of %d", len(c.Shards), m.GetShardCount())
	}
	for _, gm := range m.GetGroups() {
		g, err := toGroup(gm)
		if err != nil {
			return nil, err
		}
		c.Groups[shardcfg.GroupID(gm.GetGid())] = g
	}
	for _, p := range m.GetPins() {
		if p.GetShard() >= m.GetShardCount() {
			return nil, corrupt("pin of shard %d of %d", p.GetShard(), m.GetShardCount())
		}
		c.Pins[shardcfg.ShardID(p.GetShard())] = p.pin()
	}
	var err error
	c.Retired, err = toIncarnations(m.GetRetired())
	return c, err
}

// FromDelta returns the message that carries d.
func FromDelta(d *shardcfg.Delta) *Delta {
	m := &Delta{From: uint64(d.From), Num: uint64(d.Num)}
	for _, run := range d.Shards {
		m.Shards = append(m.Shards, &ShardRun{First: uint32(run.First), Length: uint32(run.Length), Gid: uint64(run.Owner)})
	}
	for _, g := range d.Groups {
		m.Groups = append(m.Groups, fromGroup(g.ID, g.Group))
	}
	for _, gid := range d.Gone {
		m.Groups = append(m.Groups, &Group{Gid: uint64(gid), State: GroupState_GONE})
	}
	for _, p := range d.Pins {
		m.Pins = append(m.Pins, pinMessage(p.Shard, p.Pin))
	}
	m.Retired = fromIncarnations(d.Retired)
	return m
}

// ToDelta reads a delta between configs of shardCount shards. Errors wrap
// shardcfg.ErrCorrupt.
func ToDelta(m *Delta, shardCount int) (*shardcfg.Delta, error) {
	d := &shardcfg.Delta{
		From: shardcfg.ConfigNum(m.GetFrom()), Num: shardcfg.ConfigNum(m.GetNum()), ShardCount: shardCount,
	}
	for _, run := range m.GetShards() {
		if uint64(run.GetFirst())+uint64(run.GetLength()) > uint64(shardCount) {
			return nil, corrupt("delta names shard %d of %d", uint64(run.GetFirst())+uint64(run.GetLength())-1, shardCount)
		}
		d.Shards = append(d.Shards, shardcfg.ShardRun{
			First: shardcfg.ShardID(run.GetFirst()), Length: int(run.GetLength()), Owner: shardcfg.GroupID(run.GetGid()),
		})
	}
	for _, gm := range m.GetGroups() {
		if gm.GetState() == GroupState_GONE {
			d.Gone = append(d.Gone, shardcfg.GroupID(gm.GetGid()))
			continue
		}
		g, err := toGroup(gm)
		if err != nil {
			return nil, err
		}
		d.Groups = append(d.Groups, shardcfg.GroupChange{ID: shardcfg.GroupID(gm.GetGid()), Group: g})
	}
	for _, p := range m.GetPins() {
		if p.GetShard() >= uint32(shardCount) {
			return nil, corrupt("delta pins shard %d of %d", p.GetShard(), shardCount)
		}
		d.Pins = append(d.Pins, shardcfg.PinChange{Shard: shardcfg.ShardID(p.GetShard()), Pin: p.pin()})
	}
	var err error
	d.Retired, err = toIncarnations(m.GetRetired())
	return d, err
}

func fromGroup(gid shardcfg.GroupID, g shardcfg.Group) *Group {
	m := &Group{Gid: uint64(gid), Replicas: slices.Clone(g.Replicas), Weight: g.Weight, State: GroupState(g.State)}
	if !g.Incarnation.IsZero() {
		m.Incarnation = slices.Clone(g.Incarnation[:])
	}
	return m
}

func toGroup(m *Group) (shardcfg.Group, error) {
	inc, ok := shardcfg.To128[shardcfg.Incarnation](m.GetIncarnation())
	switch {
	case !ok:
		return shardcfg.Group{}, corrupt("incarnation of %d bytes", len(m.GetIncarnation()))
	case m.GetGid() == 0:
		return shardcfg.Group{}, corrupt("group 0")
	case m.GetState() != GroupState_MEMBER && m.GetState() != GroupState_LEAVING:
		return shardcfg.Group{}, corrupt("state %d of group %d", m.GetState(), m.GetGid())
	case len(m.GetReplicas()) > shardcfg.ReplicasMax:
		return shardcfg.Group{}, corrupt("%d replicas of group %d", len(m.GetReplicas()), m.GetGid())
	}
	return shardcfg.Group{
		Incarnation: inc,
		Replicas:    slices.Clone(m.GetReplicas()),
		Weight:      m.GetWeight(),
		State:       shardcfg.GroupState(m.GetState()),
	}, nil
}

func fromIncarnations(incs []shardcfg.Incarnation) [][]byte {
	var out [][]byte
	for _, inc := range incs {
		out = append(out, slices.Clone(inc[:]))
	}
	return out
}

func toIncarnations(raw [][]byte) ([]shardcfg.Incarnation, error) {
	var out []shardcfg.Incarnation
	for _, b := range raw {
		inc, ok := shardcfg.To128[shardcfg.Incarnation](b)
		if !ok || inc.IsZero() {
			return nil, corrupt("retired incarnation of %d bytes", len(b))
		}
		out = append(out, inc)
	}
	slices.SortFunc(out, shardcfg.Incarnation.Compare)
	return slices.Compact(out), nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", shardcfg.ErrCorrupt, fmt.Sprintf(format, args...))
}

func pinMessage(s shardcfg.ShardID, p shardcfg.Pin) *Pin {
	return &Pin{Shard: uint32(s), Gid: uint64(p.Group), MaxPauseMs: p.MaxPauseMS}
}

func (x *Pin) pin() shardcfg.Pin {
	return shardcfg.Pin{Group: shardcfg.GroupID(x.GetGid()), MaxPauseMS: x.GetMaxPauseMs()}
}
