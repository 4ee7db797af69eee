package explore

import (
	"encoding/binary"
	"slices"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// FindPlant returns the plant of a name.
func FindPlant(name string) (Plant, bool) {
	i := slices.IndexFunc(Plants, func(p Plant) bool { return p.Name == name })
	if i < 0 {
		return Plant{}, false
	}
	return Plants[i], true
}

// Plants are known mistakes, most of which a draft of the protocol made.
var Plants = []Plant{
	{Name: "incarnation-unfenced", About: "an emptied group joins again as the same incarnation",
		Bound: tinyEmptied, Full: true, Catches: "INV-1", SameIncarnation: true},
	{Name: "create-without-claim", About: "an owner creates a shard without the claim",
		Bound: tinyHandoff, Catches: "INV-1", Propose: proposeCreate},
	{Name: "claim-forgotten", About: "a claimer never learns that it was granted the claim",
		Bound: tinyHandoff, Catches: "INV-5", ForgetClaims: true},
	{Name: "late-start", About: "Start takes effect with the number of a config that is not adopted any more",
		Bound: tinyMoves, Full: true, Catches: "INV-4", Apply: lateStart},
	{Name: "older-config", About: "Adopt goes back to an older config",
		Bound: tinyHandoff, Catches: "INV-4", Apply: olderConfig},
	{Name: "stage-before-adopting", About: "Stage does not ask whether the config of the handoff is adopted",
		Bound: tinyMoves, Catches: "INV-4", Apply: stageBeforeAdopting, Invited: stageOnAnyInvite},
	{Name: "freeze-without-h", About: "Freeze does not compare the handoff: an older handoff's copy satisfies it",
		Bound: tinyMoves, Full: true, Catches: "INV-7", Apply: freezeWithoutHandoff},
	{Name: "ghost-freeze", About: "the holder freezes before the receiver has the copy",
		Bound: tinyHandoff, Catches: "INV-7", Propose: proposeFreeze},
	{Name: "unfreeze", About: "a Frozen shard serves again when a config gives it back",
		Bound: tinyWrites, Catches: "INV-1", Apply: unfreeze},
	{Name: "write-while-frozen", About: "writes are applied to a Frozen shard",
		Bound: tinyHandoff, Catches: "INV-2", Apply: writeWhileFrozen},
	{Name: "read-while-frozen", About: "reads do not look at the phase",
		Bound: tinyHandoff, Catches: "INV-3", Get: getAnyPhase},
	{Name: "change-log-lost", About: "the change log is not in the store",
		Bound: tinyHandoff, Catches: "INV-6", Apply: loseChangeLog},
	{Name: "sessions-not-moved", About: "pages leave out sessions",
		Bound: tinyWrites, Catches: "INV-6", Page: leaveOutSessions},
	{Name: "tail-moved-during-copy", About: "the tail begins where the copy ended, not where the handoff began",
		Bound: tinyWrites, Catches: "INV-6", Page: moveTail},
	{Name: "chunk-without-cursor", About: "a page of the tail is applied wherever the cursor stands",
		Bound: tinyAppends, Full: true, Catches: "INV-6", Apply: chunkWithoutCursor},
	{Name: "page-without-h", About: "Chunk and Install compare neither epoch nor handoff",
		Bound: tinyRepeats, Full: true, Catches: "INV-6", Apply: pageWithoutMark},
	{Name: "drop-before-ack", About: "the holder drops as soon as it is Frozen",
		Bound: tinyHandoff, Catches: "INV-2", Propose: proposeDrop},
	{Name: "drop-without-epoch", About: "a late Drop deletes a newer frozen copy",
		Bound: tinyMoves, Full: true, Catches: "INV-2", Apply: dropWithoutEpoch},
	{Name: "tombstone-deleted", About: "Drop deletes the record too",
		Bound: tinyHandoff, Catches: "INV-4", Apply: deleteTombstone},
	{Name: "early-discard", About: "a staging is discarded without proof",
		Bound: tinyHandoff, Catches: "INV-8", Propose: proposeDiscard},
	{Name: "refusal-while-frozen", About: "a receiver that is not the owner any more refuses a Frozen source",
		Bound: tinyFaults, Catches: "INV-5", Apply: refuseFrozen},
	{Name: "no-re-copy", About: "a staging that differs from what was frozen is kept",
		Bound: tinyFaults, Catches: "INV-5", Apply: keepDamaged},
	{Name: "repair-in-silence", About: "a repair is judged though a group did not answer",
		Bound: tinyLoss, Catches: "INV-1", SilentIgnored: true},
	{Name: "answer-before-adopting", About: "a group answers before it has adopted the config that retires another",
		Bound: tinyLoss, Catches: "INV-1", AnswerEarly: true},
	{Name: "reformed-with-tokens", About: "a group that begins with a destroyed group's disk serves what that one served",
		Bound: tinyReformed, Full: true, Catches: "INV-2", Reform: func(store.Batch, kvfsm.Peer) (int, error) { return 0, nil }},
	{Name: "own-generation", About: "a group chooses the generation of a repaired shard itself",
		Bound: tinyRelapse, Catches: "INV-1", OwnGeneration: true},
	{Name: "thaw-of-an-old-copy", About: "a frozen copy is thawed though another group shows a greater epoch",
		Bound: tinyLosses, Catches: "INV-1", Judge: thawAny},
	{Name: "lost-while-moving", About: "a tombstone counts as a loss though it names a group that lives",
		Bound: tinyRelapse, Catches: "INV-1", Judge: loseMoving},
	{Name: "lost-while-claimed", About: "a shard counts as lost though its claimer lives and will create it",
		Bound: tinyRelapse, Catches: "INV-1", Judge: loseClaimed},
	{Name: "retired-believed", About: "pages of a destroyed group are taken after it was retired",
		Bound: tinyLoss, Full: true, Catches: "INV-8", Apply: believeRetired},
	{Name: "expired-executed", About: "a pruned session's retry is executed",
		Bound: tinyExpiry, Catches: "INV-2", Apply: executeExpired},
}

// Bytes of an encoded Record while its numbers are small, and its key.
const (
	recordPhaseAt   = 1
	recordHandoffAt = 4
)

func recordKey(s shardcfg.ShardID) []byte {
	return binary.BigEndian.AppendUint16([]byte{0xFF, 0xFE, 1}, uint16(s))
}

// adoptedKeys are those of the adopted config and of its number.
var adoptedKeys = [][]byte{{0xFF, 0xFE, 2}, {0xFF, 0xFE, 4}}

func (g *Planted) setRecord(s shardcfg.ShardID, at int, v byte) error {
	return g.Edit(recordKey(s), func(value []byte) []byte { value[at] = v; return value })
}

// each returns one command for every record that f gives one for.
func each(v *handoff.View, f func(r *kvfsm.Record) kvfsm.Command) (list []kvfsm.Command) {
	for i := range v.Records {
		if c := f(&v.Records[i]); c != nil {
			list = append(list, c)
		}
	}
	return list
}

func proposeCreate(self kvfsm.Peer, v *handoff.View) []kvfsm.Command {
	if v.Config == nil {
		return nil
	}
	if _, owner := v.Config.Owner(0); owner != self.Incarnation {
		return nil
	}
	return []kvfsm.Command{&kvfsm.Create{Claimer: self.Incarnation}}
}

func proposeFreeze(_ kvfsm.Peer, v *handoff.View) []kvfsm.Command {
	return each(v, func(r *kvfsm.Record) kvfsm.Command {
		return &kvfsm.Freeze{Shard: r.Shard, Epoch: r.Epoch, Handoff: r.Handoff}
	})
}

func proposeDrop(_ kvfsm.Peer, v *handoff.View) []kvfsm.Command {
	return each(v, func(r *kvfsm.Record) kvfsm.Command { return &kvfsm.Drop{Shard: r.Shard, Epoch: r.Epoch} })
}

func proposeDiscard(_ kvfsm.Peer, v *handoff.View) []kvfsm.Command {
	return each(v, func(r *kvfsm.Record) kvfsm.Command {
		if r.Staging == nil {
			return nil
		}
		return &kvfsm.Discard{Shard: r.Shard, Epoch: r.Staging.Epoch, Handoff: r.Staging.Handoff}
	})
}

func lateStart(g *Planted, c kvfsm.Command) (any, error) {
	start, ok := c.(*kvfsm.Start)
	if !ok || start.Handoff >= g.View.Adopted() {
		return g.Do(c)
	}
	then := g.View.Config.Clone()
	then.Num = start.Handoff
	then.Shards[start.Shard] = 3 - g.Self.Group // the other of two
	return g.under(then, c)
}

// under applies a command as if another config were the adopted one.
func (g *Planted) under(config *shardcfg.Config, c kvfsm.Command) (any, error) {
	if err := g.setConfig(config); err != nil {
		return nil, err
	}
	res, err := g.Do(c)
	if err != nil {
		return nil, err
	}
	return res, g.setConfig(g.View.Config)
}

func olderConfig(g *Planted, c kvfsm.Command) (any, error) {
	a, ok := c.(*kvfsm.Adopt)
	if !ok || a.Config.Num >= g.View.Adopted() {
		return g.Do(c)
	}
	return kvfsm.Verdict{Done: true}, g.setConfig(a.Config)
}

// setConfig overwrites the adopted config.
func (g *Planted) setConfig(c *shardcfg.Config) error {
	if err := g.Edit(adoptedKeys[0], func([]byte) []byte { return shardcfg.AppendConfig(nil, c) }); err != nil {
		return err
	}
	return g.Edit(adoptedKeys[1], func([]byte) []byte { return binary.BigEndian.AppendUint64(nil, uint64(c.Num)) })
}

func stageBeforeAdopting(g *Planted, c kvfsm.Command) (any, error) {
	st, ok := c.(*kvfsm.Stage)
	if !ok || g.View.Config == nil || st.Handoff <= g.View.Adopted() {
		return g.Do(c)
	}
	later := g.View.Config.Clone()
	later.Num = st.Handoff
	return g.under(later, c)
}

func stageOnAnyInvite(self kvfsm.Peer, v *handoff.View, in handoff.Invite) []kvfsm.Command {
	inv := in.Shards[0]
	return []kvfsm.Command{&kvfsm.Stage{Shard: inv.Shard, Epoch: inv.Epoch.Next(), Handoff: inv.Handoff,
		From: in.From.Peer, To: self.Incarnation, Frozen: inv.Phase == kvfsm.PhaseFrozen}}
}

func freezeWithoutHandoff(g *Planted, c kvfsm.Command) (any, error) {
	if f, ok := c.(*kvfsm.Freeze); ok {
		rec := g.View.Record(f.Shard)
		c = &kvfsm.Freeze{Shard: f.Shard, Epoch: f.Epoch, Handoff: rec.Handoff}
	}
	return g.Do(c)
}

func dropWithoutEpoch(g *Planted, c kvfsm.Command) (any, error) {
	if d, ok := c.(*kvfsm.Drop); ok {
		rec := g.View.Record(d.Shard)
		c = &kvfsm.Drop{Shard: d.Shard, Epoch: rec.Epoch}
	}
	return g.Do(c)
}

func deleteTombstone(g *Planted, c kvfsm.Command) (any, error) {
	res, err := g.Do(c)
	if d, ok := c.(*kvfsm.Drop); ok && err == nil && res.(kvfsm.Verdict).Done {
		err = g.Edit(recordKey(d.Shard), func([]byte) []byte { return nil })
	}
	return res, err
}

func unfreeze(g *Planted, c kvfsm.Command) (any, error) {
	res, err := g.Do(c)
	a, ok := c.(*kvfsm.Adopt)
	if !ok || err != nil || !res.(kvfsm.Verdict).Done {
		return res, err
	}
	for _, r := range g.View.Records {
		if _, owner := a.Config.Owner(r.Shard); r.Phase == kvfsm.PhaseFrozen && owner == g.Self.Incarnation {
			if err := g.setRecord(r.Shard, recordPhaseAt, byte(kvfsm.PhaseServing)); err != nil {
				return nil, err
			}
		}
	}
	return res, nil
}

func writeWhileFrozen(g *Planted, c kvfsm.Command) (any, error) {
	rec := g.View.Record(0)
	if _, ok := c.(*kvfsm.Write); !ok || rec.Phase != kvfsm.PhaseFrozen {
		return g.Do(c)
	}
	if err := g.setRecord(0, recordPhaseAt, byte(kvfsm.PhaseLeaving)); err != nil {
		return nil, err
	}
	res, err := g.Do(c)
	if err != nil {
		return nil, err
	}
	return res, g.setRecord(0, recordPhaseAt, byte(kvfsm.PhaseFrozen))
}

func getAnyPhase(r store.Reader, shards int, key []byte) (kvfsm.Lookup, error) {
	rec, err := kvfsm.ReadRecord(r, shardcfg.ShardOf(key, shards))
	if err != nil || rec.Copy == 0 {
		return kvfsm.Lookup{Code: kvfsm.CodeWrongGroup}, err
	}
	stored := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(nil, uint16(rec.Shard)), rec.Copy)
	raw, ok, err := r.Get(append(append(stored, kindRecord), key...))
	if err != nil || !ok {
		return kvfsm.Lookup{Code: kvfsm.CodeNotFound}, err
	}
	return kvfsm.Lookup{Code: kvfsm.CodeOK, Value: raw[valueHeaderBytes:],
		Version: shardcfg.Revision(binary.BigEndian.Uint64(raw[versionAt:]))}, nil
}

