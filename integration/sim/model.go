package sim

import (
	"slices"
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
	// writes has the identity under which each operation was last tried; zero for
	// reads.
	writes []identity
}

// tick is the next moment of the history: no two are equal.
func (r *recorder) tick() int64 {
	r.ticks++
	return r.ticks
}

func (r *recorder) add(op history.Operation, id identity) {
	r.list = append(r.list, op)
	r.writes = append(r.writes, id)
}

// resolve fills in what became of writes whose clients never learned it, as the
// groups' logs say: nothing, or an answer that never arrived, as if it had at the
// moment of the execution: whoever begins to read after that must see it. That
// says more than "unknown", so the check is stricter; and it keeps the check
// fast, which takes time exponential in the number of unknown writes on a key.
//
// strict is false where planted bugs rob writes of their identities.
func (r *recorder) resolve(m *model, strict bool) history.History {
	list := slices.Clone(r.list)
	for i := range list {
		op := &list[i]
		if op.Outcome != history.Unknown || op.Kind == history.Get {
			continue
		}
		done, executed := m.executed[r.writes[i]]
		if !executed {
			if strict {
				op.Outcome = history.NotDone
			}
			continue
		}
		out := done.out
		op.Outcome, op.Return = history.Done, done.at
		op.Version, op.Length = uint64(out.Version), out.Length
		op.Found = out.Code == kvfsm.CodeOK
		op.Matched = op.Found
	}
	return list
}

// model is what one map with an exact memory of all writes would hold. It
// follows the groups' logs, so that it finds a write that was executed twice, or
// on the wrong value, in the moment in which it happens.
type model struct {
	values   map[string]string
	executed map[identity]execution
	revision map[shardcfg.ShardID]shardcfg.Revision
	floor    map[shardcfg.ShardID]uint64
}

// An execution is how a write ended, and when.
type execution struct {
	out kvfsm.Outcome
	at  int64 // tick of the history
}

// identity is a write's.
type identity struct {
	key      session.Key
	sequence uint64
}

func newModel() model {
	return model{values: map[string]string{}, executed: map[identity]execution{},
		revision: map[shardcfg.ShardID]shardcfg.Revision{}, floor: map[shardcfg.ShardID]uint64{}}
}

// wrote checks the outcome of a write that a group applied (INV-2).
func (m *model) wrote(w *World, l *life, c *kvfsm.Write, out kvfsm.Outcome, clock uint64) {
	id := identity{c.Stamp.Key, c.Stamp.Sequence}
	s := shardcfg.ShardOf(c.Key, w.p.Shards)
	past, executed := m.executed[id]
	before := past.out
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
	m.executed[id] = execution{out, w.history.tick()}
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
const judgeTimeout = 10 * time.Second

// judge checks the clients' history: linearizable, and each token once.
func (w *World) judge() {
	final := map[string]string{}
	for k := range w.p.Keys {
		if key := keyName(k); key[0] == 'a' {
			final[key] = w.model.values[key]
		}
	}
	if t := w.history.list.CheckTokens(final); !t.OK() {
		w.fail("tokens", "%v", t)
	}
	if v := w.history.resolve(&w.model, w.bugs == (Bugs{})).Linearizable(judgeTimeout); !v.Linearizable {
		w.fail("linearizability", "%v", v)
	}
}
