package shardkv

import (
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Conversions between messages and the types of the machines. Reading a message
// checks every length and range: it comes from the network.

func epochMessage(e shardcfg.Epoch) *kvpb.Epoch {
	if e.IsZero() {
		return nil
	}
	return &kvpb.Epoch{Gen: e.Gen, Num: e.Num}
}

func toEpoch(m *kvpb.Epoch) shardcfg.Epoch {
	return shardcfg.Epoch{Gen: m.GetGen(), Num: m.GetNum()}
}

func cursorMessage(c kvfsm.Cursor) *kvpb.Cursor {
	return &kvpb.Cursor{Tail: c.Tail, Key: c.Key, Revision: uint64(c.Revision)}
}

func toCursor(m *kvpb.Cursor) kvfsm.Cursor {
	return kvfsm.Cursor{Tail: m.GetTail(), Key: m.GetKey(), Revision: shardcfg.Revision(m.GetRevision())}
}

func toIncarnation(b []byte, what string) (shardcfg.Incarnation, error) {
	i, ok := shardcfg.To128[shardcfg.Incarnation](b)
	if !ok || i.IsZero() {
		return i, fmt.Errorf("%s is not an incarnation of 16 bytes", what)
	}
	return i, nil
}

// checkAddresses bounds what is remembered of another group.
func checkAddresses(list []string) error {
	if len(list) > shardcfg.ReplicasMax {
		return fmt.Errorf("%d addresses of one group, at most %d are allowed", len(list), shardcfg.ReplicasMax)
	}
	for _, a := range list {
		if len(a) > shardcfg.AddressBytesMax {
			return fmt.Errorf("an address of %d bytes, at most %d are allowed", len(a), shardcfg.AddressBytesMax)
		}
	}
	return nil
}

func toShard(n uint32, shardCount int) (shardcfg.ShardID, error) {
	if n >= uint32(shardCount) {
		return 0, fmt.Errorf("shard %d of %d", n, shardCount)
	}
	return shardcfg.ShardID(n), nil
}

func inviteMessage(cluster shardcfg.ClusterID, i *handoff.Invite) *kvpb.InviteRequest {
	m := &kvpb.InviteRequest{Cluster: cluster[:], From: i.From.Peer.Incarnation[:], To: i.To.Incarnation[:],
		FromGid: uint64(i.From.Peer.Group), Replicas: i.From.Replicas, Adopted: uint64(i.Adopted),
		Shards: make([]*kvpb.Invitation, len(i.Shards))}
	for k, s := range i.Shards {
		m.Shards[k] = &kvpb.Invitation{Shard: uint32(s.Shard), Epoch: epochMessage(s.Epoch), Handoff: uint64(s.Handoff),
			Phase: kvpb.Phase(s.Phase)}
	}
	return m
}

func toInvite(m *kvpb.InviteRequest, self kvfsm.Peer, shardCount int) (handoff.Invite, error) {
	from, err := toIncarnation(m.GetFrom(), "from")
	if err != nil {
		return handoff.Invite{}, err
	}
	if n := len(m.GetShards()); n > shardCount {
		return handoff.Invite{}, fmt.Errorf("an invitation to %d shards of %d", n, shardCount)
	}
	if err := checkAddresses(m.GetReplicas()); err != nil {
		return handoff.Invite{}, err
	}
	i := handoff.Invite{
		From: handoff.Identity{Peer: kvfsm.Peer{Incarnation: from, Group: shardcfg.GroupID(m.GetFromGid())},
			Replicas: m.GetReplicas()},
		To: self, Adopted: shardcfg.ConfigNum(m.GetAdopted()), Shards: make([]handoff.Invitation, len(m.GetShards()))}
	for k, s := range m.GetShards() {
		shard, err := toShard(s.GetShard(), shardCount)
		if err != nil {
			return handoff.Invite{}, err
		}
		phase := kvfsm.Phase(s.GetPhase())
		if s.GetPhase() < kvpb.Phase_SERVING || s.GetPhase() > kvpb.Phase_FROZEN {
			return handoff.Invite{}, fmt.Errorf("shard %d: a holder is not in phase %s", shard, s.GetPhase())
		}
		i.Shards[k] = handoff.Invitation{Shard: shard, Phase: phase,
			Mark: kvfsm.Mark{Epoch: toEpoch(s.GetEpoch()), Handoff: shardcfg.ConfigNum(s.GetHandoff())}}
	}
	return i, nil
}

func inviteReplyMessage(r *handoff.InviteReply) *kvpb.InviteReply {
	m := &kvpb.InviteReply{Incarnation: r.From[:], Adopted: uint64(r.Adopted), Shards: make([]*kvpb.Answer, len(r.Shards))}
	for k, s := range r.Shards {
		a := &kvpb.Answer{Shard: uint32(s.Shard), Ready: s.Ready, Epoch: epochMessage(s.Epoch)}
		if st := s.Staging; st != nil {
			a.Staging, a.StagingEpoch, a.StagingHandoff = true, epochMessage(st.Epoch), uint64(st.Handoff)
			// A copy's key is left out: the holder has no use for it, and thousands of
			// long keys would be over the limit of a message.
			a.Cursor = cursorMessage(kvfsm.Cursor{Tail: st.Cursor.Tail, Revision: st.Cursor.Revision})
			a.StagedBytes = st.Bytes
		}
		m.Shards[k] = a
	}
	return m
}

func toInviteReply(m *kvpb.InviteReply, shardCount int) (handoff.InviteReply, error) {
	from, err := toIncarnation(m.GetIncarnation(), "incarnation")
	if err != nil {
		return handoff.InviteReply{}, err
	}
	r := handoff.InviteReply{From: from, Adopted: shardcfg.ConfigNum(m.GetAdopted()), Shards: make([]handoff.Standing, len(m.GetShards()))}
	for k, a := range m.GetShards() {
		shard, err := toShard(a.GetShard(), shardCount)
		if err != nil {
			return handoff.InviteReply{}, err
		}
		r.Shards[k] = handoff.Standing{Shard: shard, Ready: a.GetReady(), Epoch: toEpoch(a.GetEpoch())}
		if a.GetStaging() {
			r.Shards[k].Staging = &handoff.StagingState{
				Mark:   kvfsm.Mark{Epoch: toEpoch(a.GetStagingEpoch()), Handoff: shardcfg.ConfigNum(a.GetStagingHandoff())},
				Cursor: toCursor(a.GetCursor()), Bytes: a.GetStagedBytes()}
		}
	}
	return r, nil
}

func fetchMessage(cluster shardcfg.ClusterID, f *handoff.Fetch) *kvpb.FetchRequest {
	m := &kvpb.FetchRequest{Cluster: cluster[:], From: f.From.Incarnation[:], To: f.To[:], BytesMax: uint32(f.BytesMax),
		Shards: make([]*kvpb.Want, len(f.Wants))}
	for k, w := range f.Wants {
		m.Shards[k] = &kvpb.Want{Shard: uint32(w.Shard), Epoch: epochMessage(w.Epoch), Handoff: uint64(w.Handoff),
			Cursor: cursorMessage(w.Cursor)}
	}
	return m
}

func toWants(m *kvpb.FetchRequest, shardCount int) ([]kvfsm.Want, error) {
	if n := len(m.GetShards()); n > shardcfg.FetchShardsMax {
		return nil, fmt.Errorf("pages of %d shards, at most %d may be asked for at once", n, shardcfg.FetchShardsMax)
	}
	wants := make([]kvfsm.Want, len(m.GetShards()))
	for k, w := range m.GetShards() {
		shard, err := toShard(w.GetShard(), shardCount)
		if err != nil {
			return nil, err
		}
		wants[k] = kvfsm.Want{Shard: shard, Cursor: toCursor(w.GetCursor()),
			Mark: kvfsm.Mark{Epoch: toEpoch(w.GetEpoch()), Handoff: shardcfg.ConfigNum(w.GetHandoff())}}
	}
	return wants, nil
}

func pageMessage(p *kvfsm.Page) *kvpb.Page {
	m := &kvpb.Page{Shard: uint32(p.Shard), NotYours: p.NotYours, Epoch: epochMessage(p.Epoch), Handoff: uint64(p.Handoff),
		Phase: kvpb.Phase(p.Phase), Last: p.Last, TotalBytes: p.TotalBytes}
	if p.NotYours {
		return m
	}
	m.Next = cursorMessage(p.Next)
	m.Items = make([]*kvpb.Item, len(p.Items))
	backing := make([]kvpb.Item, len(p.Items))
	for i := range p.Items {
		m.Items[i] = &backing[i]
		backing[i].Key, backing[i].Value, backing[i].Deleted = p.Items[i].Key, p.Items[i].Value, p.Items[i].Deleted
	}
	if p.Last {
		m.Summary = &kvpb.Summary{Revision: uint64(p.Summary.Revision), RemovalRevision: uint64(p.Summary.RemovalRevision),
			Keys: p.Summary.Keys, Bytes: p.Summary.Bytes, Digest: p.Summary.Digest.Bytes()}
	}
	return m
}

func toPages(m *kvpb.FetchReply, shardCount int) ([]kvfsm.Page, error) {
	pages := make([]kvfsm.Page, len(m.GetShards()))
	for k, p := range m.GetShards() {
		shard, err := toShard(p.GetShard(), shardCount)
		if err != nil {
			return nil, err
		}
		if p.GetPhase() < 0 || p.GetPhase() > kvpb.Phase_PASSED {
			return nil, fmt.Errorf("shard %d: unknown phase %d", shard, p.GetPhase())
		}
		page := kvfsm.Page{Shard: shard, NotYours: p.GetNotYours(), Phase: kvfsm.Phase(p.GetPhase()),
			Mark: kvfsm.Mark{Epoch: toEpoch(p.GetEpoch()), Handoff: shardcfg.ConfigNum(p.GetHandoff())},
			Next: toCursor(p.GetNext()), Last: p.GetLast(), TotalBytes: p.GetTotalBytes(),
			Items: make([]kvfsm.Item, len(p.GetItems()))}
		for i, it := range p.GetItems() {
			page.Items[i] = kvfsm.Item{Key: it.GetKey(), Value: it.GetValue(), Deleted: it.GetDeleted()}
		}
		if page.Last {
			s := p.GetSummary()
			digest, ok := kvfsm.ParseDigest(s.GetDigest())
			if !ok {
				return nil, fmt.Errorf("shard %d: digest of %d bytes", shard, len(s.GetDigest()))
			}
			page.Summary = kvfsm.Summary{Revision: shardcfg.Revision(s.GetRevision()),
				RemovalRevision: shardcfg.Revision(s.GetRemovalRevision()),
				Content:         kvfsm.Content{Keys: s.GetKeys(), Bytes: s.GetBytes(), Digest: digest}}
		}
		pages[k] = page
	}
	return pages, nil
}
