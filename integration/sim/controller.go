package sim

import (
	"slices"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/report"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// controllers are the controllers' group. What they log is decided by
// ctrlfsm; around it this follows shardctrler: who answers, from which state,
// and what the leader remembers of reports.
type controllers struct {
	w      *World
	g      *raftGroup
	nodes  []*node
	latest *shardcfg.Config // newest that any replica applied
	// configs has every config that was ever made, by number.
	configs map[shardcfg.ConfigNum]*shardcfg.Config
	view    ctrlfsm.View // of the newest state
	strays  strays
}

// A controller is one replica of them.
type controller struct {
	cs *controllers
	r  *replica
	// memory is the leader's: what groups reported.
	memory *report.Memory
	config *shardcfg.Config // cached, of the newest number seen here
	told   shardcfg.ConfigNum
}

func newControllers(w *World) *controllers {
	cs := &controllers{w: w, configs: map[shardcfg.ConfigNum]*shardcfg.Config{}}
	for _, name := range []string{"c1:1", "c2:1", "c3:1"} {
		cs.nodes = append(cs.nodes, w.addNode(name))
	}
	shards := w.p.Shards
	cs.g = newRaftGroup(w, "controllers", cs.nodes,
		func() machine { return ctrlfsm.NewBounded(shards, nil, w.p.History) },
		func(r *replica) resident {
			return &controller{cs: cs, r: r, memory: report.NewMemory()}
		})
	cs.g.seen = cs.seen
	cs.view = ctrlfsm.NewView(cs.g.mem, shards)
	cs.latest, _ = cs.view.Latest()
	cs.configs[0] = cs.latest
	return cs
}

// seen watches what the log did.
func (cs *controllers) seen(st *state, e *entry.Entry) {
	w := cs.w
	latest, err := cs.view.Latest()
	w.check(err, "read the latest config")
	cs.checkPlan(st, e, latest)
	if latest.Num != cs.latest.Num {
		w.trace.note(traceChange, 0, uint64(latest.Num), st.index)
		w.trace.text("config %d: shards %v", latest.Num, latest.Shards)
		w.stats.Configs++
		w.configChanged(cs.latest, latest)
		// One entry may make several.
		for num := cs.latest.Num + 1; num < latest.Num; num++ {
			cs.configs[num], _, err = cs.view.ConfigAt(num)
			w.check(err, "read a config")
		}
		cs.latest = latest
		cs.configs[latest.Num] = latest
	}
}

// checkPlan: a plan is what the command then does. It looks at entries of one
// command.
func (cs *controllers) checkPlan(st *state, e *entry.Entry, latest *shardcfg.Config) {
	before := cs.g.at(st.index - 1)
	if len(e.Commands) != 1 || e.Commands[0].Kind < entry.KindMachineMin || before == nil {
		return
	}
	w := cs.w
	cmd, err := ctrlfsm.Decode(e.Commands[0])
	w.check(err, "decode a command")
	next, ref, err := ctrlfsm.Plan(ctrlfsm.NewView(before.mem, w.p.Shards), cmd)
	w.check(err, "plan")
	res := st.results[0].(ctrlfsm.Result)
	if res.Refusal == nil {
		cs.strays.keep(e.Commands[0]) // what was refused may be right one day, and was nobody's wish
	}
	if repair, ok := cmd.(ctrlfsm.RepairShards); ok {
		cs.checkVerdicts(before, repair, res)
	}
	if w.trace.on() {
		w.trace.text("controllers %d: %T %+v -> %+v", st.index, cmd, cmd, res)
	}
	// A repeated request is answered by what it did then.
	if now := res.Changed && res.Num > cs.latest.Num; now && (ref != nil || next == nil || !next.Equal(latest)) {
		w.fail("plan", "%+v makes %+v, and was planned as %+v, %v", cmd, latest, next, ref)
	}
}

// checkVerdicts: what a repair would do is what it then does.
func (cs *controllers) checkVerdicts(before *state, c ctrlfsm.RepairShards, res ctrlfsm.Result) {
	list, ref, err := ctrlfsm.Verdicts(ctrlfsm.NewView(before.mem, cs.w.p.Shards), c)
	cs.w.check(err, "judge")
	same := (ref == nil) == (res.Refusal == nil) && len(list) == len(res.Repairs)
	for i := range list {
		same = same && list[i].Fate == res.Repairs[i].Fate && list[i].Group == res.Repairs[i].Group &&
			list[i].Fate.Repairable(c.LossAccepted) == (res.Repairs[i].Granted.Gen > 0)
	}
	if !same {
		cs.w.fail("plan", "a repair does %+v, and was judged %+v, %v", res, list, ref)
	}
}

func (c *controller) led()      { c.memory = report.NewMemory() }
func (c *controller) received() {}
func (c *controller) lost()     { c.memory = report.NewMemory() }
func (c *controller) died()     { c.memory, c.config = report.NewMemory(), nil }

// applied tells the groups' leaders of a new config, as shardctrler's Watch does:
// each watches one of the controllers.
func (c *controller) applied(*state) {
	_, latest := c.state()
	if latest == nil || latest.Num == c.told {
		return
	}
	c.told = latest.Num
	for _, l := range c.cs.w.lives {
		if l.over || int(l.self.Group)%len(c.cs.nodes) != c.r.slot {
			continue
		}
		for _, r := range l.g.replicas {
			s := r.top.(*server)
			c.cs.w.post(c.r.n, r.n, func() { s.told(latest.Num) })
		}
	}
	c.cs.w.post(c.r.n, c.cs.w.operator.n, func() { c.cs.w.operator.watch(c) })
}

// ctlReply is a controller's answer; which fields count depends on the call.
type ctlReply struct {
	// refused: this controller does not serve the call; leader may know who does.
	refused bool
	leader  string

	num     shardcfg.ConfigNum
	config  *shardcfg.Config // nil: the caller has the newest
	hints   []report.Hint
	claimed []shardcfg.ShardID
	repairs []report.Grant
	// verdicts are those of a repair.
	verdicts []ctrlfsm.Verdict
	refusal  *ctrlfsm.Refusal
	clock    uint64
}

func (c *controller) notLeading() ctlReply { return ctlReply{refused: true, leader: c.r.leaderAddr()} }

// state is the applied one, which may be old; nil: the disk failed.
func (c *controller) state() (ctrlfsm.View, *shardcfg.Config) {
	v := ctrlfsm.NewView(c.r.reader(), c.cs.w.p.Shards)
	num, err := v.Num()
	if c.r.failed(err, "read the config's number") {
		return v, nil
	}
	if c.config == nil || c.config.Num != num {
		latest, err := v.Latest()
		if c.r.failed(err, "read the latest config") {
			return v, nil
		}
		c.config = latest
	}
	return v, c.config
}

func (c *controller) propose(cmd ctrlfsm.Command, end func(res ctrlfsm.Result, ok bool)) {
	encoded := cmd.Encode()
	// What no replica could read never gets into the log, as in shardctrler.
	if _, err := ctrlfsm.Decode(encoded); err != nil {
		end(ctrlfsm.Result{Refusal: &ctrlfsm.Refusal{Reason: ctrlfsm.BadRequest, Message: err.Error()}}, true)
		return
	}
	c.r.propose([]entry.Command{encoded}, foreground, func(results []any, how fate) {
		if how != fateDone {
			end(ctrlfsm.Result{}, false)
			return
		}
		end(results[0].(ctrlfsm.Result), true)
	})
}

// poll follows shardctrler's Poll: the change that a report asks for, then the
// answer from applied state. It needs a leader, but no proof that it still is
// one.
func (c *controller) poll(q *report.Report, reply func(ctlReply)) {
	if c.r.role != leader {
		reply(c.notLeading())
		return
	}
	v, latest := c.state()
	if latest == nil {
		return
	}
	q.Holdings = report.Sort(q.Holdings)
	cmd, ref, err := report.Due(v, latest, q)
	switch {
	case c.r.failed(err, "see what a report calls for"):
	case ref != nil:
		reply(ctlReply{refusal: ref})
	case cmd != nil:
		c.propose(cmd, func(res ctrlfsm.Result, ok bool) {
			switch {
			case !ok:
				reply(c.notLeading())
			case res.Refusal != nil:
				reply(ctlReply{refusal: res.Refusal})
			default:
				c.answer(q, reply)
			}
		})
	default:
		c.answer(q, reply)
	}
}

func (c *controller) answer(q *report.Report, reply func(ctlReply)) {
	v, latest := c.state()
	if latest == nil {
		return
	}
	a, err := c.memory.Answer(v, latest, q, time.UnixMilli(int64(c.r.n.clock())))
	if c.r.failed(err, "answer a report") {
		return
	}
	if a.Behind {
		reply(c.notLeading())
		return
	}
	reply(ctlReply{num: a.Num, config: a.Config, hints: slices.Concat(a.Hints.List, a.More), claimed: a.Claimed, repairs: a.Repairs, clock: c.clock()})
}

func (c *controller) clock() uint64 { return max(c.r.machine.at.clock, c.r.n.clock()) }

// claim follows shardctrler's Claim.
func (c *controller) claim(inc shardcfg.Incarnation, shards []shardcfg.ShardID, reply func(ctlReply)) {
	if c.r.role != leader {
		reply(c.notLeading())
		return
	}
	if c.cs.w.bugs.ClaimForgotten {
		reply(ctlReply{claimed: shards})
		return
	}
	v, latest := c.state()
	if latest == nil {
		return
	}
	open, claimed, err := report.Open(v, inc, shards)
	if c.r.failed(err, "read a claim") {
		return
	}
	if len(open) == 0 {
		reply(ctlReply{claimed: claimed})
		return
	}
	c.propose(ctrlfsm.Claim{Incarnation: inc, Shards: open}, func(res ctrlfsm.Result, ok bool) {
		if !ok {
			reply(c.notLeading())
			return
		}
		claimed = append(claimed, res.Claimed...)
		slices.Sort(claimed)
		reply(ctlReply{claimed: claimed})
	})
}

// query follows shardctrler's Query of the latest config: behind a barrier.
func (c *controller) query(reply func(ctlReply)) {
	c.r.barrier(func(ok bool) {
		if !ok {
			reply(c.notLeading())
			return
		}
		_, latest := c.state()
		if latest == nil {
			return
		}
		reply(ctlReply{num: latest.Num, config: latest, hints: c.memory.Hints(latest).List, clock: c.clock()})
	})
}

// change makes a change that an operator asked for.
func (c *controller) change(cmd ctrlfsm.Command, reply func(ctlReply)) {
	if c.r.role != leader {
		reply(c.notLeading())
		return
	}
	made := func(res ctrlfsm.Result, ok bool) {
		if !ok {
			reply(c.notLeading())
			return
		}
		reply(ctlReply{num: res.Num, refusal: res.Refusal})
	}
	leave, ok := cmd.(ctrlfsm.Leave)
	if !ok {
		c.propose(cmd, made)
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
		err := leaveOut(v, latest, &leave)
		switch {
		case c.r.failed(err, "read the groups that left"):
		case len(leave.Groups) == 0 && len(cmd.(ctrlfsm.Leave).Groups) > 0:
			reply(ctlReply{num: latest.Num})
		default:
			c.propose(leave, made)
		}
	})
}

