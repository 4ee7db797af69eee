package shardctrler

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// refusal is the status of a definite answer: nothing was changed.
func refusal(r *ctrlfsm.Refusal) error {
	code := codes.FailedPrecondition
	switch r.Reason {
	case ctrlfsm.EntryFull:
		return status.Error(codes.ResourceExhausted, "not done: "+r.Message)
	case ctrlfsm.BadRequest:
		code = codes.InvalidArgument
	case ctrlfsm.UnknownGroup, ctrlfsm.UnknownConfig:
		code = codes.NotFound
	}
	return withDetail(code, r.Message, &ctrlpb.Refusal{Reason: ctrlpb.Reason(r.Reason), Message: r.Message})
}

func refuse(reason ctrlfsm.Reason, format string, args ...any) error {
	return refusal(&ctrlfsm.Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// notDone is the status of a call that another replica may be asked.
func notDone(leader, message string) error {
	return withDetail(codes.Unavailable, "not done: "+message, &ctrlpb.LeaderHint{Leader: leader})
}

func internal(what string, err error) error {
	return status.Errorf(codes.Internal, "%s: %v", what, err)
}

func withDetail(code codes.Code, message string, detail protoadapt.MessageV1) error {
	st, err := status.New(code, message).WithDetails(detail)
	if err != nil {
		panic(fmt.Sprintf("shardctrler: status detail %T: %v", detail, err))
	}
	return st.Err()
}

// proposalError is the status of a proposal that did not answer. leader is the
// leader's address as far as known.
func proposalError(leader string, err error) error {
	var notLeader *raftgroup.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		return notDone(notLeader.Leader, err.Error())
	case errors.Is(err, raftgroup.ErrBusy):
		return status.Error(codes.ResourceExhausted, "not done: "+err.Error())
	case errors.Is(err, raftgroup.ErrNotDone):
		return notDone(leader, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "outcome unknown: "+err.Error())
	}
	return status.Error(codes.Aborted, "outcome unknown: "+err.Error())
}

// checkCluster refuses the members of other clusters. A caller that belongs to
// none yet names none.
func checkCluster(own shardcfg.ClusterID, named []byte) error {
	id, ok := shardcfg.To128[shardcfg.ClusterID](named)
	switch {
	case !ok:
		return refuse(ctrlfsm.BadRequest, "a cluster's name has 16 bytes, not %d", len(named))
	case !id.IsZero() && id != own:
		return refuse(ctrlfsm.ClusterMismatch, "these are the controllers of cluster %v, the caller belongs to %v", own, id)
	}
	return nil
}

func incarnation(b []byte) (shardcfg.Incarnation, error) {
	inc, ok := shardcfg.To128[shardcfg.Incarnation](b)
	if !ok {
		return inc, refuse(ctrlfsm.BadRequest, "an incarnation has 16 bytes, not %d", len(b))
	}
	return inc, nil
}

// named is incarnation for calls that need one.
func named(b []byte) (shardcfg.Incarnation, error) {
	inc, err := incarnation(b)
	if err == nil && inc.IsZero() {
		err = refuse(ctrlfsm.BadRequest, "the call names no incarnation")
	}
	return inc, err
}

// shard checks a shard's number before it is narrowed.
func (r *replica) shard(n uint32) (shardcfg.ShardID, error) {
	if int64(n) >= int64(r.id.ShardCount) {
		return 0, refuse(ctrlfsm.BadRequest, "there is no shard %d of %d", n, r.id.ShardCount)
	}
	return shardcfg.ShardID(n), nil
}
