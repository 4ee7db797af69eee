// Package ctrlfsm is the shard controller's step machine: it turns the
// commands of the controllers' log into numbered configurations, claims of
// first tokens, and answers.
//
// Row 2 of the layers: it imports raftgroup/store, raftgroup/entry and
// shardcfg. It starts no goroutine and reads no clock; the time is that of the
// log entries. The goroutine that applies the log owns a Machine; everyone else
// reads the store through a View.
//
// # What it guarantees
//
// Config numbers rise by one per change. A request that changes nothing makes
// no number and succeeds.
//
// A group is a member, then leaving (listed, with its addresses, until it is
// drained), then gone. Its gid is bound to an incarnation once: by a join that
// asked its replicas, or for an incarnation that was never bound before at first
// contact; another incarnation is refused while the first is listed. A group
// that never was bound leaves at once. A join of a leaving group cancels the
// leave.
//
// A shard's first token is claimed once, by the group that owns the shard in
// the latest config, and the claim is permanent. Another token of a shard is
// created, or a frozen one served again, only by a repair: after an operator
// declared the groups destroyed that could hold the token, and every other group
// was asked. Each repair has a generation of its own (Judge says why that is
// safe).
//
// INV-8 (Drained): a leaving group is dropped only on a report made at or after
// the config in which it leaves.
//
// An admin request is applied at most once: its result, refusal included, is
// kept for RequestLifeMS by the log's clock, and repeated to repetitions. A
// request older than that is refused, so that it can never be applied a second
// time.
package ctrlfsm

import (
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Bounds of what is kept.
const (
	// RequestLifeMS is how long the result of an admin request is kept.
	RequestLifeMS = 60 * 60 * 1000
	// RequestAheadMS is how far a request's birth may lie ahead of the log's
	// clock.
	RequestAheadMS = 60 * 60 * 1000
	// RequestsMax is how many results are kept; beyond, the oldest expire early.
	RequestsMax = 1 << 16

	// HistoryMax is how many configs are kept, and HistoryBytesMax how many
	// bytes of them, but never fewer than HistoryMin. Groups and clients only
	// ever need the latest; the others are for people.
	HistoryMax      = 10_000
	HistoryBytesMax = 64 << 20
	HistoryMin      = 100
)

// A Machine applies commands. It implements raftgroup.StateMachine.
type Machine struct {
	shardCount int
	bounds     Bounds
	wake       func(index uint64)
	// latest is the config that the last Apply left behind, or nil. It is never
	// changed once it stands here.
	latest *shardcfg.Config
}

// New returns the machine of a cluster of shardCount shards, which must be a
// valid shard count. wake is called by Applied and Reset, and may be nil; it must
// not block.
func New(shardCount int, wake func(index uint64)) *Machine {
	return NewBounded(shardCount, wake, Bounds{Requests: RequestsMax, HistoryMin: HistoryMin, HistoryMax: HistoryMax, HistoryBytes: HistoryBytesMax})
}

// Bounds replace RequestsMax, HistoryMin, HistoryMax and HistoryBytesMax where
// these are too far away, as in simulations. All replicas need the same.
type Bounds struct {
	Requests, HistoryMin, HistoryMax, HistoryBytes uint64
}

// NewBounded is New with other bounds.
func NewBounded(shardCount int, wake func(index uint64), b Bounds) *Machine {
	if err := shardcfg.CheckShardCount(shardCount); err != nil {
		panic(fmt.Sprintf("ctrlfsm: %d: %v", shardCount, err))
	}
	return &Machine{shardCount: shardCount, wake: wake, bounds: b}
}

// A Result answers one command.
type Result struct {
	// Num is the config that the command made, or else the latest one as it was
	// applied.
	Num shardcfg.ConfigNum
	// Changed says that the command made config Num.
	Changed bool
	// Claimed are the shards of a Claim that are the claimer's, in the order in
	// which it named them.
	Claimed []shardcfg.ShardID
	// Repairs are what became of the cases of a RepairShards, in their order.
	Repairs []Verdict
	// Refusal is not nil if the command was refused.
	Refusal *Refusal
}

// Reset forgets the cached config and checks that the state is of a cluster of
// the same shard count. It wakes like Applied, with index 0: a received state
// may hold a newer config.
func (m *Machine) Reset(r store.Reader) error {
	m.latest = nil
	m.Applied(0)
	_, err := NewView(r, m.shardCount).meta()
	return err
}

// Applied wakes those who wait for changes.
func (m *Machine) Applied(index uint64) {
	if m.wake != nil {
		m.wake(index)
	}
}

// Apply applies the commands of e to b. Every result is a Result.
func (m *Machine) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	if len(e.Commands) == 0 {
		return nil, nil
	}
	s := step{b: b, v: NewView(b, m.shardCount), bounds: m.bounds}
	var err error
	if s.meta, err = s.v.meta(); err != nil {
		return nil, err
	}
	if s.latest = m.latest; s.latest == nil || s.latest.Num != s.meta.num {
		if s.latest, err = s.v.Latest(); err != nil {
			return nil, err
		}
	}
	s.meta.clockMS = max(s.meta.clockMS, e.Clock)
	if err := s.raiseFloor(); err != nil {
		return nil, err
	}
	results := make([]any, len(e.Commands))
	for i, ec := range e.Commands {
		c, err := Decode(ec)
		if err != nil {
			return nil, fmt.Errorf("entry %d, command %d: %w", e.Index, i, err)
		}
		if results[i], err = s.command(c); err != nil {
			return nil, fmt.Errorf("entry %d, command %d: %w", e.Index, i, err)
		}
	}
	if err := b.Set([]byte{prefixMeta}, s.meta.encode(m.shardCount)); err != nil {
		return nil, err
	}
	m.latest = s.latest
	return results, nil
}

