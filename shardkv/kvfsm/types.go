package kvfsm

import (
	"cmp"
	"encoding/binary"
	"math/bits"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Phase is what a group may do with a shard. Numbers are stored: append-only.
type Phase uint8

const (
	// PhaseAbsent: the group never held the shard's token.
	PhaseAbsent Phase = 0
	// PhaseServing: it holds the token and serves.
	PhaseServing Phase = 1
	// PhaseLeaving: it holds the token, serves, and logs which keys change, for
	// the receiver.
	PhaseLeaving Phase = 2
	// PhaseFrozen: it serves nothing; the receiver may install. Irrevocable.
	PhaseFrozen Phase = 3
	// PhasePassed: the receiver installed; a tombstone that redirects.
	PhasePassed Phase = 4
)

var phaseNames = [...]string{"absent", "serving", "leaving", "frozen", "passed"}

// String is the phase's name in lower case.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "unknown"
}

// Serves reports whether a group in this phase reads and writes the shard.
func (p Phase) Serves() bool { return p == PhaseServing || p == PhaseLeaving }

// A Peer is a group as the protocol addresses it: by its incarnation. Group is
// the operator's label, for people and for finding addresses.
type Peer struct {
	Incarnation shardcfg.Incarnation
	Group       shardcfg.GroupID
}

// IsZero reports whether p names nobody.
func (p Peer) IsZero() bool { return p.Incarnation.IsZero() }

// A Mark is a holder's place in the history of a shard's handoffs: (epoch, h).
// It only grows (INV-4), which makes stale answers recognisable.
type Mark struct {
	Epoch   shardcfg.Epoch
	Handoff shardcfg.ConfigNum
}

// Compare orders marks by epoch, then by handoff.
func (m Mark) Compare(o Mark) int {
	return cmp.Or(m.Epoch.Compare(o.Epoch), cmp.Compare(m.Handoff, o.Handoff))
}

// A Cursor is how far a staging got: first the copy, in the order of stored
// keys, then the tail of changes, in the order of revisions. The zero Cursor is
// the start.
type Cursor struct {
	// Tail says that the copy is complete.
	Tail bool
	// Key is, in the copy, the last item that is in (its kind and rest); empty
	// before the first.
	Key []byte
	// Revision is, in the tail, the revision up to which all changes are in.
	Revision shardcfg.Revision
}

// Equal reports whether two cursors are the same place.
func (c Cursor) Equal(o Cursor) bool {
	return c.Tail == o.Tail && string(c.Key) == string(o.Key) && c.Revision == o.Revision
}

// An Item is one stored key of a shard, without shard and copy: its kind byte
// and the rest. Deleted says that it is absent at the holder.
type Item struct {
	Key     []byte
	Value   []byte
	Deleted bool
}

// A Digest is the multiset hash of a copy's items; see digest.go.
type Digest struct{ Hi, Lo uint64 }

// DigestBytes is the length of an encoded Digest.
const DigestBytes = 16

// Add returns the digest of the union of two multisets.
func (d Digest) Add(o Digest) Digest {
	lo, carry := bits.Add64(d.Lo, o.Lo, 0)
	hi, _ := bits.Add64(d.Hi, o.Hi, carry)
	return Digest{hi, lo}
}

// Sub returns the digest of d's multiset without o's.
func (d Digest) Sub(o Digest) Digest {
	lo, borrow := bits.Sub64(d.Lo, o.Lo, 0)
	hi, _ := bits.Sub64(d.Hi, o.Hi, borrow)
	return Digest{hi, lo}
}

// Bytes returns the 16-byte encoding, big-endian.
func (d Digest) Bytes() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, d.Hi), d.Lo)
}

// ParseDigest reads what Bytes wrote; it reports false for any other length.
func ParseDigest(b []byte) (Digest, bool) {
	if len(b) != DigestBytes {
		return Digest{}, false
	}
	return Digest{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, true
}

// Content counts what one copy of a shard holds.
type Content struct {
	// Keys is the number of the user's keys.
	Keys uint64
	// Bytes is the sum of their keys' and values' lengths.
	Bytes uint64
	// Digest covers all items: records, sessions, meta and locks.
	Digest Digest
}

// A Summary is what a shard must be once it is installed.
type Summary struct {
	Revision        shardcfg.Revision
	RemovalRevision shardcfg.Revision
	Content
}

// A Record is what a group knows of one shard. It is never deleted, tombstones
// included. The zero Record of a shard says that the group never met it.
type Record struct {
	Shard shardcfg.ShardID
	Phase Phase
	// Epoch is that of the token the group holds, or passed on (then the
	// successor's), zero if it never held one.
	Epoch shardcfg.Epoch
	// Handoff is the config number of the last handoff: h.
	Handoff shardcfg.ConfigNum
	// To is the receiver, while Leaving or Frozen, and where a Passed shard went.
	To Peer
	// Start is the revision at which this handoff began: later changes are in
	// the change log. Only while Leaving or Frozen.
	Start shardcfg.Revision

	// Copy is the number of the held copy; 0: none.
	Copy uint64
	// CopyLast is the greatest copy number that was ever used.
	CopyLast uint64
	// Revision rises with every change of the shard's items.
	Revision shardcfg.Revision
	// RemovalRevision is the revision of the last removal of a key.
	RemovalRevision shardcfg.Revision
	Content

	// Staging is the copy that is being fetched; nil: none.
	Staging *Staging
}

// Mark returns the record's place in the history of handoffs.
func (r *Record) Mark() Mark { return Mark{r.Epoch, r.Handoff} }

// Summary returns what a receiver of this copy must end with.
func (r *Record) Summary() Summary {
	return Summary{Revision: r.Revision, RemovalRevision: r.RemovalRevision, Content: r.Content}
}

// A Staging is a copy that is being fetched from the holder.
type Staging struct {
	// Epoch is the one that installing mints: the holder's, plus one.
	Epoch   shardcfg.Epoch
	Handoff shardcfg.ConfigNum
	// From is the holder.
	From   Peer
	Cursor Cursor
	Copy   uint64
	Content
}

// Mark returns the staging's (e+1, h).
func (s *Staging) Mark() Mark { return Mark{s.Epoch, s.Handoff} }

// Wanted returns the (e, h) at which the holder must stand to be fetched from.
func (s *Staging) Wanted() Mark {
	return Mark{shardcfg.Epoch{Gen: s.Epoch.Gen, Num: s.Epoch.Num - 1}, s.Handoff}
}
