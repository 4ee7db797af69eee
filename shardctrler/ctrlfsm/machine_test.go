package ctrlfsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// samples holds one command of every kind, and the bytes that logs contain.
var samples = []struct {
	command Command
	kind    entry.Kind
	golden  string
}{
	{Join{Request: RequestID{ID: shardcfg.ID128{1}, BirthMS: 300}, Groups: []JoinGroup{
		{ID: 7, Replicas: []string{"a:1", "b:2"}, Weight: 5, Identity: IdentityFormed, Incarnation: shardcfg.Incarnation{9}}}}, 16,
		"01" + "01000000000000000000000000000000" + "ac02" + "01" + "07" + "02" + "03613a31" + "03623a32" + "05" + "02" + "09000000000000000000000000000000"},
	{Leave{Request: RequestID{ID: shardcfg.ID128{2}, BirthMS: 1}, Groups: []shardcfg.GroupID{3, 300}}, 17,
		"01" + "02000000000000000000000000000000" + "01" + "02" + "03" + "ac02"},
	{Move{Request: RequestID{ID: shardcfg.ID128{3}, BirthMS: 1}, Shard: 1023, Group: 4, MaxPauseMS: 250}, 18,
		"01" + "03000000000000000000000000000000" + "01" + "ff07" + "04" + "fa01"},
	{Unpin{Request: RequestID{ID: shardcfg.ID128{4}, BirthMS: 1}, Shard: 5}, 19,
		"01" + "04000000000000000000000000000000" + "01" + "05"},
	{Bind{Group: 6, Incarnation: shardcfg.Incarnation{7}, Replicas: []string{"c:3"}}, 20,
		"01" + "06" + "07000000000000000000000000000000" + "01" + "03633a33"},
	{Claim{Incarnation: shardcfg.Incarnation{8}, Shards: []shardcfg.ShardID{0, 200}}, 21,
		"01" + "08000000000000000000000000000000" + "02" + "00" + "c801"},
	{Drained{Incarnation: shardcfg.Incarnation{9}, Adopted: 12}, 22,
		"01" + "09000000000000000000000000000000" + "0c"},
	{Retire{Request: RequestID{ID: shardcfg.ID128{5}, BirthMS: 1}, Incarnation: shardcfg.Incarnation{9}}, 23,
		"01" + "05000000000000000000000000000000" + "01" + "09000000000000000000000000000000"},
	{RepairShards{Num: 12, Asked: []shardcfg.Incarnation{{7}}, LossAccepted: true, Cases: []RepairCase{
		{Shard: 300, LastGen: 2, Answers: []Answer{{Group: shardcfg.Incarnation{7}, Epoch: shardcfg.Epoch{Gen: 1, Num: 4}, Holding: HoldsFrozen, To: shardcfg.Incarnation{9}}}}}}, 24,
		"01" + "0c" + "01" + "07000000000000000000000000000000" + "01" + "01" + "ac02" + "02" + "01" +
			"07000000000000000000000000000000" + "01" + "04" + "01" + "09000000000000000000000000000000"},
}

// TestCommandEncodingNeverChanges holds the bytes of the log.
func TestCommandEncodingNeverChanges(t *testing.T) {
	for _, s := range samples {
		ec := s.command.Encode()
		if got := hex.EncodeToString(ec.Body); ec.Kind != s.kind || got != s.golden {
			t.Errorf("%T: kind %d, %s; want kind %d, %s", s.command, ec.Kind, got, s.kind, s.golden)
		}
		got, err := Decode(ec)
		clear(ec.Body)
		if err != nil || !reflect.DeepEqual(got, s.command) {
			t.Errorf("%T decoded: %+v, %v", s.command, got, err)
		}
	}
}

