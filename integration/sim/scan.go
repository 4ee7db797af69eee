package sim

import (
	"math"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A scanning is one scan under way, page by page, as clerk's Scan goes. What it
// yields is checked against all that the model knows of the keys: each page is one
// moment of its shard, and a key that is there throughout appears exactly once.
type scanning struct {
	o     *op
	walk  route.Walk
	ask   kvfsm.Scan
	begin int64 // tick of the history when the scan began, and when its page did
	page  int64
	seen  map[string]int
}

var scanPrefixes = []string{"", "", "k", "a1", "k{", "k{t}", "zz"}

// scan draws and starts a scan.
func (l *lane) scan() {
	c := l.c
	w := c.w
	sc := &scanning{seen: map[string]int{}, begin: w.history.tick()}
	sc.o = &op{l: l, read: true, scan: sc}
	sc.ask = kvfsm.Scan{Prefix: []byte(scanPrefixes[c.rng.IntN(len(scanPrefixes))]), KeysOnly: c.rng.IntN(4) == 0,
		KeysMax: []int{1, 2, 5, 1000}[c.rng.IntN(4)], BytesMax: []int{1, 100, math.MaxInt}[c.rng.IntN(3)]}
	sc.walk, _ = route.NewWalk(sc.ask.Prefix, w.p.Shards, 0, nil)
	w.stats.Operations++
	w.stats.Scans++
	sc.next()
}

// next asks for the next page.
func (sc *scanning) next() {
	o, w := sc.o, sc.o.l.c.w
	sc.page = w.history.tick()
	sc.ask.Shard, sc.ask.After = sc.walk.Shard, sc.walk.After
	o.h = history.Operation{Client: o.l.number, Kind: history.Get, Call: sc.page}
	o.route, o.until = sc.walk.Op(), w.now+w.p.Deadline
	o.retries = 0
	o.l.c.n.after(w.p.Deadline, func() { o.expire() })
	o.do(o.l.c.table.Start(&o.route))
}

// turn takes in a page.
func (sc *scanning) turn() {
	o, w := sc.o, sc.o.l.c.w
	page := &o.last.page
	end := w.history.tick()
	w.stats.Pages++
	var last []byte
	for _, e := range page.Entries {
		sc.check(e, last, end)
		last = e.Key
	}
	if done := sc.walk.Turn(last, page.End); !done {
		sc.next()
		return
	}
	for k := range w.p.Keys {
		sc.checkKey(keyName(k), end)
	}
	o.over = true
	o.h.Outcome = history.Done
	w.stats.Done++
	o.ended()
}

// check checks an entry of a page: it belongs there, and its key was so at some
// moment since the page was asked for.
func (sc *scanning) check(e kvfsm.ScanEntry, last []byte, end int64) {
	w := sc.o.l.c.w
	key := string(e.Key)
	sc.seen[key]++
	if shardcfg.ShardOf(e.Key, w.p.Shards) != sc.ask.Shard || key <= string(last) || key <= string(sc.ask.After) {
		w.fail("INV-3", "a page of shard %d behind %q has %q after %q", sc.ask.Shard, sc.ask.After, key, last)
	}
	for _, m := range w.model.between(key, sc.page, end) {
		if m.version == e.Version && m.version != 0 && (sc.ask.KeysOnly || m.value == string(e.Value)) {
			return
		}
	}
	w.fail("INV-3", "a page has %q at version %d as %q, which it was not from tick %d to %d", key, e.Version, e.Value, sc.page, end)
}

// checkKey checks how often a scan met a key.
func (sc *scanning) checkKey(key string, end int64) {
	w := sc.o.l.c.w
	there, gone := true, true
	for _, m := range w.model.between(key, sc.begin, end) {
		there, gone = there && m.version != 0, gone && m.version == 0
	}
	prefixed := len(key) >= len(sc.ask.Prefix) && key[:len(sc.ask.Prefix)] == string(sc.ask.Prefix)
	switch n := sc.seen[key]; {
	case w.lost(key):
	case n > 1, prefixed && there && n != 1, (!prefixed || gone) && n != 0:
		w.fail("scan", "%q appears %d times in a scan of %q from tick %d to %d; there throughout %v, gone throughout %v",
			key, n, sc.ask.Prefix, sc.begin, end, there, gone)
	}
}

// stop ends a scan that got no further.
func (sc *scanning) stop() {
	o, w := sc.o, sc.o.l.c.w
	o.over = true
	o.h.Outcome = history.NotDone
	w.stats.NotDone++
	o.ended()
}
