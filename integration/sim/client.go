package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A clerk is a client: clerk/route with its sessions, driven as package clerk
// drives it. Its lanes make one call at a time each, all in the clerk's one
// session.
type clerk struct {
	w    *World
	n    *node
	id   int
	rng  *rand.Rand
	book route.Book
	// table is clerk/route's.
	table      route.Table
	asker      caller
	refreshing bool
	rest       time.Duration
	lanes      []*lane
	sessions   int
	// explicit: its session is named by the program.
	explicit bool
}

// A lane makes calls one after the other.
type lane struct {
	c      *clerk
	number int // among all lanes: the history's client
	left   int
	tokens int
	seen   map[string]shardcfg.Revision // versions, for conditional puts
	idle   bool
}

func (w *World) newClerk(id int) *clerk {
	c := &clerk{w: w, id: id, n: w.addNode(fmt.Sprintf("client%d", id)), rng: stream(w.seed, uint64(100+id)), rest: refreshEvery}
	for i := range w.p.Lanes {
		c.lanes = append(c.lanes, &lane{c: c, number: id*10 + i, seen: map[string]shardcfg.Revision{}, idle: true})
	}
	if c.explicit = w.p.Explicit && id == 0; c.explicit {
		c.name()
	}
	return c
}

// name makes the next writes those of a session that the program names.
func (c *clerk) name() {
	c.sessions++
	c.book.Use(route.NewSession(shardcfg.SessionID{0xEE, 15: byte(c.sessions)}, max(c.n.clock(), c.book.Date(0)), 1, true))
}

// begin gives a write its identity.
func (c *clerk) begin() (*route.Session, uint64) {
	return c.book.Begin(c.n.clock(), func() (id shardcfg.SessionID) {
		c.sessions++
		binary.BigEndian.PutUint64(id[:], uint64(c.id+1))
		binary.BigEndian.PutUint64(id[8:], uint64(c.sessions))
		return id
	})
}

// refreshEvery and refreshRestMax follow clerk's refresher.
const (
	refreshEvery   = 50 * time.Millisecond
	refreshRestMax = time.Second
)

// refresh asks for a newer placement, if nobody does already.
func (c *clerk) refresh() {
	if c.refreshing {
		return
	}
	c.refreshing = true
	before := c.table.Learned()
	c.w.controllers.ask(c.n, &c.asker, pollTimeout, func(t *controller, reply func(ctlReply)) { t.query(reply) },
		func(a ctlReply, ok bool) {
			if !ok {
				c.probe()
			} else {
				c.book.Observe(a.clock)
				c.table.LearnConfig(a.config)
				for _, h := range a.hints {
					c.table.LearnHint(route.Hint{Shard: h.Shard, GID: h.Group, Incarnation: h.Incarnation, Epoch: h.Epoch, Replicas: h.Replicas})
				}
			}
			c.table.Refreshed()
			if c.table.Learned() == before {
				c.rest = min(2*c.rest, refreshRestMax)
			} else {
				c.rest = refreshEvery
			}
			c.n.after(c.rest, func() { c.refreshing = false })
		})
}

// probe asks a replica of every known group what the group holds, as clerk does
// when no controller answers.
func (c *clerk) probe() {
	for _, g := range c.table.Groups() {
		addr := g.Replicas[c.rng.IntN(len(g.Replicas))]
		to := c.w.address[addr]
		call(c.n, to, pollTimeout, c.w.p.Dup, func(reply func(func())) {
			s := serverOf(to, &g.Incarnation, g.Incarnation.IsZero())
			if s == nil {
				return
			}
			self, addrs, leads := s.l.self, s.l.addrs, ""
			if s.r.lead >= 0 {
				leads = s.r.g.replicas[s.r.lead].n.addr
			}
			var hints []route.Hint
			for _, rec := range s.l.view(s.r.machine.at).Records {
				if rec.Phase.Serves() || rec.Phase == kvfsm.PhaseFrozen {
					hints = append(hints, route.Hint{Shard: rec.Shard, Epoch: rec.Epoch, GID: self.Group, Incarnation: self.Incarnation})
				}
			}
			reply(func() {
				c.table.LearnReplica(self.Group, self.Incarnation, addrs, leads)
				for _, h := range hints {
					c.table.LearnHint(h)
				}
			})
		}, func(learn func(), how ending, _ bool) {
			if how == answered {
				learn()
			}
		})
	}
}

// next makes the lane's next call, after a while.
func (l *lane) next() {
	c := l.c
	if l.left <= 0 {
		l.idle = true
		return
	}
	l.left--
	l.idle = false
	think := between(c.rng, 0, c.w.p.Think)
	c.n.after(think, func() { l.make() })
}

// make draws and starts a call. Keys "a..." are only ever appended to.
func (l *lane) make() {
	c, p := l.c, &l.c.w.p
	switch {
	case chance(c.rng, p.Scans):
		l.scan()
		return
	case chance(c.rng, p.Nonsense/8):
		l.nonsense()
		return
	case p.Big > 0 && c.rng.IntN(40) == 0:
		p.Big--
		l.big()
		return
	}
	o := &op{l: l}
	k := c.rng.IntN(p.Keys)
	o.h.Key = keyName(k)
	o.h.Client = l.number
	appendOnly := o.h.Key[0] == 'a'
	switch x := c.rng.Float64(); {
	case x < p.Reads:
		o.h.Kind, o.read = history.Get, true
	case appendOnly:
		o.h.Kind = history.Append
	case x < p.Reads+p.Conditional:
		o.h.Kind = history.PutIf
		o.h.IfVersion = uint64(l.seen[o.h.Key])
	case c.rng.IntN(8) == 0:
		o.h.Kind = history.Delete
	case c.rng.IntN(2) == 0:
		o.h.Kind = history.Append
	default:
		o.h.Kind = history.Put
	}
	if !o.read && o.h.Kind != history.Delete {
		l.tokens++
		o.h.Value = history.Token(l.number, l.tokens)
		if o.h.Kind != history.Append {
			o.h.Value += string(make([]byte, c.rng.IntN(p.ValueBytes+1)))
		}
	}
	o.start(c.w.now + p.Deadline)
}

// keyName names a key: a third of them are for appends only.
func keyName(k int) string {
	if k%3 == 0 {
		return fmt.Sprintf("a%d", k)
	}
	if k%7 == 5 {
		return fmt.Sprintf("k{t}%d", k) // in one shard
	}
	return fmt.Sprintf("k%d", k)
}
