package handoff_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// keyCount keys, few enough that clients collide.
const keyCount = 6

func keyName(i int) []byte { return fmt.Appendf(nil, "key-%d", i) }

// model is what a single correct map with an exact session table would hold.
type model struct {
	value    map[string]string
	executed map[session.Stamp]kvfsm.Outcome // AckedBelow zero
	version  map[shardcfg.ShardID]shardcfg.Revision
	floor    map[shardcfg.ShardID]uint64
	clients  []*client
	token    int
}

// client is a session with its outstanding writes.
type client struct {
	key         session.Key
	sequence    uint64
	outstanding []*kvfsm.Write
}

func newModel() model {
	return model{
		value:    map[string]string{},
		executed: map[session.Stamp]kvfsm.Outcome{},
		version:  map[shardcfg.ShardID]shardcfg.Revision{},
		floor:    map[shardcfg.ShardID]uint64{},
	}
}

// next returns a write to propose: of a client, new or again.
func (m *model) next(rng *rand.Rand, clock uint64) *kvfsm.Write {
	if len(m.clients) < 3 || rng.IntN(60) == 0 {
		c := &client{key: session.Key{Birth: clock, ID: shardcfg.SessionID{byte(len(m.clients) + 1), byte(len(m.clients) >> 8)}}}
		m.clients = append(m.clients, c)
	}
	c := m.clients[rng.IntN(len(m.clients))]
	if rng.IntN(3) > 0 {
		c = m.clients[max(0, len(m.clients)-1-rng.IntN(2))]
	}
	if len(c.outstanding) > 0 && (rng.IntN(2) == 0 || len(c.outstanding) > 5) {
		w := *c.outstanding[rng.IntN(len(c.outstanding))]
		w.Stamp.AckedBelow = c.outstanding[0].Stamp.Sequence
		return &w
	}
	c.sequence++
	m.token++
	w := &kvfsm.Write{Op: kvfsm.OpAppend, Key: keyName(rng.IntN(keyCount)), Value: fmt.Appendf(nil, "<%d>", m.token)}
	switch rng.IntN(10) {
	case 0:
		w.Op, w.Value = kvfsm.OpDelete, nil
	case 1, 2:
		w.Op = kvfsm.OpPut
		w.Value = append(w.Value, bytes.Repeat([]byte("."), rng.IntN(300))...)
	}
	if rng.IntN(5) == 0 {
		w.Condition = kvfsm.Condition{Set: true, Version: shardcfg.Revision(rng.IntN(3))}
	}
	w.Stamp = session.Stamp{Key: c.key, Sequence: c.sequence}
	c.outstanding = append(c.outstanding, w)
	w.Stamp.AckedBelow = c.outstanding[0].Stamp.Sequence
	return w
}

// wrote takes in an outcome and says what is wrong with it.
func (m *model) wrote(w *kvfsm.Write, out kvfsm.Outcome, shards int) error {
	id := w.Stamp
	id.AckedBelow = 0
	before, executed := m.executed[id]
	s := shardcfg.ShardOf(w.Key, shards)
	switch {
	case out.Repeat:
		before.Repeat = true
		if !executed || before != out {
			return fmt.Errorf("INV-2: repeat of %+v answered %+v, executed %v: %+v", w, out, executed, before)
		}
		m.settled(id)
		return nil
	case out.Code == kvfsm.CodeSessionExpired:
		if id.Key.Birth >= m.floor[s] {
			return fmt.Errorf("session born %d expired at floor %d", id.Key.Birth, m.floor[s])
		}
		return nil
	case !out.Code.Done():
		return nil
	case executed:
		return fmt.Errorf("INV-2: %+v executed again: %+v, before: %+v", w, out, before)
	case id.Key.Birth < m.floor[s]:
		return fmt.Errorf("expired session executed %+v", w)
	}
	m.executed[id] = out
	m.settled(id)
	return m.execute(w, out, s)
}

func (m *model) execute(w *kvfsm.Write, out kvfsm.Outcome, s shardcfg.ShardID) error {
	key := string(w.Key)
	old, exists := m.value[key]
	switch {
	case out.Code == kvfsm.CodeVersionMismatch:
		if !w.Condition.Set || w.Condition.Version == out.Version {
			return fmt.Errorf("mismatch of %+v: %+v", w, out)
		}
		return nil
	case out.Code == kvfsm.CodeNotFound:
		if exists || w.Op != kvfsm.OpDelete {
			return fmt.Errorf("%+v found nothing, there is %q", w, old)
		}
		return nil
	case w.Op == kvfsm.OpDelete:
		if !exists {
			return fmt.Errorf("%+v deleted nothing", w)
		}
		delete(m.value, key)
		return nil
	case w.Op == kvfsm.OpPut:
		m.value[key] = string(w.Value)
	case w.Op == kvfsm.OpAppend:
		m.value[key] = old + string(w.Value)
		if out.Length != uint64(len(m.value[key])) {
			return fmt.Errorf("INV-2: append of %q gave length %d, want %d", w.Value, out.Length, len(m.value[key]))
		}
	}
	if out.Version <= m.version[s] {
		return fmt.Errorf("version %d of shard %d is not above %d", out.Version, s, m.version[s])
	}
	m.version[s] = out.Version
	return nil
}

// settled says that the client has its answer.
func (m *model) settled(id session.Stamp) {
	for _, c := range m.clients {
		if c.key == id.Key {
			c.outstanding = slices.DeleteFunc(c.outstanding, func(w *kvfsm.Write) bool { return w.Stamp.Sequence == id.Sequence })
		}
	}
}
