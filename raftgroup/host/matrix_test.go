package host

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// voters are the labels of the voters that a host knows of.
func voters(h *testHost) map[string]bool {
	found := map[string]bool{}
	for _, m := range h.ready().Status().Members {
		if m.Role != raftgroup.RoleLearner {
			found[formation.LabelOf(m.ServerID)] = true
		}
	}
	return found
}

// A matrix is a group of three with everyone that a change of membership may name.
type matrix struct {
	t      *testing.T
	leader *testHost
	client raftpb.MembershipClient
	// old and member are followers; the others are no voters.
	old, member, newcomer, learner, removed, foreign *testHost
}

func newMatrix(t *testing.T) *matrix {
	hosts, _, _ := startGroup(t)
	leader := propose(t, "a", hosts...)
	one, other := followerOf(hosts, leader)
	m := &matrix{t: t, leader: leader, old: hosts[one], member: hosts[other], client: leaderClient(t, leader, leader)}
	start := func(label string, gid int, peers func(*testHost) map[string]string) *testHost {
		h := newTestHost(t, label, t.TempDir(), "127.0.0.1:0", nil)
		h.run(shardcfg.GroupID(gid), peers(h))
		return h
	}
	waiting := func(*testHost) map[string]string { return nil }
	m.newcomer, m.learner, m.removed = start("new", 7, waiting), start("learner", 7, waiting), start("removed", 7, waiting)
	m.foreign = start("foreign", 8, func(h *testHost) map[string]string { return map[string]string{"foreign": h.Addr()} })
	m.foreign.ready()
	if got := m.do(&raftpb.AddRequest{Address: m.removed.Addr()}); got != codes.OK {
		t.Fatal(got)
	}
	m.removed.ready()
	eventually(t, "one was removed, one is a learner", func() bool {
		leads := m.find()
		if _, err := m.client.Remove(t.Context(), &raftpb.RemoveRequest{Label: "removed"}); err != nil {
			return false
		}
		known, _, err := leads.members.adopt(t.Context(), leads.running(), &raftpb.AddRequest{Address: m.learner.Addr()})
		return err == nil && leads.replica.AddLearner(t.Context(), known) == nil
	})
	return m
}

// find looks for the leader: a replica that was removed, and does not know yet,
// may have called an election.
func (m *matrix) find() (leads *testHost) {
	m.t.Helper()
	hosts := []*testHost{m.leader, m.old, m.member, m.newcomer, m.learner, m.removed}
	eventually(m.t, "a leader of the group", func() bool {
		for _, h := range hosts {
			r := h.running()
			if r == nil {
				continue
			}
			if _, self := r.replica.Leader(); self && r.replica.ReadBarrier(m.t.Context()) == nil {
				m.client, leads = leaderClient(m.t, h, h), h
				return true
			}
		}
		return false
	})
	return leads
}

// addUntil cuts an Add off at a phase. It makes it again as long as it is the leader
// that is missing.
func (m *matrix) addUntil(phase string, req *raftpb.AddRequest) {
	m.t.Helper()
	for {
		m.find()
		err := m.addOnceUntil(phase, req)
		switch c := status.Code(err); {
		case c == codes.Unavailable:
			continue
		case c != codes.Canceled && !errors.Is(err, io.EOF):
			m.t.Fatalf("cut off at %q: %v", phase, err)
		}
		return
	}
}

func (m *matrix) addOnceUntil(phase string, req *raftpb.AddRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := m.client.Add(ctx, req)
	for err == nil {
		var p *raftpb.Progress
		if p, err = stream.Recv(); err == nil && p.GetPhase() == phase {
			cancel()
		}
	}
	return err
}

// do makes an Add, again as long as it is the leader that is missing, and returns
// its code.
func (m *matrix) do(req *raftpb.AddRequest) codes.Code {
	m.t.Helper()
	for {
		m.find()
		err := tryAdd(m.client, req)
		switch {
		case status.Code(err) == codes.Unavailable && !strings.Contains(err.Error(), "does not answer"):
			continue
		}
		return status.Code(err)
	}
}

