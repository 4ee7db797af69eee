package shardctrler

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
)

// TestReasonsAreThoseOfTheWire: the machine's numbers and the wire's mean the
// same.
func TestReasonsAreThoseOfTheWire(t *testing.T) {
	for name, reason := range map[string]ctrlfsm.Reason{
		"BAD_REQUEST": ctrlfsm.BadRequest, "UNKNOWN_GROUP": ctrlfsm.UnknownGroup, "GROUP_LEAVING": ctrlfsm.GroupLeaving,
		"LAST_GROUP": ctrlfsm.LastGroup, "GROUP_EXISTS": ctrlfsm.GroupExists, "REPLICA_MISMATCH": ctrlfsm.ReplicaMismatch,
		"INCARNATION_BOUND": ctrlfsm.IncarnationBound, "INCARNATION_RETIRED": ctrlfsm.IncarnationRetired,
		"REQUEST_EXPIRED": ctrlfsm.RequestExpired, "CLUSTER_MISMATCH": ctrlfsm.ClusterMismatch,
		"UNKNOWN_CONFIG": ctrlfsm.UnknownConfig, "NOT_LEAVING": ctrlfsm.NotLeaving, "STALE_REPORT": ctrlfsm.StaleReport,
		"ADDRESS_IN_USE": ctrlfsm.AddressInUse, "GROUP_SILENT": ctrlfsm.GroupSilent, "GROUP_ALIVE": ctrlfsm.GroupAlive,
		"ENTRY_FULL": ctrlfsm.EntryFull,
	} {
		if got := ctrlpb.Reason(reason).String(); got != name {
			t.Errorf("%v is %s on the wire, not %s", reason, got, name)
		}
	}
	if n := len(ctrlpb.Reason_name); n != int(ctrlfsm.EntryFull)+1 {
		t.Errorf("the wire has %d reasons", n)
	}
}

// TestProposalErrorsKeepTheirFamily: what was not done is never called unknown,
// and the other way round.
func TestProposalErrorsKeepTheirFamily(t *testing.T) {
	for _, tc := range []struct {
		err    error
		code   codes.Code
		leader string
		hint   bool
	}{
		{&raftgroup.NotLeaderError{Leader: "x:1"}, codes.Unavailable, "x:1", true},
		{raftgroup.ErrTransferring, codes.Unavailable, "known:1", true},
		{fmt.Errorf("propose: %w", raftgroup.ErrNotDone), codes.Unavailable, "known:1", true},
		{raftgroup.ErrBusy, codes.ResourceExhausted, "", false},
		{fmt.Errorf("%w: %w", raftgroup.ErrOutcomeUnknown, context.DeadlineExceeded), codes.DeadlineExceeded, "", false},
		{raftgroup.ErrOutcomeUnknown, codes.Aborted, "", false},
		{errors.New("something else"), codes.Aborted, "", false},
	} {
		got := proposalError("known:1", tc.err)
		hint, hinted := detail[*ctrlpb.LeaderHint](got)
		if status.Code(got) != tc.code || hinted != tc.hint || hint.GetLeader() != tc.leader {
			t.Errorf("%v became %v with hint %v, want %v with %q", tc.err, got, hint, tc.code, tc.leader)
		}
	}
}
