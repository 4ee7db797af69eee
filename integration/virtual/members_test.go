package virtual

import (
	"context"
	"errors"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
)

// A change is something that was asked of the membership.
type change struct{ what, id string }

const (
	changeAdd     = "add"
	changePromote = "promote"
	changeRemove  = "remove"
)

// ask asks the present leader for a change, and notes how that may have ended.
func (w *world) ask(c change, f func(ctx context.Context, r *raftgroup.Replica) error) error {
	leader := w.leader()
	if leader == nil {
		return raftgroup.ErrNotDone
	}
	l := leader.alive()
	if l == nil {
		return raftgroup.ErrNotDone
	}
	limit := []time.Duration{200, 1000, 5000}[w.draw(3)] * time.Millisecond
	err := w.call(c.what+" "+c.id+" by "+l.name, limit, func(ctx context.Context) error { return f(ctx, l.raft) })
	w.note("%s %s by %s: %v", c.what, c.id, l.name, err)
	w.tally.changes.Add(1)
	if err == nil {
		w.tally.changesDone.Add(1)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.changes[c] = w.mu.changes[c] || err == nil || errors.Is(err, raftgroup.ErrOutcomeUnknown)
	return err
}

// insist asks for a change until it is done, or for long enough.
func (w *world) insist(c change, f func(ctx context.Context, r *raftgroup.Replica) error) bool {
	for range 30 {
		if w.ask(c, f) == nil {
			return true
		}
		if !w.sleep(time.Duration(50+w.draw(300)) * time.Millisecond) {
			return false
		}
	}
	return false
}

// changeMembers changes the membership while the storm lasts.
func (w *world) changeMembers() {
	for w.sleep(time.Duration(w.draw(5000)) * time.Millisecond) {
		switch n := w.draw(10); {
		case n < 6:
			w.replace(n < 5)
		case n < 8:
			w.remove(w.someVoter())
		default:
			w.addLearner()
		}
	}
}

// transfers moves leadership around.
func (w *world) transfers() {
	for w.sleep(time.Duration(500+w.draw(6000)) * time.Millisecond) {
		to := ""
		if w.draw(2) == 0 {
			to = w.someVoter()
		}
		w.ask(change{"transfer", to}, func(ctx context.Context, r *raftgroup.Replica) error { return r.Transfer(ctx, to) })
	}
}

// members are the present ones, as the leader knows them; the wanted roles only.
func (w *world) members(roles ...raftgroup.Role) (ids []string) {
	leader := w.leader()
	if leader == nil {
		return nil
	}
	l := leader.alive()
	if l == nil {
		return nil
	}
	for _, m := range l.raft.Status().Members {
		for _, role := range roles {
			if m.Role == role {
				ids = append(ids, m.ServerID)
			}
		}
	}
	return ids
}

func (w *world) someVoter() string {
	voters := w.members(raftgroup.RoleLeader, raftgroup.RoleFollower)
	if len(voters) == 0 {
		return ""
	}
	return voters[w.draw(len(voters))]
}

func (w *world) byID(id string) *replica {
	for _, r := range w.all() {
		if r.member.ServerID == id {
			return r
		}
	}
	return nil
}

// addLearner starts an empty replica and adds it; nil if that is not known to
// have worked.
func (w *world) addLearner() *replica {
	if present := w.members(raftgroup.RoleLeader, raftgroup.RoleFollower, raftgroup.RoleLearner); len(present) == 0 || len(present) > w.plan.replicas+1 {
		return nil
	}
	r := w.newReplica(len(w.all()), nil)
	r.start()
	add := change{changeAdd, r.member.ServerID}
	if w.insist(add, func(ctx context.Context, l *raftgroup.Replica) error { return l.AddLearner(ctx, r.member) }) {
		return r
	}
	w.mu.Lock()
	perhaps := w.mu.changes[add]
	w.mu.Unlock()
	if !perhaps {
		r.retire()
	}
	return nil
}

// replace adds a replica, makes it a voter, and removes another.
func (w *world) replace(removeOld bool) {
	r := w.addLearner()
	if r == nil {
		return
	}
	id := r.member.ServerID
	if !w.insist(change{changePromote, id}, func(ctx context.Context, l *raftgroup.Replica) error { return l.Promote(ctx, id) }) {
		return
	}
	w.tally.replaced.Add(1)
	if old := w.someVoter(); removeOld && old != id {
		w.remove(old)
	}
}

// remove removes a member if three others are left, and stops it afterwards.
func (w *world) remove(id string) {
	if voters := w.members(raftgroup.RoleLeader, raftgroup.RoleFollower); id == "" || len(voters) <= 3 {
		return
	}
	gone := false
	for range 10 {
		err := w.ask(change{changeRemove, id}, func(ctx context.Context, l *raftgroup.Replica) error { return l.Remove(ctx, id) })
		if gone = err == nil; gone || errors.Is(err, raftgroup.ErrNoMember) {
			break
		}
		if !w.sleep(200 * time.Millisecond) {
			break
		}
	}
	if gone {
		w.sleep(time.Duration(w.draw(3000)) * time.Millisecond) // it does not know, and disturbs
		w.byID(id).retire()
	}
}

// checkMembers compares what the calls said with the final members.
func (w *world) checkMembers(final []raftgroup.MemberStatus) {
	roles := map[string]raftgroup.Role{}
	for _, m := range final {
		roles[m.ServerID] = m.Role
	}
	w.mu.Lock()
	changes := w.mu.changes
	w.mu.Unlock()
	for c, perhaps := range changes {
		role, present := roles[c.id]
		_, removed := changes[change{changeRemove, c.id}]
		switch {
		case c.what == changeAdd && !perhaps && present:
			w.failf("%s is a member, though adding it was never done", c.id)
		case c.what == changePromote && !perhaps && present && role != raftgroup.RoleLearner:
			w.failf("%s is a voter, though promoting it was never done", c.id)
		case c.what == changeRemove && !perhaps && !present && changes[change{changePromote, c.id}]:
			w.failf("%s is no member, though removing it was never done", c.id)
		case c.what == changeAdd && w.byID(c.id).retired() && present && !removed:
			w.failf("%s was retired and is a member", c.id)
		}
	}
}

func (r *replica) retired() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.gone
}
