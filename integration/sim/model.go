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

// forget drops the operations on keys that lost writes.
func (r *recorder) forget(lost func(key string) bool) {
	var list history.History
	var writes []identity
	for i := range r.list {
		if !lost(r.list[i].Key) {
			list, writes = append(list, r.list[i]), append(writes, r.writes[i])
		}
	}
	r.list, r.writes = list, writes
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
	// past has all that each key ever was, in order.
	past     map[string][]moment
	executed map[identity]execution
	revision map[shardcfg.ShardID]shardcfg.Revision
	floor    map[shardcfg.ShardID]uint64
	// lossy are shards of which writes were lost with a group that was destroyed.
	lossy map[shardcfg.ShardID]bool
}

// A moment is what a key was from a tick of the history on; version 0: it was
// not there.
type moment struct {
	at      int64
	version shardcfg.Revision
	value   string
}

// An execution is how a write ended, and when.
type execution struct {
	out kvfsm.Outcome
	at  int64 // tick of the history
	// Under which token; the epoch is known where groups may be destroyed.
	shard shardcfg.ShardID
	epoch shardcfg.Epoch
}

// identity is a write's.
type identity struct {
	key      session.Key
	sequence uint64
}

func newModel() model {
	return model{past: map[string][]moment{}, executed: map[identity]execution{},
		revision: map[shardcfg.ShardID]shardcfg.Revision{}, floor: map[shardcfg.ShardID]uint64{}, lossy: map[shardcfg.ShardID]bool{}}
}

// wrote checks the outcome of a write that a group applied (INV-2).
func (m *model) wrote(w *World, l *life, st *state, c *kvfsm.Write, out kvfsm.Outcome) {
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
	case out.Code == kvfsm.CodeInvalid:
		long := c.Op == kvfsm.OpAppend && len(m.now(string(c.Key)).value)+len(c.Value) > shardcfg.ValueBytesMax
		if c.Check() == nil && !long {
			w.fail("nonsense", "%s calls a valid write of %q invalid: %v", l.g.name, c.Key, out.Why)
		}
		return
	case !out.Code.Done():
		return
	case c.Check() != nil:
		w.fail("nonsense", "%s executes %+v, which is not valid: %v", l.g.name, c, c.Check())
	case executed:
		w.fail("INV-2", "%s executes %q again: %+v, before: %+v", l.g.name, c.Value, out, before)
	case id.sequence != 0 && c.Stamp.Key.Birth < m.floor[s]:
		w.fail("session", "%s executes %q of a session that expired", l.g.name, c.Value)
	}
	at := w.history.tick()
	done := execution{out: out, at: at, shard: s}
	if w.p.Destroy {
		rec, err := kvfsm.ReadRecord(st.mem, s)
		w.check(err, "read a record")
		done.epoch = rec.Epoch
	}
	m.executed[id] = done
	m.execute(w, l, c, out, s, at)
}

func (m *model) execute(w *World, l *life, c *kvfsm.Write, out kvfsm.Outcome, s shardcfg.ShardID, at int64) {
	key := string(c.Key)
	old := m.now(key)
	matches := !c.Condition.Set || c.Condition.Version == old.version
	if matches == (out.Code == kvfsm.CodeVersionMismatch) {
		w.fail("INV-2", "%s: %v of %q if version %d is %+v; the version is %d", l.g.name, c.Op, key, c.Condition.Version, out, old.version)
	}
	is := moment{at: at, version: out.Version, value: string(c.Value)}
	switch {
	case out.Code == kvfsm.CodeVersionMismatch:
		if out.Version != old.version {
			w.fail("INV-2", "%s says that %q has version %d; it is %d", l.g.name, key, out.Version, old.version)
		}
		return
	case out.Code == kvfsm.CodeNotFound:
		if old.version != 0 {
			w.fail("INV-2", "%s finds no %q to delete; there is %q", l.g.name, key, old.value)
		}
		return
	case c.Op == kvfsm.OpDelete:
		if old.version == 0 {
			w.fail("INV-2", "%s deletes %q, which is not there", l.g.name, key)
		}
		is.version, is.value = 0, ""
	case c.Op == kvfsm.OpAppend:
		is.value = old.value + is.value
		if out.Length != uint64(len(is.value)) {
			w.fail("INV-2", "%s: append of %q to %q gives length %d, want %d", l.g.name, c.Value, key, out.Length, len(is.value))
		}
	}
	m.past[key] = append(m.past[key], is)
	if c.Op == kvfsm.OpDelete {
		return
	}
	if out.Version <= m.revision[s] {
		w.fail("INV-2", "%s: version %d of shard %d is not above %d", l.g.name, out.Version, s, m.revision[s])
	}
	m.revision[s] = out.Version
}

// now is what a key is at present.
func (m *model) now(key string) moment {
	if past := m.past[key]; len(past) > 0 {
		return past[len(past)-1]
	}
	return moment{}
}

// between are the moments of a key that lasted at some time from begin to end.
func (m *model) between(key string, begin, end int64) []moment {
	past := append([]moment{{}}, m.past[key]...)
	first := 0
	for i := range past {
		if past[i].at <= begin {
			first = i
		}
	}
	last := first
	for last < len(past) && (last == first || past[last].at <= end) {
		last++
	}
	return past[first:last]
}

// lost reports whether writes of a key's shard were lost.
func (w *World) lost(key string) bool {
	return len(w.model.lossy) > 0 && w.model.lossy[shardcfg.ShardOf([]byte(key), w.p.Shards)]
}

// judgeTimeout bounds the check of a history; a history that takes longer is a
// failure.
const judgeTimeout = 10 * time.Second

// judge checks the clients' history: linearizable, and each token once.
func (w *World) judge() {
	final := map[string]string{}
	for k := range w.p.Keys {
		if key := keyName(k); key[0] == 'a' && !w.lost(key) {
			final[key] = w.model.now(key).value
		}
	}
	w.history.forget(w.lost)
	if t := w.history.list.CheckTokens(final); !t.OK() {
		w.fail("tokens", "%v", t)
	}
	if v := w.history.resolve(&w.model, w.bugs == (Bugs{})).Linearizable(judgeTimeout); !v.Linearizable {
		w.fail("linearizability", "%v", v)
	}
}
