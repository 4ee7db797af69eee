package sim

import (
	"errors"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Config numbers stand for one config each, for good, at whichever replica and in
// whichever form: the operator looks at them as clerk's Admin does.

// checkConfig checks a config that somebody was told.
func (w *World) checkConfig(c *shardcfg.Config, how string) {
	if made := w.controllers.configs[c.Num]; made == nil || !made.Equal(c) {
		w.fail("config", "config %d, %s, is %+v; it was made as %+v", c.Num, how, c, made)
	}
}

// A news is what a watch tells: a config, or how it differs from the one that the
// watcher has.
type news struct {
	config *shardcfg.Config
	delta  *shardcfg.Delta
}

// watched follows shardctrler's Watch.
func (c *controller) watched(have shardcfg.ConfigNum, reply func(news)) {
	v, latest := c.state()
	if latest == nil || latest.Num <= have {
		return
	}
	last, kept, err := v.ConfigAt(have)
	if c.r.failed(err, "read a config") {
		return
	}
	if kept && have > 0 {
		reply(news{delta: shardcfg.DeltaBetween(last, latest)})
		return
	}
	reply(news{config: latest})
}

// watch asks a controller that has something new.
func (o *operator) watch(c *controller) {
	w := o.w
	var have shardcfg.ConfigNum
	if o.have != nil {
		have = o.have.Num
	}
	call(o.n, c.r.n, pollTimeout, w.p.Dup, func(reply func(news)) { c.watched(have, reply) }, func(n news, how ending, _ bool) {
		switch {
		case how != answered:
			return
		case n.delta == nil:
			w.checkConfig(n.config, "told whole")
			o.have = n.config.Clone()
			return
		case o.have == nil:
			return // a delta from what it forgot
		}
		// Other news may have come before these.
		next, err := n.delta.Apply(o.have)
		switch {
		case o.have.Num != n.delta.From && errors.Is(err, shardcfg.ErrDeltaMismatch):
			o.have = nil // start over with a whole config
		case err != nil || o.have.Num != n.delta.From:
			w.fail("config", "a delta from %d to %d, applied to %d: %v", n.delta.From, n.delta.Num, o.have.Num, err)
		default:
			w.checkConfig(next, "told by a delta")
			o.have = next
		}
	})
}

// look reads an old config, and what groups reported, of any controller.
func (o *operator) look() {
	w := o.w
	c := w.controllers.nodes[o.rng.IntN(len(w.controllers.nodes))].host.top.(*controller)
	num := shardcfg.ConfigNum(o.rng.Uint64N(uint64(w.controllers.latest.Num) + 2))
	call(o.n, c.r.n, pollTimeout, w.p.Dup, func(reply func(*shardcfg.Config)) {
		v, latest := c.state()
		if latest == nil {
			return
		}
		oldest, err := v.Oldest()
		if c.r.failed(err, "read the number of the oldest config") {
			return
		}
		found, kept, err := v.ConfigAt(num)
		if c.r.failed(err, "read a config") {
			return
		}
		if want := num >= oldest && num <= latest.Num || num == 0; kept != want {
			w.fail("config", "config %d of those from %d to %d is kept: %v", num, oldest, latest.Num, kept)
		}
		c.checkReports()
		reply(found)
	}, func(found *shardcfg.Config, how ending, _ bool) {
		if how == answered && found != nil {
			w.checkConfig(found, "asked for by its number")
		}
	})
}

// checkReports checks what the leader remembers of groups, as shardctrler's Info
// tells it.
func (c *controller) checkReports() {
	w := c.cs.w
	all := c.memory.All()
	for i, r := range all {
		if i > 0 && (all[i-1].Group > r.Group || all[i-1].Incarnation == r.Incarnation) {
			w.fail("reports", "group %d is listed after group %d", r.Group, all[i-1].Group)
		}
	}
	for s := range w.p.Shards {
		w.trace.note(traceReport, s, c.memory.Bytes(shardcfg.ShardID(s)), uint64(len(all)))
	}
}
