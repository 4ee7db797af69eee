package virtual

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// The keys of the load. Those of the first kind are only appended to.
var (
	keysAppended = []string{"a0", "a1", "a2"}
	keysMixed    = []string{"m0", "m1"}
)

// A client makes one call at a time.
type client struct {
	w        *world
	id       int
	random   *rand.Rand
	aim      *replica // who led last
	number   int
	session  session.Key
	sequence uint64
}

func (w *world) newClient(id int) *client {
	return &client{w: w, id: id, random: rand.New(rand.NewPCG(w.plan.seed, uint64(100+id)))}
}

// run is the load of one client.
func (c *client) run() {
	for c.w.sleep(time.Duration(5+c.random.IntN(120)) * time.Millisecond) {
		switch n := c.random.IntN(10); {
		case n < 4:
			c.get(c.key())
		case n < 5 && !c.w.flavour.sessions():
			c.writeSeveral()
		default:
			c.write()
		}
	}
}

func (c *client) key() string {
	n := c.random.IntN(len(keysAppended) + len(keysMixed))
	if n < len(keysAppended) {
		return keysAppended[n]
	}
	return keysMixed[n-len(keysAppended)]
}

// limit is how long a call may take.
func (c *client) limit() time.Duration {
	return []time.Duration{50, 300, 1000, 4000}[c.random.IntN(4)] * time.Millisecond
}

// replica returns the replica to call: the last leader, or any.
func (c *client) replica() *life {
	if c.aim != nil {
		if l := c.aim.alive(); l != nil && c.random.IntN(20) > 0 {
			return l
		}
	}
	living := c.w.living()
	if len(living) == 0 {
		return nil
	}
	c.aim = living[c.random.IntN(len(living))]
	return c.aim.alive()
}

// learn follows what an error says of the leader.
func (c *client) learn(err error) {
	var other *raftgroup.NotLeaderError
	switch {
	case errors.As(err, &other) && other.Leader != "":
		c.aim = c.w.byAddress(other.Leader)
	case err != nil:
		c.aim = nil
	}
}

// get reads a key behind a barrier.
func (c *client) get(key string) {
	l := c.replica()
	if l == nil {
		return
	}
	op := history.Operation{Client: c.id, Kind: history.Get, Key: key, Call: c.w.moment.Add(1)}
	err := c.w.call("read barrier of "+l.name, c.limit(), l.raft.ReadBarrier)
	if err != nil {
		if !errors.Is(err, raftgroup.ErrNotDone) {
			c.w.failf("a read barrier fails with %v", err)
		}
		c.learn(err)
		c.w.tally.readsRefused.Add(1)
		return
	}
	s, err := l.raft.Store().NewSnapshot()
	if err == nil {
		err = errors.Join(c.w.flavour.read(&op, s), s.Close())
	}
	if err != nil {
		c.w.failf("read of %s: %v", l.name, err)
		return
	}
	op.Return, op.Outcome = c.w.moment.Add(1), history.Done
	c.w.recorder.Add(op)
	c.w.tally.reads.Add(1)
}

// next makes the next write, whose value is a token.
func (c *client) next() history.Operation {
	c.number++
	op := history.Operation{Client: c.id, Kind: history.Append, Key: c.key(), Value: history.Token(c.id, c.number)}
	if op.Key[0] == keysMixed[0][0] && c.random.IntN(2) == 0 {
		op.Kind = history.Put
	}
	return op
}

// write makes one write. With sessions it is tried again, as the same write,
// until its outcome is known.
func (c *client) write() {
	op := c.next()
	tries := 1
	if c.w.flavour.sessions() {
		tries = 12
	}
	command := c.w.flavour.command(&op, c.stamp())
	op.Call, op.Outcome = c.w.moment.Add(1), history.NotDone
	for range tries {
		results, err := c.propose([]entry.Command{command})
		if err == nil {
			if c.w.flavour.answer(&op, results[0]) {
				op.Outcome = history.Done
			}
			break
		}
		c.learn(err)
		if errors.Is(err, raftgroup.ErrOutcomeUnknown) {
			op.Outcome = history.Unknown
		}
		if !c.w.sleep(time.Duration(20+c.random.IntN(200)) * time.Millisecond) {
			break
		}
	}
	if op.Outcome == history.Unknown {
		c.session = session.Key{} // the next write may not acknowledge this one
	}
	c.record(&op)
}

// writeSeveral makes several writes in one call.
func (c *client) writeSeveral() {
	ops := make([]history.Operation, 2+c.random.IntN(3))
	commands := make([]entry.Command, len(ops))
	call := c.w.moment.Add(1)
	for i := range ops {
		ops[i] = c.next()
		ops[i].Call, ops[i].Outcome = call, history.NotDone
		commands[i] = c.w.flavour.command(&ops[i], session.Stamp{})
	}
	results, err := c.propose(commands)
	c.learn(err)
	for i, result := range results {
		var failed *raftgroup.ProposalError
		if e, ok := result.(error); !ok {
			c.w.flavour.answer(&ops[i], result)
			ops[i].Outcome = history.Done
		} else if errors.As(e, &failed) && errors.Is(e, raftgroup.ErrOutcomeUnknown) {
			ops[i].Outcome = history.Unknown
		}
	}
	for i := range ops {
		c.record(&ops[i])
	}
}

func (c *client) record(op *history.Operation) {
	op.Return = c.w.moment.Add(1)
	c.w.recorder.Add(*op)
	switch op.Outcome {
	case history.Done:
		c.w.tally.writes.Add(1)
	case history.Unknown:
		c.w.tally.unknown.Add(1)
	default:
		c.w.tally.notDone.Add(1)
	}
}

// propose proposes copies of the commands, and spoils them when the call has
// returned: nobody may look at them any more.
func (c *client) propose(commands []entry.Command) (results []any, err error) {
	l := c.replica()
	if l == nil {
		return nil, fmt.Errorf("%w: nobody runs", raftgroup.ErrNotDone)
	}
	own := make([]entry.Command, len(commands))
	for i, command := range commands {
		own[i] = entry.Command{Kind: command.Kind, Body: append([]byte(nil), command.Body...)}
	}
	err = c.w.call("proposal to "+l.name, c.limit(), func(ctx context.Context) error {
		results, err = l.raft.ProposeAll(ctx, own)
		return err
	})
	for i := range own {
		for j := range own[i].Body {
			own[i].Body[j] ^= 0xff
		}
	}
	return results, err
}

// stamp is that of the next write.
func (c *client) stamp() session.Stamp {
	if c.session.ID == (shardcfg.SessionID{}) {
		c.session.Birth, c.sequence = uint64(time.Now().UnixMilli()), 0
		for i := range c.session.ID {
			c.session.ID[i] = byte(c.random.IntN(256))
		}
		c.session.ID[0] |= 1
	}
	c.sequence++
	return session.Stamp{Key: c.session, AckedBelow: c.sequence, Sequence: c.sequence}
}
