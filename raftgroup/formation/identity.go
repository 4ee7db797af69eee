package formation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// An Identity is what a replica is, for good. It is fsynced to the data
// directory before the replica takes part in anything.
type Identity struct {
	// Format is the version of the data directory's formats; 1.
	Format int `json:"format"`
	// Cluster is minted by the controllers when they are formed; a group learns
	// and pins it when it is formed.
	Cluster shardcfg.ClusterID `json:"cluster"`
	// Group is the gid; 0 for the controllers.
	Group shardcfg.GroupID `json:"group"`
	// Incarnation is drawn when the group is formed.
	Incarnation shardcfg.Incarnation `json:"incarnation"`
	// ShardCount is fixed when the cluster is created.
	ShardCount int `json:"shard_count"`
	// Label is this replica's --id, ServerID its random name in Raft, drawn by
	// its disk: the label, a dot, 128 random bits in hexadecimal.
	Label    string `json:"label"`
	ServerID string `json:"server_id"`
	// Founders are the replicas that formed the group, in ascending order of
	// their labels: the configuration that each of them bootstraps from. Empty
	// for a replica that was added later.
	Founders []Member `json:"founders"`
	// LogStore is the kind of the log store, such as "bolt".
	LogStore string `json:"log_store"`
}

// A Member is one replica as its group knows it.
type Member struct {
	Label    string `json:"label"`
	ServerID string `json:"server_id"`
	Address  string `json:"address"`
}

const addressBytesMax = 255

// check finds identities that can't be right, whoever sent them.
func (id *Identity) check() error {
	switch {
	case id.Format != format:
		return fmt.Errorf("format %d is not known to this version, which writes %d", id.Format, format)
	case id.Cluster.IsZero():
		return errors.New("the cluster has no name")
	case id.Incarnation.IsZero():
		return errors.New("the incarnation has no name")
	case !logstore.Known(id.LogStore):
		return fmt.Errorf("log store %q is not known to this version", id.LogStore)
	case len(id.Founders) > peersMax:
		return fmt.Errorf("%d founders", len(id.Founders))
	case len(id.Label) > labelBytesMax || !labelPattern.MatchString(id.Label) || LabelOf(id.ServerID) != id.Label:
		return fmt.Errorf("server id %q does not fit id %q", id.ServerID, id.Label)
	}
	if err := shardcfg.CheckShardCount(id.ShardCount); err != nil {
		return err
	}
	listed := len(id.Founders) == 0
	for i, m := range id.Founders {
		switch {
		case len(m.Label) > labelBytesMax || LabelOf(m.ServerID) != m.Label:
			return fmt.Errorf("server id %q does not fit id %q", m.ServerID, m.Label)
		case m.Address == "" || len(m.Address) > addressBytesMax:
			return fmt.Errorf("founder %q has address %q", m.Label, m.Address)
		case i > 0 && m.Label <= id.Founders[i-1].Label:
			return errors.New("the founders are not in ascending order")
		}
		listed = listed || m.ServerID == id.ServerID
	}
	if !listed {
		return fmt.Errorf("the founders do not list %q", id.ServerID)
	}
	return nil
}

// sameGroup reports whether both name the same life of the same group, formed
// by the same disks.
func (id *Identity) sameGroup(o *Identity) bool {
	return id.Cluster == o.Cluster && id.Group == o.Group && id.Incarnation == o.Incarnation &&
		id.ShardCount == o.ShardCount && id.LogStore == o.LogStore && slices.Equal(id.Founders, o.Founders)
}

// founder returns the founder of that label.
func (id *Identity) founder(label string) (Member, bool) {
	for _, m := range id.Founders {
		if m.Label == label {
			return m, true
		}
	}
	return Member{}, false
}

// Proto is the identity as messages carry it: what it says of the group.
func (id *Identity) Proto() *raftpb.Identity {
	p := &raftpb.Identity{
		Cluster: id.Cluster[:], Group: uint64(id.Group), Incarnation: id.Incarnation[:],
		ShardCount: uint32(id.ShardCount), LogStore: id.LogStore, Format: uint32(id.Format),
	}
	for _, m := range id.Founders {
		p.Founders = append(p.Founders, &raftpb.Member{Label: m.Label, ServerId: m.ServerID, Address: m.Address})
	}
	return p
}

// FromProto reads what Proto wrote, for the replica of that label and ServerID.
func FromProto(p *raftpb.Identity, label, serverID string) (Identity, error) {
	id := Identity{
		Format: int(p.GetFormat()), Group: shardcfg.GroupID(p.GetGroup()), ShardCount: int(p.GetShardCount()),
		Label: label, ServerID: serverID, LogStore: p.GetLogStore(), Founders: []Member{},
	}
	var ok1, ok2 bool
	id.Cluster, ok1 = shardcfg.To128[shardcfg.ClusterID](p.GetCluster())
	id.Incarnation, ok2 = shardcfg.To128[shardcfg.Incarnation](p.GetIncarnation())
	if !ok1 || !ok2 {
		return Identity{}, errors.New("bad identity: a name does not have 128 bits")
	}
	for _, m := range p.GetFounders() {
		id.Founders = append(id.Founders, Member{Label: m.GetLabel(), ServerID: m.GetServerId(), Address: m.GetAddress()})
	}
	if err := id.check(); err != nil {
		return Identity{}, fmt.Errorf("bad identity: %w", err)
	}
	return id, nil
}
