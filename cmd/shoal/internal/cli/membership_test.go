package cli

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

// A fakeMember is one replica of a group: it refuses calls as a replica does that
// does not lead, until leads says that it does.
type fakeMember struct {
	raftpb.UnimplementedMembershipServer
	leader  func() string // whom it names
	leads   func() bool
	members func() []*raftpb.Member
	removed func(id, server string) error
	added   func(grpc.ServerStreamingServer[raftpb.Progress]) error // nil: done at once
}

func (f *fakeMember) List(context.Context, *raftpb.ListRequest) (*raftpb.ListReply, error) {
	return &raftpb.ListReply{Leader: f.leader(), Members: f.members(), Leads: f.leads(), LastIndex: 9}, nil
}

func (f *fakeMember) Add(_ *raftpb.AddRequest, stream grpc.ServerStreamingServer[raftpb.Progress]) error {
	if !f.leads() {
		return raftpb.NotBegun(status.Errorf(codes.Unavailable, "this replica does not lead; the leader is %s", f.leader()))
	}
	if f.added != nil {
		return f.added(stream)
	}
	return stream.Send(&raftpb.Progress{Phase: "done"})
}

func (f *fakeMember) Remove(_ context.Context, r *raftpb.RemoveRequest) (*raftpb.RemoveReply, error) {
	if !f.leads() {
		return nil, status.Errorf(codes.Unavailable, "this replica does not lead; the leader is %s", f.leader())
	}
	return &raftpb.RemoveReply{}, f.removed(r.GetLabel(), r.GetServerId())
}

// serve serves f, or for nil nothing at all, until the test ends.
func serve(t *testing.T, f *fakeMember) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	if f != nil {
		raftpb.RegisterMembershipServer(s, f)
	} else {
		// What an empty replica at a dead one's address says.
		s = grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			return status.Error(codes.Unavailable, "this replica is not formed yet")
		}))
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func membershipOf(t *testing.T, addresses ...string) *membership {
	return &membership{
		addresses: addresses, timeout: time.Second,
		dial: func(address string) (grpc.ClientConnInterface, error) {
			conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err == nil {
				t.Cleanup(func() { _ = conn.Close() })
			}
			return conn, err
		},
	}
}

// A change of membership waits for the election that the death of the leader
// makes necessary: the others name the dead one at first, and at its address an
// empty replica may answer by then.
func TestChangeOutlastsAnElection(t *testing.T) {
	empty := serve(t, nil)
	var elected atomic.Pointer[time.Time]
	elect := func(after time.Duration) {
		at := time.Now().Add(after)
		elected.Store(&at)
	}
	over := func() bool { return time.Now().After(*elected.Load()) }
	elect(2 * time.Second)
	var self string
	leader := func() string {
		if over() {
			return self
		}
		return empty
	}
	var gone atomic.Bool
	member := &fakeMember{
		leader: leader, leads: over,
		members: func() []*raftpb.Member {
			if gone.Load() {
				return nil
			}
			return []*raftpb.Member{{Label: "b", ServerId: "b.1", Address: empty}}
		},
		removed: func(id, server string) error {
			if id != "b" || server != "b.1" {
				return status.Errorf(codes.NotFound, "no replica %q %q", id, server)
			}
			if gone.Swap(true) {
				return nil // named by its server id, it may be removed again
			}
			return status.Error(codes.Unavailable, "the reply was lost")
		},
	}
	self = serve(t, member)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	waited := 0
	progress := func(s output.State) { waited += len(s.Text) }
	m := membershipOf(t, empty, self)
	if err := m.add(ctx, "127.0.0.1:1", "b", progress); err != nil {
		t.Fatalf("add: %v", err)
	}
	if waited == 0 {
		t.Error("nothing was said while nobody led")
	}
	elect(time.Second)
	if absent, err := m.remove(ctx, "b", progress); err != nil || absent {
		t.Fatalf("remove: absent %v, %v", absent, err)
	}
}

// A change that nobody can make ends with the caller's deadline, as one that is
// not done, and says what each replica answered.
func TestChangeWithoutLeader(t *testing.T) {
	nobody := &fakeMember{
		leader: func() string { return "" }, leads: func() bool { return false },
		members: func() []*raftpb.Member { return nil },
	}
	address := serve(t, nobody)
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	err := membershipFailure("add", membershipOf(t, address, "127.0.0.1:1").add(ctx, "127.0.0.1:1", "", func(output.State) {}))
	if exitCode(err) != ExitUnavailable {
		t.Errorf("exit code %d, %v", exitCode(err), err)
	}
	for _, part := range []string{"add: not done: ", address + ": this replica does not lead", "connection refused"} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "outcome unknown") {
		t.Errorf("%q names two families", err)
	}
}

