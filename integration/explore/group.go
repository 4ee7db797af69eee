package explore

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// An incID names an incarnation: a seat and the number of its life there.
type incID uint8

const noInc incID = 0xFF

func newInc(seat, life int) incID { return incID(seat*livesMax + life) }

func (id incID) seat() int { return int(id) / livesMax }
func (id incID) life() int { return int(id) % livesMax }

func (id incID) peer() kvfsm.Peer {
	gid := shardcfg.GroupID(id.seat() + 1)
	return kvfsm.Peer{Group: gid, Incarnation: shardcfg.Incarnation{byte(gid), byte(id.life())}}
}

func (id incID) identity() handoff.Identity {
	p := id.peer()
	return handoff.Identity{Peer: p, Replicas: []string{fmt.Sprintf("g%d:1", p.Group)}}
}

// String is "g2", and in a later life "g2'".
func (id incID) String() string {
	return fmt.Sprintf("g%d%s", id.seat()+1, "'''''''"[:id.life()])
}

func incOf(i shardcfg.Incarnation) incID {
	if i.IsZero() {
		return noInc
	}
	return newInc(int(i[0])-1, int(i[1]))
}

// sum is a hash by which states and parts of them are told apart.
type sum [16]byte

func sumOf(parts ...[]byte) sum {
	h := sha256.New()
	for _, p := range parts {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return sum(h.Sum(nil))
}

// A local is one state of one group: what its log, applied, leads to. Many
// states of the whole share it.
type local struct {
	inc    incID
	store  *store.Mem
	view   handoff.View
	config uint32 // its index; 0: none
	// drained: it reports so, if no claim is open.
	drained bool
	shards  []shardState
	// whole is the hash of everything, adopted of the config.
	whole, adopted sum
	// broken is an invariant that this state breaks by itself; empty: none.
	broken string
	// facts are what others may learn from this state.
	facts []uint32
	// reduced are the ids without the contents of stagings, by set of shards.
	reduced [1 << ShardsMax]uint32
	// holder are the proposals of this state's own leader, by shard, once known.
	holder [ShardsMax]*holderMoves
}

// shardState is what a search asks of a record, at hand.
type shardState struct {
	phase   kvfsm.Phase
	epoch   uint64 // packed
	to      incID
	start   shardcfg.Revision
	rev     shardcfg.Revision
	staging bool
	st      stagingState
	// own is the record's mark; offered is the one that the group would invite
	// with, else the same.
	own, offered kvfsm.Mark
	// served are the values of the keys, in the held copy, with their versions.
	served []byte
	// parts of the group's sum.
	record, mark, body sum
}

type stagingState struct {
	mark   kvfsm.Mark
	from   incID
	tail   bool
	rev    shardcfg.Revision
	cursor kvfsm.Cursor
}

// readLocal derives a local from a store.
func (x *explorer) readLocal(inc incID, s *store.Mem) *local {
	l := &local{inc: inc, store: s}
	view, err := handoff.ReadView(s, nil)
	if err != nil {
		l.broken = "the state can't be read: " + err.Error()
		l.whole = sumOf([]byte{byte(inc)}, []byte(l.broken))
		return l
	}
	l.view = view
	if view.Config != nil {
		l.config = x.internConfig(view.Config)
		l.view.Config = x.configs[l.config].config
	}
	l.shards = make([]shardState, x.bound.Shards)
	bodies, garbage := splitItems(s, &view, x.bound.Shards)
	if garbage {
		l.broken = "INV-9 NoLeak: items of a copy that is neither held nor staged"
	}
	for i := range l.shards {
		rec := view.Record(shardcfg.ShardID(i))
		l.shards[i] = x.readShard(l, &rec, bodies[i])
		if err := kvfsm.CheckContent(s, rec.Shard); err != nil && l.broken == "" {
			l.broken = "INV-6 Digest: " + err.Error()
		}
	}
	l.drained, _ = handoff.Drained(inc.identity(), &l.view, 0)
	l.adopted = sumOf(x.configBytes(l.config))
	l.whole = x.sumLocal(l, 0)
	return l
}

// items are the stored keys of one shard, without copy numbers.
type items struct{ held, staged []byte }

// splitItems sorts a store's items by shard and role.
func splitItems(s *store.Mem, v *handoff.View, shards int) (list []items, garbage bool) {
	list = make([]items, shards)
	it, err := s.Iterate(nil, []byte{0xFF, 0xFE})
	if err != nil {
		return list, true
	}
	for it.Next() {
		k := it.Key()
		shard, copyNum := int(binary.BigEndian.Uint16(k)), binary.BigEndian.Uint64(k[2:copyPrefixBytes])
		if shard >= shards {
			garbage = true
			continue
		}
		rec := v.Record(shardcfg.ShardID(shard))
		dst := &list[shard].held
		switch {
		case rec.Staging != nil && copyNum == rec.Staging.Copy:
			dst = &list[shard].staged
		case copyNum != rec.Copy:
			garbage = true
			continue
		}
		*dst = appendBytes(appendBytes(*dst, k[copyPrefixBytes:]), it.Value())
	}
	return list, it.Close() != nil || garbage
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func (x *explorer) readShard(l *local, rec *kvfsm.Record, body items) shardState {
	sh := shardState{phase: rec.Phase, epoch: pack8(rec.Epoch), to: incOf(rec.To.Incarnation),
		start: rec.Start, rev: rec.Revision, own: rec.Mark(), offered: rec.Mark()}
	if rec.Phase == kvfsm.PhaseServing && l.view.Config != nil {
		if _, owner := l.view.Config.Owner(rec.Shard); !owner.IsZero() && incOf(owner) != l.inc {
			sh.offered.Handoff = l.view.Config.Num
		}
	}
	// Copies are told apart by their role, so that their numbers don't count.
	held := rec.Copy != 0
	flat := *rec
	flat.Copy, flat.CopyLast, flat.Staging = 0, 0, nil
	sh.record = sumOf(fmt.Appendf(nil, "%+v %v", flat, held), body.held)
	if st := rec.Staging; st != nil {
		sh.staging = true
		sh.st = stagingState{mark: st.Mark(), from: incOf(st.From.Incarnation), tail: st.Cursor.Tail, rev: st.Cursor.Revision, cursor: st.Cursor}
		sh.mark = sumOf(fmt.Appendf(nil, "%+v %v", st.Mark(), st.From))
		sh.body = sumOf(fmt.Appendf(nil, "%+v %+v", st.Cursor, st.Content), body.staged)
	}
	sh.served = x.readValues(l, rec)
	return sh
}

// Of a stored key behind the copy, and of a stored value: see kvfsm's keys.
const (
	copyPrefixBytes  = 2 + 8
	kindRecord       = 0x04
	versionAt        = 3
	valueHeaderBytes = 19
)

// readValues returns the versions and values of a shard's keys in the held
// copy, and checks that reads of clients agree with them, where the shard is
// served, and are refused where it is not (INV-3).
func (x *explorer) readValues(l *local, rec *kvfsm.Record) []byte {
	var values []byte
	for i := range x.bound.Keys {
		k := x.keys[rec.Shard][i]
		stored := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(nil, uint16(rec.Shard)), rec.Copy)
		raw, ok, err := l.store.Get(append(append(stored, kindRecord), k...))
		value := ""
		if ok && len(raw) >= valueHeaderBytes {
			value = fmt.Sprintf("%d:%s", packVersion(shardcfg.Revision(binary.BigEndian.Uint64(raw[versionAt:]))), raw[valueHeaderBytes:])
		}
		values = appendBytes(values, []byte(value))
		got, readErr := x.read(l.store, x.bound.Shards, k)
		seen := ""
		if got.Code == kvfsm.CodeOK {
			seen = fmt.Sprintf("%d:%s", packVersion(got.Version), got.Value)
		}
		switch {
		case err != nil || readErr != nil:
			l.broken = fmt.Sprintf("the state can't be read: %v, %v", err, readErr)
		case rec.Phase.Serves() && (got.Code == kvfsm.CodeWrongGroup || seen != value):
			l.broken = fmt.Sprintf("INV-3 FreshRead: %v serves %q (%v) of %q where %q is stored", l.inc, seen, got.Code, k, value)
		case !rec.Phase.Serves() && got.Code != kvfsm.CodeWrongGroup:
			l.broken = fmt.Sprintf("INV-3 FreshRead: %v reads %q of shard %d, which is %v", l.inc, seen, rec.Shard, rec.Phase)
		}
	}
	return values
}
