package clerk_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A status says of every shard whether anybody serves it: a shard whose holder or
// receiver nobody leads, that stays frozen, or that nobody has, is unavailable,
// with the reason; what moves is not, and neither is what was just passed on.
func TestHealth(t *testing.T) {
	alive := clerk.GroupStatus{GID: 1, Led: true, Replicas: []clerk.ReplicaStatus{{ID: "a", Address: "h:1", Answers: true, Healthy: true}}}
	dead := clerk.GroupStatus{GID: 2, Replicas: []clerk.ReplicaStatus{
		{ID: "b", Address: "h:2", Answers: true, Problem: "it knows no leader"}, {Address: "h:3", Problem: "no answer"}}}
	const silent = "group 2 has no leader (1 of its 2 replicas answer)"
	for _, c := range []struct {
		name   string
		shard  clerk.ShardStatus
		gid    shardcfg.GroupID
		reason string // beginning; empty: served
	}{
		{"served by its owner", clerk.ShardStatus{Owner: 1, Holder: 1, Phase: "serving"}, 0, ""},
		{"owned by a dead group, served by another", clerk.ShardStatus{Owner: 2, Holder: 1, Phase: "leaving", To: 2}, 0, ""},
		{"held by a dead group", clerk.ShardStatus{Owner: 2, Holder: 2, Phase: "serving"}, 2, silent},
		{"leaving a dead group", clerk.ShardStatus{Owner: 1, Holder: 2, Phase: "leaving", To: 1}, 2, silent},
		{"frozen for a moment", clerk.ShardStatus{Owner: 1, Holder: 1, Phase: "frozen", To: 1, Pause: 50 * time.Millisecond}, 0, ""},
		{"frozen for long", clerk.ShardStatus{Owner: 1, Holder: 1, Phase: "frozen", To: 1, Pause: 5 * time.Second}, 1, "they have been frozen for over 1s"},
		{"frozen for a dead group", clerk.ShardStatus{Owner: 2, Holder: 1, Phase: "frozen", To: 2}, 2, silent},
		{"frozen for a destroyed group", clerk.ShardStatus{Owner: 1, Holder: 1, Phase: "frozen", To: 1, ToRetired: true}, 1, "their receiver, group 1, was declared destroyed"},
		{"passed on a moment ago", clerk.ShardStatus{Owner: 1, Phase: "absent", To: 1}, 0, ""},
		{"passed on to a dead group", clerk.ShardStatus{Owner: 2, Phase: "absent", To: 2}, 2, silent},
		{"passed on to a group that is gone", clerk.ShardStatus{Owner: 1, Phase: "absent", To: 9}, 9, "group 9 is not listed"},
		{"never created", clerk.ShardStatus{Owner: 1, Phase: "absent"}, 1, "group 1 owns them and has not created them"},
		{"owned by a dead group", clerk.ShardStatus{Owner: 2, Phase: "absent"}, 2, silent},
		{"owned by nobody", clerk.ShardStatus{Phase: "absent"}, 0, "no group owns them"},
	} {
		s := clerk.Status{Config: &shardcfg.Config{Num: 1}, Groups: []clerk.GroupStatus{alive, dead}, Shards: []clerk.ShardStatus{c.shard}}
		h := s.Health()
		if c.reason == "" {
			if len(h.Outages) != 0 || h.State != clerk.StateDegraded { // for the dead group's replicas
				t.Errorf("%s: %+v", c.name, h)
			}
			continue
		}
		if len(h.Outages) != 1 || h.State != clerk.StateUnavailable || h.Outages[0].GID != c.gid || !strings.HasPrefix(h.Outages[0].Reason, c.reason) ||
			!strings.HasPrefix(h.Reasons[0], "1 shard UNAVAILABLE: "+c.reason) {
			t.Errorf("%s: %+v; want group %d, %q", c.name, h, c.gid, c.reason)
		}
	}
	if h := (&clerk.Status{Config: &shardcfg.Config{}, Shards: make([]clerk.ShardStatus, 3)}).Health(); h.Reasons[0] != "3 shards UNAVAILABLE: no group has joined" {
		t.Errorf("an empty cluster: %+v", h)
	}
	if h := (&clerk.Status{Groups: []clerk.GroupStatus{alive}, Shards: []clerk.ShardStatus{{Holder: 1, Phase: "serving"}}}).Health(); h.State != clerk.StateHealthy {
		t.Errorf("served, though no configuration is known: %+v", h)
	}
}

