package handoff

import (
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Params tune a Driver. They are complete at construction; every field must be
// positive. DefaultParams is the preset.
type Params struct {
	// InviteEvery is the interval between Invites to one group while there is
	// nothing new to say.
	InviteEvery time.Duration
	// WordAge is for how long the word of a receiver counts: nothing is frozen, and no
	// write slowed, for one that has been silent longer.
	WordAge time.Duration
	// FetchTimeout is how long a Fetch may take at first, over all replicas that are
	// asked in turn; see Fetch.Patience. Whoever sends it says how it ended: twice as
	// long after, it counts as lost.
	FetchTimeout time.Duration
	// ProposeTimeout is after how long a proposal counts as lost. Whoever makes it says
	// sooner how it ended; until then it is under way.
	ProposeTimeout time.Duration
	// RefusedRest is the pause after a proposal that failed. It doubles with each
	// failure, up to RefusedRestMax for pages of copies, and to InviteEvery for others.
	RefusedRest, RefusedRestMax time.Duration
	// TailPoll is the interval between fetches of a tail that had no change.
	TailPoll time.Duration
	// PauseBudget is how long a shard may be frozen, by estimate, for Freeze to
	// be proposed.
	PauseBudget time.Duration
	// ThrottleRounds is after how many looks at a tail that did not get short
	// enough its writes are slowed.
	ThrottleRounds int
	// ThrottleDelayMax bounds the advised delay of a write.
	ThrottleDelayMax time.Duration
	// FetchShardsMax bounds the wants of one Fetch, PageBytes its answer.
	FetchShardsMax int
	PageBytes      int
	// AtHandBytesMax bounds the pages of copies that are being fetched, or are fetched
	// and not in the log yet; one may be larger. Pages of tails and those of frozen
	// shards have a quarter of it each, because they take turns with clients' writes.
	AtHandBytesMax int
	// ProposalsMax bounds the proposals of one Step.
	ProposalsMax int
	// Rates are assumed until SetRates brings measured ones.
	Rates Rates
}

// Rates are what the estimate of a pause rests on.
type Rates struct {
	// RoundTrip is between the groups, Commit from a proposal to its effect.
	RoundTrip, Commit time.Duration
	// BytesPerSecond and ChangesPerSecond are how fast a receiver takes in a tail.
	BytesPerSecond, ChangesPerSecond uint64
}

// Smooth takes a measured duration into a running mean, as Rates want it; zero:
// nothing was measured yet.
func Smooth(mean *time.Duration, d time.Duration) {
	if *mean == 0 {
		*mean = d
	}
	*mean += (d - *mean) / 8
}

// DefaultParams returns the preset.
func DefaultParams() Params {
	return Params{
		InviteEvery:      100 * time.Millisecond,
		WordAge:          time.Second,
		FetchTimeout:     6 * time.Second,
		ProposeTimeout:   15 * time.Second,
		RefusedRest:      20 * time.Millisecond,
		RefusedRestMax:   time.Second,
		TailPoll:         10 * time.Millisecond,
		PauseBudget:      50 * time.Millisecond,
		ThrottleRounds:   20,
		ThrottleDelayMax: 100 * time.Millisecond,
		FetchShardsMax:   shardcfg.FetchShardsMax,
		PageBytes:        1 << 20,
		AtHandBytesMax:   8 << 20,
		ProposalsMax:     1024,
		Rates: Rates{RoundTrip: time.Millisecond, Commit: 5 * time.Millisecond,
			BytesPerSecond: 32 << 20, ChangesPerSecond: 20000},
	}
}