func loseChangeLog(g *Planted, c kvfsm.Command) (any, error) {
	res, err := g.Do(c)
	rec := g.View.Record(0)
	if _, ok := c.(*kvfsm.Write); !ok || err != nil || rec.Phase != kvfsm.PhaseLeaving {
		return res, err
	}
	copyKey := binary.BigEndian.AppendUint64([]byte{0, 0}, rec.Copy)
	b, err := g.Store.NewBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if err := b.DeleteRange(append(copyKey, kvfsm.KindLocalMin), append(slices.Clone(copyKey), 0xFF)); err != nil {
		return nil, err
	}
	return res, b.Commit()
}

func leaveOutSessions(_ store.Reader, p *kvfsm.Page) error {
	const kindSession = 0x02
	p.Items = slices.DeleteFunc(p.Items, func(it kvfsm.Item) bool { return it.Key[0] == kindSession })
	return nil
}

func moveTail(r store.Reader, p *kvfsm.Page) error {
	rec, err := kvfsm.ReadRecord(r, p.Shard)
	if err == nil && !p.NotYours && p.Next.Tail {
		p.Next.Revision = rec.Revision
	}
	return err
}

func chunkWithoutCursor(g *Planted, c kvfsm.Command) (any, error) {
	if ch, ok := c.(*kvfsm.Chunk); ok && ch.From.Tail {
		if rec := g.View.Record(ch.Shard); rec.Staging != nil && rec.Staging.Cursor.Tail {
			moved := *ch
			moved.From = rec.Staging.Cursor
			moved.Next.Revision = max(moved.Next.Revision, moved.From.Revision)
			c = &moved
		}
	}
	return g.Do(c)
}

