package sim

import (
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A group may be destroyed: its machines, with their disks, are gone in a moment.
// The operator declares it so, and has the shards repaired that waited for it.
// What only that group had is lost, and nothing else: see model.repaired.

// destroy destroys a group that the config lists.
func (l *life) destroy() {
	w := l.w
	w.stats.happened(KindDestroy)
	w.trace.text("%s is destroyed", l.g.name)
	l.end()
	l.destroyed = true
	for _, r := range l.g.replicas {
		r.n.up = false
	}
}

// disaster destroys a group and asks to retire it; nil: there is none that could
// be spared.
func (o *operator) disaster() ctrlfsm.Command {
	latest := o.w.controllers.latest
	var bound []*life
	for _, l := range o.w.lives {
		if gid, listed := latest.GroupOf(l.self.Incarnation); listed && !l.over && latest.Groups[gid].State == shardcfg.GroupMember {
			bound = append(bound, l)
		}
	}
	if len(bound) < 2 {
		return nil
	}
	l := bound[o.rng.IntN(len(bound))]
	l.destroy()
	o.repairing = true
	return ctrlfsm.Retire{Request: o.request(), Incarnation: l.self.Incarnation}
}

// mourn retires a destroyed group that is listed still, because the request was
// refused for its age; nil: there is none.
func (o *operator) mourn() ctrlfsm.Command {
	for _, l := range o.w.lives {
		if _, listed := o.w.controllers.latest.GroupOf(l.self.Incarnation); listed && l.destroyed {
			return ctrlfsm.Retire{Request: o.request(), Incarnation: l.self.Incarnation}
		}
	}
	return nil
}

// repair asks for the repair of all shards, until none needs it.
func (o *operator) repair() {
	loss := o.w.calm || o.rng.IntN(3) > 0
	if c, ok := o.push().(ctrlfsm.Move); ok && !o.w.calm && o.rng.IntN(4) == 0 {
		// Somebody else moves a shard meanwhile, perhaps in vain.
		o.n.after(between(o.rng, 0, 20*time.Millisecond), func() {
			var other caller
			o.w.controllers.ask(o.n, &other, pollTimeout, func(t *controller, reply func(ctlReply)) { t.change(c, reply) }, func(ctlReply, bool) {})
		})
	}
	o.w.controllers.ask(o.n, &o.asker, repairTimeout, func(c *controller, reply func(ctlReply)) { c.repair(loss, reply) }, func(a ctlReply, ok bool) {
		if ok && a.refusal == nil {
			fated := func(f ctrlfsm.Fate) bool {
				return slices.ContainsFunc(a.verdicts, func(v ctrlfsm.Verdict) bool { return v.Fate == f })
			}
			o.ownerless = fated(ctrlfsm.FateOwnerless)
			o.repairing = o.ownerless || fated(ctrlfsm.FateThawed) || fated(ctrlfsm.FateLost)
		}
		if o.w.trace.on() {
			o.w.trace.text("operator: repair: answered %v, refused %v, %+v", ok, a.refusal, a.verdicts)
		}
		o.later()
	})
}

const (
	repairTimeout = 4 * time.Second
	attestTimeout = 2500 * time.Millisecond
)

// repair follows shardctrler's Repair: all groups are asked, and the answers go
// into a command.
func (c *controller) repair(loss bool, reply func(ctlReply)) {
	if c.r.role != leader {
		reply(c.notLeading())
		return
	}
	c.r.barrier(func(ok bool) {
		if !ok {
			reply(c.notLeading())
			return
		}
		v, latest := c.state()
		if latest == nil {
			return
		}
		last, err := v.Repairs()
		if c.r.failed(err, "read the repairs") {
			return
		}
		c.attest(latest, func(asked []shardcfg.Incarnation, answers map[shardcfg.ShardID][]ctrlfsm.Answer) {
			cmd := ctrlfsm.RepairShards{Num: latest.Num, Asked: asked, LossAccepted: loss}
			for s := range latest.Shards {
				shard := shardcfg.ShardID(s)
				cmd.Cases = append(cmd.Cases, ctrlfsm.RepairCase{Shard: shard, LastGen: last[shard].Gen, Answers: answers[shard]})
			}
			c.propose(cmd, func(res ctrlfsm.Result, ok bool) {
				if !ok {
					reply(c.notLeading())
					return
				}
				reply(ctlReply{num: res.Num, refusal: res.Refusal, verdicts: res.Repairs})
			})
		})
	})
}

// testimony is what a group's leader says of its shards.
type testimony struct {
	valid  bool
	shards map[shardcfg.ShardID]ctrlfsm.Answer
}

// attest asks all groups that a config lists and binds. Where one does not
// answer, nothing comes of it.
func (c *controller) attest(latest *shardcfg.Config, then func([]shardcfg.Incarnation, map[shardcfg.ShardID][]ctrlfsm.Answer)) {
	w := c.cs.w
	until := w.now + attestTimeout
	var asked []shardcfg.Incarnation
	answers := map[shardcfg.ShardID][]ctrlfsm.Answer{}
	open := 0
	var ask func(g shardcfg.Group, turn int)
	ask = func(g shardcfg.Group, turn int) {
		to := w.address[g.Replicas[turn%len(g.Replicas)]]
		again := func() {
			if w.now < until {
				c.r.n.after(50*time.Millisecond, func() { ask(g, turn+1) })
			}
		}
		call(c.r.n, to, time.Second, w.p.Dup, func(reply func(testimony)) {
			if s := serverOf(to, &g.Incarnation, false); s != nil {
				s.attest(latest.Num, reply)
			} else {
				reply(testimony{})
			}
		}, func(t testimony, how ending, _ bool) {
			if how != answered || !t.valid {
				again()
				return
			}
			asked = append(asked, g.Incarnation)
			for s, a := range t.shards {
				answers[s] = append(answers[s], a)
			}
			if open--; open == 0 {
				slices.SortFunc(asked, shardcfg.Incarnation.Compare)
				then(asked, answers)
			}
		})
	}
	for _, gid := range latest.GroupIDs() {
		if g := latest.Groups[gid]; !g.Incarnation.IsZero() {
			open++
			ask(g, 0)
		}
	}
}

// attest follows shardkv's Attest: the state behind a read barrier, once the
// config is adopted.
func (s *server) attest(num shardcfg.ConfigNum, reply func(testimony)) {
	if s.driver == nil || s.config().Num < num {
		s.pollIn(0)
		reply(testimony{})
		return
	}
	s.r.barrier(func(ok bool) {
		if !ok {
			reply(testimony{})
			return
		}
		records, err := kvfsm.ReadRecords(s.r.reader())
		if s.r.failed(err, "read the records") {
			return
		}
		t := testimony{valid: true, shards: map[shardcfg.ShardID]ctrlfsm.Answer{}}
		for i := range records {
			rec := &records[i]
			a := ctrlfsm.Answer{Group: s.l.self.Incarnation, Epoch: rec.Epoch, To: rec.To.Incarnation}
			switch {
			case rec.Phase.Serves():
				a.Holding = ctrlfsm.HoldsToken
			case rec.Phase == kvfsm.PhaseFrozen:
				a.Holding = ctrlfsm.HoldsFrozen
			}
			t.shards[rec.Shard] = a
		}
		reply(t)
	})
}

// repaired takes in that a shard serves again in a token of a new generation,
// with what the copy of epoch kept had: nothing, if that is zero. What was
// executed under later epochs is lost; what was not is not, and stays checked.
func (m *model) repaired(w *World, l *life, st *state, s shardcfg.ShardID, kept shardcfg.Epoch) {
	at := w.history.tick()
	lost := false
	for id, e := range m.executed {
		if e.shard == s && kept.Less(e.epoch) {
			delete(m.executed, id)
			lost = true
		}
	}
	for key := range m.past {
		if shardcfg.ShardOf([]byte(key), w.p.Shards) != s {
			continue
		}
		found, err := kvfsm.Get(st.mem, w.p.Shards, []byte(key))
		w.check(err, "get")
		is := moment{at: at, version: found.Version, value: string(found.Value)}
		if old := m.now(key); is.version != old.version || is.value != old.value {
			m.past[key] = append(m.past[key], is)
			lost = true
		}
	}
	rec, err := kvfsm.ReadRecord(st.mem, s)
	w.check(err, "read a record")
	m.floor[s], err = kvfsm.ReadFloor(st.mem, &rec)
	w.check(err, "read a floor")
	if rec.Revision < m.revision[s] {
		w.fail("INV-2", "%s: shard %d begins anew at revision %d, below %d", l.g.name, s, rec.Revision, m.revision[s])
	}
	w.stats.Repairs++
	if lost {
		m.lossy[s] = true
		w.stats.Lossy++
	}
	w.trace.text("%s repairs shard %d from epoch %v; writes were lost: %v", l.g.name, s, kept, lost)
}