// No change of membership ends with fewer voters than it promised, and none removes
// whom it did not name, whomever it names: adding and replacing end with the named
// one a voter or with nothing changed, the first time, repeated, and after they
// were cut off anywhere; removing takes one away, once.
func TestMembershipMatrix(t *testing.T) {
	for name, tc := range map[string]struct {
		address func(*matrix) string
		add     codes.Code // and the code of replace, for each
		replace codes.Code
	}{
		"new":         {func(m *matrix) string { return m.newcomer.Addr() }, codes.OK, codes.OK},
		"member":      {func(m *matrix) string { return m.member.Addr() }, codes.OK, codes.FailedPrecondition},
		"leader":      {func(m *matrix) string { return m.leader.Addr() }, codes.OK, codes.FailedPrecondition},
		"itself":      {func(m *matrix) string { return m.old.Addr() }, codes.OK, codes.FailedPrecondition},
		"learner":     {func(m *matrix) string { return m.learner.Addr() }, codes.OK, codes.OK},
		"removed":     {func(m *matrix) string { return m.removed.Addr() }, codes.OK, codes.OK},
		"other group": {func(m *matrix) string { return m.foreign.Addr() }, codes.FailedPrecondition, codes.FailedPrecondition},
		"nobody":      {func(*matrix) string { return "127.0.0.1:1" }, codes.Unavailable, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("add", func(t *testing.T) {
				t.Parallel()
				m := newMatrix(t)
				for range 2 { // first, and repeated
					if got := m.do(&raftpb.AddRequest{Address: tc.address(m)}); got != tc.add {
						t.Fatalf("ended with %v, want %v", got, tc.add)
					}
				}
				if got := voters(m.find()); len(got) < 3 || !got[m.old.label] || !got[m.member.label] || !got[m.leader.label] {
					t.Fatalf("the voters are %v", got)
				}
			})
			for _, cut := range []string{"", "adding", "catching up", "removing"} {
				if cut != "" && tc.replace != codes.OK {
					continue
				}
				t.Run("replace, cut off at "+cut, func(t *testing.T) {
					t.Parallel()
					m := newMatrix(t)
					req := &raftpb.AddRequest{Address: tc.address(m), Replaces: m.old.label}
					if cut != "" {
						m.addUntil(cut, req)
						if got := voters(m.find()); len(got) < 3 {
							t.Fatalf("cut off: the voters are %v", got)
						}
					}
					for range 2 {
						if got := m.do(req); got != tc.replace {
							t.Fatalf("ended with %v, want %v", got, tc.replace)
						}
					}
					got := voters(m.find())
					if len(got) != 3 || got[m.old.label] == (tc.replace == codes.OK) || !got[m.member.label] || !got[m.leader.label] {
						t.Fatalf("the voters are %v", got)
					}
				})
			}
		})
	}
}

// A replica that was replaced and is added again is not taken away by a repetition
// of what had replaced it.
func TestOldReplacementIsForgotten(t *testing.T) {
	m := newMatrix(t)
	req := &raftpb.AddRequest{Address: m.newcomer.Addr(), Replaces: m.old.label}
	if got := m.do(req); got != codes.OK {
		t.Fatal(got)
	}
	if got := m.do(&raftpb.AddRequest{Address: m.old.Addr()}); got != codes.OK {
		t.Fatalf("added again: %v", got)
	}
	if got := m.do(req); got != codes.FailedPrecondition || len(voters(m.find())) != 4 {
		t.Fatalf("replaced again: %v, with the voters %v", got, voters(m.find()))
	}
	// Nor does the group take a member for the replacement of one that never was.
	if got := m.do(&raftpb.AddRequest{Address: m.member.Addr(), Replaces: "nobody"}); got != codes.NotFound {
		t.Fatalf("replaced nobody: %v", got)
	}
}

// Removing a voter, a learner, one that was removed or nobody takes away the one
// that was named, once; repeated, it takes nobody else.
func TestRemoveMatrix(t *testing.T) {
	m := newMatrix(t)
	for _, tc := range []struct {
		label  string
		voters int
		absent bool
	}{
		{"removed", 3, true}, {"nobody", 3, true}, {"foreign", 3, true}, {"learner", 3, false}, {"learner", 3, true},
		{m.old.label, 2, false}, {m.old.label, 2, true},
	} {
		m.find()
		reply, err := m.client.Remove(context.Background(), &raftpb.RemoveRequest{Label: tc.label})
		for raftpb.IsNotBegun(err) { // whoever led does not lead any more
			m.find()
			reply, err = m.client.Remove(context.Background(), &raftpb.RemoveRequest{Label: tc.label})
		}
		if err != nil {
			t.Fatalf("remove %s: %v", tc.label, err)
		}
		if got := voters(m.find()); len(got) != tc.voters || reply.GetAbsent() != tc.absent {
			t.Fatalf("remove %s: absent %v, the voters are %v", tc.label, reply.GetAbsent(), got)
		}
	}
}