// A step is the work on one entry.
type step struct {
	b      store.Batch
	v      View // of b
	bounds Bounds
	meta   meta // written when the step is done
	// effects counts the bytes of the configs that the entry has made or forgotten.
	effects int
	latest  *shardcfg.Config
}

func (s *step) command(c Command) (Result, error) {
	if s.full(c) {
		return Result{Num: s.latest.Num, Refusal: refuse(EntryFull, "too many changes at once; make it again")}, nil
	}
	switch c := c.(type) {
	case Join:
		return s.once(c.Request, c)
	case Leave:
		return s.once(c.Request, c)
	case Move:
		return s.once(c.Request, c)
	case Unpin:
		return s.once(c.Request, c)
	case Retire:
		return s.once(c.Request, c)
	case Claim:
		return s.claim(c)
	case RepairShards:
		return s.repair(c)
	default:
		return s.change(c)
	}
}

// full reports whether a command belongs into another entry, because it may make a
// config and those that this entry has made are large enough together: each is
// stored whole, and hundreds of changes may share an entry. What is refused for it
// is not recorded as the answer of its request.
func (s *step) full(c Command) bool {
	switch c.(type) {
	case Claim, RepairShards:
		return false
	}
	return s.effects >= shardcfg.EffectBytesMax
}

// change makes the config that a command asks for.
func (s *step) change(c Command) (Result, error) {
	next, ref, err := plan(s.v, s.latest, c)
	if err != nil {
		return Result{}, err
	}
	if next == nil {
		return Result{Num: s.latest.Num, Refusal: ref}, nil
	}
	if err := s.publish(next); err != nil {
		return Result{}, err
	}
	return Result{Num: next.Num, Changed: true}, nil
}

// publish stores next as the latest config, with what follows from it: who is
// registered, and since when a group leaves.
func (s *step) publish(next *shardcfg.Config) error {
	for _, gid := range next.GroupIDs() {
		was, is := s.latest.Groups[gid], next.Groups[gid]
		if is.State == shardcfg.GroupLeaving && was.State != shardcfg.GroupLeaving {
			if err := s.b.Set(numberKey(prefixLeave, uint64(gid)), be64(uint64(next.Num))); err != nil {
				return err
			}
		}
		if !is.Incarnation.IsZero() && was.Incarnation != is.Incarnation {
			if err := s.register(gid, is.Incarnation, next.Num); err != nil {
				return err
			}
		}
	}
	for _, gid := range s.latest.GroupIDs() {
		if s.latest.Groups[gid].State == shardcfg.GroupLeaving && next.Groups[gid].State != shardcfg.GroupLeaving {
			if err := s.b.Delete(numberKey(prefixLeave, uint64(gid))); err != nil {
				return err
			}
		}
	}
	enc := shardcfg.AppendConfig(nil, next)
	if err := s.b.Set(numberKey(prefixConfig, uint64(next.Num)), enc); err != nil {
		return err
	}
	s.latest, s.meta.num = next, next.Num
	s.meta.historyBytes += uint64(len(enc))
	s.effects += len(enc)
	if s.meta.oldest == 0 {
		s.meta.oldest = next.Num
	}
	return s.compactHistory()
}

func (s *step) register(gid shardcfg.GroupID, inc shardcfg.Incarnation, num shardcfg.ConfigNum) error {
	if _, known, err := s.v.Registered(inc); known || err != nil {
		return err
	}
	return s.b.Set(registeredKey(inc), append(be64(uint64(gid)), be64(uint64(num))...))
}

func (s *step) compactHistory() error {
	for {
		kept := uint64(s.meta.num-s.meta.oldest) + 1
		if kept <= s.bounds.HistoryMin || kept <= s.bounds.HistoryMax && s.meta.historyBytes <= s.bounds.HistoryBytes {
			return nil
		}
		key := numberKey(prefixConfig, uint64(s.meta.oldest))
		old, ok, err := s.b.Get(key)
		if err != nil {
			return err
		}
		if !ok || uint64(len(old)) > s.meta.historyBytes {
			return fmt.Errorf("%w: config %d is missing from the history", ErrState, s.meta.oldest)
		}
		if err := s.b.Delete(key); err != nil {
			return err
		}
		s.meta.oldest++
		s.meta.historyBytes -= uint64(len(old))
		s.effects += len(old)
	}
}

// claim gives the first tokens of shards to their owner in the latest config,
// once for all.
func (s *step) claim(c Claim) (Result, error) {
	res := Result{Num: s.latest.Num}
	if c.Incarnation.IsZero() {
		res.Refusal = refuse(BadRequest, "the claim names no incarnation")
		return res, nil
	}
	for _, shard := range c.Shards {
		if int(shard) >= len(s.latest.Shards) {
			res.Refusal = refuse(BadRequest, "there is no shard %d of %d", shard, len(s.latest.Shards))
			return res, nil
		}
	}
	for _, shard := range c.Shards {
		by, err := s.v.ClaimedBy(shard)
		if err != nil {
			return Result{}, err
		}
		if _, owner := s.latest.Owner(shard); by.IsZero() && owner == c.Incarnation {
			by = owner
			// Generation 0: others are granted by repairs.
			if err := s.b.Set(claimKey(shard), append(by[:], 0, 0, 0, 0)); err != nil {
				return Result{}, err
			}
			s.meta.claims++
		}
		if by == c.Incarnation {
			res.Claimed = append(res.Claimed, shard)
		}
	}
	return res, nil
}
