// Package formation makes a replica group out of empty replicas, exactly once,
// and keeps each replica's identity file.
//
// An --id is a label that people choose; Raft only ever sees random server ids,
// so that a wiped disk can never vote under its old name.
//
// Row 3 of the layers: it may use gRPC, the file system and the clock.
package formation

import "github.com/shoalkv/shoal/shardctrler/shardcfg"

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
	// Label is this replica's --id, ServerID its random name in Raft.
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
