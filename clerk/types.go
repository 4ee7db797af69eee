package clerk

import (
	"bytes"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Version is a key's version: it only grows, also across delete and
// re-create. It is not a count of writes. 0 means that the key is absent.
type Version uint64

// A Value is what a Get found.
type Value struct {
	Bytes   []byte // the caller's; never nil
	Version Version
}

// Appended is what an Append made of a value.
type Appended struct {
	Version Version
	Length  uint64 // of the whole value, in bytes
}

// A Pair is a key with the value it shall have.
type Pair struct {
	Key, Value []byte
}

// A GetResult is the outcome of one key of GetMulti.
type GetResult struct {
	Value Value
	Err   error // as of Get
}

// A PutResult is the outcome of one pair of PutMulti.
type PutResult struct {
	Version Version
	Err     error // as of Put
}

// An Entry is one record that a Scan met.
type Entry struct {
	Key     []byte
	Value   []byte // nil with KeysOnly
	Version Version
	Shard   shardcfg.ShardID
}

// Cursor is the place just after the entry: a Scan from there continues.
func (e Entry) Cursor() Cursor { return Cursor{Shard: e.Shard, After: bytes.Clone(e.Key)} }

// A Cursor is a place in a Scan: in a shard, after a key. It stays valid
// wherever the shard moves, and for as long as one likes. The zero Cursor is
// the beginning.
type Cursor struct {
	Shard shardcfg.ShardID
	After []byte // nil: the shard's beginning
}

// An Identity is what makes a write recognisable when it is tried again: its
// session, when the session began, and the write's number in it.
type Identity struct {
	Session  shardcfg.SessionID
	BirthMS  uint64 // milliseconds since 1970
	Sequence uint64 // from 1; 0 in a Config: the clerk numbers the writes itself
}

// IsZero reports whether there is no identity.
func (i Identity) IsZero() bool { return i == Identity{} }

// A Location is where a key lives.
type Location struct {
	Slot  shardcfg.Slot
	Shard shardcfg.ShardID
	// Epoch of the shard's token at its holder; zero where nobody told.
	Epoch       shardcfg.Epoch
	Group       shardcfg.GroupID // the holder; 0: not known
	Incarnation shardcfg.Incarnation
	Leader      string // address of the holder's leader; empty: not known
	Owner       shardcfg.GroupID
}

// A WriteOption is a condition or an identity of a write.
type WriteOption func(*writeOptions)

type writeOptions struct {
	conditional bool
	version     Version
	identity    Identity
	// conflict is set by two conditions at once.
	conflict bool
}

// IfVersion lets the write take effect only if the key's version is v. 0 means
// absent.
func IfVersion(v Version) WriteOption {
	return func(o *writeOptions) {
		o.conflict = o.conflict || o.conditional
		o.conditional, o.version = true, v
	}
}

// IfAbsent lets the write take effect only if there is no such key.
func IfAbsent() WriteOption { return IfVersion(0) }

// As gives the write an explicit identity: that of an earlier attempt, whose
// outcome is unknown. If that attempt was executed, its answer is returned;
// else the write is executed now. The write must be the same as then. An
// identity that the cluster has forgotten yields ErrSessionExpired, never a
// second execution.
func As(id Identity) WriteOption {
	return func(o *writeOptions) { o.identity = id }
}

// A ScanOption says what a Scan returns.
type ScanOption func(*scanOptions)

type scanOptions struct {
	from      Cursor
	limit     int // entries at most; 0: all
	pageLimit uint32
	keysOnly  bool
	ordered   bool
}

// From starts the scan at a cursor; the prefix, and whether it is ordered, must be the
// same as before.
func From(c Cursor) ScanOption { return func(o *scanOptions) { o.from = c } }

// Limit ends the scan after n entries; 0 is no limit.
func Limit(n int) ScanOption { return func(o *scanOptions) { o.limit = n } }

// PageLimit bounds the entries of one page, which is one message and one
// moment; 0 leaves it to the server.
func PageLimit(n uint32) ScanOption { return func(o *scanOptions) { o.pageLimit = n } }

// KeysOnly leaves the values out.
func KeysOnly() ScanOption { return func(o *scanOptions) { o.keysOnly = true } }

// Ordered yields the entries of all shards in ascending order of key. It needs the
// next page of every shard at once: up to 64 records of each, but at most 1 MiB or
// one record.
func Ordered() ScanOption { return func(o *scanOptions) { o.ordered = true } }
