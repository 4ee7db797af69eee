package raftgroup

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// A Role is what a replica is in its group at present.
type Role string

// The roles. A replica that stands for election counts as a follower.
const (
	RoleLeader   Role = "leader"
	RoleFollower Role = "follower"
	RoleLearner  Role = "learner"
)

// Status describes a replica at one moment, roughly: its parts are not read
// atomically.
type Status struct {
	Label    string
	ServerID string
	Role     Role
	// Leader is the leader's address, LeaderID its server id; empty if unknown.
	Leader   string
	LeaderID string
	// Ready: this replica leads and serves reads.
	Ready bool
	Term  uint64
	// AppliedIndex is the index that the machine's visible state stands at.
	AppliedIndex uint64
	AppliedTerm  uint64
	// CommitIndex is what this replica knows to be committed.
	CommitIndex uint64
	// FirstIndex and LastIndex delimit the log; both 0 if it is empty.
	FirstIndex uint64
	LastIndex  uint64
	LogBytes   int64
	Members    []MemberStatus
	// FeatureLevel is the level that the group has been raised to.
	FeatureLevel uint8
	// Clock is the newest entry clock, in ms since 1970.
	Clock    uint64
	Counters Counters
	// Failed is why the replica stopped, or nil.
	Failed error
}

// A MemberStatus is one member as this replica sees it. Everyone but the leader
// knows only configuration and leader, and calls nobody else healthy.
type MemberStatus struct {
	formation.Member
	Role Role
	// MatchIndex is the newest entry that the member is known to store; 0 if
	// this replica does not know.
	MatchIndex uint64
	// LastContact is when the member last answered; zero if never.
	LastContact time.Time
	// Healthy: it answered within the last three timeouts.
	Healthy bool
	// HealthKnown: this replica is in a position to say whether the member is
	// healthy: it leads, and long enough to miss an answer; or it speaks of itself
	// or of its leader.
	HealthKnown bool
}

// Counters count since Open.
type Counters struct {
	Proposals      uint64 // commands that were admitted
	Entries        uint64 // entries that were handed to Raft
	EntryBytes     uint64
	Busy           uint64 // proposals refused for the byte budget
	Reads          uint64 // read barriers that succeeded
	ReadRounds     uint64 // rounds that served them
	AppliedEntries uint64
	Batches        uint64 // store batches that were committed
	Snapshots      uint64 // times the log was cut
	SnapshotsSent  uint64 // transfers to other replicas that were opened
	Installed      uint64 // snapshots that replaced the machine's state
	LeaderGained   uint64
	Bounces        uint64 // restarts of Raft inside the replica
	Handovers      uint64 // times this replica handed leadership over because it limped
}

// Status describes the replica.
func (r *Replica) Status() Status {
	node, at := r.node(), r.fsm.position()
	address, leaderID := node.LeaderWithID()
	first, _ := r.guard.FirstIndex()
	last, _ := r.guard.LastIndex()
	s := Status{
		Label:        r.o.Identity.Label,
		ServerID:     r.o.Identity.ServerID,
		Role:         RoleFollower,
		Leader:       string(address),
		LeaderID:     string(leaderID),
		Term:         node.CurrentTerm(),
		AppliedIndex: at.index,
		AppliedTerm:  at.term,
		CommitIndex:  node.CommitIndex(),
		FirstIndex:   first,
		LastIndex:    last,
		LogBytes:     r.guard.logBytes(),
		FeatureLevel: at.feature,
		Clock:        r.Clock(),
		Counters:     r.counters.read(),
		Failed:       r.failed(),
	}
	lead := r.leading()
	if lead != nil {
		s.Role, s.Ready = RoleLeader, lead.isReady()
		s.Leader, s.LeaderID = r.o.Advertise, s.ServerID
	}
	for _, server := range node.GetConfiguration().Configuration().Servers {
		m := r.memberStatus(server, s.LeaderID, lead)
		if m.ServerID == s.ServerID && m.Role == RoleLearner {
			s.Role = RoleLearner
		}
		s.Members = append(s.Members, m)
	}
	return s
}

func (r *Replica) memberStatus(server raft.Server, leaderID string, lead *leadership) MemberStatus {
	m := MemberStatus{Role: RoleFollower}
	m.Label, m.ServerID, m.Address = r.labelOf(string(server.ID)), string(server.ID), r.addressOf(server)
	switch {
	case server.Suffrage != raft.Voter:
		m.Role = RoleLearner
	case m.ServerID == leaderID:
		m.Role = RoleLeader
	}
	self := m.ServerID == r.o.Identity.ServerID
	switch {
	case self:
		m.MatchIndex, m.Healthy, m.HealthKnown = r.node().LastIndex(), r.failed() == nil, true
	case lead != nil:
		peer := r.transport.Peer(server.ID)
		m.LastContact, m.MatchIndex = peer.Contact, r.match(lead, server.ID)
		m.Healthy = r.healthy(server.ID)
		m.HealthKnown = m.Healthy || time.Since(lead.since) >= 3*r.o.Timeout
	case m.ServerID == leaderID:
		m.LastContact = r.node().LastContact()
		m.Healthy = time.Since(m.LastContact) < 3*r.o.Timeout
		m.HealthKnown = true
	}
	return m
}

func (c *counters) read() Counters {
	return Counters{
		Proposals:      c.proposals.Load(),
		Entries:        c.entries.Load(),
		EntryBytes:     c.entryBytes.Load(),
		Busy:           c.busy.Load(),
		Reads:          c.reads.Load(),
		ReadRounds:     c.readRounds.Load(),
		AppliedEntries: c.applied.Load(),
		Batches:        c.batches.Load(),
		Snapshots:      c.snapshots.Load(),
		SnapshotsSent:  c.snapshotsSent.Load(),
		Installed:      c.installed.Load(),
		LeaderGained:   c.leaderGained.Load(),
		Bounces:        c.bounces.Load(),
		Handovers:      c.handovers.Load(),
	}
}
