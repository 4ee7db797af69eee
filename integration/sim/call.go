package sim

import (
	"time"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// An op is one call under way.
type op struct {
	l       *lane
	h       history.Operation
	write   kvfsm.Write
	read    bool
	route   route.Op
	session *route.Session
	seq     uint64
	until   time.Duration
	last    response
	sent    bool // an attempt is under way
	copied  bool // the network made a copy of some attempt
	over    bool
	retries int
	drive   int       // counts the times that it was begun again: what belongs to an earlier one is void
	final   bool      // no deadline: the run ends only when it is answered
	scan    *scanning // nil: it is no scan
	// spoil makes the write one that must be refused; nil: it is valid. big: it may
	// be refused for its size.
	spoil func(*kvfsm.Write)
	big   bool
}

// start begins a call.
func (o *op) start(until time.Duration) {
	c := o.l.c
	w := c.w
	o.until = until
	o.h.Call = w.history.tick()
	o.write = kvfsm.Write{Key: []byte(o.h.Key), Value: []byte(o.h.Value)}
	switch o.h.Kind {
	case history.Put:
		o.write.Op = kvfsm.OpPut
	case history.PutIf:
		o.write.Op = kvfsm.OpPut
		o.write.Condition = kvfsm.Condition{Set: true, Version: shardcfg.Revision(o.h.IfVersion)}
	case history.Append:
		o.write.Op = kvfsm.OpAppend
	case history.Delete:
		o.write.Op, o.write.Value = kvfsm.OpDelete, nil
	}
	if !o.final {
		w.stats.Operations++
	}
	w.trace.note(traceCall, c.n.id, uint64(o.h.Kind), uint64(o.h.Call))
	w.trace.text("client %d calls %v", o.l.number, &o.h)
	o.route = route.NewOp(shardcfg.SlotOf(o.write.Key), !o.read, !o.read && c.explicit, false)
	if !o.read {
		o.session, o.seq = c.begin()
	}
	c.n.after(o.until-w.now, func() { o.expire() })
	o.do(c.table.Start(&o.route))
}

// do carries out a decision of the routing machine, as clerk's drive does.
func (o *op) do(d route.Decision) {
	c := o.l.c
	if d.Kind != route.Done && d.Kind != route.Fail && c.w.now >= o.until {
		o.giveUp()
		return
	}
	switch d.Kind {
	case route.Send:
		o.send(d.Addr)
	case route.Wait:
		if d.Refresh || c.table.Stale() {
			c.refresh()
		}
		o.pause(d.WaitMS, func() { o.do(c.table.Tick(&o.route)) })
	case route.Restamp:
		if o.copied {
			// The refused attempt's copy may yet be executed: a network that repeats
			// requests takes "not done" away.
			o.giveUp()
			return
		}
		if o.last.reply.Code == route.SessionExpired {
			c.w.stats.Expired++
		}
		c.book.Refused(o.session, o.seq, d.Ahead, o.last.clock, c.n.clock())
		o.pause(d.WaitMS, func() {
			o.session, o.seq = c.begin()
			o.do(c.table.Start(&o.route))
		})
	case route.Done:
		o.done()
	case route.Fail:
		if d.Reason == route.ReasonInvalid && o.spoil == nil && !o.big {
			c.w.fail("client", "a valid operation was called invalid: %v", &o.h)
		}
		o.giveUp()
	}
}

func (o *op) pause(ms uint32, f func()) {
	d := time.Duration(ms) * time.Millisecond
	drive := o.drive
	o.l.c.n.after(between(o.l.c.rng, d/2, d+1), func() {
		if !o.over && o.drive == drive {
			f()
		}
	})
}

// send makes one attempt.
func (o *op) send(addr string) {
	c := o.l.c
	w := c.w
	to := w.address[addr]
	q := request{read: o.read, key: o.write.Key, write: o.write}
	if o.scan != nil {
		ask := o.scan.ask
		q.scan = &ask
	}
	if !o.read {
		q.write.Stamp = session.Stamp{Key: session.Key{Birth: o.session.BirthMS, ID: o.session.ID},
			AckedBelow: o.session.AckedBelow(), Sequence: o.seq}
	}
	if o.spoil != nil {
		o.spoil(&q.write)
	}
	hold := min(w.p.Hold, max(o.until-w.now, time.Millisecond))
	timeout := min(w.p.Hold+200*time.Millisecond, max(o.until-w.now, time.Millisecond))
	w.trace.note(traceAttempt, c.n.id, uint64(o.h.Call), uint64(to.id))
	drive := o.drive
	o.sent = true
	call(c.n, to, timeout, w.p.DupRequest, func(reply func(response)) {
		one := q // a copy that comes twice is another request
		one.reply = reply
		if s := anyServer(to); s != nil {
			s.execute(&one, hold)
		} else {
			code := route.Unavailable
			if to.alien {
				code = route.WrongCluster
			}
			reply(response{reply: route.Reply{Code: code}})
		}
	}, func(a response, how ending, copied bool) {
		o.copied = o.copied || copied
		if o.over || o.drive != drive {
			return
		}
		o.sent = false
		if how != answered {
			if w.bugs.RetryAsNew && !o.read {
				o.session, o.seq = c.begin()
			}
			o.do(c.table.Lost(&o.route, how == silent, "no answer"))
			return
		}
		o.last = a
		c.book.Observe(a.clock)
		o.do(c.table.Reply(&o.route, a.reply))
	})
}

// anyServer is the group's server at a node; nil: none.
func anyServer(n *node) *server {
	if n.host == nil {
		return nil
	}
	s, _ := n.host.top.(*server)
	return s
}

// expire ends a call at its deadline.
func (o *op) expire() {
	if o.over || o.l.c.w.now < o.until {
		return
	}
	if o.sent {
		// As clerk withdraws an attempt: it may have been executed, or may yet be.
		o.sent = false
		o.l.c.table.Abandon(&o.route, true, "no answer yet")
	}
	o.giveUp()
}

// giveUp ends a call without an answer, or begins it again by its identity, as a
// program may that must know (clerk's As).
func (o *op) giveUp() {
	c := o.l.c
	w := c.w
	unresolved := o.route.Unresolved()
	expired := o.last.reply.Code == route.SessionExpired
	if o.final || unresolved && !expired && o.retries < 3 && c.rng.Float64() < w.p.Retry {
		o.again()
		return
	}
	if o.scan != nil {
		o.scan.stop()
		return
	}
	o.explain()
	o.over = true
	o.h.Outcome = history.NotDone
	if unresolved || o.copied && !o.read {
		// Where the network made copies, "not done" holds for those that were
		// answered only.
		o.h.Outcome = history.Unknown
	}
	if !o.read {
		if unresolved {
			o.session.Abandon(o.seq)
		} else {
			o.session.Finish(o.seq)
		}
	}
	if c.explicit && o.last.reply.Code == route.Busy {
		// A session in which the program left writes unsettled is full one day: it
		// names another.
		c.name()
	}
	o.finish()
}

// again tries a call by its identity, perhaps after a long sleep.
func (o *op) again() {
	c := o.l.c
	w := c.w
	o.retries++
	o.drive++
	wait := between(c.rng, 0, w.p.Deadline/4)
	if !w.quiet() && chance(c.rng, w.p.Sleep*10) {
		w.stats.happened(KindSleep)
		wait = w.p.SleepFor
	}
	o.until = w.now + wait + w.p.Deadline
	if o.route = route.NewOp(shardcfg.SlotOf(o.write.Key), !o.read, !o.read, !o.read); o.scan != nil {
		o.route = o.scan.walk.Op()
	}
	c.n.after(wait+w.p.Deadline, func() { o.expire() })
	c.n.after(wait, func() {
		if !o.over {
			o.do(c.table.Start(&o.route))
		}
	})
}

// done ends a call with the last answer.
func (o *op) done() {
	if o.scan != nil {
		o.scan.turn()
		return
	}
	if o.spoil != nil {
		c := o.l.c
		c.w.fail("nonsense", "%+v is executed: %+v", o.write, o.last)
	}
	a := &o.last
	o.over = true
	o.h.Outcome = history.Done
	o.h.Version = uint64(a.version)
	o.h.Length = a.length
	o.h.Read = string(a.value)
	o.h.Found = a.reply.Code == route.OK
	o.h.Matched = a.reply.Code == route.OK
	if !o.read {
		o.session.Finish(o.seq)
	}
	o.l.seen[o.h.Key] = a.version
	o.finish()
}

func (o *op) finish() {
	c := o.l.c
	w := c.w
	o.h.Return = w.history.tick()
	switch {
	case o.final:
	case o.h.Outcome == history.Done:
		w.stats.Done++
	case o.h.Outcome == history.NotDone:
		w.stats.NotDone++
	case o.h.Outcome == history.Unknown:
		w.stats.Unknown++
	}
	var id identity
	if !o.read {
		id = identity{session.Key{Birth: o.session.BirthMS, ID: o.session.ID}, o.seq}
	}
	w.history.add(o.h, id)
	w.trace.note(traceReturn, c.n.id, uint64(o.h.Call), uint64(o.h.Outcome)<<56|o.h.Version)
	w.trace.text("client %d: %v", o.l.number, &o.h)
	o.ended()
}

// ended lets the lane go on.
func (o *op) ended() {
	c := o.l.c
	w := c.w
	if !w.quiet() && chance(c.rng, w.p.Sleep) {
		w.stats.happened(KindSleep)
		c.n.after(w.p.SleepFor, o.l.next)
		return
	}
	o.l.next()
}
