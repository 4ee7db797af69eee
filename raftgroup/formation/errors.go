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
		GroupNoun(e.Group), e.Peer, e.Incarnation, groupName(e.Group), e.Label, e.Address)
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

// An AddressError stops a replica that is not at the address that its group has
// for it: its directory was copied or moved, or its settings were changed.
type AddressError struct {
	Group  shardcfg.GroupID
	Label  string
	Own    string // where the replica says that others reach it
	Listed string // where the group has it
}

func (e *AddressError) Error() string {
	name := groupName(e.Group)
	return fmt.Sprintf("%s has its replica %q at %s, but this process is at %s. It would be a second replica under one name, so it neither votes nor serves. "+
		"Start it with --advertise %s if that reaches this process. To give the replica another address, replace it: start an empty one there, then run: "+
		"shoal replicas %s replace %s ADDR. If the addresses of the whole group changed, stop its replicas and run on each: shoal renumber DIR ID=ADDR,...",
		GroupNoun(e.Group), e.Label, e.Listed, e.Own, e.Listed, name, e.Label)
}

// A CopyError stops a replica at whose address another process answers under the
// same server id: one directory is a copy of the other.
type CopyError struct {
	Group   shardcfg.GroupID
	Label   string
	Address string // at which the other process answers
	Peer    string // who found out, by its label
}

func (e *CopyError) Error() string {
	return fmt.Sprintf("another process answers as replica %q of %s at %s, as replica %q found: this data directory is a copy of that one's. "+
		"Two of them could vote as one, so this one stops. Delete this directory; to have one replica more, start an empty one, then run: shoal replicas %s add ADDR",
		e.Label, GroupNoun(e.Group), e.Address, e.Peer, groupName(e.Group))
}

// An OlderCopyError stops a replica whose log ends before an entry that it had
// acknowledged to its leader: the directory was put back from an older copy.
type OlderCopyError struct {
	Group        shardcfg.GroupID
	Label        string
	Address      string // of this replica
	Leader       string // to whom, by its server id
	Acknowledged uint64 // newest entry that it had acknowledged
	Last         uint64 // newest entry that it has
}

func (e *OlderCopyError) Error() string {
	return fmt.Sprintf("replica %q of %s has acknowledged entry %d to %s, but its log ends at %d: the data directory was put back from an older copy. "+
		"It has forgotten writes, and perhaps votes. Empty the directory, start the replica without --peers, then run: shoal replicas %s replace %s %s",
		e.Label, GroupNoun(e.Group), e.Acknowledged, e.Leader, e.Last, groupName(e.Group), e.Label, e.Address)
}

// A UsageError says that a replica was started with options that can't be
// right. The command line exits with code 64 for it.
type UsageError struct{ Problem string }

func (e *UsageError) Error() string { return e.Problem }

func (*WipedError) refused()     {}
func (*DirectoryError) refused() {}
func (*PeerError) refused()      {}
func (*ConflictError) refused()  {}
func (*DamagedError) refused()   {}
func (*AddressError) refused()   {}
func (*CopyError) refused()      {}
func (*OlderCopyError) refused() {}

// groupName is what the command line calls the group.
func groupName(g shardcfg.GroupID) string {
	if g == 0 {
		return "controller"
	}
	return fmt.Sprint(uint64(g))
}

// GroupNoun names a group in a sentence.
func GroupNoun(g shardcfg.GroupID) string {
	if g == 0 {
		return "the controllers' group"
	}
	return fmt.Sprintf("group %d", uint64(g))
}