// leaveOut follows shardctrler's: groups that are gone are taken out of a leave,
// unless it was answered before.
func leaveOut(v ctrlfsm.View, latest *shardcfg.Config, leave *ctrlfsm.Leave) error {
	if _, answered, err := v.Answered(leave.Request); err != nil || answered {
		return err
	}
	var rest []shardcfg.GroupID
	for _, gid := range leave.Groups {
		gone := false
		if _, listed := latest.Groups[gid]; !listed {
			var err error
			if gone, err = v.WasBound(gid); err != nil {
				return err
			}
		}
		if !gone {
			rest = append(rest, gid)
		}
	}
	leave.Groups = rest
	return nil
}

// A caller remembers which controller to ask first.
type caller struct{ first int }

// ask asks one controller after the other, at most each once, until one serves
// the call.
func (cs *controllers) ask(from *node, k *caller, timeout time.Duration, serve func(c *controller, reply func(ctlReply)), end func(ctlReply, bool)) {
	cs.try(from, k, timeout, len(cs.nodes)+1, serve, end)
}

func (cs *controllers) try(from *node, k *caller, timeout time.Duration, left int, serve func(c *controller, reply func(ctlReply)), end func(ctlReply, bool)) {
	if left == 0 {
		end(ctlReply{}, false)
		return
	}
	to := cs.nodes[k.first%len(cs.nodes)]
	call(from, to, timeout, cs.w.p.Dup, func(reply func(ctlReply)) {
		serve(to.host.top.(*controller), reply)
	}, func(v ctlReply, how ending, _ bool) {
		if how == answered && !v.refused {
			end(v, true)
			return
		}
		k.first = (k.first + 1) % len(cs.nodes)
		if how == answered && v.leader != "" {
			k.first = cs.w.address[v.leader].id
		}
		cs.try(from, k, timeout, left-1, serve, end)
	})
}
