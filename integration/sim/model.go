package sim

import (
	"time"

	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// A recorder keeps the clients' history, in virtual order.
type recorder struct {
	ticks int64
	list  history.History
}

// tick is the next moment of the history: no two are equal.
func (r *recorder) tick() int64 {
	r.ticks++
	return r.ticks
}

func (r *recorder) add(op history.Operation) { r.list = append(r.list, op) }

// model is what one map with an exact memory of all writes would hold. It
// follows the groups' logs, so that it finds a write that was executed twice, or
// on the wrong value, in the moment in which it happens.
type model struct {
	values   map[string]string
	executed map[identity]kvfsm.Outcome
	revision map[shardcfg.ShardID]shardcfg.Revision
	floor    map[shardcfg.ShardID]uint64
}

// identity is a write's.
type identity struct {
	key      session.Key
	sequence uint64
}

func newModel() model {
	return model{values: map[string]string{}, executed: map[identity]kvfsm.Outcome{},
		revision: map[shardcfg.ShardID]shardcfg.Revision{}, floor: map[shardcfg.ShardID]uint64{}}
}

// wrote checks the outcome of a write that a group applied (INV-2).
func (m *model) wrote(w *World, l *life, c *kvfsm.Write, out kvfsm.Outcome, clock uint64) {
	id := identity{c.Stamp.Key, c.Stamp.Sequence}
	s := shardcfg.ShardOf(c.Key, w.p.Shards)
	before, executed := m.executed[id]
	executed = executed && id.sequence != 0
	switch {
	case out.Repeat:
		before.Repeat = true
		if !executed || before != out {
			w.fail("INV-2", "%s answers the repeat of %q by %+v, executed %v: %+v", l.g.name, c.Value, out, executed, before)
		}
		return
	case out.Code == kvfsm.CodeSessionExpired:
		if c.Stamp.Key.Birth >= m.floor[s] {
			w.fail("session", "%s calls a session of %d expired at floor %d", l.g.name, c.Stamp.Key.Birth, m.floor[s])
		}
		return
	case !out.Code.Done():
		return
	case executed:
		w.fail("INV-2", "%s executes %q again: %+v, before: %+v", l.g.name, c.Value, out, before)
	case id.sequence != 0 && c.Stamp.Key.Birth < m.floor[s]:
		w.fail("session", "%s executes %q of a session that expired", l.g.name, c.Value)
	}
	m.executed[id] = out
	m.execute(w, l, c, out, s)
}

func (m *model) execute(w *World, l *life, c *kvfsm.Write, out kvfsm.Outcome, s shardcfg.ShardID) {
	key := string(c.Key)
	old, exists := m.values[key]
	switch {
	case out.Code == kvfsm.CodeVersionMismatch:
		return
	case out.Code == kvfsm.CodeNotFound:
		if exists {
			w.fail("INV-2", "%s finds no %q to delete; there is %q", l.g.name, key, old)
		}
		return
	case c.Op == kvfsm.OpDelete:
		if !exists {
			w.fail("INV-2", "%s deletes %q, which is not there", l.g.name, key)
		}
		delete(m.values, key)
		return
	case c.Op == kvfsm.OpAppend:
		m.values[key] = old + string(c.Value)
		if out.Length != uint64(len(m.values[key])) {
			w.fail("INV-2", "%s: append of %q to %q gives length %d, want %d", l.g.name, c.Value, key, out.Length, len(m.values[key]))
		}
	default:
		m.values[key] = string(c.Value)
	}
	if out.Version <= m.revision[s] {
		w.fail("INV-2", "%s: version %d of shard %d is not above %d", l.g.name, out.Version, s, m.revision[s])
	}
	m.revision[s] = out.Version
}

// judgeTimeout bounds the check of a history; a history that takes longer is a
// failure.
const judgeTimeout = 30 * time.Second

// judge checks the clients' history: linearizable, and each token once.
func (w *World) judge() {
	if v := w.history.list.Linearizable(judgeTimeout); !v.Linearizable {
		w.fail("linearizability", "%v", v)
	}
	final := map[string]string{}
	for k := range w.p.Keys {
		if key := keyName(k); key[0] == 'a' {
			final[key] = w.model.values[key]
		}
	}
	if t := w.history.list.CheckTokens(final); !t.OK() {
		w.fail("tokens", "%v", t)
	}
}
