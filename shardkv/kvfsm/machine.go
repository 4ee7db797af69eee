package kvfsm

import (
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Config says whose machine it is. What Apply depends on must be the same on
// all replicas of a group for its whole life: decide it when the group is
// formed.
type Config struct {
	Group       shardcfg.GroupID
	Incarnation shardcfg.Incarnation
	ShardCount  int
	// SessionAheadMax is how far a session's birth may lie ahead of the clock of
	// a log entry, in ms. 0: SessionAheadMaxDefault.
	SessionAheadMax uint64
	// SessionResultsMax bounds the unacknowledged results of a session in one
	// shard. 0: SessionResultsMaxDefault.
	SessionResultsMax int
	// OnApplied, if set, is called by Applied. It must not block.
	OnApplied func(index uint64)
}

// Defaults of Config.
const (
	SessionAheadMaxDefault   = 60_000
	SessionResultsMaxDefault = shardcfg.SessionResultsMax
)

// A Machine applies a group's log; see the package comment. It satisfies
// raftgroup.StateMachine. Apply, Reset and Applied are called by one goroutine.
//
// It keeps in memory the decoded records, the adopted config and the session
// floors, which are functions of the store: Reset drops them. After an error of
// Apply the machine is of no further use.
type Machine struct {
	cfg  Config
	self Peer

	cluster shardcfg.ClusterID
	adopted *shardcfg.Config // nil before the first
	// shards is indexed by shard; nil: the group never met it.
	shards []*shard

	// Of the entry that is being applied:

	batch store.Batch
	clock uint64
	dirty []*shard // whose records changed, in the order of their first change
	open  openState

	hasher  hasher
	scratch struct {
		item, key, value, log []byte
		write                 Write
	}
}

// shard is the machine's memory of one shard.
type shard struct {
	rec   Record
	dirty bool
	// floor is the held copy's session floor, if floorKnown.
	floor      uint64
	floorKnown bool
}

// New returns a machine without state; call Reset before Apply. It panics if cfg
// makes no sense, which is a mistake in the program.
func New(cfg Config) *Machine {
	if err := shardcfg.CheckShardCount(cfg.ShardCount); err != nil || cfg.Incarnation.IsZero() {
		panic(fmt.Sprintf("kvfsm: bad config %+v: %v", cfg, err))
	}
	if cfg.SessionAheadMax == 0 {
		cfg.SessionAheadMax = SessionAheadMaxDefault
	}
	if cfg.SessionResultsMax == 0 {
		cfg.SessionResultsMax = SessionResultsMaxDefault
	}
	return &Machine{
		cfg:    cfg,
		self:   Peer{Incarnation: cfg.Incarnation, Group: cfg.Group},
		shards: make([]*shard, cfg.ShardCount),
		open:   newOpenState(),
	}
}

// Reset reads the machine's memory anew.
func (m *Machine) Reset(r store.Reader) error {
	adopted, err := ReadAdopted(r)
	if err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	records, err := ReadRecords(r)
	if err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	m.cluster, m.adopted = adopted.Cluster, adopted.Config
	clear(m.shards)
	m.open, m.dirty = newOpenState(), nil
	for _, rec := range records {
		if int(rec.Shard) >= m.cfg.ShardCount {
			return fmt.Errorf("reset: %w: record of shard %d of %d", ErrState, rec.Shard, m.cfg.ShardCount)
		}
		m.shards[rec.Shard] = &shard{rec: rec}
	}
	return nil
}

// Applied passes the index on to Config.OnApplied.
func (m *Machine) Applied(index uint64) {
	if m.cfg.OnApplied != nil {
		m.cfg.OnApplied(index)
	}
}

// Apply applies the commands of e. Results are an Outcome for a Write, a
// Verdict for every other command, and nil for raftgroup's own commands.
//
// Records of shards, sessions and keys are written once for the whole entry: the
// commands of one entry become visible together. What an entry reads and writes
// beyond its own bytes is bounded by shardcfg.EffectBytesMax, and one record of
// any legal size more: writes behind that are refused, with ReasonEntryFull.
func (m *Machine) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	m.batch, m.clock, m.open.effects = b, e.Clock, 0
	defer func() { m.batch, m.scratch.write = nil, Write{} }()
	results := make([]any, len(e.Commands))
	for i, c := range e.Commands {
		res, err := m.apply(c)
		if err != nil {
			return nil, fmt.Errorf("apply entry %d, command %d of kind %d: %w", e.Index, i, c.Kind, err)
		}
		results[i] = res
	}
	if err := m.flush(); err != nil {
		return nil, fmt.Errorf("apply entry %d: %w", e.Index, err)
	}
	return results, nil
}

