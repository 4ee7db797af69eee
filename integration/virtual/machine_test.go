package virtual

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// A flavour is the machine that a run replicates, as its clients see it.
type flavour interface {
	machine() raftgroup.StateMachine
	// setup are the commands that must be applied before the load begins.
	setup() []entry.Command
	// command makes the command of a write; answer puts its result into op, and
	// reports whether it was executed.
	command(op *history.Operation, stamp session.Stamp) entry.Command
	answer(op *history.Operation, result any) bool
	// read puts what r says of op.Key into op.
	read(op *history.Operation, r store.Reader) error
	// sessions: a write may be tried again, as itself, until its outcome is known.
	sessions() bool
	// check looks for what is wrong in one replica's final state.
	check(r store.Reader) error
}

// registers is the simplest machine: versioned values, put and append. It
// remembers every write that it applied, by the token in it.
type registers struct{}

const kindRegister = entry.KindMachineMin

// A registerResult is the answer to a write.
type registerResult struct{ version, length uint64 }

type registerMachine struct {
	// revision is a cache of the stored one, which Reset must read again.
	revision uint64
}

var keyRevision = []byte("revision")

func valueKey(key string) []byte                { return []byte("value/" + key) }
func tokenKey(token string) []byte              { return []byte("token/" + token) }
func (registers) sessions() bool                { return false }
func (registers) setup() (none []entry.Command) { return none }
func (registers) machine() raftgroup.StateMachine {
	return new(registerMachine)
}

// A command is kind u8 | key length u8 | key | value.
func (registers) command(op *history.Operation, _ session.Stamp) entry.Command {
	body := append([]byte{byte(op.Kind), byte(len(op.Key))}, op.Key...)
	return entry.Command{Kind: kindRegister, Body: append(body, op.Value...)}
}

func (registers) answer(op *history.Operation, result any) bool {
	r := result.(registerResult)
	op.Version, op.Length = r.version, r.length
	return true
}

func (registers) read(op *history.Operation, r store.Reader) error {
	b, ok, err := r.Get(valueKey(op.Key))
	if err == nil && ok {
		op.Found, op.Version, op.Read = true, binary.BigEndian.Uint64(b), string(b[8:])
	}
	return err
}

func (registers) check(store.Reader) error { return nil }

func (m *registerMachine) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	results := make([]any, len(e.Commands))
	for i, c := range e.Commands {
		if c.Kind != kindRegister || len(c.Body) < 2 {
			return nil, fmt.Errorf("bad command %d %q", c.Kind, c.Body)
		}
		key := string(c.Body[2 : 2+c.Body[1]])
		value := c.Body[2+c.Body[1]:]
		token := string(value)
		if history.Kind(c.Body[0]) == history.Append {
			old, _, err := b.Get(valueKey(key))
			if err != nil {
				return nil, err
			}
			if len(old) > 8 {
				value = append(old[8:], value...)
			}
		}
		if _, again, err := b.Get(tokenKey(token)); again || err != nil {
			return nil, fmt.Errorf("write %q is applied twice: %w", token, err)
		}
		m.revision++
		version := binary.BigEndian.AppendUint64(nil, m.revision)
		if err := b.Set(valueKey(key), append(version, value...)); err != nil {
			return nil, err
		}
		if err := b.Set(tokenKey(token), version); err != nil {
			return nil, err
		}
		results[i] = registerResult{m.revision, uint64(len(value))}
	}
	return results, b.Set(keyRevision, binary.BigEndian.AppendUint64(nil, m.revision))
}

func (m *registerMachine) Reset(r store.Reader) error {
	m.revision = 0
	b, ok, err := r.Get(keyRevision)
	if err == nil && ok {
		m.revision = binary.BigEndian.Uint64(b)
	}
	return err
}

func (*registerMachine) Applied(uint64) {}

// shards is the machine of a group of the store.
type shards struct{}

const shardCount = 4

