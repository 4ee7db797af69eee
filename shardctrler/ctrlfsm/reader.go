package ctrlfsm

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A reader takes a body apart. After the first failure every method returns
// zero values.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrCommand, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.b) < n {
		r.fail("it is cut off")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// uvarint reads a number in its shortest form, so that a command has one
// encoding.
func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if r.err != nil || n <= 0 || v > limit || n > 1 && r.b[n-1] == 0 {
		r.fail("a number is cut off, too long or over %d", limit)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) name() (id shardcfg.Incarnation) {
	copy(id[:], r.take(len(id)))
	return id
}

func (r *reader) groupID() shardcfg.GroupID { return shardcfg.GroupID(r.uvarint(^uint64(0))) }

func (r *reader) shard() shardcfg.ShardID {
	return shardcfg.ShardID(r.uvarint(uint64(^shardcfg.ShardID(0))))
}

func (r *reader) string() string {
	return string(r.take(int(r.uvarint(shardcfg.AddressBytesMax))))
}

func (r *reader) strings() []string { return list(r, shardcfg.ReplicasMax, r.string) }

func (r *reader) request() RequestID {
	return RequestID{ID: shardcfg.ID128(r.name()), BirthMS: r.uvarint(^uint64(0))}
}

func (r *reader) join() Join {
	return Join{Request: r.request(), Groups: list(r, JoinGroupsMax, func() JoinGroup {
		g := JoinGroup{ID: r.groupID(), Replicas: r.strings(), Weight: uint32(r.uvarint(1<<32 - 1))}
		if g.Identity = Identity(r.byte()); g.Identity > IdentityFormed {
			r.fail("identity %d", g.Identity)
		}
		g.Incarnation = r.name()
		return g
	})}
}

func (r *reader) repairShards() RepairShards {
	c := RepairShards{Num: shardcfg.ConfigNum(r.uvarint(^uint64(0))), Asked: list(r, shardcfg.GroupsMax, r.name)}
	c.LossAccepted = r.flag()
	answers := uint64(RepairAnswersMax)
	c.Cases = list(r, RepairCasesMax, func() RepairCase {
		k := RepairCase{Shard: r.shard(), LastGen: uint32(r.uvarint(math.MaxUint32)), Answers: list(r, answers, r.answer)}
		answers -= uint64(len(k.Answers))
		return k
	})
	return c
}

func (r *reader) answer() Answer {
	a := Answer{Group: r.name(), Epoch: shardcfg.Epoch{Gen: uint32(r.uvarint(math.MaxUint32)), Num: r.uvarint(^uint64(0))}}
	if a.Holding = Holding(r.byte()); a.Holding > HoldsToken {
		r.fail("holding %d", a.Holding)
	}
	a.To = r.name()
	return a
}

func (r *reader) flag() bool {
	b := r.byte()
	if b > 1 {
		r.fail("flag %d", b)
	}
	return b == 1
}

// list reads a count, at most limit, and as many items.
func list[T any](r *reader, limit uint64, item func() T) []T {
	var items []T
	for range r.uvarint(limit) {
		v := item()
		if r.err != nil {
			return nil
		}
		items = append(items, v)
	}
	return items
}