// What is said of a change that failed follows from what its leader said: that
// nothing was begun, which steps it began, or nothing that tells.
func TestWhatIsKnownOfAChange(t *testing.T) {
	progress := func(phases ...string) (sent []*raftpb.Progress) {
		for _, phase := range phases {
			sent = append(sent, &raftpb.Progress{Phase: phase, AppliedIndex: 3, TargetIndex: 9})
		}
		return sent
	}
	unavailable := status.Error(codes.Unavailable, "it is shutting down")
	for _, c := range []struct {
		name   string
		sent   []*raftpb.Progress
		fails  error // nil: it hangs
		cancel bool
		code   int
		says   string
	}{
		{"nothing was begun", nil, raftpb.NotBegun(unavailable), false, ExitUnavailable, "add: not done: "},
		{"refused before it was begun", nil, raftpb.NotBegun(status.Error(codes.FailedPrecondition, "wrong group")), false, ExitRefused, "add: not done: wrong group"},
		{"the first step was refused", progress("adding"), status.Error(codes.FailedPrecondition, "no quorum"), false, ExitRefused, "add: not done: no quorum"},
		{"a later step was refused", progress("adding", "catching up", "catching up", "removing"), status.Error(codes.FailedPrecondition, "no quorum (done: add b)"),
			false, ExitRefused, "add: done in part: no quorum (done: add b); repeat"},
		{"the answer was lost", nil, unavailable, false, ExitUnavailable, "add: outcome unknown: "},
		{"the first step hangs", progress("adding"), nil, false, ExitUnavailable, "add: outcome unknown: "},
		{"the first step is interrupted", progress("adding"), nil, true, ExitFailed, "add: outcome unknown: "},
		{"it catches up", progress("adding", "catching up"), nil, false, ExitUnavailable, "add: done; not settled yet: catching up, 3 of 9 entries: timed out; repeat"},
		{"it is interrupted", progress("adding", "catching up"), nil, true, ExitFailed, "add: done; not settled yet: catching up, 3 of 9 entries: interrupted; repeat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			leader := &fakeMember{leads: func() bool { return true }, members: func() []*raftpb.Member { return nil }}
			leader.added = func(stream grpc.ServerStreamingServer[raftpb.Progress]) error {
				for _, p := range c.sent {
					if err := stream.Send(p); err != nil {
						return err
					}
				}
				if c.fails == nil {
					<-stream.Context().Done()
					return stream.Context().Err()
				}
				return c.fails
			}
			address := serve(t, leader)
			leader.leader = func() string { return address }
			ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
			defer cancel()
			seen := 0
			err := membershipOf(t, address).add(ctx, "h:1", "", func(output.State) {
				if seen++; c.cancel && seen == len(c.sent) {
					cancel()
				}
			})
			expectFailure(t, membershipFailure("add", err), c.code, c.says)
		})
	}
}

// lateTimer is a context whose deadline has passed, and whose timer has not fired.
type lateTimer struct{ context.Context }

func (lateTimer) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

// Who ends a call at its deadline may be the leader, before the timer of the one who
// called fires: it timed out all the same.
func TestLeaderEndsCallAtItsDeadline(t *testing.T) {
	for _, code := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
		failed := &membershipError{phases: 2, state: output.State{Done: 3, Total: 9, Text: "catching up"}}
		ended := status.Error(code, "stream terminated by RST_STREAM with error code: CANCEL")
		if failed.note(lateTimer{t.Context()}, ended) {
			t.Error("it is repeated")
		}
		expectFailure(t, membershipFailure("add", failed), ExitUnavailable, "add: done; not settled yet: catching up, 3 of 9 entries: timed out; repeat")
	}
}

// expectFailure checks code and words of a failure, and that it names one family.
func expectFailure(t *testing.T, err error, code int, says string) {
	t.Helper()
	if exitCode(err) != code || !strings.HasPrefix(err.Error(), says) {
		t.Errorf("code %d, %v; want code %d, %q", exitCode(err), err, code, says)
	}
	if families := familiesIn(err.Error()); len(families) != 1 {
		t.Errorf("%v names the families %q", err, families)
	}
}

// What a leader refuses is said at once.
func TestRefusedChangeIsNotRepeated(t *testing.T) {
	calls := 0
	member := &fakeMember{leads: func() bool { return true }, members: func() []*raftpb.Member { return nil }}
	member.removed = func(string, string) error {
		calls++
		return status.Error(codes.NotFound, "no replica \"x\" in the group")
	}
	address := serve(t, member)
	member.leader = func() string { return address }
	_, err := membershipOf(t, address).remove(t.Context(), "x", func(output.State) {})
	err = membershipFailure("remove", err)
	if exitCode(err) != ExitCondition || calls != 1 {
		t.Errorf("exit code %d after %d calls: %v", exitCode(err), calls, err)
	}
}

// The leader is found in one round although most replicas hang: they are asked
// together. Who does not lead knows nothing of the others' health, and says so.
func TestLeaderIsFoundInOneRound(t *testing.T) {
	var hanging []string
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		hanging = append(hanging, l.Addr().String())
	}
	var self string
	var leads atomic.Bool
	leads.Store(true)
	self = serve(t, &fakeMember{
		leader: func() string { return self }, leads: leads.Load,
		members: func() []*raftpb.Member {
			return []*raftpb.Member{
				{Label: "a", Address: self, AppliedIndex: 7, HealthKnown: true}, {Label: "b", Address: hanging[0]},
				{Label: "c", Address: hanging[1], AppliedIndex: 7, HealthKnown: true, Healthy: true},
			}
		},
	})
	m := membershipOf(t, append(hanging, self)...)
	m.timeout = 2 * time.Second
	for _, leading := range []bool{true, false} {
		leads.Store(leading)
		began := time.Now()
		list, err := m.list(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// Six replicas, one after the other, would take ten seconds.
		if took := time.Since(began); took > 2*m.timeout || leading && took > m.timeout/2 {
			t.Errorf("leading %v: it took %v", leading, took)
		}
		a, b, c := memberOf(list, list.GetMembers()[0]), memberOf(list, list.GetMembers()[1]), memberOf(list, list.GetMembers()[2])
		if a.Health != "down" || b.Health != "unknown" || b.Lag != nil || (c.Lag != nil) != leading || leading && *c.Lag != 2 {
			t.Errorf("leading %v: %+v, %+v, %+v", leading, a, b, c)
		}
		// The disk of a silent one may have been wiped since.
		if a.Lag != nil || a.AppliedIndex != nil {
			t.Errorf("leading %v: it is known how far one is that is down: %+v", leading, a)
		}
	}
}
