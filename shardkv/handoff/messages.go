package handoff

import (
	"slices"
	"sort"
	"time"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// An Identity says who a group is.
type Identity struct {
	Peer kvfsm.Peer
	// Replicas are the addresses that other groups may use.
	Replicas []string
}

// A View is a group's applied state. Config and records are of one moment: a shard
// as it was before the config would be offered under a mark that it never has.
type View struct {
	// Config is the adopted one; nil: none yet.
	Config *shardcfg.Config
	// Records are those that exist, in ascending order of shard.
	Records []kvfsm.Record
	// Reader is the snapshot, for the lengths of tails. It must stay open during
	// the calls that the View is passed to, and is not kept.
	Reader store.Reader
}

// NewView returns the View of a published state: config and records, which are of
// one moment and are kept. r is a snapshot that is not older. Of a shard that is
// leaving, the View has what writes change as of r, because the lengths of tails
// count from it; but a record that has moved on since stays as it was published, or
// the View would show a shard under a config of another moment.
func NewView(config *shardcfg.Config, records []kvfsm.Record, r store.Reader) (View, error) {
	v := View{Config: config, Records: records, Reader: r}
	for i := range v.Records {
		was := &v.Records[i]
		if was.Phase != kvfsm.PhaseLeaving {
			continue
		}
		is, err := kvfsm.ReadRecord(r, was.Shard)
		if err != nil {
			return v, err
		}
		if is.Phase == was.Phase && is.Mark() == was.Mark() {
			*was = is
		}
	}
	return v, nil
}

// ReadView reads a View from a snapshot. It takes the config from last if that
// is the same number: decoding is the costly part. last may be nil.
func ReadView(r store.Reader, last *View) (View, error) {
	v, err := readConfig(r, last)
	if err != nil {
		return View{}, err
	}
	v.Records, err = kvfsm.ReadRecords(r)
	return v, err
}

// ReadShards is ReadView for Answer: it reads the records of the invited shards
// only.
func ReadShards(r store.Reader, last *View, invited []Invitation) (View, error) {
	v, err := readConfig(r, last)
	if err != nil {
		return View{}, err
	}
	shards := make([]shardcfg.ShardID, len(invited))
	for i := range invited {
		shards[i] = invited[i].Shard
	}
	slices.Sort(shards)
	for _, s := range slices.Compact(shards) {
		rec, err := kvfsm.ReadRecord(r, s)
		if err != nil {
			return View{}, err
		}
		v.Records = append(v.Records, rec)
	}
	return v, nil
}

func readConfig(r store.Reader, last *View) (View, error) {
	v := View{Reader: r}
	num, err := kvfsm.ReadAdoptedNum(r)
	if err != nil {
		return View{}, err
	}
	if last != nil && last.Config != nil && last.Config.Num == num {
		v.Config = last.Config
		return v, nil
	}
	adopted, err := kvfsm.ReadAdopted(r)
	v.Config = adopted.Config
	return v, err
}

// Record returns a shard's record; one that does not exist is Absent.
func (v *View) Record(s shardcfg.ShardID) kvfsm.Record {
	// A group that was ever handed every shard has a record of each.
	if int(s) < len(v.Records) && v.Records[s].Shard == s {
		return v.Records[s]
	}
	i, found := sort.Find(len(v.Records), func(i int) int { return int(s) - int(v.Records[i].Shard) })
	if found {
		return v.Records[i]
	}
	return kvfsm.Record{Shard: s}
}

// Adopted returns the number of the adopted config; 0: none.
func (v *View) Adopted() shardcfg.ConfigNum {
	if v.Config == nil {
		return 0
	}
	return v.Config.Num
}

// owner returns the group that should hold s by the adopted config; zero if
// there is none, or it is not bound yet.
func (v *View) owner(s shardcfg.ShardID) kvfsm.Peer {
	if v.Config == nil {
		return kvfsm.Peer{}
	}
	gid, inc := v.Config.Owner(s)
	if inc.IsZero() {
		return kvfsm.Peer{}
	}
	return kvfsm.Peer{Incarnation: inc, Group: gid}
}

// replicas returns the addresses of p by the adopted config; nil: not listed.
func (v *View) replicas(p kvfsm.Peer) []string {
	if v.Config == nil {
		return nil
	}
	if g, ok := v.Config.Groups[p.Group]; ok && g.Incarnation == p.Incarnation {
		return g.Replicas
	}
	if gid, ok := v.Config.GroupOf(p.Incarnation); ok {
		return v.Config.Groups[gid].Replicas
	}
	return nil
}

// An Invite is a holder's message to the group that should have its shards.
type Invite struct {
	From Identity
	To   kvfsm.Peer
	// Replicas are the addresses to send it to.
	Replicas []string
	// Adopted is the holder's.
	Adopted shardcfg.ConfigNum
	// Hold asks to hold the answer back, for a while, until a shard was installed:
	// all are Frozen, and there is no other news.
	Hold   bool
	Shards []Invitation
}

// An Invitation concerns one shard of an Invite.
type Invitation struct {
	Shard shardcfg.ShardID
	// Mark is the holder's (e, h), and shows how far it is. Of a shard that still
	// Serves, h is the config at which the handoff would start: an offer, which no
	// record has yet, and which shows nothing.
	kvfsm.Mark
	Phase kvfsm.Phase // Serving, Leaving or Frozen
}

// By is the invitation as what a holder said.
func (i *Invitation) By(holder kvfsm.Peer) placement.Invitation {
	return placement.Invitation{From: holder, Mark: i.Mark, Phase: i.Phase}
}

// An InviteReply is a receiver's applied state.
type InviteReply struct {
	From    shardcfg.Incarnation
	Adopted shardcfg.ConfigNum
	// Shards has one Standing for each Invitation, in their order.
	Shards []Standing
}

// A Standing is a receiver's applied state for one shard.
type Standing struct {
	Shard shardcfg.ShardID
	// Ready says that it would stage this shard, or does so already.
	Ready bool
	// Epoch is its record's. At or above e+1 it proves a successor.
	Epoch shardcfg.Epoch
	// Staging is its staging; nil: none.
	Staging *StagingState
}

// A StagingState is how far a staging got.
type StagingState struct {
	kvfsm.Mark // (e+1, h)
	Cursor     kvfsm.Cursor
	Bytes      uint64
}

// A Fetch asks a holder for the next pages.
type Fetch struct {
	// Number tells the fetches of one Driver apart.
	Number uint64
	From   kvfsm.Peer // the holder, who is asked
	To     shardcfg.Incarnation
	// Replicas are the holder's addresses; any of them may answer.
	Replicas []string
	Wants    []kvfsm.Want
	// BytesMax bounds the answer; one item may be larger.
	BytesMax int
	// Patience is how long the answer may take, of all replicas that are asked in
	// turn. Over a slow link it grows.
	Patience time.Duration
}

// Actions are what to do next. All of it may be lost or done twice.
type Actions struct {
	Invites []Invite
	Fetches []Fetch
	// Proposals concern different shards, or are in the order in which to
	// propose them. They may share entries. Clients may be waiting for their effect.
	Proposals []kvfsm.Command
	// Copies are pages of copies to propose: many and large, and nobody waits for
	// one of them. They are to yield to everything else. Params.AtHandBytesMax, and a
	// page more, bounds them.
	Copies []kvfsm.Command
	// Claims are shards to claim at the controllers.
	Claims []shardcfg.ShardID
	// AdoptAtLeast asks to adopt a config of at least this number; 0: no need.
	AdoptAtLeast shardcfg.ConfigNum
	// Throttles lists every shard whose writes are to be slowed now; others are
	// not.
	Throttles []Throttle
	// Wait is when to call Step again if nothing happens before.
	Wait time.Duration
}

// A Grant is the controllers' word that this group may make a token of a new
// generation, because groups were destroyed.
type Grant struct {
	Shard shardcfg.ShardID
	// Frozen is the epoch of the frozen copy that shall serve again; zero: the
	// shard is to be created, empty.
	Frozen shardcfg.Epoch
	Gen    uint32
}

// A Throttle is advice to hold each write to a shard for a while.
type Throttle struct {
	Shard shardcfg.ShardID
	Delay time.Duration
}

// Progress describes a handoff, for people.
type Progress struct {
	Shard shardcfg.ShardID
	// CopiedBytes is how much the receiver has, as far as is known.
	CopiedBytes uint64
	// Tail is how many changes the receiver lacks; meaningful once it copied
	// everything.
	Tail uint64
	// Pause is for how long the shard has been frozen, or was.
	Pause time.Duration
	// Waiting is what the handoff waits for, in words; empty: nothing.
	Waiting string
}