// TestStoredEncodingNeverChanges holds the bytes of the store.
func TestStoredEncodingNeverChanges(t *testing.T) {
	m := meta{num: 1, oldest: 2, historyBytes: 3, floorMS: 4, clockMS: 5, requests: 6, claims: 7}
	const wantMeta = "01" + "00000400" + "0000000000000001" + "0000000000000002" + "0000000000000003" +
		"0000000000000004" + "0000000000000005" + "0000000000000006" + "0000000000000007"
	if got := hex.EncodeToString(m.encode(1024)); got != wantMeta {
		t.Errorf("meta: %s, want %s", got, wantMeta)
	}
	const wantRepair = "09000000000000000000000000000000" + "00000001" + "0000000000000002" + "00000003"
	repair := Repair{Group: shardcfg.Incarnation{9}, Frozen: shardcfg.Epoch{Gen: 1, Num: 2}, Gen: 3}
	if got := hex.EncodeToString(encodeRepair(repair)); got != wantRepair {
		t.Errorf("repair: %s, want %s", got, wantRepair)
	}
	for want, r := range map[string]Result{
		"01000000000000000701" + "00": {Num: 7, Changed: true},
		"01000000000000000700" + "04": {Num: 7, Refusal: &Refusal{Reason: LastGroup}},
	} {
		if got := hex.EncodeToString(encodeResult(r)); got != want {
			t.Errorf("result %+v: %s, want %s", r, got, want)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, s := range samples {
		ec := s.command.Encode()
		f.Add(byte(ec.Kind), ec.Body)
	}
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		c, err := Decode(entry.Command{Kind: entry.Kind(kind), Body: body})
		if err != nil {
			if !errors.Is(err, ErrCommand) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if again := c.Encode(); byte(again.Kind) != kind || !bytes.Equal(again.Body, body) {
			t.Fatalf("accepted %d %x, which is written %d %x", kind, body, again.Kind, again.Body)
		}
		// Whatever the form allows, Apply answers; it neither fails nor panics.
		newDialogue().apply(t, c)
	})
}

func TestUnknownKindsStopTheReplica(t *testing.T) {
	for _, kind := range []entry.Kind{KindRepair + 1, 200} {
		b, err := store.NewMem().NewBatch()
		if err != nil {
			t.Fatal(err)
		}
		_, err = New(8, nil).Apply(b, &entry.Entry{Commands: []entry.Command{{Kind: kind}}})
		if !errors.Is(err, ErrCommand) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

func TestAStoreOfAnotherShardCountIsRefused(t *testing.T) {
	d := newDialogue()
	d.apply(t, samples[0].command)
	if err := New(16, nil).Reset(d.st); !errors.Is(err, ErrState) {
		t.Errorf("a store of %d shards under a machine of 16: %v", scriptShards, err)
	}
}

// genCommand draws from few groups, incarnations and request ids, so that
// commands meet.
func genCommand(t *rapid.T, clock uint64, latest *shardcfg.Config) Command {
	req := RequestID{ID: shardcfg.ID128{byte(rapid.IntRange(1, 40).Draw(t, "request"))}, BirthMS: clock}
	if rapid.Bool().Draw(t, "older") {
		req.BirthMS -= rapid.Uint64Range(0, RequestLifeMS+5).Draw(t, "age") / 1000 * 1000
	}
	gid := func() shardcfg.GroupID { return shardcfg.GroupID(rapid.IntRange(0, 5).Draw(t, "gid")) }
	shard := func() shardcfg.ShardID { return shardcfg.ShardID(rapid.IntRange(0, scriptShards).Draw(t, "shard")) }
	inc := shardcfg.Incarnation{byte(rapid.IntRange(0, 7).Draw(t, "incarnation"))}
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 9:
		return Retire{Request: req, Incarnation: inc}
	case 10, 11:
		return genRepair(t, latest)
	case 0, 1:
		j := Join{Request: req}
		for range rapid.IntRange(1, 2).Draw(t, "groups") {
			g := JoinGroup{ID: gid(), Weight: uint32(rapid.IntRange(0, 3).Draw(t, "weight"))}
			g.Replicas = []string{fmt.Sprintf("h%d:%d", g.ID, rapid.IntRange(0, 1).Draw(t, "port"))}
			if g.Identity = Identity(rapid.IntRange(0, 2).Draw(t, "identity")); g.Identity == IdentityFormed {
				g.Incarnation = inc
			}
			j.Groups = append(j.Groups, g)
		}
		return j
	case 2:
		return Leave{Request: req, Groups: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) shardcfg.GroupID {
			return shardcfg.GroupID(rapid.IntRange(0, 5).Draw(t, "gid"))
		}), 0, 3).Draw(t, "gids")}
	case 3:
		return Move{Request: req, Shard: shard(), Group: gid()}
	case 4:
		return Unpin{Request: req, Shard: shard()}
	case 5, 6:
		g := gid()
		return Bind{Group: g, Incarnation: inc, Replicas: []string{fmt.Sprintf("h%d:0", g)}}
	case 7:
		return Claim{Incarnation: inc, Shards: []shardcfg.ShardID{shard(), shard()}}
	default:
		return Drained{Incarnation: inc, Adopted: shardcfg.ConfigNum(rapid.IntRange(0, 30).Draw(t, "adopted"))}
	}
}