func pageWithoutMark(g *Planted, c kvfsm.Command) (any, error) {
	switch p := c.(type) {
	case *kvfsm.Chunk:
		if rec := g.View.Record(p.Shard); rec.Staging != nil {
			moved := *p
			moved.Epoch, moved.Handoff = rec.Staging.Epoch, rec.Staging.Handoff
			c = &moved
		}
	case *kvfsm.Install:
		if rec := g.View.Record(p.Shard); rec.Staging != nil {
			moved := *p
			moved.Epoch, moved.Handoff = rec.Staging.Epoch, rec.Staging.Handoff
			c = &moved
		}
	}
	return g.Do(c)
}

func refuseFrozen(g *Planted, c kvfsm.Command) (any, error) {
	if st, ok := c.(*kvfsm.Stage); ok {
		strict := *st
		strict.Frozen = false
		c = &strict
	}
	return g.Do(c)
}

func keepDamaged(g *Planted, c kvfsm.Command) (any, error) {
	if _, ok := c.(*kvfsm.Install); !ok {
		return g.Do(c)
	}
	before := g.Store.Clone()
	res, err := g.Do(c)
	if err == nil && res.(kvfsm.Verdict).Why == kvfsm.ReasonDigest {
		res, *g = kvfsm.Verdict{}, Planted{Self: g.Self, View: g.View, Store: before, do: g.do}
	}
	return res, err
}

