package virtual

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
)

const (
	// recoveryMax is how long a healed group may take to commit again.
	recoveryMax = 30 * time.Second
	// checkMax is how long a history may be checked, in real time. One that is
	// undecided then has failed.
	checkMax = time.Minute
)

// run runs one plan, and returns what was wrong, or "".
func run(t *testing.T, p plan, total *tally) string {
	var w *world
	final := map[string]string{}
	lost, left := bubble(t, func() {
		w = newWorld(p, total)
		w.live(final)
	})
	total.lost.Add(uint64(lost))
	if left != "" {
		w.failf("goroutines are left when all is closed: %s", left)
	}
	// Outside of the bubble, for the time that checks take is real.
	w.judge(final)
	return w.report()
}

// live is all that happens in the bubble.
func (w *world) live(final map[string]string) {
	began := time.Now()
	w.form()
	if w.commit(w.flavour.setup()) {
		w.storms()
		w.heal()
		if leader := w.recover(); leader != nil {
			w.converge(leader)
			if l := w.readFinal(final); l != nil && !w.plan.kv {
				w.audit(l.store)
			}
		}
	}
	w.close()
	w.tally.virtual.Add(int64(time.Since(began)))
}

func (w *world) form() {
	var founders []formation.Member
	for i := range w.plan.replicas {
		founders = append(founders, memberNumber(i))
	}
	for i := range w.plan.replicas {
		w.newReplica(i, founders).start()
	}
}

// storms is faults and load, for as long as the plan says.
func (w *world) storms() {
	w.running.Go(w.inject)
	for i := range w.plan.clients {
		w.running.Go(w.newClient(i + 1).run)
	}
	if w.plan.changes {
		w.running.Go(w.changeMembers)
		w.running.Go(w.transfers)
	}
	time.Sleep(w.plan.length) // virtual
}

// heal ends all faults, and waits for every call to end.
func (w *world) heal() {
	w.note("healing")
	w.calm()
	ended := make(chan struct{})
	go func() { w.running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		w.failf("calls or faults have not ended in 2 minutes after the storm")
		panic(w.report()) // the bubble would hang too
	}
	for _, r := range w.all() {
		if l := r.alive(); l != nil {
			l.disk.goOn()
			l.witness.setLag(0)
		}
		r.start()
	}
	w.note("healed")
}

// recover waits for a leader that commits, for no longer than a group may take.
func (w *world) recover() *replica {
	var last error
	c, began := w.newClient(99), time.Now()
	for time.Since(began) < recoveryMax {
		leader := w.leader()
		if leader == nil || leader.alive() == nil {
			time.Sleep(10 * time.Millisecond) // virtual
			continue
		}
		op := history.Operation{Client: 99, Kind: history.Append, Key: keysAppended[0], Value: history.Token(99, int(time.Since(began)))}
		op.Call, op.Outcome = w.moment.Add(1), history.Unknown
		c.aim = leader
		results, err := c.propose([]entry.Command{w.flavour.command(&op, c.stamp())})
		switch {
		case err == nil && w.flavour.answer(&op, results[0]):
			op.Outcome = history.Done
		case errors.Is(err, raftgroup.ErrNotDone):
			op.Outcome = history.NotDone
		}
		op.Return = w.moment.Add(1)
		w.recorder.Add(op)
		if err != nil {
			last = err
		}
		if op.Outcome == history.Done {
			w.tally.slowest(time.Since(began))
			return leader
		}
		time.Sleep(10 * time.Millisecond) // virtual
	}
	w.failf("no leader has committed %v after all was healed: %v %s", recoveryMax, last, w.describe())
	return nil
}

func (w *world) describe() (out string) {
	for _, r := range w.all() {
		if l := r.alive(); l != nil {
			s := l.raft.Status()
			out += fmt.Sprintf("\n  %s: %s of term %d, ready %v, applied %d, committed %d, log %d to %d, leader %s, failed %v, members %v",
				l.name, s.Role, s.Term, s.Ready, s.AppliedIndex, s.CommitIndex, s.FirstIndex, s.LastIndex, s.LeaderID, s.Failed, s.Members)
		} else {
			out += fmt.Sprintf("\n  %s: stopped, gone %v", r.member.Label, r.retired())
		}
	}
	return out
}

// commit commits commands on whoever leads at the very start.
func (w *world) commit(commands []entry.Command) bool {
	for range 100 {
		if leader := w.leader(); leader != nil {
			err := w.call("setup", time.Minute, func(ctx context.Context) error {
				_, err := leader.alive().raft.ProposeAll(ctx, commands)
				return err
			})
			if err != nil {
				w.failf("setup: %v", err)
			}
			return err == nil
		}
		time.Sleep(100 * time.Millisecond) // virtual
	}
	w.failf("no leader at the start: %s", w.describe())
	return false
}