// genRepair draws answers of the groups of the latest config, as a rule.
func genRepair(t *rapid.T, latest *shardcfg.Config) Command {
	num := rapid.IntRange(0, 9).Draw(t, "older")
	c := RepairShards{Num: latest.Num - min(latest.Num, shardcfg.ConfigNum(num/9)), LossAccepted: rapid.Bool().Draw(t, "loss")}
	for _, gid := range latest.GroupIDs() {
		if inc := latest.Groups[gid].Incarnation; !inc.IsZero() && rapid.IntRange(0, 9).Draw(t, "silent") > 0 {
			c.Asked = append(c.Asked, inc)
		}
	}
	slices.SortFunc(c.Asked, shardcfg.Incarnation.Compare)
	k := RepairCase{Shard: shardcfg.ShardID(rapid.IntRange(0, scriptShards).Draw(t, "shard")), LastGen: uint32(rapid.IntRange(0, 3).Draw(t, "last"))}
	for _, inc := range c.Asked {
		a := Answer{Group: inc, Holding: Holding(rapid.IntRange(0, 2).Draw(t, "holding")), To: shardcfg.Incarnation{byte(rapid.IntRange(0, 7).Draw(t, "to"))}}
		a.Epoch = shardcfg.Epoch{Gen: uint32(rapid.IntRange(0, 2).Draw(t, "gen")), Num: rapid.Uint64Range(0, 3).Draw(t, "num")}
		k.Answers = append(k.Answers, a)
	}
	c.Cases = []RepairCase{k}
	return c
}

// checkRepairs: a repair is granted by the answers of all groups of the latest
// config, to one of them, in a generation that no other had; the last one stands.
func checkRepairs(t *rapid.T, d *dialogue, c Command, res Result, latest *shardcfg.Config, gens map[uint32]Repair) {
	r, repair := c.(RepairShards)
	for _, v := range res.Repairs {
		if v.Granted.Gen == 0 {
			continue
		}
		_, again := gens[v.Granted.Gen]
		_, listed := latest.GroupOf(v.Granted.Group)
		stored, err := NewView(d.st, scriptShards).Repair(v.Shard)
		switch {
		case !repair || r.Num != latest.Num:
			t.Fatalf("%+v granted %+v at config %d", c, v, latest.Num)
		case again:
			t.Fatalf("generation %d was granted as %+v, then as %+v", v.Granted.Gen, gens[v.Granted.Gen], v)
		case !listed || latest.IsRetired(v.Granted.Group):
			t.Fatalf("%+v is granted to a group that is not there", v)
		case err != nil || stored != v.Granted:
			t.Fatalf("granted %+v, stored %+v, %v", v, stored, err)
		case !r.LossAccepted:
			t.Fatalf("%+v, though the loss was not accepted", v)
		}
		gens[v.Granted.Gen] = v.Granted
	}
}