var (
	kvGroup   = shardcfg.Incarnation{1}
	kvCluster = shardcfg.ClusterID{2}
)

func (shards) sessions() bool { return true }

func (shards) machine() raftgroup.StateMachine {
	return kvfsm.New(kvfsm.Config{Group: 1, Incarnation: kvGroup, ShardCount: shardCount})
}

func (shards) setup() []entry.Command {
	c := &shardcfg.Config{Num: 1, Shards: make([]shardcfg.GroupID, shardCount), Pins: map[shardcfg.ShardID]shardcfg.Pin{},
		Groups: map[shardcfg.GroupID]shardcfg.Group{
			1: {Incarnation: kvGroup, Replicas: []string{"r0"}, Weight: 1, State: shardcfg.GroupMember},
		}}
	for i := range c.Shards {
		c.Shards[i] = 1
	}
	commands := []entry.Command{kvfsm.Encode(&kvfsm.Adopt{Cluster: kvCluster, Config: c})}
	for i := range shardCount {
		commands = append(commands, kvfsm.Encode(&kvfsm.Create{Shard: shardcfg.ShardID(i), Claimer: kvGroup}))
	}
	return commands
}

func (shards) command(op *history.Operation, stamp session.Stamp) entry.Command {
	w := &kvfsm.Write{Op: kvfsm.OpPut, Key: []byte(op.Key), Value: []byte(op.Value), Stamp: stamp}
	if op.Kind == history.Append {
		w.Op = kvfsm.OpAppend
	}
	return kvfsm.Encode(w)
}

func (shards) answer(op *history.Operation, result any) bool {
	o := result.(kvfsm.Outcome)
	op.Version, op.Length = uint64(o.Version), o.Length
	return o.Code.Done()
}

func (shards) read(op *history.Operation, r store.Reader) error {
	found, err := kvfsm.Get(r, shardCount, []byte(op.Key))
	if err != nil {
		return err
	}
	switch found.Code {
	case kvfsm.CodeOK:
		op.Found, op.Version, op.Read = true, uint64(found.Version), string(found.Value)
	case kvfsm.CodeNotFound:
	default:
		return fmt.Errorf("get %q: %v", op.Key, found.Code)
	}
	return nil
}

// check compares the digest that each shard keeps with its content.
func (shards) check(r store.Reader) error {
	for s := range shardCount {
		if err := kvfsm.CheckContent(r, shardcfg.ShardID(s)); err != nil {
			return err
		}
	}
	return nil
}

// A witness stands around the machine of one life, and compares what it applies
// with what every other life of every replica did.
type witness struct {
	raftgroup.StateMachine
	w    *world
	name string
	last uint64 // newest index applied since Reset

	mu struct {
		sync.Mutex
		lag time.Duration // an entry takes so long
	}
}

func (t *witness) setLag(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.lag = d
}

// Apply implements raftgroup.StateMachine.
func (t *witness) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	t.mu.Lock()
	lag := t.mu.lag
	t.mu.Unlock()
	if lag > 0 {
		time.Sleep(lag) // virtual
	}
	results, err := t.StateMachine.Apply(b, e)
	if err != nil {
		t.w.failf("%s: apply %d: %v", t.name, e.Index, err)
		return nil, err
	}
	if e.Index <= t.last {
		t.w.failf("%s applies entry %d after entry %d", t.name, e.Index, t.last)
	}
	t.last = e.Index
	t.w.applied(t.name, e, results)
	return results, nil
}

// Reset implements raftgroup.StateMachine.
func (t *witness) Reset(r store.Reader) error {
	t.last = 0
	return t.StateMachine.Reset(r)
}

// sumOf digests an entry and its results.
func sumOf(e *entry.Entry, results []any) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, e.Term, e.Clock, e.Feature)
	for i, c := range e.Commands {
		fmt.Fprintf(h, "%d %x %v", c.Kind, c.Body, results[i])
	}
	return h.Sum64()
}
