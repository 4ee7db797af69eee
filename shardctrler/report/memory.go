package report

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// reportsMax bounds the groups that are remembered: all that can be listed, and
// as many that are not any more.
const reportsMax = 2 * shardcfg.GroupsMax

// A Memory is what the leader remembers of reports, and what follows from it. A
// new leader begins with an empty one.
type Memory struct {
	groups  map[shardcfg.Incarnation]Kept
	holders map[shardcfg.ShardID]holder
	// hints are those of config hintsNum; nil if they must be made anew.
	hints    *Hints
	hintsNum shardcfg.ConfigNum
	// claims and repairs are those of claimsVersion; nil: none were read.
	claims        map[shardcfg.Incarnation][]shardcfg.ShardID
	repairs       map[shardcfg.Incarnation][]Grant
	claimsVersion uint64
}

// Kept is a group's last report, and when it came.
type Kept struct {
	*Report
	At time.Time
}

// A holder is the group that has a shard's newest token, as far as reported.
type holder struct {
	Holding
	incarnation shardcfg.Incarnation
	replicas    []string
}

// NewMemory returns one that knows of no group.
func NewMemory() *Memory {
	return &Memory{groups: map[shardcfg.Incarnation]Kept{}, holders: map[shardcfg.ShardID]holder{}}
}

// newer orders holders of one shard. A token that was passed on and the one that
// was received from it have the same epoch; the receiver is the one that serves.
func (h holder) newer(o holder) bool {
	return cmp.Or(h.Epoch.Compare(o.Epoch), cmp.Compare(bit(h.Serving), bit(o.Serving))) > 0
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Take remembers a report, which it keeps.
func (m *Memory) Take(r *Report, now time.Time) {
	if _, known := m.groups[r.Incarnation]; !known && len(m.groups) >= reportsMax {
		m.forgetOldest()
	}
	m.groups[r.Incarnation] = Kept{r, now}
	for _, h := range r.Holdings {
		now := holder{h, r.Incarnation, r.Replicas}
		was, known := m.holders[h.Shard]
		same := known && was.incarnation == now.incarnation
		if known && (now.Epoch.Less(was.Epoch) || !same && !now.newer(was)) {
			continue // an old report, or one of a token that was passed on
		}
		if !same || was.Epoch != now.Epoch || !slices.Equal(was.replicas, now.replicas) {
			m.hints = nil
		}
		m.holders[h.Shard] = now
	}
}

func (m *Memory) forgetOldest() {
	var oldest shardcfg.Incarnation
	for _, inc := range slices.SortedFunc(maps.Keys(m.groups), shardcfg.Incarnation.Compare) {
		if old, ok := m.groups[oldest]; !ok || m.groups[inc].At.Before(old.At) {
			oldest = inc
		}
	}
	delete(m.groups, oldest)
}

// Bytes is the size of a shard as its holder last reported; 0 if not known.
func (m *Memory) Bytes(s shardcfg.ShardID) uint64 { return m.holders[s].Bytes }

// A Hint names the holder of a shard.
type Hint struct {
	Shard       shardcfg.ShardID
	Epoch       shardcfg.Epoch
	Group       shardcfg.GroupID // 0: the config does not list it
	Incarnation shardcfg.Incarnation
	Replicas    []string // of a group that is not listed
}

// Hints are the holders of the shards that their owners do not hold, in ascending
// order of shard. A list is made once for everyone, and never changed.
type Hints struct{ List []Hint }

// Hints returns those for a config.
func (m *Memory) Hints(c *shardcfg.Config) *Hints {
	if m.hints != nil && m.hintsNum == c.Num {
		return m.hints
	}
	hints := &Hints{}
	for i := range c.Shards {
		s := shardcfg.ShardID(i)
		h, known := m.holders[s]
		if _, owner := c.Owner(s); known && h.incarnation != owner && !c.IsRetired(h.incarnation) {
			hints.List = append(hints.List, h.hint(c))
		}
	}
	m.hints, m.hintsNum = hints, c.Num
	return hints
}

// more are hints for a group that reported: the holders of those shards that it
// says it holds while their newest token is another's, their owner's. A frozen
// holder may have no other proof of its successor: the receiver may have passed
// the shard on and be gone.
func (m *Memory) more(c *shardcfg.Config, r *Report) (list []Hint) {
	for i := range r.Holdings {
		s := r.Holdings[i].Shard
		h, known := m.holders[s]
		if _, owner := c.Owner(s); known && h.incarnation != r.Incarnation && h.incarnation == owner {
			list = append(list, h.hint(c))
		}
	}
	return list
}

// hint names a holder to a client or a group.
func (h holder) hint(c *shardcfg.Config) Hint {
	hint := Hint{Shard: h.Shard, Epoch: h.Epoch, Incarnation: h.incarnation}
	gid, listed := c.GroupOf(h.incarnation)
	if hint.Group = gid; !listed {
		hint.Replicas = h.replicas
	}
	return hint
}

// readClaims reads claims and repairs, if they changed since they were read.
func (m *Memory) readClaims(v ctrlfsm.View) error {
	version, err := v.ClaimsVersion()
	if err != nil || m.claims != nil && m.claimsVersion == version {
		return err
	}
	claims, err := v.Claims()
	if err != nil {
		return err
	}
	repairs, err := v.Repairs()
	if err != nil {
		return err
	}
	m.repairs = map[shardcfg.Incarnation][]Grant{}
	for _, s := range slices.Sorted(maps.Keys(repairs)) {
		r := repairs[s]
		m.repairs[r.Group] = append(m.repairs[r.Group], Grant{s, r})
	}
	m.claims, m.claimsVersion = claims, version
	return nil
}

// All lists the reports in ascending order of gid, then of incarnation.
func (m *Memory) All() []Kept {
	return slices.SortedFunc(maps.Values(m.groups), func(a, b Kept) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), a.Incarnation.Compare(b.Incarnation))
	})
}