// TestRandomHistoriesKeepTheRules: numbers rise by one per change, claims never
// change, every config passes its check, a bound group goes only by a report
// that is late enough or because it is destroyed, generations are granted once,
// and a repeated request answers as before.
func TestRandomHistoriesKeepTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDialogue()
		answers := map[RequestID]Result{}
		left := map[shardcfg.Incarnation]shardcfg.ConfigNum{}
		claimed := map[shardcfg.ShardID]shardcfg.Incarnation{}
		gens := map[uint32]Repair{}
		var log []entry.Entry
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			d.clock += rapid.Uint64Range(0, RequestLifeMS/8).Draw(t, "pause")
			before := d.latest(t)
			c := genCommand(t, d.clock, before)
			res := d.apply(t, c)
			log = append(log, entry.Entry{Index: d.index, Clock: d.clock, Commands: []entry.Command{c.Encode()}})
			after := d.latest(t)

			checkNumbers(t, c, res, answers, before, after)
			checkGone(t, c, left, before, after)
			checkClaims(t, d, claimed, after)
			checkRepairs(t, d, c, res, before, gens)
		}
		if again := replay(t, log, rapid.IntRange(1, 7).Draw(t, "pack")); again != d.st.Hash() {
			t.Fatal("the same log, packed and batched differently, led to another state")
		}
	})
}

func checkNumbers(t *rapid.T, c Command, res Result, answers map[RequestID]Result, before, after *shardcfg.Config) {
	id, admin := requestOf(c)
	if was, repeated := answers[id]; admin && repeated && (res.Refusal == nil || res.Refusal.Reason != RequestExpired) {
		if res.Num != was.Num || res.Changed != was.Changed || (res.Refusal == nil) != (was.Refusal == nil) || !after.Equal(before) {
			t.Fatalf("%+v answered %+v first, then %+v", c, was, res)
		}
		return
	}
	if admin && (res.Refusal == nil || res.Refusal.Reason != RequestExpired) {
		answers[id] = res
	}
	switch {
	case res.Changed && (res.Num != before.Num+1 || after.Num != res.Num || after.Equal(before)):
		t.Fatalf("%+v: %+v led from config %d to %d", c, res, before.Num, after.Num)
	case !res.Changed && !after.Equal(before):
		t.Fatalf("%+v: %+v changed config %d", c, res, before.Num)
	case res.Refusal != nil && res.Changed:
		t.Fatalf("%+v was refused, and made config %d", c, res.Num)
	}
	if err := after.Check(); err != nil {
		t.Fatal(err)
	}
}

func requestOf(c Command) (RequestID, bool) {
	switch c := c.(type) {
	case Join:
		return c.Request, true
	case Leave:
		return c.Request, true
	case Move:
		return c.Request, true
	case Unpin:
		return c.Request, true
	case Retire:
		return c.Request, true
	}
	return RequestID{}, false
}

func checkGone(t *rapid.T, c Command, left map[shardcfg.Incarnation]shardcfg.ConfigNum, before, after *shardcfg.Config) {
	for gid, g := range before.Groups {
		now, listed := after.Groups[gid]
		switch {
		case g.Incarnation.IsZero():
		case listed && now.Incarnation != g.Incarnation:
			t.Fatalf("%+v turned group %d from %v into %v", c, gid, g.Incarnation, now.Incarnation)
		case listed && now.State == shardcfg.GroupLeaving && g.State == shardcfg.GroupMember:
			left[g.Incarnation] = after.Num
		case listed:
		case after.IsRetired(g.Incarnation):
			if r, ok := c.(Retire); !ok || r.Incarnation != g.Incarnation {
				t.Fatalf("group %d is retired by %+v", gid, c)
			}
		default:
			d, ok := c.(Drained)
			if !ok || g.State != shardcfg.GroupLeaving || d.Incarnation != g.Incarnation || d.Adopted < left[g.Incarnation] {
				t.Fatalf("INV-8: group %d, leaving since %d, went by %+v", gid, left[g.Incarnation], c)
			}
		}
	}
}

