package placement

import (
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Changes collect whose placements applied commands changed. Writes change none,
// and cost one comparison each.
type Changes struct {
	// Shards are those whose records changed, in the order of the commands; a shard
	// may stand there twice.
	Shards []shardcfg.ShardID
	// Adopted: a config was adopted, which may change any record: a handoff that is
	// called off.
	Adopted bool
}

// Note takes in a command and the result of applying it. A refused command
// changes nothing, except that a staging starts again whose digest is wrong.
func (c *Changes) Note(cmd entry.Command, result any) {
	switch cmd.Kind {
	case kvfsm.KindWrite, kvfsm.KindPrune, kvfsm.KindRaiseFloor, entry.KindNoop, entry.KindRaiseFeature, entry.KindHandover:
		return
	}
	if v, ok := result.(kvfsm.Verdict); ok && !v.Done && v.Why != kvfsm.ReasonDigest {
		return
	}
	if cmd.Kind == kvfsm.KindAdopt {
		c.Adopted = true
		return
	}
	// The machine has just applied it, so it can be decoded.
	if command, err := kvfsm.Decode(cmd); err == nil {
		if s, ok := kvfsm.HandoffShard(command); ok {
			c.Shards = append(c.Shards, s)
		}
	}
}

// Any reports whether anything was noted.
func (c *Changes) Any() bool { return c.Adopted || len(c.Shards) > 0 }

// Clear forgets what was noted.
func (c *Changes) Clear() { c.Shards, c.Adopted = c.Shards[:0], false }
