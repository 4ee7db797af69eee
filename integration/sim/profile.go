package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardkv/handoff"
)

// Kind is a kind of fault, or of trouble that a run may contain.
type Kind uint8

// The kinds. Each can be switched off.
const (
	KindLoss Kind = iota
	KindDup
	KindSlow
	KindLostResult
	KindCrash
	KindGroupCrash
	KindPartition
	KindPause
	KindClock
	KindSnapshot
	KindExpiry
	KindSleep
	KindGhost
	KindRejoin
	KindLeave
	KindMove
	KindDisk
	KindStray
	KindGarble
	KindNonsense
	KindDestroy
	KindNewer
	KindLimp
	KindBusy
	KindNarrow
	kindCount
)

var kinds = [kindCount]struct{ name, text string }{
	KindLoss:       {"loss", "messages get lost"},
	KindDup:        {"dup", "messages come twice"},
	KindSlow:       {"slow", "messages come late, and after later ones"},
	KindLostResult: {"lostresult", "a proposer is told \"unknown\" though it is committed"},
	KindCrash:      {"crash", "a replica loses power"},
	KindGroupCrash: {"groupcrash", "all replicas of a group do"},
	KindPartition:  {"partition", "links are cut, one way or both"},
	KindPause:      {"pause", "a machine stands still, and goes on"},
	KindClock:      {"clock", "a clock jumps, or stands off"},
	KindSnapshot:   {"snapshot", "logs are cut short, so that snapshots are sent"},
	KindExpiry:     {"expiry", "sessions expire after seconds"},
	KindSleep:      {"sleep", "clients fall silent with unresolved writes"},
	KindGhost:      {"ghost", "groups join that never come to life"},
	KindRejoin:     {"rejoin", "emptied groups come back as new incarnations"},
	KindLeave:      {"leave", "groups leave"},
	KindMove:       {"move", "shards are pinned and unpinned"},
	KindDisk:       {"disk", "a disk fails, so that a replica stops and gets another"},
	KindStray:      {"stray", "an old command is proposed again, by any leader"},
	KindGarble:     {"garble", "pages of a handoff are damaged on their way"},
	KindNonsense:   {"nonsense", "operators and clients ask for what must be refused"},
	KindDestroy:    {"destroy", "groups are destroyed, and their shards repaired"},
	KindNewer:      {"newer", "a replica meets what a newer version wrote, and stops"},
	KindLimp:       {"limp", "a disk is slow, for a while"},
	KindBusy:       {"busy", "a queue has no room, and refuses"},
	KindNarrow:     {"narrow", "pages of a handoff take their time over a narrow link"},
}

// String is the kind's name on the command line.
func (k Kind) String() string { return kinds[k].name }

// Text says what happens.
func (k Kind) Text() string { return kinds[k].text }

// Kinds is a set of kinds.
type Kinds uint32

// Has reports whether k is in the set.
func (s Kinds) Has(k Kind) bool { return s>>k&1 == 1 }

// With returns the set with k.
func (s Kinds) With(k Kind) Kinds { return s | 1<<k }

// String lists the kinds, with commas between them.
func (s Kinds) String() string {
	var names []string
	for k := range kindCount {
		if s.Has(k) {
			names = append(names, k.String())
		}
	}
	return strings.Join(names, ",")
}

// ParseKinds reads what String wrote.
func ParseKinds(text string) (s Kinds, err error) {
	for name := range strings.SplitSeq(text, ",") {
		found := name == ""
		for k := range kindCount {
			if kinds[k].name == name {
				s, found = s.With(k), true
			}
		}
		if !found {
			return 0, fmt.Errorf("no kind of fault is %q; there are %v", name, Kinds(1<<kindCount-1))
		}
	}
	return s, nil
}

// A Size says how much happens in a run.
type Size struct {
	// Operations of all clients together, and changes of the configuration, at
	// least. A run that ends with fewer operations, or fewer handoffs than
	// HandoffsMin, has failed.
	Operations, Changes int
	// HandoffsMin: the operator goes on changing the configuration until so many
	// handoffs were completed.
	HandoffsMin int
}

// Sizes of runs.
var (
	SizeSmall = Size{Operations: 60, Changes: 3, HandoffsMin: 0}
	SizeSoak  = Size{Operations: 500, Changes: 6, HandoffsMin: 5}
)

// Options choose a run. The zero Options with a seed are a small run with all
// that the seed draws.
type Options struct {
	Size Size
	// Without switches kinds of faults off.
	Without Kinds
	// Clients and Keys, if not 0, replace what the seed draws.
	Clients, Keys int
	Bugs          Bugs
}

// A Profile is what a seed drew: sizes, rates, times. Swarm testing (Groce et
// al., ISSTA 2012): a seed leaves some kinds of faults out altogether, so that
// others are met in states that they would never let arise.
type Profile struct {
	Shards, Keys, Groups, Spare   int
	Clients, Lanes                int
	Operations, Changes, Handoffs int
	Replicas                      int // of each group

	Loss, Dup, DupRequest, Slow, LostResult, ApplySlow float64
	Garble, Echo                                       float64
	History                                            ctrlfsm.Bounds // of what the controllers keep

	Latency, SlowMax, Fsync, ApplyDelay time.Duration
	Election, Heartbeat, Lease          time.Duration
	Sticky                              bool
	CompactAt                           uint64
	UnsyncedMax                         int

	// FaultEvery is the mean time between faults, FaultLast how long one lasts.
	FaultEvery, FaultLast time.Duration
	Faults                []Kind // that a fault is drawn from
	ChangeEvery           time.Duration

	Deadline, Hold, Think, SleepFor time.Duration
	Sleep, Retry                    float64
	Conditional, Reads, Scans       float64
	SessionAge                      time.Duration // 0: an hour
	SessionAhead                    uint64        // ms; 0: the preset
	SessionResults                  int
	ClockJump                       time.Duration

	PauseBudget, InviteEvery, TailPoll time.Duration
	PageBytes, PagesAtHand             int
	WordAge                            time.Duration
	QueueBytes                         int    // of clients, at a leader
	CopyRate                           uint64 // of one leader, in bytes/s; 0: no bound
	Bandwidth                          uint64 // of pages between groups, in bytes/s; 0: no bound
	ValueBytes                         int
	Leave, Move, Ghost, Rejoin         bool
	Destroy                            bool
	Parked                             int     // requests that a replica may park
	Nonsense                           float64 // of the operator's requests and of the clients' writes
	Rates                              handoff.Rates
	ProposalsMax                       int
	Explicit                           bool // the first client's session is named by its program, and never rotated
	Big                                int  // writes of megabytes
	Aliens                             bool // ghosts' addresses belong to another cluster
}

// AllKinds lists every kind.
func AllKinds() (list []Kind) {
	for k := range kindCount {
		list = append(list, k)
	}
	return list
}
