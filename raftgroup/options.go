package raftgroup

import (
	"cmp"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A LogStore keeps the log, the term and the vote of one replica, durably.
//
// Writes are on disk when they return. Term and vote of an election must become
// durable as one value: raft writes LastVoteTerm first and LastVoteCand after
// it, and a crash between the two must not leave the new term with the old
// candidate (hashicorp/raft#661). An absent key is reported by an error whose
// text is "not found", an absent entry by raft.ErrLogNotFound; every other error
// stops the replica.
type LogStore interface {
	raft.LogStore
	raft.StableStore
}

// Options of a replica. They are complete at Open and not changed after it.
type Options struct {
	// Identity is who this replica is.
	Identity formation.Identity
	// Store holds the machine's state. The caller owns it, and closes it after
	// Close returned.
	Store store.Store
	// Machine is what the group replicates.
	Machine StateMachine
	// Log holds log, term and vote. The caller owns it, and closes it after Close
	// returned.
	Log LogStore
	// Streams carries Raft's messages, authenticated and already for this replica
	// alone. The replica closes it. Not needed if Transport is given.
	Streams raft.StreamLayer
	// Advertise is this replica's address, host:port, as the others know it.
	Advertise string
	// Renumbered are the addresses that members were given while the group was
	// stopped; nil: none. See formation.Renumber.
	Renumbered Renumbering
	// Resolve, if set, overrides the address of a peer.
	Resolve func(serverID string) (addr string, ok bool)
	// Timeout is heartbeat, election and leader lease timeout in one; 0 means
	// 500 ms. A failover takes about two of them.
	Timeout time.Duration
	// Transport, if set, is used instead of a network transport over Streams. It
	// must support pre-vote. The replica closes it.
	Transport func() raft.Transport
	// Clock is read for the clocks of entries only; nil means time.Now.
	Clock func() time.Time
	// Logger receives Raft's and the replica's messages; nil drops them.
	Logger hclog.Logger
	// OnFatal is called once, in a goroutine of its own, when the replica had to
	// stop: a storage error or stall, a damaged entry, an unknown kind, an error
	// of the machine. The process must exit on it; the replica is of no use any
	// more, and its disk is not to be trusted. Nil ignores it, which only tests do.
	OnFatal func(error)

	// CommandBytesMax bounds the body of one command; 0 means
	// shardcfg.CommandBytesMax.
	CommandBytesMax int
	// QueueBytesMax bounds the memory of the commands that are queued or in
	// flight: their bodies, and about 200 bytes for each; 0 means 64 MiB. Beyond
	// it Propose returns ErrBusy. ProposeUrgent and ProposeBackground have a quarter
	// of it each, beside it.
	QueueBytesMax int
	// QueueTimeMax bounds how long the commands that clients submit wait for their
	// entry, by the pace of late; 0 means 500 ms. Where what is queued would take
	// longer, Submit and ProposeAll return a BusyError: a longer queue only makes
	// everyone late. What the next two entries take is admitted at any pace.
	QueueTimeMax time.Duration
	// EntryBytesMax is where the packer stops adding to an entry; 0 means 256 KiB.
	// A larger command travels alone.
	EntryBytesMax int
	// AppendBytesMax is where a message to a follower is cut; 0 means 1 MiB. It
	// holds one entry at least.
	AppendBytesMax int
	// SnapshotLogBytes and SnapshotLogEntries say how much log may be appended
	// before the store is made durable and the log is cut; 0 means 64 MiB, and
	// 131072 entries.
	SnapshotLogBytes   int64
	SnapshotLogEntries uint64
	// TrailingLogBytes of the newest entries, or half of the store's size if that is
	// more, stay in the log, so that a replica that was away for a while needs no
	// copy of the store; 0 means 16 MiB. At most 128 Ki entries stay.
	TrailingLogBytes int64
	// LogBytesMax bounds what stays in the log, besides SnapshotLogBytes: half of it
	// whatever the store's size, all of it for the receivers of snapshots, until they
	// follow by entries; 0 means 1 GiB.
	LogBytesMax int64
	// CacheBytesMax bounds the newest entries that are kept in memory; 0 means
	// 16 MiB.
	CacheBytesMax int64
	// StallLimit is how long one storage operation, or the machine with one entry,
	// may take, not counting pauses of the process; 0 means 10 s. A longer one stops
	// the replica.
	StallLimit time.Duration

	// unsafe switches containments off, for the tests that prove them.
	unsafe unsafeSwitches
}

// A Renumbering says which addresses of a configuration stand for others, by the
// server id of the member. A configuration that has a third address for it
// overrules it.
type Renumbering map[string]formation.AddressMove

// unsafeSwitches switch off one containment each. Only tests of this package
// set them, to see that the fault they guard against shows: an upgrade of Raft
// that mends one is noticed (docs/decisions/0008).
type unsafeSwitches struct {
	verifyOnly     bool // trust VerifyLeader for reads
	countLearners  bool // let non-voters confirm a read
	noNoop         bool // serve reads before an entry of the own term was applied
	keepConflict   bool // keep what an installed snapshot contradicts
	adoptOlder     bool // adopt a snapshot that is older than the machine
	compactFirst   bool // let the log go before the store is durable
	trustStorage   bool // carry on after storage errors and stalls
	waitForFuture  bool // end a waiter by its future alone
	rawClock       bool // believe an entry's clock though it runs backwards
	noBounce       bool // leave a transfer that never ends alone
	noClamp        bool // compact the log under an open transfer
	raftAppliedIdx bool // take Raft's applied index for the machine's
}

var errOptions = errors.New("Open needs Store, Machine, Log, Advertise, a server id, and Streams or Transport")

func (o *Options) complete() error {
	if o.Store == nil || o.Machine == nil || o.Log == nil || o.Advertise == "" ||
		o.Identity.ServerID == "" || (o.Streams == nil && o.Transport == nil) {
		return errOptions
	}
	o.Timeout = cmp.Or(o.Timeout, 500*time.Millisecond)
	o.CommandBytesMax = cmp.Or(o.CommandBytesMax, shardcfg.CommandBytesMax)
	o.QueueBytesMax = cmp.Or(o.QueueBytesMax, 64<<20)
	o.QueueTimeMax = cmp.Or(o.QueueTimeMax, 500*time.Millisecond)
	o.EntryBytesMax = cmp.Or(o.EntryBytesMax, 256<<10)
	o.AppendBytesMax = cmp.Or(o.AppendBytesMax, 1<<20)
	o.SnapshotLogBytes = cmp.Or(o.SnapshotLogBytes, 64<<20)
	o.SnapshotLogEntries = cmp.Or(o.SnapshotLogEntries, 128<<10)
	o.TrailingLogBytes = cmp.Or(o.TrailingLogBytes, 16<<20)
	o.LogBytesMax = cmp.Or(o.LogBytesMax, 1<<30)
	o.CacheBytesMax = cmp.Or(o.CacheBytesMax, 16<<20)
	o.StallLimit = cmp.Or(o.StallLimit, 10*time.Second)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.OnFatal == nil {
		o.OnFatal = func(error) {}
	}
	return nil
}
