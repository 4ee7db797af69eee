package ctrlfsm

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const scriptShards = 8

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Fatal(args ...any)
}

// A dialogue is one script's machine. Incarnations and request ids are written
// as one letter each.
type dialogue struct {
	m     *Machine
	st    *store.Mem
	index uint64
	clock uint64
	drawn byte // request ids given out
}

func newDialogue() *dialogue {
	return &dialogue{m: New(scriptShards, nil), st: store.NewMem(), clock: 10_000_000}
}

// TestScripts: the machine answers as the scripts under testdata say. Every
// command is a line of its own; the answer to an admin command is the config it
// led to.
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			d := newDialogue()
			datadriven.RunTest(t, path, d.run)
		})
	}
}

func (d *dialogue) run(t *testing.T, td *datadriven.TestData) string {
	switch td.Cmd {
	case "clock": // clock +MS
		ms, err := strconv.ParseUint(strings.TrimPrefix(td.CmdArgs[0].Key, "+"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		d.clock += ms
		return ""
	case "restart":
		if err := d.m.Reset(d.st); err != nil {
			t.Fatal(err)
		}
		return ""
	case "config":
		return d.config(t, td)
	case "claims":
		claims, err := NewView(d.st, scriptShards).ClaimsOf(incarnation(td.CmdArgs[0].Key))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintln(claims)
	}
	res := d.apply(t, d.command(t, td))
	switch {
	case res.Refusal != nil:
		return fmt.Sprintf("refused (%v): %s\n", res.Refusal.Reason, res.Refusal.Message)
	case td.Cmd == "claim":
		return fmt.Sprintf("claimed %v\n", res.Claimed)
	case td.Cmd == "repair":
		return verdictsText(res.Repairs)
	case !res.Changed:
		return fmt.Sprintf("no change at %d\n", res.Num)
	}
	return fmt.Sprintf("config %d\n", res.Num) + d.owners(t)
}

func (d *dialogue) apply(t fataler, c Command) Result {
	d.index++
	b, err := d.st.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	results, err := d.m.Apply(b, &entry.Entry{Index: d.index, Term: 1, Clock: d.clock, Commands: []entry.Command{c.Encode()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	return results[0].(Result)
}

func (d *dialogue) latest(t fataler) *shardcfg.Config {
	c, err := NewView(d.st, scriptShards).Latest()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *dialogue) owners(t fataler) string {
	return fmt.Sprintf("  shards %v\n", d.latest(t).Shards)
}

func (d *dialogue) config(t *testing.T, td *datadriven.TestData) string {
	c := d.latest(t)
	if len(td.CmdArgs) > 0 {
		num, err := strconv.ParseUint(td.CmdArgs[0].Key, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		var ok bool
		if c, ok, err = NewView(d.st, scriptShards).ConfigAt(shardcfg.ConfigNum(num)); err != nil {
			t.Fatal(err)
		} else if !ok {
			return "not kept\n"
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "config %d\n  shards %v\n", c.Num, c.Shards)
	for _, gid := range c.GroupIDs() {
		g := c.Groups[gid]
		fmt.Fprintf(&out, "  group %d %v weight=%d %v", gid, g.State, g.Weight, g.Replicas)
		if !g.Incarnation.IsZero() {
			fmt.Fprintf(&out, " is %c", g.Incarnation[0])
		}
		fmt.Fprintln(&out)
	}
	for _, s := range c.PinnedShards() {
		fmt.Fprintf(&out, "  shard %d pinned to %d", s, c.Pins[s].Group)
		if ms := c.Pins[s].MaxPauseMS; ms > 0 {
			fmt.Fprintf(&out, ", pause at most %d ms", ms)
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

func incarnation(letter string) (inc shardcfg.Incarnation) {
	copy(inc[:], letter)
	return inc
}

// request reads id=LETTER and age=MS; without an id every request is new.
func (d *dialogue) request(t *testing.T, td *datadriven.TestData) RequestID {
	d.drawn++
	r := RequestID{ID: shardcfg.ID128{0xFF, d.drawn}, BirthMS: d.clock}
	var age int
	if td.HasArg("age") {
		td.ScanArgs(t, "age", &age)
		r.BirthMS = uint64(int(d.clock) - age)
	}
	if td.HasArg("born") {
		var born int
		td.ScanArgs(t, "born", &born)
		r.BirthMS = uint64(born)
	}
	if td.HasArg("id") {
		var id string
		td.ScanArgs(t, "id", &id)
		r.ID = shardcfg.ID128{}
		copy(r.ID[:], id)
	}
	return r
}

func (d *dialogue) command(t *testing.T, td *datadriven.TestData) Command {
	var shard, gid, adopted, pause uint64
	var inc string
	scan := func(name string, dst any) {
		if td.HasArg(name) {
			td.ScanArgs(t, name, dst)
		}
	}
	scan("shard", &shard)
	scan("group", &gid)
	scan("adopted", &adopted)
	scan("pause", &pause)
	scan("is", &inc)
	switch td.Cmd {
	case "join":
		return Join{Request: d.request(t, td), Groups: joinGroups(t, td)}
	case "leave":
		return Leave{Request: d.request(t, td), Groups: numbers[shardcfg.GroupID](t, td)}
	case "move":
		return Move{Request: d.request(t, td), Shard: shardcfg.ShardID(shard), Group: shardcfg.GroupID(gid), MaxPauseMS: uint32(pause)}
	case "unpin":
		return Unpin{Request: d.request(t, td), Shard: shardcfg.ShardID(shard)}
	case "bind":
		var replicas []string
		for _, a := range td.CmdArgs {
			if a.Key == "at" {
				replicas = addresses(a.Vals)
			}
		}
		return Bind{Group: shardcfg.GroupID(gid), Incarnation: incarnation(inc), Replicas: replicas}
	case "claim":
		return Claim{Incarnation: incarnation(inc), Shards: numbers[shardcfg.ShardID](t, td)}
	case "drained":
		return Drained{Incarnation: incarnation(inc), Adopted: shardcfg.ConfigNum(adopted)}
	case "retire":
		return Retire{Request: d.request(t, td), Incarnation: incarnation(td.CmdArgs[0].Key)}
	case "repair":
		return d.repair(t, td)
	}
	t.Fatalf("unknown command %q", td.Cmd)
	return nil
}

// repair reads num=, asked=(LETTER,...), loss, and for each case a line: the
// shard, its last repair's generation, and for each answer
// LETTER:nothing|frozen|token@GEN.NUM, with >LETTER for who comes next.
func (d *dialogue) repair(t *testing.T, td *datadriven.TestData) Command {
	c := RepairShards{Num: d.latest(t).Num, LossAccepted: td.HasArg("loss")}
	for _, a := range td.CmdArgs {
		switch a.Key {
		case "num":
			n, err := strconv.ParseUint(a.Vals[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			c.Num = shardcfg.ConfigNum(n)
		case "asked":
			for _, letter := range addresses(a.Vals) {
				c.Asked = append(c.Asked, incarnation(letter))
			}
		}
	}
	for line := range strings.Lines(td.Input) {
		words := strings.Fields(line)
		var k RepairCase
		if _, err := fmt.Sscan(words[0]+" "+words[1], &k.Shard, &k.LastGen); err != nil {
			t.Fatal(err)
		}
		for _, word := range words[2:] {
			k.Answers = append(k.Answers, answer(t, word))
		}
		c.Cases = append(c.Cases, k)
	}
	return c
}

func answer(t *testing.T, word string) Answer {
	a := Answer{Group: incarnation(word[:1])}
	word, to, _ := strings.Cut(word[2:], ">")
	a.To = incarnation(to)
	what, epoch, _ := strings.Cut(word, "@")
	a.Holding = map[string]Holding{"nothing": HoldsNothing, "frozen": HoldsFrozen, "token": HoldsToken}[what]
	if _, err := fmt.Sscanf(epoch, "%d.%d", &a.Epoch.Gen, &a.Epoch.Num); err != nil {
		t.Fatal(err)
	}
	return a
}

func verdictsText(list []Verdict) string {
	var out strings.Builder
	for _, v := range list {
		fmt.Fprintf(&out, "shard %d: %v", v.Shard, v.Fate)
		if !v.Group.IsZero() {
			fmt.Fprintf(&out, ", %c", v.Group[0])
		}
		if v.Granted.Gen != 0 {
			fmt.Fprintf(&out, "; granted generation %d", v.Granted.Gen)
			if !v.Granted.Frozen.IsZero() {
				fmt.Fprintf(&out, " for epoch %v", v.Granted.Frozen)
			}
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

// joinGroups reads GID=(ADDR,...), and weight=, empty or is= for all of them.
func joinGroups(t *testing.T, td *datadriven.TestData) []JoinGroup {
	var out []JoinGroup
	for _, a := range td.CmdArgs {
		if gid, err := strconv.ParseUint(a.Key, 10, 64); err == nil {
			out = append(out, JoinGroup{ID: shardcfg.GroupID(gid), Replicas: addresses(a.Vals)})
		}
	}
	for i := range out {
		if td.HasArg("weight") {
			var w int
			td.ScanArgs(t, "weight", &w)
			out[i].Weight = uint32(w)
		}
		if td.HasArg("is") {
			var inc string
			td.ScanArgs(t, "is", &inc)
			out[i].Identity, out[i].Incarnation = IdentityFormed, incarnation(inc)
		} else if td.HasArg("empty") {
			out[i].Identity = IdentityEmpty
		}
	}
	return out
}

// addresses reads (), which the parser takes for one empty value, as none.
func addresses(vals []string) []string {
	return slices.DeleteFunc(vals, func(a string) bool { return a == "" })
}

// numbers reads the arguments that are plain numbers, or all=true for every
// shard.
func numbers[T ~uint16 | ~uint64](t *testing.T, td *datadriven.TestData) []T {
	var out []T
	for _, a := range td.CmdArgs {
		if n, err := strconv.ParseUint(a.Key, 10, 16); err == nil {
			out = append(out, T(n))
		}
	}
	if td.HasArg("all") {
		for s := range scriptShards {
			out = append(out, T(s))
		}
	}
	return slices.Clip(out)
}