func executeExpired(g *Planted, c kvfsm.Command) (any, error) {
	res, err := g.Do(c)
	w, ok := c.(*kvfsm.Write)
	if !ok || err != nil || res.(kvfsm.Outcome).Code != kvfsm.CodeSessionExpired {
		return res, err
	}
	young := *w
	young.Stamp.Key.Birth = birthYoung
	return g.Do(&young)
}

// thawAny thaws the first frozen copy whose receiver was retired.
func thawAny(c *shardcfg.Config, k ctrlfsm.Case) (ctrlfsm.Fate, shardcfg.Incarnation) {
	for _, a := range k.Answers {
		if a.Holding == ctrlfsm.HoldsFrozen && c.IsRetired(a.To) {
			return ctrlfsm.FateThawed, a.Group
		}
	}
	return ctrlfsm.Judge(c, k)
}

func loseMoving(c *shardcfg.Config, k ctrlfsm.Case) (ctrlfsm.Fate, shardcfg.Incarnation) {
	fate, group := ctrlfsm.Judge(c, k)
	if fate == ctrlfsm.FateMoving && !slices.ContainsFunc(k.Answers, func(a ctrlfsm.Answer) bool { return a.Holding == ctrlfsm.HoldsFrozen }) {
		_, owner := c.Owner(k.Shard)
		return ctrlfsm.FateLost, owner
	}
	return fate, group
}

func loseClaimed(c *shardcfg.Config, k ctrlfsm.Case) (ctrlfsm.Fate, shardcfg.Incarnation) {
	fate, group := ctrlfsm.Judge(c, k)
	if fate == ctrlfsm.FateUncreated && !k.Claimer.IsZero() {
		_, owner := c.Owner(k.Shard)
		return ctrlfsm.FateLost, owner
	}
	return fate, group
}

// believeRetired applies what a group fetches, and what it adopts, as if nobody
// was ever retired.
func believeRetired(g *Planted, c kvfsm.Command) (any, error) {
	switch c := c.(type) {
	case *kvfsm.Stage, *kvfsm.Chunk, *kvfsm.Install:
		if g.View.Config == nil {
			return g.Do(c)
		}
		then := g.View.Config.Clone()
		then.Retired = nil
		return g.under(then, c)
	case *kvfsm.Adopt:
		then := c.Config.Clone()
		then.Retired = nil
		res, err := g.Do(&kvfsm.Adopt{Cluster: c.Cluster, Config: then})
		if err != nil || !res.(kvfsm.Verdict).Done {
			return res, err
		}
		return res, g.setConfig(c.Config)
	}
	return g.Do(c)
}