// Where no configuration is known, a shard that is with a group that was not asked is
// not said to be unavailable: that group may serve it.
func TestHealthOfGroupsThatWereNotAsked(t *testing.T) {
	alive := clerk.GroupStatus{GID: 1, Led: true, Replicas: []clerk.ReplicaStatus{{ID: "a", Address: "h:1", Answers: true, Healthy: true}}}
	h := (&clerk.Status{Groups: []clerk.GroupStatus{alive}, Shards: []clerk.ShardStatus{
		{Shard: 0, Holder: 1, Phase: "serving"}, {Shard: 1, Phase: "absent", To: 2}, {Shard: 2, Phase: "absent"}}}).Health()
	if h.State != clerk.StateUnavailable || len(h.Reasons) != 2 ||
		!strings.HasPrefix(h.Reasons[0], "1 shard NOT KNOWN TO BE SERVED: they went to group 2, of which no replica was asked") ||
		!strings.HasPrefix(h.Reasons[1], "1 shard NOT KNOWN TO BE SERVED: none of the replicas that were asked knows who holds them") {
		t.Errorf("groups that were not asked: %+v", h)
	}
}

// A group whose replica answers but leads nobody is no comfort: its shards are
// unavailable, in the status with and without controllers, and none of them counts
// as in place. What a silent replica once applied is not known.
func TestStatusOfLeaderlessGroup(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		gone := f.groups[1]
		f.stop(gone.addresses[1:]...)
		gone.elect(-1)
		check := func(c *clerk.Clerk, controllers bool) {
			t.Helper()
			st, err := c.Admin().Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			h := st.Health()
			var want []clerk.ShardRange
			n := 0
			for i, s := range f.shards {
				if s.holder != gone {
					continue
				}
				n++
				if k := len(want); k > 0 && want[k-1].Last+1 == shardcfg.ShardID(i) {
					want[k-1].Last++
				} else {
					want = append(want, clerk.ShardRange{First: shardcfg.ShardID(i), Last: shardcfg.ShardID(i)})
				}
			}
			if h.State != clerk.StateUnavailable || len(h.Outages) != 1 || h.Outages[0].GID != 2 || h.Outages[0].Shards != n || !slices.Equal(h.Outages[0].Ranges, want) {
				t.Errorf("controllers %v: %+v; want %v", controllers, h, want)
			}
			if st.Unavailable != n || st.Settled != 16-n || st.Moving != 0 {
				t.Errorf("controllers %v: %d in place, %d moving, %d unavailable", controllers, st.Settled, st.Moving, st.Unavailable)
			}
			for _, r := range st.Groups[1].Replicas {
				if r.Healthy || r.Answers != (r.AppliedIndex > 0) || r.Answers != (r.Address == gone.addresses[0]) {
					t.Errorf("controllers %v: %+v", controllers, r)
				}
			}
		}
		check(c, true)
		bounded, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := c.Admin().WaitSettled(bounded, 1, nil); !errors.Is(err, clerk.ErrTimeout) {
			t.Errorf("its shards count as arrived: %v", err)
		}
		f.stop(f.controllerAddresses()...)
		check(c, false)
		check(f.open(t, func(config *clerk.Config) {
			config.Controllers, config.Seeds = nil, []string{f.groups[0].addresses[0], gone.addresses[0]}
		}), false)
	})
}
