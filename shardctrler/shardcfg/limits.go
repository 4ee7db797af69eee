package shardcfg

// Limits of user data. Every other limit of a size derives from these, here: a
// package that bounds something takes its bound from this file.
const (
	KeyBytesMax   = 4 << 10 // a key has 1 to KeyBytesMax bytes
	ValueBytesMax = 4 << 20 // a value has 0 to ValueBytesMax bytes

	SlotCount     = 16384     // slots, as in Redis Cluster
	ShardCountMax = SlotCount // a shard is at least one slot

	ShardCountDefault = 1024
)

// From a user's key to a message. Each is made of the one before, so that the
// largest legal unit of a layer fits into one of the next; a test of package
// shardkv builds the largest of each.
const (
	// RecordBytesMax is the largest record: a key with its value.
	RecordBytesMax = KeyBytesMax + ValueBytesMax
	// SessionResultsMax bounds the unacknowledged results of a session in one shard,
	// and SessionBytesMax what a shard stores of a session.
	SessionResultsMax = 1024
	SessionBytesMax   = 64 << 10
	// ChangeBytesMax is the largest part of a shard that travels undivided: what one
	// revision changes, a record and a session, with what storing adds to them.
	ChangeBytesMax = RecordBytesMax + SessionBytesMax + 1<<10
	// PageBytesMax bounds a page of a handoff, if it is more than one change.
	PageBytesMax = 4 << 20
	// ConfigBytesMax bounds an encoded configuration: its groups, with
	// GroupsBytesMax as Config.GroupsBytes counts, shards and pins of all shards, and
	// the incarnations that were ever retired.
	ConfigBytesMax = 4 << 20
	GroupsBytesMax = ConfigBytesMax - 32*ShardCountMax - 16*RetiredMax - 1<<10
	// CommandBytesMax bounds the body of a command of a log: the largest page with
	// its two cursors, a write of the largest record, a configuration.
	CommandBytesMax = max(PageBytesMax, ChangeBytesMax, ConfigBytesMax) + 2*KeyBytesMax + 4<<10
	// FetchShardsMax bounds the shards of one message that asks for pages.
	FetchShardsMax = 256
	// MessageBytesMax bounds a message between processes, which may be as many pages
	// as were asked for, and one change that travels alone behind them.
	MessageBytesMax = PageBytesMax + ChangeBytesMax + FetchShardsMax*(KeyBytesMax+256) + 1<<20
	// RequestBytesMax bounds the keys and values of a client's request that has more
	// than one operation, and ResponseBytesMax the values of a response that has more
	// than one. OperationBytes is what an operation counts besides.
	RequestBytesMax  = 8 << 20
	ResponseBytesMax = 8 << 20
	OperationBytes   = 64
	// OperationsMax bounds the operations of a request.
	OperationsMax = 16 << 10
)

const (
	// EffectBytesMax bounds what one log entry reads of the store and writes to it
	// beyond its own bytes; one record of any legal size more may begin below it.
	EffectBytesMax = 64 << 20
)
