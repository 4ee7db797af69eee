package kvfsm_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// The scripts of testdata are dialogues with a few groups of one shard:
//
//	config NUM owner=GID [unbound=GID] [retired=GID]
//	    defines a config
//	entry g=GID [clock=MS]
//	    applies its lines, one command each, as one entry, and prints a result for
//	    each and then the shard's record
//	get g=GID KEY...
//	    reads keys
//	page g=GID to=GID epoch=E h=H [copy=KEY] [tail=REV] [max=BYTES]
//	    reads a page of the shard
//	damage g=GID KEY
//	    changes a staged record behind the machine's back
//
// Lines of an entry, with names of arguments as in the commands:
//
//	put|append|delete KEY [VALUE] [if=VERSION] [ses=N birth=MS seq=N acked=N]
//	floor MS, prune MAX, adopt NUM [cluster=N], create [claimer=GID] [gen=N], start H,
//	stage E H from=GID [to=GID] [frozen], freeze E H, drop E, discard E H,
//	fetch from=GID [max=BYTES] [as=NAME]   a page for our staging, as Chunk or Install
//	again NAME                             the command of an earlier fetch
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		w := &scriptWorld{groups: map[int]*scriptGroup{}, configs: map[int]*shardcfg.Config{}, named: map[string]kvfsm.Command{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return w.run(t, d) })
	})
}

type scriptWorld struct {
	groups  map[int]*scriptGroup
	configs map[int]*shardcfg.Config
	named   map[string]kvfsm.Command
}

type scriptGroup struct {
	gid     int
	store   *store.Mem
	machine *kvfsm.Machine
	index   uint64
	clock   uint64
}

func incOf(gid int) shardcfg.Incarnation {
	if gid == 0 {
		return shardcfg.Incarnation{}
	}
	return shardcfg.Incarnation{0: byte(gid), 15: 1}
}

func peerOf(gid int) kvfsm.Peer {
	return kvfsm.Peer{Incarnation: incOf(gid), Group: shardcfg.GroupID(gid)}
}

func (w *scriptWorld) group(t *testing.T, gid int) *scriptGroup {
	g := w.groups[gid]
	if g == nil {
		g = &scriptGroup{gid: gid, store: store.NewMem(), clock: 1000}
		g.machine = kvfsm.New(kvfsm.Config{Group: shardcfg.GroupID(gid), Incarnation: incOf(gid), ShardCount: 1,
			SessionAheadMax: 100, SessionResultsMax: 3})
		if err := g.machine.Reset(g.store); err != nil {
			t.Fatal(err)
		}
		w.groups[gid] = g
	}
	return g
}

func (w *scriptWorld) run(t *testing.T, d *datadriven.TestData) string {
	args := parseArgs(t, d.CmdArgs)
	switch d.Cmd {
	case "config":
		w.config(t, args)
		return "ok"
	case "entry":
		return w.entry(t, w.group(t, args.num("g", 0)), args, d.Input)
	case "get":
		return w.get(t, w.group(t, args.num("g", 0)), args.plain)
	case "page":
		return w.page(t, args)
	case "damage":
		return damage(t, w.group(t, args.num("g", 0)).store, args.plain[0])
	}
	t.Fatalf("unknown directive %q", d.Cmd)
	return ""
}

func (w *scriptWorld) config(t *testing.T, a scriptArgs) {
	num, err := strconv.Atoi(a.plain[0])
	if err != nil {
		t.Fatal(err)
	}
	c := &shardcfg.Config{Num: shardcfg.ConfigNum(num), Shards: make([]shardcfg.GroupID, a.num("shards", 1)),
		Groups: map[shardcfg.GroupID]shardcfg.Group{}, Pins: map[shardcfg.ShardID]shardcfg.Pin{}}
	c.Shards[0] = shardcfg.GroupID(a.num("owner", 0))
	for gid := 1; gid <= 3; gid++ {
		g := shardcfg.Group{Incarnation: incOf(gid), Replicas: []string{"a:1"}, Weight: 1, State: shardcfg.GroupMember}
		if gid == a.num("unbound", 0) {
			g.Incarnation = shardcfg.Incarnation{}
		}
		c.Groups[shardcfg.GroupID(gid)] = g
	}
	if gid := a.num("retired", 0); gid != 0 {
		c.Retired = []shardcfg.Incarnation{incOf(gid)}
	}
	w.configs[num] = c
}

