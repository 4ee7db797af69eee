package sim

import (
	"time"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// What the planted bugs of servers do. Without a bug, each of these functions
// leaves everything as it is.

// plant changes what a pass of the handoff driver decided.
func (s *server) plant(v *handoff.View, a *handoff.Actions) {
	b := &s.w.bugs
	if !b.DropEarly && !b.FreezeEarly && !b.CreateUnclaimed {
		return
	}
	for i := range v.Records {
		rec := &v.Records[i]
		if b.DropEarly && rec.Phase == kvfsm.PhaseFrozen {
			a.Proposals = append(a.Proposals, &kvfsm.Drop{Shard: rec.Shard, Epoch: rec.Epoch})
		}
		if b.FreezeEarly && rec.Phase == kvfsm.PhaseLeaving {
			a.Proposals = append(a.Proposals, &kvfsm.Freeze{Shard: rec.Shard, Epoch: rec.Epoch, Handoff: rec.Handoff})
		}
	}
	if !b.CreateUnclaimed || v.Config == nil {
		return
	}
	for i := range v.Config.Shards {
		shard := shardcfg.ShardID(i)
		rec := v.Record(shard)
		if _, owner := v.Config.Owner(shard); owner == s.l.self.Incarnation && rec.Phase == kvfsm.PhaseAbsent && rec.Epoch.IsZero() {
			a.Proposals = append(a.Proposals, &kvfsm.Create{Shard: shard, Claimer: owner})
		}
	}
}

// show publishes config and records as they are by now: as one value, or one
// after the other.
func (s *server) show() {
	now := s.l.view(s.r.machine.at)
	if !s.w.bugs.PublishedApart {
		s.shown = *now
		return
	}
	s.shown.Config = now.Config
	s.r.n.after(between(s.w.rng.serve, 0, 10*time.Millisecond), func() { s.shown = *s.l.view(s.r.machine.at) })
}

// movedHere reports whether a write's shard came here by a handoff.
func (s *server) movedHere(w *kvfsm.Write) bool {
	rec := s.record(shardcfg.ShardOf(w.Key, s.w.p.Shards))
	return rec.Epoch.Num > 1
}

// readsFrozen answers a read of a frozen shard from before it was frozen.
func (s *server) readsFrozen(q *request, rec *kvfsm.Record) bool {
	if !s.w.bugs.ReadFrozen || !q.read || rec.Phase != kvfsm.PhaseFrozen && rec.Phase != kvfsm.PhasePassed {
		return false
	}
	for index := s.r.machine.index(); ; index-- {
		st := s.r.g.at(index)
		if st == nil || index == 0 {
			return false
		}
		found, err := kvfsm.Get(st.mem, s.w.p.Shards, q.key)
		s.w.check(err, "get")
		if found.Code.Done() {
			q.reply(response{reply: replyOf(found.Code), value: found.Value, version: found.Version})
			return true
		}
	}
}

// snapshot is what a read of key reads.
func (s *server) snapshot(key []byte) store.Reader {
	now := s.r.machine.at
	if !s.w.bugs.PhaseApart {
		return s.r.reader()
	}
	if rec := s.record(shardcfg.ShardOf(key, s.w.p.Shards)); rec.Phase.Serves() {
		if old := s.r.g.at(max(now.index, 3) - 3); old != nil {
			if found, err := kvfsm.Get(old.mem, s.w.p.Shards, key); err == nil && found.Code.Done() {
				return old.mem
			}
		}
	}
	return now.mem
}

// unfencedReceiver takes whoever asks for the receiver if it has its gid.
func (s *server) unfencedReceiver(f *handoff.Fetch) shardcfg.Incarnation {
	for _, l := range s.w.lives {
		if l.self.Incarnation != f.To {
			continue
		}
		if rec := s.record(f.Wants[0].Shard); rec.To.Group == l.self.Group {
			return rec.To.Incarnation
		}
	}
	return f.To
}