func (m *Machine) apply(c entry.Command) (any, error) {
	if c.Kind < entry.KindMachineMin {
		return nil, nil
	}
	if c.Kind == KindWrite {
		m.scratch.write = Write{}
		if err := decodeInto(c, &m.scratch.write); err != nil {
			return nil, err
		}
		return m.write(&m.scratch.write)
	}
	cmd, err := Decode(c)
	if err != nil {
		return nil, err
	}
	// The other commands may move or delete copies, and end change logs. What
	// writes have left open belongs to the copy, and to the log, as they were.
	if err := m.flushOpen(); err != nil {
		return nil, err
	}
	v, err := m.decide(cmd)
	return v, err
}

// decide is the protocol's table; each guard is in the function of its command.
func (m *Machine) decide(cmd Command) (Verdict, error) {
	if a, ok := cmd.(*Adopt); ok {
		return m.adopt(a)
	}
	s := shardOf(cmd)
	if int(s) >= len(m.shards) {
		return refuse(ReasonOutOfRange), nil
	}
	sh := m.shards[s]
	if sh == nil {
		// Remembered only once a command takes effect.
		sh = &shard{rec: Record{Shard: s}}
	}
	switch c := cmd.(type) {
	case *RaiseFloor:
		return m.raiseFloor(sh, c)
	case *Prune:
		return m.prune(sh, c)
	case *Create:
		return m.create(sh, c)
	case *Start:
		return m.start(sh, c)
	case *Stage:
		return m.stage(sh, c)
	case *Chunk:
		return m.chunk(sh, c)
	case *Install:
		return m.install(sh, c)
	case *Freeze:
		return m.freeze(sh, c)
	case *Drop:
		return m.drop(sh, c)
	case *Discard:
		return m.discard(sh, c)
	case *Thaw:
		return m.thaw(sh, c)
	}
	return Verdict{}, fmt.Errorf("%w: %T", ErrUnknownKind, cmd)
}

// shardOf returns the shard of every command but Write and Adopt.
func shardOf(cmd Command) shardcfg.ShardID {
	switch c := cmd.(type) {
	case *RaiseFloor:
		return c.Shard
	case *Prune:
		return c.Shard
	}
	if s, ok := HandoffShard(cmd); ok {
		return s
	}
	panic(fmt.Sprintf("kvfsm: %T has no shard", cmd))
}

var done = Verdict{Done: true}

func refuse(why Reason) Verdict { return Verdict{Why: why} }

// touch marks sh's record as changed, and the shard as met.
func (m *Machine) touch(sh *shard) {
	m.shards[sh.rec.Shard] = sh
	if !sh.dirty {
		sh.dirty = true
		m.dirty = append(m.dirty, sh)
	}
}

// flush writes what the entry left open.
func (m *Machine) flush() error {
	if err := m.flushOpen(); err != nil {
		return err
	}
	for _, sh := range m.dirty {
		m.scratch.value = appendRecord(m.scratch.value[:0], &sh.rec)
		if err := m.batch.Set(recordKey(sh.rec.Shard), m.scratch.value); err != nil {
			return err
		}
		sh.dirty = false
	}
	m.dirty = m.dirty[:0]
	return nil
}

// put sets an item of a held copy, counts it, and logs the change. old is what
// the store holds; nil: nothing.
func (m *Machine) put(sh *shard, item, old, value []byte, rev shardcfg.Revision) error {
	if old != nil {
		m.hasher.remove(&sh.rec.Content, item, old)
	}
	m.hasher.add(&sh.rec.Content, item, value)
	m.scratch.key = sh.rec.held().key(m.scratch.key[:0], item)
	if err := m.batch.Set(m.scratch.key, value); err != nil {
		return err
	}
	m.touch(sh)
	return m.logChange(sh, item, len(value), rev)
}

// remove deletes an item of a held copy, whose value is old.
func (m *Machine) remove(sh *shard, item, old []byte, rev shardcfg.Revision) error {
	m.hasher.remove(&sh.rec.Content, item, old)
	m.scratch.key = sh.rec.held().key(m.scratch.key[:0], item)
	if err := m.batch.Delete(m.scratch.key); err != nil {
		return err
	}
	m.touch(sh)
	return m.logChange(sh, item, 0, rev)
}