// converge waits until all members stand at the same index with equal stores.
func (w *world) converge(leader *replica) {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) { // virtual
		l := leader.alive()
		equal := l != nil
		var members []raftgroup.MemberStatus
		if equal {
			members = l.raft.Status().Members
			equal = w.equal(members)
		}
		if equal {
			w.checkMembers(members)
			w.checkStores(members)
			return
		}
		if time.Since(began) > time.Minute {
			w.failf("the replicas do not become equal: %s", w.describe())
			return
		}
	}
}

func (w *world) equal(members []raftgroup.MemberStatus) bool {
	var sum store.Sum
	for i, m := range members {
		l := w.byID(m.ServerID).alive()
		if l == nil {
			return false
		}
		if h := l.store.Hash(); i == 0 {
			sum = h
		} else if h != sum {
			return false
		}
	}
	return len(members) > 0
}

func (w *world) checkStores(members []raftgroup.MemberStatus) {
	for _, m := range members {
		l := w.byID(m.ServerID).alive()
		if err := w.flavour.check(l.store); err != nil {
			w.failf("the state of %s: %v", l.name, err)
		}
		w.tally.installed.Add(l.raft.Status().Counters.Installed)
	}
}

// readFinal reads every key once more, behind a barrier, and returns the life
// that answered last; nil if none did.
func (w *world) readFinal(final map[string]string) (l *life) {
	for _, key := range append(append([]string(nil), keysAppended...), keysMixed...) {
		op := history.Operation{Client: 99, Kind: history.Get, Key: key, Call: w.moment.Add(1), Outcome: history.Done}
		if l = w.barrier(); l == nil {
			return nil
		}
		if err := w.flavour.read(&op, l.store); err != nil {
			w.failf("final read of %q: %v", key, err)
			return nil
		}
		op.Return = w.moment.Add(1)
		w.recorder.Add(op)
		final[key] = op.Read
	}
	return l
}

// barrier waits for a leader that confirms a read.
func (w *world) barrier() *life {
	err := raftgroup.ErrNotDone
	for began := time.Now(); time.Since(began) < recoveryMax; time.Sleep(10 * time.Millisecond) { // virtual
		if leader := w.leader(); leader != nil {
			l := leader.alive()
			if err = w.call("final read", recoveryMax, l.raft.ReadBarrier); err == nil {
				return l
			}
		}
	}
	w.failf("no leader confirms a read in %v: %v", recoveryMax, err)
	return nil
}

// audit compares every outcome with the tokens that the registers have met.
func (w *world) audit(r store.Reader) {
	for _, op := range w.recorder.History() {
		if op.Kind == history.Get {
			continue
		}
		_, met, err := r.Get(tokenKey(op.Value))
		switch {
		case err != nil:
			w.failf("audit: %v", err)
		case met && op.Outcome == history.NotDone:
			w.failf("%v: it was done", &op)
		case !met && op.Outcome == history.Done:
			w.failf("%v: it is lost", &op)
		}
	}
}

// close closes every replica. Some of Raft's own goroutines, which nobody can
// wait for, end only with the timeouts of their messages.
func (w *world) close() {
	w.calm()
	w.running.Wait()
	w.ended.Store(true)
	for _, r := range w.all() {
		r.end(r.alive(), wayClosed)
	}
	w.network.close()
	time.Sleep(2 * time.Minute) // virtual
}

// judge checks the whole history.
func (w *world) judge(final map[string]string) {
	if len(final) == 0 {
		return
	}
	h := w.decided(final)
	appended := map[string]string{}
	for _, key := range keysAppended {
		appended[key] = final[key]
	}
	if tokens := h.CheckTokens(appended); !tokens.OK() {
		w.failf("tokens: %v", tokens)
	}
	if v := h.Linearizable(checkMax); !v.Linearizable {
		w.failf("history: %v", v)
	}
}

// decided leaves out the appends of unknown outcome that the final values show
// never to have been done: keeping them changes no verdict, and costs time.
func (w *world) decided(final map[string]string) history.History {
	var out history.History
	unknown := map[string]bool{}
	h := w.recorder.History()
	for i := range h {
		if op := &h[i]; op.Outcome == history.Unknown && op.Key[0] == keysAppended[0][0] {
			unknown[op.Value] = true
		}
	}
	for token := range unknown {
		for _, key := range keysAppended {
			if strings.Contains(final[key], token) {
				delete(unknown, token)
			}
		}
	}
	for i := range h {
		if !unknown[h[i].Value] || h[i].Kind == history.Get {
			out = append(out, h[i])
		}
	}
	return out
}
