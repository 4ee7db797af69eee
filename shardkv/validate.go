package shardkv

import (
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A fault is why a request, or one operation of it, is refused before it gets
// near the log. The zero fault is none.
type fault struct {
	code    kvpb.Code
	message string
}

func (f fault) bad() bool { return f.code != kvpb.Code_OK }

func invalid(format string, args ...any) fault {
	return fault{kvpb.Code_INVALID, fmt.Sprintf(format, args...)}
}

// checkCluster refuses a request that means another cluster.
func checkCluster(asked []byte, own shardcfg.ClusterID) fault {
	c, ok := shardcfg.To128[shardcfg.ClusterID](asked)
	switch {
	case !ok:
		return invalid("cluster id has %d bytes, want 16", len(asked))
	case !c.IsZero() && !own.IsZero() && c != own:
		return fault{kvpb.Code_WRONG_CLUSTER, fmt.Sprintf("this server belongs to cluster %s, not %s", own, c)}
	}
	return fault{}
}

// checkRequest checks what concerns a request as a whole and returns its size,
// for the budgets.
func checkRequest(r *kvpb.ExecuteRequest) (size int64, f fault) {
	for _, op := range r.GetOperations() {
		size += shardcfg.OperationBytes + int64(len(op.GetKey())+len(valueOf(op)))
	}
	switch n := len(r.GetOperations()); {
	case n > shardcfg.OperationsMax:
		return size, invalid("request has %d operations, at most %d are allowed", n, shardcfg.OperationsMax)
	case size > shardcfg.RequestBytesMax && n > 1:
		return size, invalid("request has %d bytes, at most %d are allowed in more than one operation", size, shardcfg.RequestBytesMax)
	}
	if s := r.GetSession(); s != nil {
		if id, ok := shardcfg.To128[shardcfg.SessionID](s.GetId()); !ok || id == (shardcfg.SessionID{}) {
			return size, invalid("session id is not 16 random bytes")
		}
		if s.GetBirthMs() == 0 {
			return size, invalid("session has no birth time")
		}
	}
	return size, fault{}
}

// checkOperation checks one operation on its own.
func checkOperation(op *kvpb.Operation, session *kvpb.Session) fault {
	if op == nil {
		return invalid("operation is missing")
	}
	if err := shardcfg.CheckKey(op.GetKey()); err != nil {
		return invalid("%v", err)
	}
	if err := shardcfg.CheckValue(valueOf(op)); err != nil {
		return invalid("%v", err)
	}
	switch k := op.GetKind().(type) {
	case nil:
		return invalid("operation has no kind that this server knows")
	case *kvpb.Operation_Get:
		if op.GetSequence() != 0 {
			return invalid("a get has no sequence number")
		}
		return fault{}
	case *kvpb.Operation_Put:
		if k.Put == nil {
			return invalid("put is empty")
		}
	case *kvpb.Operation_Append:
		if k.Append == nil {
			return invalid("append is empty")
		}
	case *kvpb.Operation_Delete:
		if k.Delete == nil {
			return invalid("delete is empty")
		}
	}
	switch seq := op.GetSequence(); {
	case seq == 0:
	case session == nil:
		return invalid("sequence number %d without a session", seq)
	case seq < session.GetAckedBelow():
		return fault{kvpb.Code_STALE_SEQUENCE,
			fmt.Sprintf("sequence number %d was acknowledged: everything below %d was", seq, session.GetAckedBelow())}
	}
	return fault{}
}

// valueOf is the operand of a put or append, else nil.
func valueOf(op *kvpb.Operation) []byte {
	switch k := op.GetKind().(type) {
	case *kvpb.Operation_Put:
		return k.Put.GetValue()
	case *kvpb.Operation_Append:
		return k.Append.GetValue()
	}
	return nil
}

// conditionOf is the condition of a put or delete; ok is false without one.
func conditionOf(op *kvpb.Operation) (version uint64, ok bool) {
	var c *kvpb.Condition
	switch k := op.GetKind().(type) {
	case *kvpb.Operation_Put:
		c = k.Put.GetCondition()
	case *kvpb.Operation_Delete:
		c = k.Delete.GetCondition()
	}
	return c.GetVersion(), c != nil
}
