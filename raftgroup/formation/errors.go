package formation

import (
	"errors"
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A refusal is an error that no retry cures: going on could lose data or mix up
// clusters. The command line exits with code 5 for it.
type refusal interface{ refused() }

// Refused reports whether err, or an error that it wraps, is one of the
// refusals of this package.
func Refused(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// A WipedError stops an empty replica whose peers already belong to a formed
// group: it lost its disk, or was never part of that group. Its old identity is
// gone for good, because a replica without its votes and its log must not use
// it.
type WipedError struct {
	Group   shardcfg.GroupID
	Label   string
	Address string // of this replica
	// Peer is the formed one, by its label.
	Peer        string
	Incarnation shardcfg.Incarnation // that Peer belongs to
}

func (e *WipedError) Error() string {
	return fmt.Sprintf("this data directory is empty, but %s is already formed: its replica %q belongs to incarnation %s. "+
		"An empty replica never takes up an old identity. Start it without --peers, then run: shoal replicas %s replace %s %s",
		groupNoun(e.Group), e.Peer, e.Incarnation, groupName(e.Group), e.Label, e.Address)
}

// A DirectoryError says that the data directory belongs to another replica than
// the one that was started.
type DirectoryError struct {
	Dir string
	// What differs: "id", "gid", "cluster", "shard count" or "log store".
	What      string
	Have      string // as the directory says
	Requested string // as this start says
}

func (e *DirectoryError) Error() string {
	return fmt.Sprintf("data directory %s belongs to another replica: its %s is %s, this one was started with %s",
		e.Dir, e.What, e.Have, e.Requested)
}

// A PeerError says that the address of a peer is answered by a replica that
// can't be this peer.
type PeerError struct {
	Peer    string // label
	Address string
	Problem string
}

func (e *PeerError) Error() string {
	return fmt.Sprintf("peer %q at %s %s", e.Peer, e.Address, e.Problem)
}

// A ConflictError says that a peer belongs to another incarnation of this
// group: two groups were formed under one gid, or addresses were mixed up.
type ConflictError struct {
	Peer      string // label
	Have, Own shardcfg.Incarnation
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("peer %q belongs to incarnation %s of the group, this replica to %s", e.Peer, e.Have, e.Own)
}

// A DamagedError says that the identity file can't be trusted, or that it is
// missing although other data is there. It is never treated as an empty
// directory.
type DamagedError struct {
	Path    string
	Problem string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s: %s. A damaged replica is never started; replace it: empty its data directory, "+
		"start it without --peers, then run: shoal replicas GID replace ID ADDR", e.Path, e.Problem)
}

// A UsageError says that a replica was started with options that can't be
// right. The command line exits with code 2 for it.
type UsageError struct{ Problem string }

func (e *UsageError) Error() string { return e.Problem }

func (*WipedError) refused()     {}
func (*DirectoryError) refused() {}
func (*PeerError) refused()      {}
func (*ConflictError) refused()  {}
func (*DamagedError) refused()   {}

// groupName is what the command line calls the group.
func groupName(g shardcfg.GroupID) string {
	if g == 0 {
		return "controller"
	}
	return fmt.Sprint(uint64(g))
}

func groupNoun(g shardcfg.GroupID) string {
	if g == 0 {
		return "the controllers' group"
	}
	return fmt.Sprintf("group %d", uint64(g))
}