func (w *scriptWorld) entry(t *testing.T, g *scriptGroup, a scriptArgs, input string) string {
	g.clock = uint64(a.num("clock", int(g.clock)))
	g.index++
	e := entry.Entry{Index: g.index, Clock: g.clock}
	lines := strings.Split(strings.TrimSpace(input), "\n")
	for _, line := range lines {
		e.Commands = append(e.Commands, kvfsm.Encode(w.command(t, g, parseLine(t, line))))
	}
	b, err := g.store.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	results, err := g.machine.Apply(b, &e)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for i, res := range results {
		fmt.Fprintf(&out, "%s: %s\n", strings.Fields(lines[i])[0], resultText(res))
	}
	rec, err := kvfsm.ReadRecord(g.store, 0)
	if err != nil {
		t.Fatal(err)
	}
	return out.String() + recordText(rec)
}

func (w *scriptWorld) command(t *testing.T, g *scriptGroup, a scriptArgs) kvfsm.Command {
	n := func(i int) uint64 { return a.plainNum(t, i) }
	epoch := func(i int) shardcfg.Epoch { return shardcfg.Epoch{Gen: uint32(a.num("egen", 0)), Num: n(i)} }
	handoff := func(i int) shardcfg.ConfigNum { return shardcfg.ConfigNum(n(i)) }
	switch a.cmd {
	case "put", "append", "delete":
		return writeCommand(a)
	case "floor":
		return &kvfsm.RaiseFloor{Floor: n(0)}
	case "prune":
		return &kvfsm.Prune{Max: uint32(n(0))}
	case "adopt":
		return &kvfsm.Adopt{Cluster: shardcfg.ClusterID{byte(a.num("cluster", 1))}, Config: w.configs[int(n(0))]}
	case "create":
		return &kvfsm.Create{Claimer: incOf(a.num("claimer", g.gid)), Gen: uint32(a.num("gen", 0))}
	case "thaw":
		return &kvfsm.Thaw{Epoch: epoch(0), Gen: uint32(a.num("gen", 0))}
	case "start":
		return &kvfsm.Start{Handoff: handoff(0)}
	case "stage":
		return &kvfsm.Stage{Epoch: epoch(0), Handoff: handoff(1), From: peerOf(a.num("from", 0)),
			To: incOf(a.num("to", g.gid)), Frozen: a.flag("frozen")}
	case "freeze":
		return &kvfsm.Freeze{Epoch: epoch(0), Handoff: handoff(1)}
	case "drop":
		return &kvfsm.Drop{Epoch: epoch(0)}
	case "discard":
		return &kvfsm.Discard{Epoch: epoch(0), Handoff: handoff(1)}
	case "fetch":
		return w.fetch(t, g, a)
	case "again":
		return w.named[a.plain[0]]
	}
	t.Fatalf("unknown command %q", a.cmd)
	return nil
}

func writeCommand(a scriptArgs) *kvfsm.Write {
	w := &kvfsm.Write{Op: map[string]kvfsm.Op{"put": kvfsm.OpPut, "append": kvfsm.OpAppend, "delete": kvfsm.OpDelete}[a.cmd],
		Key: []byte(a.plain[0])}
	if len(a.plain) > 1 {
		w.Value = []byte(a.plain[1])
	}
	if n := a.num("fill", 0); n > 0 {
		w.Value = make([]byte, n)
	}
	if v := a.num("if", -1); v >= 0 {
		w.Condition = kvfsm.Condition{Set: true, Version: shardcfg.Revision(v)}
	}
	if s := a.num("seq", 0); s > 0 {
		w.Stamp = session.Stamp{Key: session.Key{Birth: uint64(a.num("birth", 1000)), ID: shardcfg.SessionID{byte(a.num("ses", 0))}},
			Sequence: uint64(s), AckedBelow: uint64(a.num("acked", 0))}
	}
	return w
}