func checkClaims(t *rapid.T, d *dialogue, claimed map[shardcfg.ShardID]shardcfg.Incarnation, after *shardcfg.Config) {
	v := NewView(d.st, scriptShards)
	for s := range shardcfg.ShardID(scriptShards) {
		by, err := v.ClaimedBy(s)
		if err != nil {
			t.Fatal(err)
		}
		_, owner := after.Owner(s)
		switch {
		case claimed[s] == by:
		case !claimed[s].IsZero():
			t.Fatalf("shard %d was claimed by %v, then by %v", s, claimed[s], by)
		case by != owner:
			t.Fatalf("shard %d was claimed by %v, and %v owns it", s, by, owner)
		}
		claimed[s] = by
	}
	if len(claimed) > 0 && len(after.Groups) == 0 && len(after.Retired) == 0 {
		for s, by := range claimed {
			if !by.IsZero() {
				t.Fatalf("shard %d was claimed, and no group is left", s)
			}
		}
	}
}

// replay applies a log to a new machine, several entries to a batch, forgetting
// the cache now and then.
func replay(t *rapid.T, log []entry.Entry, pack int) store.Sum {
	st, m := store.NewMem(), New(scriptShards, nil)
	for len(log) > 0 {
		n := min(pack, len(log))
		b, err := st.NewBatch()
		if err != nil {
			t.Fatal(err)
		}
		for i := range log[:n] {
			if _, err := m.Apply(b, &log[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := m.Reset(st); err != nil {
			t.Fatal(err)
		}
		log = log[n:]
	}
	return st.Hash()
}

// TestHistoryAndRequestsAreBounded: old configs and results go, the newest stay.
func TestHistoryAndRequestsAreBounded(t *testing.T) {
	d := newDialogue()
	d.apply(t, Join{Request: RequestID{ID: shardcfg.ID128{1}, BirthMS: d.clock}, Groups: []JoinGroup{
		{ID: 1, Replicas: []string{"a:1"}}, {ID: 2, Replicas: []string{"b:1"}}}})
	id := uint64(0)
	for d.latest(t).Num < HistoryMax+20 {
		// One entry with many commands: the bounds hold within it as well.
		e := entry.Entry{Clock: d.clock}
		for range 2000 {
			id++
			var req RequestID
			copy(req.ID[:], be64(id<<8|1))
			req.BirthMS = d.clock + id
			e.Commands = append(e.Commands, Move{Request: req, Shard: 0, Group: shardcfg.GroupID(id%2 + 1)}.Encode())
		}
		b, err := d.st.NewBatch()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.m.Apply(b, &e); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	v := NewView(d.st, scriptShards)
	latest := d.latest(t).Num
	oldest, err := v.Oldest()
	if err != nil || oldest != latest-HistoryMax+1 {
		t.Fatalf("oldest kept is %d of %d, %v", oldest, latest, err)
	}
	for num, want := range map[shardcfg.ConfigNum]bool{0: true, oldest - 1: false, oldest: true, latest: true, latest + 1: false} {
		if _, ok, err := v.ConfigAt(num); ok != want || err != nil {
			t.Errorf("config %d kept: %v, %v; want %v", num, ok, err, want)
		}
	}
	meta, err := v.meta()
	if err != nil || meta.requests != id+1 {
		t.Fatalf("%d requests kept of %d, %v", meta.requests, id+1, err)
	}
	d.clock += 2 * RequestLifeMS
	d.apply(t, Unpin{Request: RequestID{ID: shardcfg.ID128{9}, BirthMS: d.clock}})
	if meta, err = v.meta(); err != nil || meta.requests != 1 {
		t.Fatalf("after their life %d requests are kept, %v", meta.requests, err)
	}
}