// fetch makes the command that a page for the group's staging becomes.
func (w *scriptWorld) fetch(t *testing.T, g *scriptGroup, a scriptArgs) kvfsm.Command {
	rec, err := kvfsm.ReadRecord(g.store, 0)
	if err != nil || rec.Staging == nil {
		t.Fatalf("no staging: %v", err)
	}
	st := rec.Staging
	p, err := kvfsm.ReadPage(w.group(t, a.num("from", 0)).store, incOf(g.gid), kvfsm.Want{Mark: st.Wanted(), Cursor: st.Cursor}, a.num("max", 1<<20))
	if err != nil || p.NotYours {
		t.Fatalf("page %+v: %v", p, err)
	}
	var c kvfsm.Command = &kvfsm.Chunk{Epoch: st.Epoch, Handoff: st.Handoff, From: st.Cursor, Next: p.Next, Items: p.Items}
	if p.Last && st.Cursor.Tail {
		c = &kvfsm.Install{Epoch: st.Epoch, Handoff: st.Handoff, From: st.Cursor, Items: p.Items, Summary: p.Summary}
	}
	w.named[a.str("as")] = c
	return c
}

func (w *scriptWorld) get(t *testing.T, g *scriptGroup, keys []string) string {
	var out strings.Builder
	for _, key := range keys {
		got, err := kvfsm.Get(g.store, 1, []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s: %v", key, got.Code)
		if got.Code == kvfsm.CodeOK {
			fmt.Fprintf(&out, " %q version %d", got.Value, got.Version)
		}
		out.WriteString(whereText(got.Code, got.Where) + "\n")
	}
	return out.String()
}

func (w *scriptWorld) page(t *testing.T, a scriptArgs) string {
	want := kvfsm.Want{Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: uint64(a.num("epoch", 0))}, Handoff: shardcfg.ConfigNum(a.num("h", 0))}}
	if key := a.str("copy"); key != "" {
		want.Cursor.Key = append([]byte{4}, key...)
	}
	if rev := a.num("tail", -1); rev >= 0 {
		want.Cursor = kvfsm.Cursor{Tail: true, Revision: shardcfg.Revision(rev)}
	}
	p, err := kvfsm.ReadPage(w.group(t, a.num("g", 0)).store, incOf(a.num("to", 0)), want, a.num("max", 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if p.NotYours {
		return fmt.Sprintf("not yours: %v at epoch %v h %d", p.Phase, p.Epoch, p.Handoff)
	}
	var out strings.Builder
	for _, it := range p.Items {
		fmt.Fprintf(&out, "kind %d %q", it.Key[0], it.Key[1:])
		if it.Deleted {
			out.WriteString(" deleted")
		}
		out.WriteString("\n")
	}
	fmt.Fprintf(&out, "next %s", cursorText(p.Next))
	if p.Last {
		fmt.Fprintf(&out, ", last: revision %d removal %d keys %d bytes %d", p.Summary.Revision, p.Summary.RemovalRevision, p.Summary.Keys, p.Summary.Bytes)
	}
	return out.String()
}

// damage flips a bit of the last value that is stored under a user key.
func damage(t *testing.T, s *store.Mem, key string) string {
	it, err := s.Iterate(nil, []byte{0xFF})
	if err != nil {
		t.Fatal(err)
	}
	var k, v []byte
	for it.Next() {
		if strings.HasSuffix(string(it.Key()), "\x04"+key) {
			k, v = append([]byte(nil), it.Key()...), append([]byte(nil), it.Value()...)
		}
	}
	if err := it.Close(); err != nil || k == nil {
		t.Fatalf("no key %q: %v", key, err)
	}
	v[len(v)-1] ^= 1
	b, err := s.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Set(k, v); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	return "ok"
}
